package limiter

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// world is a reconciler in which the test decides for which target a pass waits.
type world struct {
	t     *testing.T
	clock *testclock.FakePassiveClock
	*Limiter
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
}

func newWorld(t *testing.T) *world {
	clock := testclock.NewFakePassiveClock(time.Unix(1e9, 0))
	w := &world{
		t:       t,
		clock:   clock,
		Limiter: New(4, clock),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]()),
	}
	t.Cleanup(w.queue.ShutDown)
	if err := w.Wakeups().Start(t.Context(), w.queue); err != nil {
		t.Fatal(err)
	}
	return w
}

func request(namespace string, n int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(n)}}
}

// settle answers each called object at once.
func (w *world) settle(target string) {
	for w.queue.Len() > 0 {
		r, _ := w.queue.Get()
		w.queue.Done(r)
		t := w.begin(r)
		if err := t.enter(Target{Name: target}); err != nil {
			w.t.Errorf("there is no slot for %s, which was woken: %v", r, err)
		}
		t.end()
	}
}

// later advances the clock.
func (w *world) later(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

// pass runs a pass of a namespace's n-th object. It waits for a target if there is a free slot.
func (w *world) pass(namespace string, n int, target string) (end func(), ok bool) {
	t := w.begin(request(namespace, n))
	if err := t.enter(Target{Name: target}); err != nil {
		if !IsBusy(err) {
			w.t.Fatalf("the error is %v", err)
		}
		t.end()
		return nil, false
	}
	return t.end, true
}

// hang starts passes of a namespace that do not end, each with a target of its own or all with one
// target. It returns how many got a slot.
func (w *world) hang(namespace string, n int, target func(int) string) (ends []func()) {
	for i := range n {
		if end, ok := w.pass(namespace, i, target(i)); ok {
			ends = append(ends, end)
		}
	}
	return ends
}

// next returns the object that is called next, or "".
func (w *world) next() string {
	if w.queue.Len() == 0 {
		return ""
	}
	r, _ := w.queue.Get()
	w.queue.Done(r)
	return r.String()
}

func one(name string) func(int) string { return func(int) string { return name } }
func each(name string) func(int) string {
	return func(i int) string { return fmt.Sprint(name, " ", i) }
}

func (w *world) sound() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken != 0 || len(w.byNamespace) != 0 || len(w.waiting) != 0 || len(w.reserved) != 0 {
		w.t.Errorf(
			"when all is over %d places are taken, namespaces have %v, and %d wait and %d are called",
			w.taken,
			w.byNamespace,
			len(w.waiting),
			len(w.reserved),
		)
	}
}

func TestATargetThatHangsHasFewPlaces(t *testing.T) {
	w := newWorld(t)
	ends := w.hang("a", 10, one("hangs"))
	if len(ends) != 4 {
		t.Errorf("there is a place for %d", len(ends))
	}
	if end, ok := w.pass("a", 100, "works"); !ok {
		t.Error("another target has slots of its own")
	} else {
		end()
	}
	w.later(3 * time.Second)
	if ends[0](); w.next() != "" {
		t.Error("three that take long are enough")
	}
	if ends[1](); w.next() != "" {
		t.Error("two that take long are enough")
	}
	ends[2]()
	if w.queue.Len() != 1 {
		t.Errorf("%d are called for the place of the third", w.queue.Len())
	}
	if ends[3](); w.queue.Len() != 2 {
		t.Errorf("%d are called, and not two, although no target is slow", w.queue.Len())
	}
	w.settle("hangs") // it answers fast, so it has recovered
	if ends := w.hang("b", 10, one("hangs")); len(ends) < 3 {
		t.Errorf("there are slots for %d at the target that has recovered", len(ends))
	} else {
		for _, end := range ends {
			end()
		}
	}
}

func TestATargetForOneAtATimeHasOneSlotAndWakesTheNext(t *testing.T) {
	w := newWorld(t)
	alone := Target{Name: "alone", Exclusive: true}
	of := w.Reconciler(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
		return reconcile.Result{}, Acquire(ctx, alone)
	}))
	first := w.begin(request("a", 1))
	left, err := Detach(context.WithValue(t.Context(), passKey{}, first), alone)
	if err != nil {
		t.Fatal(err)
	}
	first.end() // what it has begun goes on
	result, err := of.Reconcile(t.Context(), request("b", 2))
	if err != nil || result.RequeueAfter <= 0 {
		t.Errorf("the pass that waits gets %v, %v", result, err)
	}
	if w.next() != "" {
		t.Error("a waiter is called while the slot is taken")
	}
	left()
	left() // twice is once
	if w.next() != "b/2" {
		t.Error("the pass that waits is not woken")
	}
	if result, err := of.Reconcile(t.Context(), request("c", 3)); err != nil || result.RequeueAfter <= 0 {
		t.Errorf("a pass that was not woken took the slot that is kept: %v, %v", result, err)
	}
	if result, err := of.Reconcile(t.Context(), request("b", 2)); err != nil || result != (reconcile.Result{}) {
		t.Errorf("the pass that was woken gets %v, %v", result, err)
	}
	// The called object does not take the slot, because it has something else to do.
	if w.next() != "c/3" {
		t.Error("the next one is not called")
	}
	w.begin(request("c", 3)).end()
	if end, ok := w.pass("d", 4, "alone"); !ok {
		t.Error("a slot that no waiter came for stays taken")
	} else {
		end()
	}
	w.sound()
}

func TestANamespaceWithAnyNumberOfHangingPassesLeavesSlotsForOthers(t *testing.T) {
	w := newWorld(t)
	ends := w.hang("hostile", 1000, each("hangs"))
	if len(ends) >= w.slots/2 {
		t.Errorf("it has %d of %d places", len(ends), w.slots)
	}
	for i := range 5 {
		if len(w.hang(fmt.Sprint("tenant ", i), 1, one(fmt.Sprint("works ", i)))) != 1 {
			t.Errorf("there is no place for tenant %d", i)
		}
	}
	w.later(time.Minute)
	for _, end := range ends {
		end()
	}
	// At most that many waiting objects get a slot.
	if n := w.byNamespace["hostile"]; n == 0 || n > len(ends) {
		t.Errorf("%d are called, after %d", n, len(ends))
	}
}

func TestSlowTargetsLeaveHalfOfTheirNamespacesShareToTheRestOfIt(t *testing.T) {
	w := newWorld(t)
	ends := w.hang("a", 9, each("hangs"))
	if len(ends) != 9 {
		t.Fatalf("%d are waited for", len(ends))
	}
	w.later(time.Minute)
	for _, end := range ends {
		end()
	}
	again := len(w.hang("a", 9, each("hangs")))
	if again == 0 || again > 7 {
		t.Errorf("%d that are known to hang have places", again)
	}
	for i := range 2 {
		if _, ok := w.pass("a", 10+i, fmt.Sprint("works ", i)); !ok {
			t.Errorf("there is no place left for number %d of those that are not", i)
		}
	}
}

func TestThereIsAnEndToAllPlaces(t *testing.T) {
	w := newWorld(t)
	n := 0
	for i := range 200 {
		n += len(w.hang(fmt.Sprint("namespace ", i), 10, each(fmt.Sprint(i))))
	}
	if n != w.slots {
		t.Errorf("%d wait in %d places", n, w.slots)
	}
	if workers := Workers(4); workers <= w.slots {
		t.Errorf("%d workers are no more than wait in %d places", workers, w.slots)
	}
}

func TestTheNamespaceWithFewestPlacesIsCalledFirst(t *testing.T) {
	w := newWorld(t)
	ends := w.hang("a", 4, one("ca"))
	for i := range 3 {
		w.later(time.Millisecond)
		if _, ok := w.pass("a", 4+i, "ca"); ok {
			t.Fatal("there is a place")
		}
	}
	for i := range 2 {
		w.later(time.Millisecond)
		if _, ok := w.pass("b", i, "ca"); ok {
			t.Fatal("there is a place")
		}
	}
	ends[0]()
	ends[1]()
	ends[2]()
	for _, want := range []string{"b/0", "b/1", "a/4"} {
		if got := w.next(); got != want {
			t.Errorf("%q is called, not %q", got, want)
		}
	}
}

func TestAPassThatWaitsForLongSaysSo(t *testing.T) {
	w := newWorld(t)
	w.hang("a", 4, one("ca"))
	try := func() *ErrBusy {
		t.Helper()
		pass := w.begin(request("b", 1))
		defer pass.end()
		busy := new(ErrBusy)
		if err := pass.enter(Target{Name: "ca"}); !errors.As(err, &busy) {
			t.Fatalf("the error is %v", err)
		}
		return busy
	}
	if busy := try(); busy.Stuck || busy.After != Slow || w.Stuck(request("b", 1)) || !w.Waits(request("b", 1)) {
		t.Errorf("at first it is %+v", busy)
	}
	w.later(Slow)
	if busy := try(); !busy.Stuck || busy.After != backstop || !w.Stuck(request("b", 1)) {
		t.Errorf("then it is %+v", busy)
	}
	if w.begin(request("b", 1)).end(); w.Waits(request("b", 1)) {
		t.Error("one that came for something else still waits")
	}
}

func TestATargetThatWasSlowIsForgotten(t *testing.T) {
	w := newWorld(t)
	ends := w.hang("a", 3, each("hangs"))
	w.later(time.Minute)
	for _, end := range ends {
		end()
	}
	if len(w.targets) != 3 {
		t.Errorf("%d are slowFor", len(w.targets))
	}
	w.later(slowFor + time.Second)
	if end, ok := w.pass("a", 1, "works"); ok {
		end()
	}
	if len(w.targets) != 0 {
		t.Errorf("%d are slowFor still", len(w.targets))
	}
	w.sound()
}
