package challenge

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
)

// transition names the step between two versions of a challenge, empty if there is none.
func transition(was, is *cmacme.ChallengeStatus) string {
	switch {
	case acmestatus.Finished(is.State) && !acmestatus.Finished(was.State):
		return "challenge " + string(is.State)
	case is.State == cmacme.Processing && was.State != cmacme.Processing:
		return "challenge accepted by the CA"
	case is.Presented && !was.Presented:
		return "challenge presented"
	}
	return ""
}

// logTransition logs the step between two versions of a challenge.
func logTransition(ctx context.Context, was, is *cmacme.Challenge, now time.Time) {
	if step := transition(&was.Status, &is.Status); step != "" {
		log.FromContext(ctx).Info(step, "age", now.Sub(is.CreationTimestamp.Time).Round(time.Second).String(),
			"type", is.Spec.Type, "domain", is.Spec.DNSName, "reason", is.Status.Reason)
	}
}

// logWait logs, at V(1), what a challenge waits for, and until when.
func logWait(ctx context.Context, d Decision, now time.Time) {
	if d.Again > 0 && d.Status.Reason != "" {
		log.FromContext(ctx).V(1).Info("challenge waits", "reason", d.Status.Reason,
			"until", now.Add(d.Again).UTC().Format(time.RFC3339))
	}
}
