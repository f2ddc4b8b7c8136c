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

// admission remembers what a contest has to know and the objects do not say yet. The zero value is ready.
type admission struct {
	mu    sync.Mutex
	begun map[types.NamespacedName]string
	tried map[types.NamespacedName]time.Time
	rests map[types.NamespacedName]bool
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

// forget says that the objects say all there is to know of a challenge.
func (a *admission) forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.begun, key)
	delete(a.tried, key)
	delete(a.rests, key)
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

// contest has all challenges that are not over, or hold a place, as the cache and this process know them. The lock must be held while it is used.
func (r *ChallengeReconciler) contest(ctx context.Context) (contest, error) {
	now := r.Clock.Now()
	c := contest{most: r.most(), room: r.room, begun: r.admission.begun, tried: r.admission.tried, rests: r.admission.rests,
		inLine: func(ch *cmacme.Challenge) bool {
			return r.Lanes.Waits(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
		},
		idle: func(ch *cmacme.Challenge) bool {
			return longAgo(ch, now) || r.Lanes.Stuck(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
		},
	}
	var list cmacme.ChallengeList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return c, err
	}
	for i := range list.Items {
		ch := &list.Items[i]
		if _, begun := c.begun[client.ObjectKeyFromObject(ch)]; begun || !finished(ch.Status.State) || active(ch) || holds(ch) {
			c.all = append(c.all, ch)
		}
	}
	return c, nil
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
	// The cache may not have this one yet, or not its place.
	c.all = append(slices.DeleteFunc(c.all, func(other *cmacme.Challenge) bool { return client.ObjectKeyFromObject(other) == key }), ch)
	at, again := c.begun[key]
	if again = again && at == place; !again {
		c.begun = maps.Clone(c.begun)
		delete(c.begun, key)
	}
	few := c.room(ch) > 0 && place != ""
	switch {
	case again, !few && len(c.all) <= c.most:
	case !slices.Contains(c.admitted(), ch):
		delete(r.admission.begun, key) // if it was begun at another place, it waits from now on, and is not to be passed over
		return false, nil, c.ahead(ch), nil
	}
	if few {
		beside = slices.DeleteFunc(c.standing(place), func(other *cmacme.Challenge) bool { return other == ch || finished(other.Status.State) })
	}
	r.admission.begin(key, place)
	return true, beside, nil, nil
}

// reserve takes a place where nobody's proof stands, until it is cancelled.
func (r *ChallengeReconciler) reserve(ctx context.Context, ch *cmacme.Challenge, x solver.Exclusive) (vacant bool, err error) {
	place := ch.Status.EffectiveName
	if place == "" {
		if place, err = x.Place(ctx, ch); err != nil {
			return false, err
		}
	}
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil || len(c.standing(place)) > 0 {
		return false, err
	}
	r.admission.begin(client.ObjectKeyFromObject(ch), place)
	return true, nil
}

// admitNext lets those look that may begin now.
func (r *ChallengeReconciler) admitNext(ctx context.Context) {
	r.admission.mu.Lock()
	defer r.admission.mu.Unlock()
	c, err := r.contest(ctx)
	if err != nil || len(c.all) == 0 {
		return
	}
	for _, ch := range c.admitted() {
		r.queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
	}
}

// behind says for whom a challenge waits.
func behind(ch *cmacme.Challenge, room int, ahead []*cmacme.Challenge) string {
	const few = 3
	var names []string
	for _, other := range ahead[:min(len(ahead), few)] {
		names = append(names, other.Namespace+"/"+other.Name)
	}
	if more := len(ahead) - few; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	values := "one value"
	if room > 1 {
		values = fmt.Sprintf("%d values", room)
	}
	return fmt.Sprintf("Waiting for its turn at %s, where the DNS provider can have only %s at once, after %s",
		strings.TrimSuffix(ch.Status.EffectiveName, "."), values, strings.Join(names, ", "))
}
