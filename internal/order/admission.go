package order

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

// admission remembers what a contest has to know: the challenges as they were seen last, and what they do not say yet. The zero value is ready.
type admission struct {
	mu sync.Mutex
	// known are those that are not over, or hold a place, or may have something there. The first contest lists them, and from then on each pass tells of its own.
	known  map[types.NamespacedName]*cmacme.Challenge
	listed bool
	begun  map[types.NamespacedName]string
	tried  map[types.NamespacedName]time.Time
	rests  map[types.NamespacedName]bool
	had    map[seat]time.Time
}

// remembered is for how long it counts that a namespace had its turn at a place: longer than several in a row can have one.
const remembered = 24 * time.Hour

// see remembers how a challenge is now.
func (a *admission) see(ch *cmacme.Challenge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := client.ObjectKeyFromObject(ch)
	if !waits(ch) {
		a.settle(key)
	}
	a.enter(key, ch)
}

// enter puts a challenge among the known, if it belongs there. The lock must be held.
func (a *admission) enter(key types.NamespacedName, ch *cmacme.Challenge) {
	if finished(ch.Status.State) && !active(ch) && !holds(ch) && !unsaid(ch) {
		delete(a.known, key)
		return
	}
	if a.known == nil {
		a.known = map[types.NamespacedName]*cmacme.Challenge{}
	}
	a.known[key] = ch
}

// settle says that the objects say all there is to know of a challenge. The lock must be held.
func (a *admission) settle(key types.NamespacedName) {
	delete(a.begun, key)
	delete(a.tried, key)
	delete(a.rests, key)
}

// forget says that a challenge is gone.
func (a *admission) forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(key)
	delete(a.known, key)
}

// again is when one that has to wait looks again in case something was missed, the later the more there are.
func (a *admission) again() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return seldomAgain * time.Duration(1+len(a.known)/1000)
}

// failed says that a challenge was tried in vain.
func (a *admission) failed(key types.NamespacedName, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tried == nil {
		a.tried, a.rests = map[types.NamespacedName]time.Time{}, map[types.NamespacedName]bool{}
	}
	a.tried[key], a.rests[key] = now, true
}

// cancel says that a challenge was not begun after all.
func (a *admission) cancel(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.begun, key)
}

// begin says that a challenge is being presented at a place. The lock must be held.
func (a *admission) begin(key types.NamespacedName, place string) {
	if a.begun == nil {
		a.begun = map[types.NamespacedName]string{}
	}
	a.begun[key] = place
}

// seated says that one of a namespace is admitted to a place for few. The lock must be held.
func (a *admission) seated(s seat, now time.Time) {
	maps.DeleteFunc(a.had, func(_ seat, at time.Time) bool { return now.Sub(at) > remembered })
	if a.had == nil {
		a.had = map[seat]time.Time{}
	}
	a.had[s] = now
}

// room is that of the challenge's solver.
func (r *ChallengeReconciler) room(ch *cmacme.Challenge) int {
	if s, ok := r.Solvers[ch.Spec.Type].(solver.Exclusive); ok {
		return s.Room(ch)
	}
	return 0
}

func (r *ChallengeReconciler) most() int {
	if r.Max > 0 {
		return r.Max
	}
	return DefaultMaxChallenges
}

// contest has all challenges that are not over, or hold a place, as this process knows them. The lock must be held while it is used.
func (r *ChallengeReconciler) contest(ctx context.Context) (contest, error) {
	now, a := r.Clock.Now(), &r.admission
	if !a.listed {
		var list cmacme.ChallengeList
		if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
			return contest{}, err
		}
		for i := range list.Items {
			key := client.ObjectKeyFromObject(&list.Items[i])
			if _, seen := a.known[key]; !seen {
				a.enter(key, list.Items[i].DeepCopy()) // a copy, so that it does not keep the whole list
			}
		}
		a.listed = true
	}
	return contest{
		all: slices.Collect(maps.Values(a.known)), most: r.most(), room: r.room, begun: a.begun, tried: a.tried, rests: a.rests, had: a.had,
		inLine: func(ch *cmacme.Challenge) bool {
			return r.Lanes.Waits(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
		},
		idle: func(ch *cmacme.Challenge) bool {
			return longAgo(ch, now) || r.Lanes.Stuck(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
		},
	}, nil
}

// admit reports whether a challenge may begin, which counts at once, and then whose proofs must go on standing beside its own. If
// it must wait for its place, ahead are those who are to have it first.
func (r *ChallengeReconciler) admit(ctx context.Context, ch *cmacme.Challenge) (may bool, beside, ahead []*cmacme.Challenge, err error) {
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil {
		return false, nil, nil, err
	}
	key, place := client.ObjectKeyFromObject(ch), ch.Status.EffectiveName
	delete(r.admission.rests, key)
	// Its place may have been found out just now.
	c.all = append(slices.DeleteFunc(c.all, func(other *cmacme.Challenge) bool { return client.ObjectKeyFromObject(other) == key }), ch)
	at, again := c.begun[key]
	if again = again && at == place; !again {
		c.begun = maps.Clone(c.begun)
		delete(c.begun, key)
	}
	few := c.room(ch) > 0 && place != ""
	if !again && (few || len(c.all) > c.most) {
		next := c.admitted()
		if !slices.Contains(next, ch) {
			delete(r.admission.begun, key) // if it was begun at another place, it waits from now on, and is not to be passed over
			r.call(next)
			return false, nil, c.ahead(ch), nil
		}
	}
	if few {
		beside = c.beside(ch)
		if !again {
			r.admission.seated(seat{place, ch.Namespace}, r.Clock.Now())
		}
	}
	r.admission.begin(key, place)
	return true, beside, nil, nil
}

// beside returns the challenges whose proofs must go on standing beside that of one that is presented, if its place is one for few.
func (r *ChallengeReconciler) beside(ctx context.Context, ch *cmacme.Challenge) ([]*cmacme.Challenge, error) {
	if r.room(ch) == 0 {
		return nil, nil
	}
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil {
		return nil, err
	}
	return c.beside(ch), nil
}

// vacant returns an error, a solver.Later, if another's proof stands at the place of a challenge that is over: taking away what may be there of this one
// might take that, too. None is put there until it is cancelled.
func (r *ChallengeReconciler) vacant(ctx context.Context, ch *cmacme.Challenge, x solver.Exclusive) (err error) {
	place := ch.Status.EffectiveName
	if place == "" {
		if place, err = x.Place(ctx, ch); err != nil {
			return err
		}
	}
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil {
		return err
	}
	if there := slices.DeleteFunc(c.standing(place), ended); len(there) > 0 {
		return &solver.Later{After: cleanUpAgain,
			Why: fmt.Sprintf("It could not be removed, as the value of another challenge (%s) was needed at %s, and the DNS "+
				"provider may have taken that away, too",
				named(ch.Namespace, there), strings.TrimSuffix(place, "."))}
	}
	r.admission.begin(client.ObjectKeyFromObject(ch), place)
	return nil
}

// admitNext lets those look that may begin now.
func (r *ChallengeReconciler) admitNext(ctx context.Context) {
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil || len(c.all) == 0 {
		return
	}
	r.call(c.admitted())
}

// call lets challenges look at once.
func (r *ChallengeReconciler) call(all []*cmacme.Challenge) {
	for _, ch := range all {
		r.queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
	}
}

// behind says for whom a challenge waits.
func behind(ch *cmacme.Challenge, room int, ahead []*cmacme.Challenge) string {
	why := "where the DNS provider can have only one value at once"
	switch {
	case ch.Spec.Type == cmacme.ACMEChallengeTypeTLSALPN01:
		why = "where only one challenge can be answered at once"
	case room > 1:
		why = fmt.Sprintf("where the DNS provider can have only %d values at once", room)
	}
	return fmt.Sprintf("Waiting for its turn at %s, %s, after %s", strings.TrimSuffix(ch.Status.EffectiveName, "."), why,
		named(ch.Namespace, ahead))
}

// named names the first of some challenges to those of a namespace, who may not know of those of
// others.
func named(namespace string, all []*cmacme.Challenge) string {
	const few = 3
	var names []string
	own, others := 0, 0
	for _, ch := range all {
		switch {
		case ch.Namespace != namespace:
			others++
		case own < few:
			names = append(names, ch.Name)
			fallthrough
		default:
			own++
		}
	}
	if more := own - few; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if others > 0 {
		names = append(names, fmt.Sprintf("%d of other namespaces", others))
	}
	return strings.Join(names, ", ")
}
