package order

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

const (
	// tellAfter is how long a challenge is pending before its Order, and so the request and the Certificate, say why. Most are over before, and each
	// change there costs three writes,
	tellAfter = 30 * time.Second
	// which is why a reason that changes is told no more often than this.
	tellAgain = 30 * time.Second
	// maxTold is of how many challenges it is told.
	maxTold = 3
	// lookAgain is how often the CA is asked for an order whose challenges come to no end, beside when it has said that the order, or one of its
	// authorizations, expires.
	lookAgain = time.Hour
)

// waiting says why an order is not ready: what those of its challenges wait for that are pending for long. It also returns when that will be another text,
// if the challenges do not change, zero for never.
func waiting(challenges []cmacme.Challenge, now time.Time) (reason string, next time.Time) {
	var parts []string
	for i := range challenges {
		ch := &challenges[i]
		if finished(ch.Status.State) || ch.DeletionTimestamp != nil {
			continue
		}
		if at := ch.CreationTimestamp.Add(tellAfter); now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
		} else if ch.Status.Reason != "" {
			parts = append(parts, fmt.Sprintf("%s of %s: %s", ch.Spec.Type, ch.Spec.DNSName, ch.Status.Reason))
		}
	}
	if more := len(parts) - maxTold; more > 0 {
		parts = append(parts[:maxTold], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; "), next
}

// tellWaiting writes into the status of an order what it waits for, and returns when to look at that again, 0 for never.
func (r *Reconciler) tellWaiting(order *cmacme.Order, challenges []cmacme.Challenge) time.Duration {
	now, key := r.Clock.Now(), string(order.UID)
	reason, next := waiting(challenges, now)
	if reason != order.Status.Reason {
		if since := r.told.since(key, now); reason != "" && order.Status.Reason != "" && since.Before(now) && now.Before(since.Add(tellAgain)) {
			return since.Add(tellAgain).Sub(now)
		}
		r.told.drop(key)
		r.told.since(key, now)
		order.Status.Reason = reason
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Millisecond)
}

// look asks the CA for an order that has waited for its challenges for long, and ends it if it is over: what keeps them from being presented may keep them
// from asking, too. It returns when to do so next.
func (r *Reconciler) look(ctx context.Context, o conversation, order *cmacme.Order, challenges []cmacme.Challenge) (next time.Duration, err error) {
	key := client.ObjectKeyFromObject(order).String()
	if next = r.due.since(key, o.now).Sub(o.now); next > 0 {
		return next, nil // after a restart it is not known, and the CA is asked at once
	}
	got, err := o.ca.Order(ctx, o.by, order.Status.URL)
	if err != nil {
		return 0, err
	}
	if got.Status == acme.StatusInvalid {
		return 0, r.invalid(ctx, o, order, got, challenges)
	}
	if r.expired(o, order, got) {
		return 0, nil
	}
	r.due.drop(key)
	if lapsed, err := r.lapsed(ctx, o, order); lapsed || err != nil {
		return 0, err
	}
	r.expect(order, o.now, got)
	return r.due.since(key, o.now).Sub(o.now), nil
}

// expect notes when the CA is to be asked for an order of which it said this now: when that expires, or after a while.
func (r *Reconciler) expect(order *cmacme.Order, now time.Time, got acme.Order) {
	key := client.ObjectKeyFromObject(order).String()
	r.due.by(key, now.Add(lookAgain))
	if got.Expires != nil && now.Before(*got.Expires) {
		r.due.by(key, *got.Expires)
	}
}
