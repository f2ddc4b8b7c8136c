// Package lane lets reconcilers wait for others, such as ACME servers, DNS services and the sites of users, without those who hang keeping
// anybody else from them. What a pass waits for is a Party. Each has a lane with so many places, few while it is slow; each namespace has a
// share of all places; and all together they are fewer than there are workers. Who finds no place does not wait in a worker: the pass ends with
// a Full, and another one comes when there is a place for it.
package lane

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
	// Slow is how long somebody in trouble takes to answer. Who waits for a place longer than that is not being worked on.
	Slow = 2 * time.Second
	// whenSlow is how many may wait for such a party at once.
	whenSlow = 2
	// remembered is for how long a party is slow after it was, unless it has answered fast since.
	remembered = 10 * time.Minute
	// partiesAtOnce is how many parties there are places for, if each of them has all that a lane can have.
	partiesAtOnce = 8
	// anyway is when who waits for a place comes again although none is free: to look at its deadlines.
	anyway = time.Minute
)

// Party is somebody who makes others wait.
type Party struct {
	// Who names it, for people.
	Who string
	// Of tells it from others of that name.
	Of string
	// Alone says that one at a time may wait for it.
	Alone bool
	// Thing says that it is not an endpoint, but something that one at a time may change, such as a
	// record. It takes no place from others.
	Thing bool
}

// Full is the error of who finds no place.
type Full struct {
	Party Party
	// After is when to come again at the latest. A place that is free calls earlier.
	After time.Duration
	// Stuck says that this one waits for longer than those who answer make others wait.
	Stuck bool
}

func (f *Full) Error() string {
	if f.Party.Thing {
		return fmt.Sprintf("Waiting for its turn at %s, which others are changing", f.Party.Who)
	}
	return fmt.Sprintf("Waiting for its turn at %s, which takes long to answer others", f.Party.Who)
}

// Is reports whether an error is that of who finds no place.
func Is(err error) bool {
	var full *Full
	return errors.As(err, &full)
}

// Lanes are those of one reconciler.
type Lanes struct {
	places, lane int
	clock        clock.PassiveClock
	queue        workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass

	mu      sync.Mutex
	parties map[Party]*party
	// of is how many places namespaces have, and taken how many are.
	of    map[string]int
	taken int
	// line are those who wait for a place, and called those for whom one is kept until they come.
	line   map[reconcile.Request]waiter
	called map[reconcile.Request]*place
	swept  time.Time
}

// party is what is known of one.
type party struct {
	places map[*place]struct{}
	// slowAt is when it was last seen to be slow. Zero if it has answered fast since.
	slowAt time.Time
}

// place is one in a lane.
type place struct {
	party     Party
	namespace string
	// since is when the waiting began. Zero while it is kept for who was called.
	since time.Time
}

type waiter struct {
	party Party
	since time.Time
}

// New makes the lanes of a reconciler, so many places wide each.
func New(lane int, clock clock.PassiveClock) *Lanes {
	return &Lanes{
		places: partiesAtOnce * lane, lane: lane, clock: clock,
		parties: map[Party]*party{}, of: map[string]int{}, line: map[reconcile.Request]waiter{}, called: map[reconcile.Request]*place{},
	}
}

// Workers is how many workers a reconciler needs whose lanes are so wide: some are left when all places are taken.
func Workers(lane int) int { return (partiesAtOnce + 1) * lane }

// Calls is the source of the passes of those who are called.
func (l *Lanes) Calls() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		l.queue = queue
		return nil
	})
}

// Reconciler gives each pass of another a turn, in which it is at one place at most. A pass that ends with a Full is no failure.
func (l *Lanes) Reconciler(of reconcile.Reconciler) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		t := l.begin(request)
		defer t.end()
		result, err := of.Reconcile(context.WithValue(ctx, turnKey{}, t), request)
		var full *Full
		if errors.As(err, &full) {
			return reconcile.Result{RequeueAfter: full.After}, nil
		}
		return result, err
	})
}

// Stuck reports whether somebody waits for a place for longer than those who answer make others wait.
func (l *Lanes) Stuck(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, waits := l.line[request]
	return waits && l.clock.Since(w.since) >= Slow
}

// Waits reports whether somebody waits for a place.
func (l *Lanes) Waits(request reconcile.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waits := l.line[request]
	return waits
}

// turn is one pass.
type turn struct {
	lanes   *Lanes
	request reconcile.Request
	at      *place
	// kept is the place for which it was called, and waited since when it was in the line, if it was not called.
	kept   *place
	waited waiter
}

type turnKey struct{}

func of(ctx context.Context) *turn {
	t, _ := ctx.Value(turnKey{}).(*turn)
	return t
}

// Enter begins to wait for a party, and ends to wait for another. The error is a Full if there is no place. Outside of a Reconciler there always
// is one.
func Enter(ctx context.Context, p Party) error {
	if t := of(ctx); t != nil {
		return t.enter(p)
	}
	return nil
}

// Leave ends to wait.
func Leave(ctx context.Context) {
	if t := of(ctx); t != nil {
		t.leave()
	}
}

// Keep is Enter for who goes on to wait after the pass has ended, until done, which may be called more than once.
func Keep(ctx context.Context, p Party) (done func(), err error) {
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

// Anyway returns a context in which nobody is waited for, for what has an end already.
func Anyway(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, (*turn)(nil))
}

func (l *Lanes) begin(request reconcile.Request) *turn {
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

func (t *turn) enter(p Party) error {
	l := t.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.at != nil {
		if t.at.party == p {
			return nil
		}
		l.free(t.at)
		t.at = nil
	}
	now := l.clock.Now()
	switch {
	case t.kept != nil && t.kept.party == p:
		t.at, t.kept = t.kept, nil
	case l.room(t.request.Namespace, p, now):
		t.at = l.take(t.request.Namespace, p)
	default:
		w := waiter{party: p, since: now}
		if t.waited.party == p {
			w.since = t.waited.since
		}
		l.line[t.request] = w
		waits := now.Sub(w.since)
		if waits >= Slow {
			return &Full{Party: p, After: anyway, Stuck: true}
		}
		return &Full{Party: p, After: Slow - waits} // then it is stuck, which others may make use of
	}
	t.at.since = now
	return nil
}

// slow reports whether a party is, or was not long ago.
func (p *party) slow(now time.Time) bool {
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

// room reports whether there is a place for somebody of a namespace. A namespace may have half as many as are left then, so that there always are
// some for others, and more the fewer others there are. For those who are slow it is half of everything.
func (l *Lanes) room(namespace string, who Party, now time.Time) bool {
	most, all, share := l.lane, l.places, max(1, (l.places-l.taken)/2)
	there := 0
	if p := l.parties[who]; p != nil {
		if there = len(p.places); p.slow(now) {
			most, all, share = min(most, whenSlow), max(1, all/2), max(1, share/2)
		}
	}
	if who.Thing {
		return there == 0
	}
	if who.Alone {
		most = 1
	}
	return there < most && l.taken < all && l.of[namespace] < share
}

func (l *Lanes) take(namespace string, who Party) *place {
	p := l.parties[who]
	if p == nil {
		p = &party{places: map[*place]struct{}{}}
		l.parties[who] = p
	}
	at := &place{party: who, namespace: namespace}
	p.places[at] = struct{}{}
	if !who.Thing {
		l.of[namespace]++
		l.taken++
	}
	return at
}

// free gives a place back, and calls who can have one now.
func (l *Lanes) free(at *place) {
	now := l.clock.Now()
	p := l.parties[at.party]
	delete(p.places, at)
	if !at.party.Thing {
		l.taken--
		if l.of[at.namespace]--; l.of[at.namespace] == 0 {
			delete(l.of, at.namespace)
		}
	}
	switch {
	case at.since.IsZero(): // nobody came
	case now.Sub(at.since) > Slow:
		p.slowAt = now
	default:
		p.slowAt = time.Time{}
	}
	if len(p.places) == 0 && p.slowAt.IsZero() {
		delete(l.parties, at.party)
	}
	if now.Sub(l.swept) > remembered {
		for who, p := range l.parties {
			if len(p.places) == 0 && !p.slow(now) {
				delete(l.parties, who)
			}
		}
		l.swept = now
	}
	for l.call(now) {
	}
}

// call keeps a place for who is next in the line: of those for whom there is room it is one of the namespace that has fewest, then who waits
// longest.
func (l *Lanes) call(now time.Time) bool {
	var next reconcile.Request
	found := false
	for request, w := range l.line {
		if found && cmp.Or(cmp.Compare(l.of[request.Namespace], l.of[next.Namespace]), w.since.Compare(l.line[next].since)) >= 0 {
			continue
		}
		if l.room(request.Namespace, w.party, now) {
			next, found = request, true
		}
	}
	if found {
		l.called[next] = l.take(next.Namespace, l.line[next].party)
		delete(l.line, next)
		l.queue.Add(next)
	}
	return found
}
