package order

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/observe"
)

// transition names the step between two versions of an order, empty if there is none.
func transition(was, is *cmacme.OrderStatus) string {
	switch {
	case acmestatus.IsFinal(is.State) && !acmestatus.IsFinal(was.State):
		return "order " + string(is.State)
	case was.URL == "" && is.URL != "":
		return "order accepted by the CA"
	case is.State == cmacme.Processing && was.State != cmacme.Processing:
		return "order processing at the CA"
	}
	return ""
}

// logTransition logs the step between two versions of an order.
func logTransition(ctx context.Context, was, is *cmacme.Order, now time.Time) {
	if step := transition(&was.Status, &is.Status); step != "" {
		log.FromContext(ctx).Info(step, "age", observe.Seconds(now.Sub(is.CreationTimestamp.Time)),
			"reason", is.Status.Reason)
	}
}

// logWait logs what an order waits for, and until when.
func logWait(ctx context.Context, o *cmacme.Order, d Decision, now time.Time, logged *string) {
	if d.Again > 0 {
		observe.LogWait(ctx, observe.Waiting{Step: "order waits", Reason: d.Status.Reason,
			Created: o.CreationTimestamp.Time, Now: now, Until: now.Add(d.Again), Logged: logged})
	}
}
