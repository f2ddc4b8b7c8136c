package challenge

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/observe"
)

// transitions names the steps between two versions of a challenge.
func transitions(was, is *cmacme.ChallengeStatus) (steps []string) {
	if is.Presented && !was.Presented {
		steps = append(steps, "challenge presented")
	}
	switch {
	case acmestatus.IsFinal(is.State) && !acmestatus.IsFinal(was.State):
		steps = append(steps, "challenge "+string(is.State))
	case is.State == cmacme.Processing && was.State != cmacme.Processing:
		steps = append(steps, "challenge accepted by the CA")
	}
	return steps
}

// logTransitions logs the steps between two versions of a challenge.
func logTransitions(ctx context.Context, was, is *cmacme.Challenge, now time.Time) {
	for _, step := range transitions(&was.Status, &is.Status) {
		log.FromContext(ctx).Info(step, "age", observe.Seconds(now.Sub(is.CreationTimestamp.Time)),
			"type", is.Spec.Type, "domain", is.Spec.DNSName, "reason", is.Status.Reason)
	}
}

// logWait logs what a challenge waits for, and until when.
func logWait(ctx context.Context, ch *cmacme.Challenge, d Decision, now time.Time, logged *string) {
	if d.Again > 0 {
		observe.LogWait(ctx, observe.Waiting{Step: "challenge waits", Reason: d.Status.Reason,
			Created: ch.CreationTimestamp.Time, Now: now, Until: now.Add(d.Again), Logged: logged})
	}
}
