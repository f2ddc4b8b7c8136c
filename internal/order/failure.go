package order

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/desired"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/poll"
)

// failWith is fail with text added to the message.
func (d *decider) failWith(err error, text string) { d.fail(fault.Annotate(err, text)) }

// fail ends the pass with an error: its class decides the status and the next attempt.
func (d *decider) fail(err error) {
	d.next(Wait)
	d.failed = true
	if limiter.IsBusy(err) {
		d.Decision.Err = err
		return
	}
	if errors.Is(err, account.ErrRecovered) {
		d.again(account.RetryRecovered)
		return
	}
	if why := account.ExplainNotFound(err); why != "" && d.st.URL != "" {
		d.gone(err, why)
		return
	}
	failure := fault.Of(err)
	text := failure.Error()
	switch failure.Class {
	case fault.Refused:
		d.end(cmacme.Errored, text)
	case fault.Limited:
		d.limited(failure)
	case fault.Misconfigured:
		if failure.Reason == desired.NoSolver && d.m.NoSolver != text {
			d.m.NoSolver = text
			d.event(corev1.EventTypeWarning, desired.NoSolver, "%s", text)
		}
		d.st.Reason = text
		d.again(poll.RecheckInterval(d.Now.Sub(d.Order.CreationTimestamp.Time))) // Secrets are not watched
	default:
		d.st.Reason = fault.Retried(failure)
		d.Decision.Err = err // with the queue's back-off
	}
}

// gone ends an order that the CA does not have for the account.
func (d *decider) gone(err error, why string) {
	if errors.As(err, new(*acme.ForeignURLError)) {
		d.end(cmacme.Expired, why) // whatever the former server has issued is not wanted
		return
	}
	d.lapse(why)
}

// limited waits for a limit.
func (d *decider) limited(failure *fault.Error) {
	d.st.Reason = failure.Error()
	wait := failure.Wait(d.Now) // when the CA said
	switch failure.Reason {
	case paused:
		at := metav1.NewTime(failure.Until)
		d.st.PausedUntil = &at
	case rateLimited:
		d.st.PausedUntil = nil
		wait = min(wait, lineAgain)
	}
	d.again(wait)
}

// reachability sets since when the order, or one of its challenges, waits for a server that does
// not answer. If the pass failed, the session has set it for the order already.
func (d *decider) reachability() {
	if !d.failed {
		d.st.UnreachableSince = nil
	}
	for n := range d.Challenges {
		since := d.Challenges[n].Status.UnreachableSince
		if since != nil && (d.st.UnreachableSince == nil || since.Before(d.st.UnreachableSince)) {
			d.st.UnreachableSince = since
		}
	}
}

// worst returns the final state of the challenges that did not succeed: of several, one with a
// failed proof. It is empty if there is none.
func worst(challenges []cmacme.Challenge) cmacme.State {
	var worst cmacme.State
	for i := range challenges {
		s := challenges[i].Status.State
		if acmestatus.IsFinal(s) && s != cmacme.Valid && (worst == "" || worst == cmacme.Expired) {
			worst = s
		}
	}
	return worst
}

// why says why an order failed: what the CA says of each challenge, and of the order.
func why(got acme.Order, challenges []cmacme.Challenge) string {
	var parts []string
	for i := range challenges {
		if s := challenges[i].Status; acmestatus.IsFinal(s.State) && s.State != cmacme.Valid {
			parts = append(parts, fmt.Sprintf("%s of %s: %s", challenges[i].Spec.Type, challenges[i].Spec.DNSName, s.Reason))
		}
	}
	if got.Error != nil && len(parts) == 0 {
		parts = append(parts, got.Error.Error())
	}
	if len(parts) == 0 {
		parts = append(parts, "the CA says that the order is invalid, and not why")
	}
	return strings.Join(parts, "; ")
}
