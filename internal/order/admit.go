package order

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// DefaultMaxChallenges is how many challenges are worked on at once.
const DefaultMaxChallenges = 60

const (
	// givenUp is how long after it was presented a challenge is given up that nobody can see, or that the CA does not come to an end with. The
	// Order fails, and another follows after the back-off.
	givenUp = 2 * time.Hour
	// The first checks are checkAgain apart. After these times they are rarer.
	sometimes, seldom           = 2 * time.Minute, 15 * time.Minute
	sometimesAgain, seldomAgain = 10 * time.Second, time.Minute
)

// active reports whether something is set up for a challenge, or about to be.
func active(ch *cmacme.Challenge) bool {
	return ch.Status.Presented && !finished(ch.Status.State) || ch.DeletionTimestamp != nil && ch.Status.Presented
}

// longAgo reports whether a challenge was set up, or deleted, so long ago that it is looked at seldom: whoever it waits for takes their time.
func longAgo(ch *cmacme.Challenge, now time.Time) bool {
	at := ch.Status.PresentedAt
	if ch.DeletionTimestamp != nil {
		at = ch.DeletionTimestamp
	}
	return at != nil && now.Sub(at.Time) > sometimes
}

// ended reports whether the proof of a challenge is needed no more.
func ended(ch *cmacme.Challenge) bool {
	return finished(ch.Status.State) || ch.DeletionTimestamp != nil
}

// unsaid reports whether something may be set up for a challenge though nobody could say so: presenting it was begun, and has failed, or not come to its
// end.
func unsaid(ch *cmacme.Challenge) bool { return ch.Status.Processing && !ch.Status.Presented }

// holds reports whether a challenge has one of the few places where its proof stands. One of which that is unsaid has it only while it is taken away: where
// that fails, again and again, others need not wait.
func holds(ch *cmacme.Challenge) bool {
	return ch.Status.Presented && ch.Status.EffectiveName != ""
}

// waits reports whether a challenge is to begin some time.
func waits(ch *cmacme.Challenge) bool {
	return !ch.Status.Presented && !finished(ch.Status.State) && ch.DeletionTimestamp == nil
}

// contest decides which challenges may begin, of all that are not over. It changes nothing.
type contest struct {
	all []*cmacme.Challenge
	// most is how many are worked on at once.
	most int
	// room is solver.Exclusive's.
	room func(*cmacme.Challenge) int
	// begun are those that this process is presenting, which is not written yet, and at which place.
	begun map[types.NamespacedName]string
	// tried is when one was tried last, in vain. It goes to the end of the line, as if it had come then.
	tried map[types.NamespacedName]time.Time
	// rests are those tried in vain that have not come again yet, which keep nobody from a place.
	rests map[types.NamespacedName]bool
	// had is when one of a namespace was admitted last to a place for few.
	had map[seat]time.Time
	// inLine reports whether one waits for a place in a lane, and idle whether nobody works on one that is set up.
	inLine, idle func(*cmacme.Challenge) bool
}

// earlier orders challenges by how long they wait.
func (c contest) earlier(a, b *cmacme.Challenge) int {
	since := func(ch *cmacme.Challenge) time.Time {
		if at, found := c.tried[client.ObjectKeyFromObject(ch)]; found {
			return at
		}
		return ch.CreationTimestamp.Time
	}
	return cmp.Or(since(a).Compare(since(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// seat is what a namespace can have at a place for few.
type seat struct{ place, namespace string }

// first orders challenges by whose turn it is at their place, which namespaces take: whoever makes many for a name of others must not keep those from it.
func (c contest) first(a, b *cmacme.Challenge) int {
	had := func(ch *cmacme.Challenge) time.Time { return c.had[seat{ch.Status.EffectiveName, ch.Namespace}] }
	return cmp.Or(had(a).Compare(had(b)), c.earlier(a, b))
}

// standing returns the challenges whose proofs stand at a place, or are being put there.
func (c contest) standing(place string) []*cmacme.Challenge {
	var there []*cmacme.Challenge
	for _, ch := range c.all {
		if at, begun := c.begun[client.ObjectKeyFromObject(ch)]; begun && at == place || holds(ch) && ch.Status.EffectiveName == place {
			there = append(there, ch)
		}
	}
	slices.SortFunc(there, c.earlier)
	return there
}

// beside returns the challenges whose proofs must go on standing beside that of another at its place.
func (c contest) beside(ch *cmacme.Challenge) []*cmacme.Challenge {
	return slices.DeleteFunc(c.standing(ch.Status.EffectiveName), func(other *cmacme.Challenge) bool { return other.UID == ch.UID || ended(other) })
}

// ahead returns the challenges for which another has to wait at its place, if there is no room for it there.
func (c contest) ahead(ch *cmacme.Challenge) []*cmacme.Challenge {
	room, place := c.room(ch), ch.Status.EffectiveName
	if room == 0 || place == "" {
		return nil
	}
	there := c.standing(place)
	standing := len(there)
	for _, other := range c.all {
		if waits(other) && !c.rests[client.ObjectKeyFromObject(other)] && other.Status.EffectiveName == place && !slices.Contains(there[:standing], other) && c.first(other, ch) < 0 {
			there = append(there, other)
		}
	}
	slices.SortFunc(there[standing:], c.first)
	if len(there) < room {
		return nil
	}
	return there
}

// admitted returns the challenges that may begin. Where few proofs can stand at one place, those whose turn it is are considered. Of them
// all, each issuer and namespace gets as much as the others: whoever has least under way is next, then who waits longest. One that nobody works on,
// as others make it wait, is under way, and yet keeps nobody from beginning.
func (c contest) admitted() []*cmacme.Challenge {
	group := func(ch *cmacme.Challenge) string {
		return ch.Namespace + " " + signer.Key(ch.Namespace, ch.Spec.IssuerRef)
	}
	underWay, waiting, standing := map[string]int{}, map[string][]*cmacme.Challenge{}, map[string]int{}
	free := c.most
	var line []*cmacme.Challenge
	for _, ch := range c.all {
		key := client.ObjectKeyFromObject(ch)
		place, begun := c.begun[key]
		if !begun && holds(ch) {
			place = ch.Status.EffectiveName
		}
		standing[place]++
		switch {
		case begun || active(ch):
			underWay[group(ch)]++
			if begun || !c.idle(ch) {
				free--
			}
		case waits(ch) && !c.inLine(ch) && !c.rests[key]:
			line = append(line, ch)
		}
	}
	if free <= 0 {
		return nil
	}
	places := map[string][]*cmacme.Challenge{}
	for _, ch := range line {
		if place := ch.Status.EffectiveName; c.room(ch) > 0 && place != "" {
			places[place] = append(places[place], ch)
			continue
		}
		waiting[group(ch)] = append(waiting[group(ch)], ch)
	}
	for place, there := range places {
		slices.SortFunc(there, c.first)
		for _, ch := range there {
			if standing[place] < c.room(ch) {
				standing[place]++
				waiting[group(ch)] = append(waiting[group(ch)], ch)
			}
		}
	}
	for _, list := range waiting {
		slices.SortFunc(list, c.earlier)
	}
	var chosen []*cmacme.Challenge
	for ; free > 0 && len(waiting) > 0; free-- {
		best := ""
		for g, list := range waiting {
			if best == "" || cmp.Or(cmp.Compare(underWay[g], underWay[best]), c.earlier(list[0], waiting[best][0])) < 0 {
				best = g
			}
		}
		chosen = append(chosen, waiting[best][0])
		underWay[best]++
		if waiting[best] = waiting[best][1:]; len(waiting[best]) == 0 {
			delete(waiting, best)
		}
	}
	return chosen
}

// checkDelay is when it is looked again whether a proof can be seen, so long after it was presented.
func checkDelay(since time.Duration) time.Duration {
	switch {
	case since < sometimes:
		return checkAgain
	case since < seldom:
		return sometimesAgain
	}
	return seldomAgain
}
