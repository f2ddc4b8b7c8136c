package order

import (
	"cmp"
	"slices"
	"time"

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

// admitted returns the challenges that may begin, of all that are not finished, if at most so many are worked on at once. Each issuer and
// namespace gets as much as the others: whoever has least under way is next, then who waits longest. It is a pure function.
func admitted(all []*cmacme.Challenge, most int) []*cmacme.Challenge {
	group := func(ch *cmacme.Challenge) string {
		return ch.Namespace + " " + signer.Key(ch.Namespace, ch.Spec.IssuerRef)
	}
	underWay, waiting := map[string]int{}, map[string][]*cmacme.Challenge{}
	free := most
	for _, ch := range all {
		switch {
		case active(ch):
			underWay[group(ch)]++
			free--
		case ch.DeletionTimestamp == nil && !finished(ch.Status.State):
			waiting[group(ch)] = append(waiting[group(ch)], ch)
		}
	}
	earlier := func(a, b *cmacme.Challenge) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	for _, list := range waiting {
		slices.SortFunc(list, earlier)
	}
	var chosen []*cmacme.Challenge
	for ; free > 0 && len(waiting) > 0; free-- {
		best := ""
		for g, list := range waiting {
			if best == "" || cmp.Or(cmp.Compare(underWay[g], underWay[best]), earlier(list[0], waiting[best][0])) < 0 {
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
