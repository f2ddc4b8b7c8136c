package order

import (
	"fmt"
	"strings"
	"time"

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
