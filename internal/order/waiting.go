package order

import (
	"fmt"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
)

const (
	// reportAfter is how long a challenge is pending before its Order, and so the request and the
	// Certificate, say why. Most are finished before, and each change there costs three writes.
	reportAfter = 30 * time.Second
	// reportAgain is how often a reason that changes is written at most.
	reportAgain = 30 * time.Second
	// maxReported is how many challenges a reason names.
	maxReported = 3
	// lookAgain is how often the CA is asked about an order with challenges that do not finish. It is
	// also asked when the order, or one of its authorizations, expires.
	lookAgain = time.Hour
)

// waiting says why an order is not ready: what its challenges wait for, if they have been pending
// for long. It also returns when that text will change if the challenges do not, zero for never.
func waiting(challenges []cmacme.Challenge, now time.Time) (reason string, next time.Time) {
	var parts []string
	for i := range challenges {
		ch := &challenges[i]
		if acmestatus.IsFinal(ch.Status.State) || ch.DeletionTimestamp != nil {
			continue
		}
		if at := ch.CreationTimestamp.Add(reportAfter); now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
		} else if ch.Status.Reason != "" {
			parts = append(parts, fmt.Sprintf("%s of %s: %s (pending since %s)", ch.Spec.Type, ch.Spec.DNSName,
				strings.TrimSuffix(ch.Status.Reason, "."), ch.CreationTimestamp.UTC().Format(time.RFC3339)))
		}
	}
	if more := len(parts) - maxReported; more > 0 {
		parts = append(parts[:maxReported], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; "), next
}

// reportWaiting writes into the status what the order waits for, and returns when to look at that
// again, zero for never.
func (d *decider) reportWaiting() time.Duration {
	reason, next := waiting(d.Challenges, d.Now)
	if reason != d.st.Reason {
		since := d.m.Reported.Start(d.Now)
		until := since.Add(reportAgain)
		if reason != "" && d.st.Reason != "" && since.Before(d.Now) && d.Now.Before(until) {
			return until.Sub(d.Now)
		}
		d.m.Reported.Time = d.Now
		d.st.Reason = reason
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(d.Now), time.Millisecond)
}
