package challenge

import (
	"errors"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/poll"
)

// fail ends the pass with an error: its class decides the status and the next attempt.
func (d *decider) fail(err error) {
	d.next(Wait)
	if errors.Is(err, account.ErrRecovered) {
		d.Decision.Slot = Yield
		d.again(account.RetryRecovered)
		return
	}
	if full := new(limiter.ErrBusy); errors.As(err, &full) {
		if full.Stuck {
			d.st.Reason = full.Error()
		}
		d.Decision.Err = err
		return
	}
	d.Decision.Slot = Yield
	failure := fault.Of(err)
	d.st.Reason = failure.Error()
	switch failure.Class {
	case fault.Refused:
		v := Verdict{cmacme.Errored, failure.Error()}
		if why := account.Gone(err); why != "" {
			v = Verdict{cmacme.Expired, why}
		}
		d.finish(v)
	case fault.Limited:
		d.again(d.inTime(failure.Wait(d.Now))) // when they said
	case fault.Misconfigured:
		d.again(poll.Correction(d.Now.Sub(d.Challenge.CreationTimestamp.Time))) // Secrets are not watched
	default:
		d.Decision.Err = err // again with the queue's back-off
	}
}
