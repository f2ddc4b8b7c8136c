package challenge

import (
	"errors"
	"strings"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/poll"
)

// nextAttempt says when a failed action is tried again: by poll.RecheckInterval, or by the back-off
// of the queue.
var nextAttempt = map[fault.Class]string{
	fault.Misconfigured: ". It is tried again within 5 minutes, and when the issuer changes",
	fault.Transient:     fault.NextAttempt,
}

// reasonOf is the reason of a Challenge after a failed action: what failed, what to do, and when
// the next attempt is.
func reasonOf(err error) string {
	failure := fault.Of(err)
	if failure.Class == fault.Transient {
		return fault.Retried(failure)
	}
	return strings.TrimSuffix(failure.Error(), ".") + nextAttempt[failure.Class]
}

// withoutNextAttempt returns the reason of a Challenge that is not tried again.
func withoutNextAttempt(reason string) string {
	for _, again := range nextAttempt {
		reason = strings.TrimSuffix(reason, again)
	}
	return reason
}

// fail ends the pass with an error: its class decides the status and the next attempt.
func (d *decider) fail(err error) {
	d.next(Wait)
	if errors.Is(err, account.ErrRecovered) {
		d.Decision.Slot = Yield
		d.again(account.RetryRecovered)
		return
	}
	if busy := new(limiter.ErrBusy); errors.As(err, &busy) {
		if busy.Stuck {
			d.st.Reason = busy.Error()
		}
		d.Decision.Err = err
		return
	}
	d.Decision.Slot = Yield
	failure := fault.Of(err)
	d.st.Reason = reasonOf(err)
	switch failure.Class {
	case fault.Refused:
		v := Verdict{cmacme.Errored, failure.Error()}
		if why := account.ExplainNotFound(err); why != "" {
			v = Verdict{cmacme.Expired, why}
		}
		d.finish(v)
	case fault.Limited:
		d.again(d.inTime(failure.Wait(d.Now))) // when they said
	case fault.Misconfigured:
		d.again(poll.RecheckInterval(d.Now.Sub(d.Challenge.CreationTimestamp.Time))) // Secrets are not watched
	default:
		d.Decision.Err = err // again with the queue's back-off
	}
}
