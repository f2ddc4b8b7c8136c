// Package limiter bounds how many passes of a reconciler wait for remote endpoints, such as ACME
// servers, DNS services and the sites of users, so that slow endpoints keep no others waiting. What
// a pass waits for is a Target. Each target has a number of slots, few while it is slow; each
// namespace has a share of all slots; and all slots together are fewer than the workers. A pass
// that finds no slot does not wait in its worker: it ends with ErrBusy, and another pass comes when
// a slot is free.
package limiter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

const (
	// Slow is how long a target in trouble takes to answer. An object that waits longer for a slot is
	// stuck.
	Slow = 2 * time.Second
	// slotsWhenSlow is the number of slots of a slow target.
	slotsWhenSlow = 2
	// slowFor is for how long a target is slow after it was, unless it has answered fast since.
	slowFor = 10 * time.Minute
	// saturatedTargets is how many targets can use all their slots at the same time.
	saturatedTargets = 8
	// backstop is the longest time between two passes of an object that waits for a slot: its
	// deadlines may pass meanwhile.
	backstop = time.Minute
)

// Target is a remote endpoint that passes wait for.
type Target struct {
	// Name is the name in messages.
	Name string
	// Key distinguishes targets of the same name.
	Key string
	// Exclusive says that the target has one slot.
	Exclusive bool
	// Resource says that the target is not an endpoint but something that one object at a time may
	// change, such as a record. Its slot does not count against other targets.
	Resource bool
}

// ErrBusy means that the target has no free slot.
type ErrBusy struct {
	Target Target
	// After is when to retry at the latest. A free slot wakes the object earlier.
	After time.Duration
	// Stuck says that the object waits for longer than Slow.
	Stuck bool
}

func (e *ErrBusy) Error() string {
	if e.Target.Resource {
		return fmt.Sprintf("Waiting for its turn at %s, which others are changing", e.Target.Name)
	}
	return fmt.Sprintf("Waiting for its turn at %s, which takes long to answer others", e.Target.Name)
}

// IsBusy reports whether an error is an ErrBusy.
func IsBusy(err error) bool {
	var busy *ErrBusy
	return errors.As(err, &busy)
}

// Limiter has the slots of one reconciler.
type Limiter struct {
	slots, perTarget int
	clock            clock.PassiveClock
	queue            workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass

	mu      sync.Mutex
	targets map[Target]*targetState
	// byNamespace counts the taken slots of each namespace, and taken counts all of them.
	byNamespace map[string]int
	taken       int
	// waiting has the objects that wait for a slot. reserved has the objects for which a free slot is
	// kept until their next pass.
	waiting  map[reconcile.Request]waiter
	reserved map[reconcile.Request]*slot
	swept    time.Time
}

// targetState has the taken slots of a target, and whether it is slow.
type targetState struct {
	slots map[*slot]struct{}
	// slowAt is the last time at which the target was slow. It is zero if the target has answered fast
	// since.
	slowAt time.Time
}

// slot is a taken slot.
type slot struct {
	target    Target
	namespace string
	// since is when the waiting began. Zero while the slot is reserved.
	since time.Time
}

type waiter struct {
	target Target
	since  time.Time
}

// New returns a limiter with so many slots for each target.
func New(perTarget int, clock clock.PassiveClock) *Limiter {
	return &Limiter{
		slots: saturatedTargets * perTarget, perTarget: perTarget, clock: clock,
		targets: map[Target]*targetState{}, byNamespace: map[string]int{},
		waiting: map[reconcile.Request]waiter{}, reserved: map[reconcile.Request]*slot{},
	}
}

// Workers returns the number of workers for a reconciler with so many slots for each target: some
// workers are left when all slots are taken.
func Workers(perTarget int) int { return (saturatedTargets + 1) * perTarget }

// Wakeups returns the source that requeues an object when a slot is kept for it.
func (l *Limiter) Wakeups() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		l.queue = queue
		return nil
	})
}

// Reconciler lets each pass of another reconciler hold one slot at a time. A pass that ends with an
// ErrBusy is no failure.
func (l *Limiter) Reconciler(of reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		t := l.begin(request)
		defer t.end()
		result, err := of.Reconcile(context.WithValue(ctx, passKey{}, t), request)
		var busy *ErrBusy
		if errors.As(err, &busy) {
			return reconcile.Result{RequeueAfter: busy.After}, nil
		}
		return result, err
	})
}

// Stuck reports whether an object waits for a slot for longer than Slow.
func (l *Limiter) Stuck(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, waits := l.waiting[request]
	return waits && l.clock.Since(w.since) >= Slow
}

// Waits reports whether an object waits for a slot.
func (l *Limiter) Waits(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waits := l.waiting[request]
	return waits
}

// pass is one pass of the reconciler.
type pass struct {
	limiter *Limiter
	request reconcile.Request
	at      *slot
	// reserved is the slot that was kept for this pass. waited is its entry in waiting if there is
	// none.
	reserved *slot
	waited   waiter
}

type passKey struct{}

func passOf(ctx context.Context) *pass {
	t, _ := ctx.Value(passKey{}).(*pass)
	return t
}

// Acquire takes a slot of a target, and gives back the one of another target. The error is an
// ErrBusy if there is no slot. Outside of a Reconciler there always is one.
func Acquire(ctx context.Context, p Target) error {
	if t := passOf(ctx); t != nil {
		return t.enter(p)
	}
	return nil
}

// Release gives the slot back.
func Release(ctx context.Context) {
	if t := passOf(ctx); t != nil {
		t.leave()
	}
}

// Detach takes a slot that outlives the pass, until done, which may be called more than once.
func Detach(ctx context.Context, p Target) (done func(), err error) {
	t := passOf(ctx)
	if t == nil {
		return func() {}, nil
	}
	if err := t.enter(p); err != nil {
		return nil, err
	}
	at := t.at
	t.at = nil
	return sync.OnceFunc(func() {
		t.limiter.mu.Lock()
		defer t.limiter.mu.Unlock()
		t.limiter.free(at)
	}), nil
}

// Bypass returns a context in which no slots are taken, for calls that end at once.
func Bypass(ctx context.Context) context.Context {
	return context.WithValue(ctx, passKey{}, (*pass)(nil))
}

func (l *Limiter) begin(request reconcile.Request) *pass {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &pass{limiter: l, request: request, reserved: l.reserved[request], waited: l.waiting[request]}
	delete(l.reserved, request)
	delete(l.waiting, request)
	return t
}

func (t *pass) end() {
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	for _, at := range []*slot{t.at, t.reserved} {
		if at != nil {
			t.limiter.free(at)
		}
	}
	t.at, t.reserved = nil, nil
}

func (t *pass) leave() {
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	if t.at != nil {
		t.limiter.free(t.at)
		t.at = nil
	}
}

func (t *pass) enter(p Target) error {
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.at != nil {
		if t.at.target == p {
			return nil
		}
		l.free(t.at)
		t.at = nil
	}
	now := l.clock.Now()
	switch {
	case t.reserved != nil && t.reserved.target == p:
		t.at, t.reserved = t.reserved, nil
	case l.hasSlot(t.request.Namespace, p, now):
		t.at = l.take(t.request.Namespace, p)
	default:
		w := waiter{target: p, since: now}
		if t.waited.target == p {
			w.since = t.waited.since
		}
		l.waiting[t.request] = w
		waits := now.Sub(w.since)
		if waits >= Slow {
			return &ErrBusy{Target: p, After: backstop, Stuck: true}
		}
		return &ErrBusy{Target: p, After: Slow - waits} // the object is stuck from then on
	}
	t.at.since = now
	return nil
}

// slow reports whether a target is slow, or was slow not long ago.
func (p *targetState) slow(now time.Time) bool {
	if !p.slowAt.IsZero() && now.Sub(p.slowAt) < slowFor {
		return true
	}
	for at := range p.slots {
		if !at.since.IsZero() && now.Sub(at.since) > Slow {
			return true
		}
	}
	return false
}

// hasSlot reports whether there is a slot for a namespace. A namespace may have half as many as are
// left then, so that there always are some for others, and more the fewer others there are. At slow
// targets it is half of that.
func (l *Limiter) hasSlot(namespace string, target Target, now time.Time) bool {
	most, all, share := l.perTarget, l.slots, max(1, (l.slots-l.taken)/2)
	there := 0
	if p := l.targets[target]; p != nil {
		if there = len(p.slots); p.slow(now) {
			most, all, share = min(most, slotsWhenSlow), max(1, all/2), max(1, share/2)
		}
	}
	if target.Resource {
		return there == 0
	}
	if target.Exclusive {
		most = 1
	}
	return there < most && l.taken < all && l.byNamespace[namespace] < share
}

func (l *Limiter) take(namespace string, target Target) *slot {
	p := l.targets[target]
	if p == nil {
		p = &targetState{slots: map[*slot]struct{}{}}
		l.targets[target] = p
	}
	at := &slot{target: target, namespace: namespace}
	p.slots[at] = struct{}{}
	if !target.Resource {
		l.byNamespace[namespace]++
		l.taken++
	}
	return at
}

// free gives a slot back, and wakes the objects that can have one now.
func (l *Limiter) free(at *slot) {
	now := l.clock.Now()
	p := l.targets[at.target]
	delete(p.slots, at)
	if !at.target.Resource {
		l.taken--
		if l.byNamespace[at.namespace]--; l.byNamespace[at.namespace] == 0 {
			delete(l.byNamespace, at.namespace)
		}
	}
	switch {
	case at.since.IsZero(): // the object for which it was reserved did not come
	case now.Sub(at.since) > Slow:
		p.slowAt = now
	default:
		p.slowAt = time.Time{}
	}
	if len(p.slots) == 0 && p.slowAt.IsZero() {
		delete(l.targets, at.target)
	}
	if now.Sub(l.swept) > slowFor {
		for target, p := range l.targets {
			if len(p.slots) == 0 && !p.slow(now) {
				delete(l.targets, target)
			}
		}
		l.swept = now
	}
	for l.wakeNext(now) {
	}
}

// wakeNext reserves a slot for the object that is next: of those for which there is a slot, one of
// the namespace with the fewest slots, and of these the one that waits longest.
func (l *Limiter) wakeNext(now time.Time) bool {
	var next reconcile.Request
	found := false
	for request, w := range l.waiting {
		order := cmp.Or(
			cmp.Compare(l.byNamespace[request.Namespace], l.byNamespace[next.Namespace]),
			w.since.Compare(l.waiting[next].since),
		)
		if found && order >= 0 {
			continue
		}
		if l.hasSlot(request.Namespace, w.target, now) {
			next, found = request, true
		}
	}
	if found {
		l.reserved[next] = l.take(next.Namespace, l.waiting[next].target)
		delete(l.waiting, next)
		l.queue.Add(next)
	}
	return found
}
