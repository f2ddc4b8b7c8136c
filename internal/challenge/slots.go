package challenge

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
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/scheduler"
	"github.com/perennial-pki/perennial/internal/solver"
)

// slots remembers what the scheduler has to know of all challenges. The zero value is ready.
type slots struct {
	mu sync.Mutex
	// entries are the challenges that are not finished, or hold a slot, or may have something
	// presented. The first snapshot lists them, and from then on each pass updates its own.
	entries map[types.NamespacedName]*entry
	listed  bool
	turns   map[scheduler.Slot]time.Time
}

// entry is what is remembered of a challenge that others have to know.
type entry struct {
	scheduler.Entry
	// visible says that its proof can be seen.
	visible bool
}

// progress reports whether the proof of a challenge can be seen, and whether it failed to be
// presented.
func (s *slots) progress(key types.NamespacedName) (visible, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	return e != nil && e.visible, e != nil && !e.Failed.IsZero()
}

// turnsKept is for how long a turn of a namespace counts: longer than several in a row can last.
const turnsKept = 24 * time.Hour

// see remembers a challenge as it is now. unproven says that its status can be forged.
func (s *slots) see(ch *cmacme.Challenge, unproven bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.put(client.ObjectKeyFromObject(ch), ch)
	switch {
	case e == nil:
	case acmestatus.Waiting(ch):
		e.Unproven = false // its status says nothing
	default:
		e.Entry = scheduler.Entry{Challenge: ch, Unproven: unproven} // its status says everything
	}
}

// put remembers a challenge if the scheduler has to know it. The lock must be held.
func (s *slots) put(key types.NamespacedName, ch *cmacme.Challenge) *entry {
	cleanedUp := ch.DeletionTimestamp != nil && !acmestatus.HasFinalizer(ch) // others' finalizers keep it
	if cleanedUp || acmestatus.IsFinal(ch.Status.State) && !acmestatus.Active(ch) && !acmestatus.HoldsSlot(ch) &&
		!acmestatus.MaybePresented(ch) {
		delete(s.entries, key)
		return nil
	}
	e := s.entries[key]
	if e == nil {
		if s.entries == nil {
			s.entries = map[types.NamespacedName]*entry{}
		}
		e = &entry{}
		s.entries[key] = e
	}
	e.Challenge = ch
	return e
}

// forget drops a challenge that is gone.
func (s *slots) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, key)
}

// checkAgain returns when a waiting challenge checks its turn in case that a call was missed. It
// grows with the number of challenges.
func (s *slots) checkAgain() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return checkRare * time.Duration(1+len(s.entries)/1000)
}

// update changes the entry of a challenge, if there is one.
func (s *slots) update(key types.NamespacedName, change func(*entry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		change(e)
	}
}

// took notes that a challenge of a namespace got a slot. The lock must be held.
func (s *slots) took(slot scheduler.Slot, now time.Time) {
	maps.DeleteFunc(s.turns, func(_ scheduler.Slot, at time.Time) bool { return now.Sub(at) > turnsKept })
	if s.turns == nil {
		s.turns = map[scheduler.Slot]time.Time{}
	}
	s.turns[slot] = now
}

// capacity returns how many proofs can be presented at once at the place of a challenge, zero for
// any number.
func (r *Reconciler) capacity(ch *cmacme.Challenge) int {
	if s, ok := r.Solvers[ch.Spec.Type].(solver.CapacityLimited); ok {
		return s.Capacity(ch)
	}
	return 0
}

// snapshot returns what the scheduler has to know. The lock must be held while it is used.
func (r *Reconciler) snapshot(ctx context.Context) (*scheduler.Snapshot, error) {
	now, s := r.Clock.Now(), &r.slots
	if !s.listed {
		var list cmacme.ChallengeList
		if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy,
			&client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
			return nil, err
		}
		for i := range list.Items {
			key := client.ObjectKeyFromObject(&list.Items[i])
			if s.entries[key] == nil {
				s.put(key, list.Items[i].DeepCopy()) // a copy, so that it does not keep the whole list
			}
		}
		s.listed = true
	}
	request := func(ch *cmacme.Challenge) reconcile.Request {
		return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)}
	}
	snapshot := &scheduler.Snapshot{
		Max: r.Max, Capacity: r.capacity, Turns: s.turns,
		Queued: func(ch *cmacme.Challenge) bool { return r.Limiter.Waits(request(ch)) },
		Idle:   func(ch *cmacme.Challenge) bool { return acmestatus.IsSlow(ch, now) || r.Limiter.Stuck(request(ch)) },
	}
	if snapshot.Max <= 0 {
		snapshot.Max = scheduler.DefaultMax
	}
	for _, e := range s.entries {
		snapshot.Entries = append(snapshot.Entries, e.Entry)
	}
	return snapshot, nil
}

// admit asks the scheduler whether a challenge may be presented, and which neighbors must keep
// their proofs.
func (r *Reconciler) admit(ctx context.Context, ch *cmacme.Challenge) (Slot, []*cmacme.Challenge, error) {
	slot, neighbors, err := r.tryAdmit(ctx, ch)
	if err != nil || !slot.Free || r.capacity(ch) == 0 {
		return slot, neighbors, err
	}
	// The place may be another one than it was, as CNAMEs change.
	place, err := r.Solvers[ch.Spec.Type].(solver.CapacityLimited).Place(ctx, ch)
	if err != nil || place == ch.Status.EffectiveName {
		return slot, neighbors, err
	}
	ch.Status.EffectiveName = place
	return r.tryAdmit(ctx, ch)
}

// tryAdmit is admit for a challenge at the place that its status says. What is admitted counts at
// once.
func (r *Reconciler) tryAdmit(
	ctx context.Context,
	ch *cmacme.Challenge,
) (slot Slot, neighbors []*cmacme.Challenge, err error) {
	slot = Slot{Place: ch.Status.EffectiveName, Again: r.slots.checkAgain()}
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return slot, nil, err
	}
	key := client.ObjectKeyFromObject(ch)
	entry := r.slots.entries[key]
	if entry == nil {
		// This cannot happen: Reconcile has called see.
		return slot, nil, fmt.Errorf("the scheduler does not know Challenge %s", key)
	}
	entry.Resting = false
	own := slices.IndexFunc(s.Entries, func(e scheduler.Entry) bool { return e.Challenge == entry.Challenge })
	s.Entries[own] = entry.Entry
	s.Entries[own].Challenge = ch // its place may have been found out just now
	again := entry.Presenting && entry.Place == slot.Place
	few := s.Capacity(ch) > 0 && slot.Place != ""
	if !again && (few || len(s.Entries) > s.Max) {
		s.Entries[own].Presenting = false // it is not at this place
		next := s.Next()
		if !slices.Contains(next, ch) {
			entry.Presenting = false // it waits from now on, and is not to be passed over
			r.call(next)
			slot.Ahead = s.Ahead(ch)
			return slot, nil, nil
		}
	}
	if few {
		neighbors = s.Neighbors(ch)
		if !again {
			r.slots.took(scheduler.Slot{Place: slot.Place, Namespace: ch.Namespace}, r.Clock.Now())
		}
	}
	slot.Free, entry.Presenting, entry.Place = true, true, slot.Place
	return slot, neighbors, nil
}

// neighbors returns the other challenges that must keep their proofs at the place of ch, if it has
// few slots.
func (r *Reconciler) neighbors(ctx context.Context, ch *cmacme.Challenge) ([]*cmacme.Challenge, error) {
	if r.capacity(ch) == 0 {
		return nil, nil
	}
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s.Neighbors(ch), nil
}

// reserve takes a slot for a challenge that has ended while its proof is removed. Otherwise another
// proof could be put there meanwhile, and be removed, too. If there is one already, the error is a
// solver.RetryLaterError.
func (r *Reconciler) reserve(ctx context.Context, ch *cmacme.Challenge, x solver.CapacityLimited) (err error) {
	place := ch.Status.EffectiveName
	if place == "" {
		if place, err = x.Place(ctx, ch); err != nil {
			return err
		}
	}
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return err
	}
	if there := s.Occupants(place); len(there) > 0 {
		return &solver.RetryLaterError{After: cleanUpAgain,
			Why: fmt.Sprintf("It could not be removed, as the value of another challenge (%s) was needed at %s, and the DNS "+
				"provider may have taken that away, too",
				named(ch.Namespace, there), strings.TrimSuffix(place, "."))}
	}
	if e := r.slots.put(client.ObjectKeyFromObject(ch), ch); e != nil {
		e.Presenting, e.Place = true, place
	}
	return nil
}

// release gives the slot of a challenge to others.
func (r *Reconciler) release(ch *cmacme.Challenge) {
	r.slots.update(client.ObjectKeyFromObject(ch), func(e *entry) { e.Presenting = false })
}

// wakeNext queues the challenges that may be presented now.
func (r *Reconciler) wakeNext(ctx context.Context) {
	r.slots.mu.Lock()
	defer r.slots.mu.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil || len(s.Entries) == 0 {
		return
	}
	r.call(s.Next())
}

func (r *Reconciler) call(all []*cmacme.Challenge) {
	for _, ch := range all {
		r.queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
	}
}
