// Package scheduler decides which challenges may be presented next. It is pure: a decision follows
// from a Snapshot of all challenges.
//
// The number of challenges in progress is limited, and namespaces and issuers share it evenly.
// Where a DNS provider, or a TLS handshake, can show only few proofs at once, challenges also take
// turns for the slots at that place, one namespace after the other.
package scheduler

import (
	"cmp"
	"slices"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/signer"
)

// DefaultMax is how many challenges are in progress at once.
const DefaultMax = 60

// Snapshot is everything that the next challenges follow from.
type Snapshot struct {
	// Entries are the challenges that are not finished, or hold a slot.
	Entries []Entry
	// Max is how many may be in progress at once.
	Max int
	// Capacity is how many slots there are where the proof of a challenge stands, zero for any number.
	Capacity func(*cmacme.Challenge) int
	// Turns is when a challenge of a namespace last got a slot.
	Turns map[Slot]time.Time
	// Queued reports whether a challenge waits for the limiter, and Idle whether a presented one is
	// not being worked on.
	Queued, Idle func(*cmacme.Challenge) bool
}

// Entry is a challenge, and what its status does not say.
type Entry struct {
	Challenge *cmacme.Challenge
	// Presenting says that its proof is being set up, or removed, at Place.
	Presenting bool
	Place      string
	// Failed is when it last failed to be presented. It goes to the end of the queue, as if it had
	// been created then.
	Failed time.Time
	// Resting says that it failed, and that its next pass has not begun. It keeps no other challenge
	// from a slot.
	Resting bool
	// Unproven says that nothing proves that the controller made it. Its status can be forged, and
	// keeps no other challenge from a slot.
	Unproven bool
}

// Slot is a place with few slots, as a namespace shares it.
type Slot struct{ Place, Namespace string }

// older orders challenges by how long they wait.
func older(a, b *Entry) int {
	since := func(e *Entry) time.Time {
		if !e.Failed.IsZero() {
			return e.Failed
		}
		return e.Challenge.CreationTimestamp.Time
	}
	return cmp.Or(since(a).Compare(since(b)), cmp.Compare(a.Challenge.Namespace, b.Challenge.Namespace),
		cmp.Compare(a.Challenge.Name, b.Challenge.Name))
}

// earlierTurn orders challenges by their turns at their place. Namespaces take turns, so that many
// challenges of one do not keep others out.
func (s *Snapshot) earlierTurn(a, b *Entry) int {
	last := func(e *Entry) time.Time {
		return s.Turns[Slot{e.Challenge.Status.EffectiveName, e.Challenge.Namespace}]
	}
	return cmp.Or(last(a).Compare(last(b)), older(a, b))
}

// waiting reports whether a challenge waits for its turn.
func (e *Entry) waiting() bool { return acmestatus.Waiting(e.Challenge) && !e.Resting }

// holdsSlot reports whether the proof of a challenge stands at a place with few slots.
func (e *Entry) holdsSlot() bool { return !e.Unproven && acmestatus.HoldsSlot(e.Challenge) }

// active reports whether a challenge is in progress, or its proof is to be removed.
func (e *Entry) active() bool {
	return e.Presenting || !e.Unproven && acmestatus.Active(e.Challenge)
}

// occupies is the place where the proof of a challenge stands, or is being set up; empty for none.
func (e *Entry) occupies() string {
	switch {
	case e.Presenting:
		return e.Place
	case e.holdsSlot():
		return e.Challenge.Status.EffectiveName
	}
	return ""
}

// occupants returns the entries with a proof at a place, or with one that is being set up there.
func (s *Snapshot) occupants(place string) (there []*Entry) {
	for n := range s.Entries {
		e := &s.Entries[n]
		if e.Presenting && e.Place == place ||
			e.holdsSlot() && e.Challenge.Status.EffectiveName == place {
			there = append(there, e)
		}
	}
	slices.SortFunc(there, older)
	return there
}

// Occupants returns the challenges with a proof at a place that is still needed, or that is being
// set up there.
func (s *Snapshot) Occupants(place string) []*cmacme.Challenge {
	return slices.DeleteFunc(challengesOf(s.occupants(place)), acmestatus.ProofUnneeded)
}

// Neighbors returns the other challenges that must keep their proofs at the place of ch.
func (s *Snapshot) Neighbors(ch *cmacme.Challenge) []*cmacme.Challenge {
	return slices.DeleteFunc(s.Occupants(ch.Status.EffectiveName), func(other *cmacme.Challenge) bool {
		return other.UID == ch.UID
	})
}

// Ahead returns the challenges that another has to wait for at its place, if there is no slot left.
func (s *Snapshot) Ahead(ch *cmacme.Challenge) []*cmacme.Challenge {
	capacity, place := s.Capacity(ch), ch.Status.EffectiveName
	if capacity == 0 || place == "" {
		return nil
	}
	own := &s.Entries[slices.IndexFunc(s.Entries, func(e Entry) bool { return e.Challenge == ch })]
	ahead := s.occupants(place)
	occupied := len(ahead)
	for n := range s.Entries {
		e := &s.Entries[n]
		if e.waiting() && e.Challenge.Status.EffectiveName == place && !slices.Contains(ahead[:occupied], e) &&
			s.earlierTurn(e, own) < 0 {
			ahead = append(ahead, e)
		}
	}
	slices.SortFunc(ahead[occupied:], s.earlierTurn)
	if len(ahead) < capacity {
		return nil
	}
	return challengesOf(ahead)
}

func challengesOf(entries []*Entry) []*cmacme.Challenge {
	var all []*cmacme.Challenge
	for _, e := range entries {
		all = append(all, e.Challenge)
	}
	return all
}

// group is what challenges share the maximum by: the issuer within a namespace.
type group string

func groupOf(ch *cmacme.Challenge) group {
	return group(ch.Namespace + " " + signer.Key(ch.Namespace, ch.Spec.IssuerRef))
}

// Next returns the challenges that may be presented now. Where slots are few, only the challenges
// with the next turns are candidates. Of the candidates, the group with the fewest in progress is
// first, then the challenge that waits longest.
func (s *Snapshot) Next() []*cmacme.Challenge {
	inProgress, occupied := map[group]int{}, map[string]int{}
	free := s.Max
	var waiting []*Entry
	for n := range s.Entries {
		e := &s.Entries[n]
		occupied[e.occupies()]++
		switch {
		case e.active():
			inProgress[groupOf(e.Challenge)]++
			if e.Presenting || !s.Idle(e.Challenge) {
				free--
			}
		case e.waiting() && !s.Queued(e.Challenge):
			waiting = append(waiting, e)
		}
	}
	if free <= 0 {
		return nil
	}
	return share(free, s.candidates(waiting, occupied), inProgress)
}

// candidates returns the waiting challenges that find a slot, by group, the longest waiting first.
func (s *Snapshot) candidates(waiting []*Entry, occupied map[string]int) map[group][]*Entry {
	found, places := map[group][]*Entry{}, map[string][]*Entry{}
	add := func(e *Entry) {
		g := groupOf(e.Challenge)
		found[g] = append(found[g], e)
	}
	for _, e := range waiting {
		if place := e.Challenge.Status.EffectiveName; s.Capacity(e.Challenge) > 0 && place != "" {
			places[place] = append(places[place], e)
		} else {
			add(e)
		}
	}
	for place, there := range places {
		slices.SortFunc(there, s.earlierTurn)
		for _, e := range there {
			if occupied[place] < s.Capacity(e.Challenge) {
				occupied[place]++
				add(e)
			}
		}
	}
	for _, list := range found {
		slices.SortFunc(list, older)
	}
	return found
}

// share picks so many of the candidates, always of the group with fewest in progress.
func share(free int, candidates map[group][]*Entry, inProgress map[group]int) (picked []*cmacme.Challenge) {
	for ; free > 0 && len(candidates) > 0; free-- {
		best := group("")
		for g, list := range candidates {
			if best == "" || cmp.Or(cmp.Compare(inProgress[g], inProgress[best]),
				older(list[0], candidates[best][0])) < 0 {
				best = g
			}
		}
		picked = append(picked, candidates[best][0].Challenge)
		inProgress[best]++
		if candidates[best] = candidates[best][1:]; len(candidates[best]) == 0 {
			delete(candidates, best)
		}
	}
	return picked
}
