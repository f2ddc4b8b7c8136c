package order

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

// lost reports whether a proof that is seen nowhere was presented so long ago that it is to be
// presented again: another tool may have removed it, or the clean-up of another challenge with the
// same value.
func (r *ChallengeReconciler) lost(ch *cmacme.Challenge, now time.Time) bool {
	uid, last := string(ch.UID), ch.Status.PresentedAt.Time
	if r.restored.is(uid) {
		last = r.restored.since(uid, now)
	}
	return !now.Before(last.Add(max(lostAgain, last.Sub(ch.Status.PresentedAt.Time))))
}

// restore presents a proof again that is lost, and returns when it is to be done again if that is
// under way. If it fails the challenge goes on as before.
func (r *ChallengeReconciler) restore(ctx context.Context, s solver.Solver, i *signer.Issuer, ch *cmacme.Challenge,
	now time.Time) (again time.Duration, err error) {
	beside, err := r.beside(ctx, ch)
	if err != nil {
		return 0, err
	}
	err = present(ctx, s, i, ch, beside)
	if lane.Is(err) {
		return 0, err
	}
	if later := new(solver.Later); errors.As(err, &later) {
		r.restoring.since(string(ch.UID), now)
		return later.After, nil
	}
	r.restoring.drop(string(ch.UID))
	r.restored.drop(string(ch.UID))
	r.restored.since(string(ch.UID), now)
	if err != nil {
		r.Events.Eventf(ch, corev1.EventTypeWarning, "PresentError",
			"It could be seen nowhere, and presenting it again fails: %s", err)
		return 0, nil
	}
	r.presentedAgain(ch)
	return 0, nil
}

// restorationSeen reports a proof that is seen again before the call that was to restore it has
// ended.
func (r *ChallengeReconciler) restorationSeen(ch *cmacme.Challenge) {
	if uid := string(ch.UID); r.restoring.is(uid) {
		r.restoring.drop(uid)
		r.presentedAgain(ch)
	}
}

func (r *ChallengeReconciler) presentedAgain(ch *cmacme.Challenge) {
	r.Events.Eventf(ch, corev1.EventTypeWarning, "PresentedAgain",
		"What was presented for the %s challenge of %s could be seen nowhere, and was presented again", ch.Spec.Type,
		ch.Spec.DNSName)
}
