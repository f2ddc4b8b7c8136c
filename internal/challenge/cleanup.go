package challenge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/solver"
)

const (
	// cleanUpLimit is how long the clean-up of a challenge is tried. Then the finalizer is removed,
	// and an event names what stays: a credential that is gone must not block the deletion for ever.
	cleanUpLimit = 10 * time.Minute
	cleanUpAgain = 15 * time.Second
	// cleanUpLeast is how long a process tries even if it starts when cleanUpLimit has passed or
	// nearly so: the clean-up may not have been tried yet, and services take time to answer.
	cleanUpLeast = time.Minute
)

// cleanUp removes what was presented for a challenge that has ended. If the challenge is being
// deleted, cleanUp then removes its finalizer. If it is finished and holds one of few slots,
// cleanUp frees the slot at once: its Order may need the slot for other challenges, and deletes all
// of them only when all are finished. Any other proof stays until the deletion.
func (r *Reconciler) cleanUp(ctx context.Context, ch *cmacme.Challenge) (reconcile.Result, error) {
	m := r.memory.Of(ch)
	deleted := ch.DeletionTimestamp != nil
	switch {
	case deleted && !acmestatus.HasFinalizer(ch):
		return reconcile.Result{}, nil
	case !deleted && !acmestatus.HoldsSlot(ch) && !acmestatus.MaybePresented(ch):
		m.cleaning.Clear()
		r.wakeNext(ctx) // its slot is free
		return reconcile.Result{}, nil
	}
	now := r.Clock.Now()
	limit := cleanUpUntil(ch, m.cleaning.Start(now))
	err := r.remove(ctx, ch)
	limiter.Release(ctx)
	d := decideCleanUp(ch, err, now, limit)
	r.report(ch, d.Events)
	if d.GaveUp != "" {
		log.FromContext(ctx).Info(d.GaveUp) // a namespace that is being deleted takes no events
	}
	if d.Again > 0 {
		return reconcile.Result{RequeueAfter: d.Again}, nil // it may pass, but not for ever
	}
	m.cleaning.Clear()
	next := ch.DeepCopy()
	if deleted {
		next.Finalizers = slices.DeleteFunc(next.Finalizers, acmestatus.IsFinalizer)
		err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{}))
		if err == nil {
			m.written = next
		}
		return reconcile.Result{}, observe.FinalizerRefused(r.Events, ch, err)
	}
	next.Status.Presented, next.Status.Processing = false, false
	_, err = r.writeStatus(ctx, ch, next)
	return reconcile.Result{}, err
}

// cleanUpUntil returns when a process gives up the clean-up of a challenge that it began at since.
func cleanUpUntil(ch *cmacme.Challenge, since time.Time) time.Time {
	if ch.DeletionTimestamp == nil {
		return since.Add(cleanUpLimit)
	}
	limit := ch.DeletionTimestamp.Add(cleanUpLimit)
	if least := since.Add(cleanUpLeast); limit.Before(least) {
		return least
	}
	return limit
}

// cleanUpDecision is what follows an attempt to remove a proof.
type cleanUpDecision struct {
	// Again is when the next attempt is, zero if there is none.
	Again  time.Duration
	Events []Event
	// GaveUp says what stays, if the clean-up was given up.
	GaveUp string
}

// decideCleanUp decides by the error of an attempt. It is a pure function.
func decideCleanUp(ch *cmacme.Challenge, err error, now, limit time.Time) (d cleanUpDecision) {
	failure := fault.Of(err)
	warn := func(reason, format string, args ...any) {
		d.Events = append(d.Events, Event{corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...)})
	}
	later, busy := new(solver.RetryLaterError), new(limiter.ErrBusy)
	kind, name := ch.Spec.Type, ch.Spec.DNSName
	// A Challenge of an earlier version, or of cert-manager, whose Order is gone.
	unsure := errors.As(err, new(*unproven)) && (ch.Status.Presented || ch.Status.Processing)
	switch {
	case err == nil:
	case !ch.Status.Presented && !unsure && (failure.Class == fault.Misconfigured || failure.Class == fault.Refused):
		// What prevents the removal has prevented the presentation.
	case unsure, !now.Before(limit):
		stays := "stays: remove it by hand"
		if !ch.Status.Presented {
			// A failed call may have set it up, or a process that ended before it wrote the status.
			stays = "may be there: look, and remove it by hand"
		}
		d.GaveUp = fmt.Sprintf(
			"Gave up cleaning up the %s challenge of %s, and %s %s. %s",
			kind,
			name,
			leftover(ch),
			stays,
			err,
		)
		warn("CleanUpError", "%s", d.GaveUp)
	case errors.As(err, &busy):
		d.Again = min(busy.After, limit.Sub(now)) // a free slot causes a pass, but no later than that
	case errors.As(err, &later):
		if later.Ask {
			warn("ActionRequired", "The %s challenge of %s is over: %s", kind, name, later.Why)
		}
		d.Again = min(later.After, limit.Sub(now))
	default:
		warn("CleanUpError", "Error cleaning up challenge, tried until %s: %s", limit.UTC().Format(time.RFC3339), err)
		d.Again = cleanUpAgain
		if failure.Class == fault.Limited {
			d.Again = max(d.Again, failure.Wait(now)) // when its service said
		}
		d.Again = min(d.Again, limit.Sub(now))
	}
	return d
}

// remove removes what was presented for a challenge.
func (r *Reconciler) remove(ctx context.Context, ch *cmacme.Challenge) error {
	s := r.Solvers[ch.Spec.Type]
	if s == nil {
		return nil // it can be no longer there
	}
	if x, ok := s.(solver.CapacityLimited); ok && !ch.Status.Presented && x.Capacity(ch) > 0 {
		if !acmestatus.MaybePresented(ch) {
			return nil // it was never presented, or has freed its slot
		}
		if err := r.reserve(ctx, ch, x); err != nil {
			return err
		}
		defer func() {
			r.release(ch)
			r.wakeNext(ctx) // those that came meanwhile
		}()
	}
	i, err := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	if err != nil {
		return err
	}
	if i == nil {
		// The Secrets of its solver may still be there.
		i = r.Scope.OfDeleted(ch.Namespace, ch.Spec.IssuerRef)
	}
	if err := r.mayCleanUp(ctx, i, ch); err != nil {
		return err
	}
	return s.CleanUp(ctx, i, ch)
}

// leftover names what was set up for a challenge.
func leftover(ch *cmacme.Challenge) string {
	switch ch.Spec.Type {
	case cmacme.ACMEChallengeTypeDNS01:
		text := fmt.Sprintf(
			"the TXT record %s with the value %q",
			cmp.Or(ch.Spec.RecordName, acme.DNS01Name(ch.Spec.DNSName)),
			ch.Spec.Key,
		)
		if spec := ch.Spec.Solver.DNS01; spec != nil && (spec.CNAMEStrategy == cmacme.FollowStrategy || spec.AcmeDNS != nil) {
			text += ", where the CNAME of that name leads,"
		}
		return text
	case cmacme.ACMEChallengeTypeHTTP01:
		return "what answers for /.well-known/acme-challenge/" + ch.Spec.Token
	}
	return "what was set up for it"
}
