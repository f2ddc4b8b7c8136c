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
	// whenSlow is the number of slots of a slow target.
	whenSlow = 2
	// remembered is for how long a target is slow after it was, unless it has answered fast since.
	remembered = 10 * time.Minute
	// targetsAtOnce is how many targets can use all their slots at the same time.
	targetsAtOnce = 8
	// anyway is the longest time between two passes of an object that waits for a slot: its deadlines
	// may pass meanwhile.
	anyway = time.Minute
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

func (f *ErrBusy) Error() string {
	if f.Target.Resource {
		return fmt.Sprintf("Waiting for its turn at %s, which others are changing", f.Target.Name)
	}
	return fmt.Sprintf("Waiting for its turn at %s, which takes long to answer others", f.Target.Name)
}

// IsBusy reports whether an error is an ErrBusy.
func IsBusy(err error) bool {
	var full *ErrBusy
	return errors.As(err, &full)
}

// Limiter has the slots of one reconciler.
type Limiter struct {
	places, lane int
	clock        clock.PassiveClock
	queue        workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass

	mu      sync.Mutex
	targets map[Target]*targetState
	// of counts the taken slots by namespace, and taken counts all of them.
	of    map[string]int
	taken int
	// line has the objects that wait for a slot. called has the objects for which a free slot is kept
	// until their next pass.
	line   map[reconcile.Request]waiter
	called map[reconcile.Request]*place
	swept  time.Time
}

// targetState has the taken slots of a target, and whether it is slow.
type targetState struct {
	places map[*place]struct{}
	// slowAt is the last time at which the target was slow. It is zero if the target has answered fast
	// since.
	slowAt time.Time
}

// place is a taken slot.
type place struct {
	target    Target
	namespace string
	// since is when the waiting began. Zero while the slot is kept for a called object.
	since time.Time
}

type waiter struct {
	target Target
	since  time.Time
}

// New returns a limiter with so many slots for each target.
func New(lane int, clock clock.PassiveClock) *Limiter {
	return &Limiter{
		places: targetsAtOnce * lane, lane: lane, clock: clock,
		targets: map[Target]*targetState{}, of: map[string]int{},
		line: map[reconcile.Request]waiter{}, called: map[reconcile.Request]*place{},
	}
}

// Workers returns the number of workers for a reconciler with so many slots for each target: some
// workers are left when all slots are taken.
func Workers(lane int) int { return (targetsAtOnce + 1) * lane }

// Calls returns the source that requeues an object when a slot is kept for it.
func (l *Limiter) Calls() source.Source {
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
		result, err := of.Reconcile(context.WithValue(ctx, turnKey{}, t), request)
		var full *ErrBusy
		if errors.As(err, &full) {
			return reconcile.Result{RequeueAfter: full.After}, nil
		}
		return result, err
	})
}

// Stuck reports whether an object waits for a slot for longer than Slow.
func (l *Limiter) Stuck(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, waits := l.line[request]
	return waits && l.clock.Since(w.since) >= Slow
}

// Waits reports whether an object waits for a slot.
func (l *Limiter) Waits(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waits := l.line[request]
	return waits
}

// turn is one pass.
type turn struct {
	lanes   *Limiter
	request reconcile.Request
	at      *place
	// kept is the slot that was kept for this pass. waited is its entry in the line if no slot was
	// kept.
	kept   *place
	waited waiter
}

type turnKey struct{}

func of(ctx context.Context) *turn {
	t, _ := ctx.Value(turnKey{}).(*turn)
	return t
}

// Enter takes a slot of a target, and gives back the one of another target. The error is an ErrBusy
// if there is no slot. Outside of a Reconciler there always is one.
func Enter(ctx context.Context, p Target) error {
	if t := of(ctx); t != nil {
		return t.enter(p)
	}
	return nil
}

// Leave gives the slot back.
func Leave(ctx context.Context) {
	if t := of(ctx); t != nil {
		t.leave()
	}
}

// Detach takes a slot that outlives the pass, until done, which may be called more than once.
func Detach(ctx context.Context, p Target) (done func(), err error) {
	t := of(ctx)
	if t == nil {
		return func() {}, nil
	}
	if err := t.enter(p); err != nil {
		return nil, err
	}
	at := t.at
	t.at = nil
	return sync.OnceFunc(func() {
		t.lanes.mu.Lock()
		defer t.lanes.mu.Unlock()
		t.lanes.free(at)
	}), nil
}

// Bypass returns a context in which no slots are taken, for calls that end at once.
func Bypass(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, (*turn)(nil))
}

func (l *Limiter) begin(request reconcile.Request) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &turn{lanes: l, request: request, kept: l.called[request], waited: l.line[request]}
	delete(l.called, request)
	delete(l.line, request)
	return t
}

func (t *turn) end() {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	for _, at := range []*place{t.at, t.kept} {
		if at != nil {
			t.lanes.free(at)
		}
	}
	t.at, t.kept = nil, nil
}

func (t *turn) leave() {
	t.lanes.mu.Lock()
	defer t.lanes.mu.Unlock()
	if t.at != nil {
		t.lanes.free(t.at)
		t.at = nil
	}
}

func (t *turn) enter(p Target) error {
	l := t.lanes
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
	case t.kept != nil && t.kept.target == p:
		t.at, t.kept = t.kept, nil
	case l.room(t.request.Namespace, p, now):
		t.at = l.take(t.request.Namespace, p)
	default:
		w := waiter{target: p, since: now}
		if t.waited.target == p {
			w.since = t.waited.since
		}
		l.line[t.request] = w
		waits := now.Sub(w.since)
		if waits >= Slow {
			return &ErrBusy{Target: p, After: anyway, Stuck: true}
		}
		return &ErrBusy{Target: p, After: Slow - waits} // the object is stuck from then on
	}
	t.at.since = now
	return nil
}

// slow reports whether a target is slow, or was slow not long ago.
func (p *targetState) slow(now time.Time) bool {
	if !p.slowAt.IsZero() && now.Sub(p.slowAt) < remembered {
		return true
	}
	for at := range p.places {
		if !at.since.IsZero() && now.Sub(at.since) > Slow {
			return true
		}
	}
	return false
}

// room reports whether there is a slot for a namespace. A namespace may have half as many as are
// left then, so that there always are some for others, and more the fewer others there are. At slow
// targets it is half of that.
func (l *Limiter) room(namespace string, target Target, now time.Time) bool {
	most, all, share := l.lane, l.places, max(1, (l.places-l.taken)/2)
	there := 0
	if p := l.targets[target]; p != nil {
		if there = len(p.places); p.slow(now) {
			most, all, share = min(most, whenSlow), max(1, all/2), max(1, share/2)
		}
	}
	if target.Resource {
		return there == 0
	}
	if target.Exclusive {
		most = 1
	}
	return there < most && l.taken < all && l.of[namespace] < share
}

func (l *Limiter) take(namespace string, target Target) *place {
	p := l.targets[target]
	if p == nil {
		p = &targetState{places: map[*place]struct{}{}}
		l.targets[target] = p
	}
	at := &place{target: target, namespace: namespace}
	p.places[at] = struct{}{}
	if !target.Resource {
		l.of[namespace]++
		l.taken++
	}
	return at
}

// free gives a slot back, and calls the objects that can have one now.
func (l *Limiter) free(at *place) {
	now := l.clock.Now()
	p := l.targets[at.target]
	delete(p.places, at)
	if !at.target.Resource {
		l.taken--
		if l.of[at.namespace]--; l.of[at.namespace] == 0 {
			delete(l.of, at.namespace)
		}
	}
	switch {
	case at.since.IsZero(): // the called object did not come
	case now.Sub(at.since) > Slow:
		p.slowAt = now
	default:
		p.slowAt = time.Time{}
	}
	if len(p.places) == 0 && p.slowAt.IsZero() {
		delete(l.targets, at.target)
	}
	if now.Sub(l.swept) > remembered {
		for target, p := range l.targets {
			if len(p.places) == 0 && !p.slow(now) {
				delete(l.targets, target)
			}
		}
		l.swept = now
	}
	for l.call(now) {
	}
}

// call keeps a slot for the object that is next: of those for which there is room, one of the
// namespace with the fewest slots, and of these the one that waits longest.
func (l *Limiter) call(now time.Time) bool {
	var next reconcile.Request
	found := false
	for request, w := range l.line {
		order := cmp.Or(cmp.Compare(l.of[request.Namespace], l.of[next.Namespace]), w.since.Compare(l.line[next].since))
		if found && order >= 0 {
			continue
		}
		if l.room(request.Namespace, w.target, now) {
			next, found = request, true
		}
	}
	if found {
		l.called[next] = l.take(next.Namespace, l.line[next].target)
		delete(l.line, next)
		l.queue.Add(next)
	}
	return found
}
