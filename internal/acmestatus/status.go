// Package acmestatus has the predicates over the status of Orders and Challenges that their
// reconcilers share.
package acmestatus

import (
	"slices"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// IsFinal reports whether a state of an Order or Challenge is final.
func IsFinal(s cmacme.State) bool {
	switch s {
	case cmacme.Valid, cmacme.Invalid, cmacme.Expired, cmacme.Errored:
		return true
	}
	return false
}

// IsFinalizer reports whether a finalizer keeps a Challenge until its clean-up.
func IsFinalizer(f string) bool {
	return f == cmacme.ACMEDomainQualifiedFinalizer || f == cmacme.ACMELegacyFinalizer
}

// HasFinalizer reports whether a Challenge stays until its clean-up.
func HasFinalizer(ch *cmacme.Challenge) bool { return slices.ContainsFunc(ch.Finalizers, IsFinalizer) }

// ProofUnneeded reports whether the proof of a challenge is no longer needed.
func ProofUnneeded(ch *cmacme.Challenge) bool {
	return IsFinal(ch.Status.State) || ch.DeletionTimestamp != nil
}

// Waiting reports whether a challenge has not been presented and is still to be.
func Waiting(ch *cmacme.Challenge) bool { return !ch.Status.Presented && !ProofUnneeded(ch) }

// Active reports whether a presented challenge is in progress or being deleted.
func Active(ch *cmacme.Challenge) bool {
	return ch.Status.Presented && (!IsFinal(ch.Status.State) || ch.DeletionTimestamp != nil)
}

// MaybePresented reports whether the proof of a challenge may be there although the status does
// not say so: presenting began, and failed or did not end.
func MaybePresented(ch *cmacme.Challenge) bool {
	return ch.Status.Processing && !ch.Status.Presented
}

// HoldsSlot reports whether a challenge occupies one of the limited slots where its proof stands.
// One that may be presented occupies it only during its clean-up: if that fails again and again,
// others need not wait.
func HoldsSlot(ch *cmacme.Challenge) bool {
	return ch.Status.Presented && ch.Status.EffectiveName != ""
}

// SlowAfter is how long after it was presented, or deleted, a challenge is checked less often.
const SlowAfter = 2 * time.Minute

// IsSlow reports whether a challenge was presented, or deleted, so long ago that it is checked
// rarely: the remote side takes its time.
func IsSlow(ch *cmacme.Challenge, now time.Time) bool {
	at := ch.Status.PresentedAt
	if ch.DeletionTimestamp != nil {
		at = ch.DeletionTimestamp
	}
	return at != nil && now.Sub(at.Time) > SlowAfter
}
