package order

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/diagnosis"
	"github.com/perennial-pki/perennial/internal/poll"
)

// longest is how long an Order may take if the CA does not say when the order expires. Known CAs
// let orders expire within a quarter of it.
const longest = 30 * 24 * time.Hour

// decider makes one decision.
type decider struct {
	Observation
	*Decision
	st *cmacme.OrderStatus
	m  *Memory
	// failed says that the pass ends with an error, and untouched that nothing was found out.
	failed, untouched bool
}

// Decide says what to do next. It is a pure function.
func Decide(o Observation) Decision {
	d := decider{Observation: o, Decision: &Decision{Status: *o.Order.Status.DeepCopy(), Memory: o.Memory}}
	d.st, d.m = &d.Decision.Status, &d.Decision.Memory
	d.decide()
	if d.Action == Wait && o.Order.Status.URL != "" && !d.untouched {
		d.reachability()
	}
	return *d.Decision
}

// decide continues after the action that was done last.
func (d *decider) decide() {
	if err := d.Observation.Err; err != nil && d.Done != Finalize {
		d.fail(err)
		return
	}
	switch d.Done {
	case Wait:
		d.begin()
	case Admit:
		d.st.PausedUntil = nil
		d.next(FindDuplicate)
	case FindDuplicate:
		d.duplicateFound()
	case Send:
		d.sent()
	case CheckServer:
		d.serverChecked()
	case ReadOrder:
		d.orderRead()
	case ReadAuthorizations:
		d.st.Authorizations = d.Authorizations
		d.m.Due.KeepEarlier(d.Expiry)
		d.again(0) // the write of the status causes the next pass
	case CheckAuthorizations:
		d.authorizationsChecked()
	case MakeChallenges:
		d.challengesMade()
	case CheckWanted:
		d.wantedChecked()
	case Finalize:
		d.finalized()
	case Fetch:
		d.fetched()
	case ExplainCAA:
		d.explained()
	case CountFailures:
		d.failuresCounted()
	}
}

// again ends the pass, and says when the next one is.
func (d *decider) again(after time.Duration) { d.Decision.Action, d.Decision.Again = Wait, after }

func (d *decider) next(a Action) { d.Decision.Action = a }

// event adds an event that is reported when the status is written.
func (d *decider) event(eventType, reason, format string, args ...any) {
	d.Events = append(d.Events, Event{eventType, reason, fmt.Sprintf(format, args...)})
}

// begin is the first decision of a pass.
func (d *decider) begin() {
	switch wait := d.m.Poll.Wait(d.Now); {
	case d.Blocked != nil:
		d.fail(d.Blocked)
	case d.st.URL == "":
		d.next(Admit)
	case wait > 0 && d.st.State == cmacme.Processing:
		d.untouched = true
		d.again(wait) // the CA said when to ask, or was asked just now
	default:
		d.next(CheckServer) // also while nothing is to be asked of the order
	}
}

// duplicateFound follows FindDuplicate.
func (d *decider) duplicateFound() {
	if d.Duplicate == nil {
		d.m.Behind.Clear()
		d.next(Send)
		return
	}
	waited := d.Now.Sub(d.m.Behind.Start(d.Now))
	if waited < reportAfter {
		d.again(reportAfter - waited) // it is reported then
		return
	}
	which := "an Order of another namespace" // which must not be named here
	if d.Duplicate.Namespace == d.Order.Namespace {
		which = "the Order " + d.Duplicate.Name
	}
	d.st.Reason = fmt.Sprintf("Waiting for %s, which asks for the same names with the same account: the CA "+
		"would answer both with one order", which)
	d.again(time.Minute) // the other may be open for too long by then
}

// sent follows Send.
func (d *decider) sent() {
	got := d.CA
	d.expect()
	d.st.URL, d.st.FinalizeURL, d.st.State, d.st.Reason = got.URL, got.Finalize, cmacme.State(got.Status), ""
	if acmestatus.IsFinal(d.st.State) {
		d.st.State = cmacme.Ready // it existed before, or failed at once: its outcome is read
	}
	for _, url := range got.Authorizations {
		d.st.Authorizations = append(d.st.Authorizations, cmacme.ACMEAuthorization{URL: url})
	}
	d.again(0) // the write of the status causes the next pass
}

// expect notes when to ask the CA about the order again: when the order expires, or after
// lookAgain.
func (d *decider) expect() {
	d.m.Due.KeepEarlier(d.Now.Add(lookAgain))
	if at := d.CA.Expires; at != nil && d.Now.Before(*at) {
		d.m.Due.KeepEarlier(*at)
	}
}

// serverChecked follows CheckServer.
func (d *decider) serverChecked() {
	unread := func(z cmacme.ACMEAuthorization) bool { return z.Identifier == "" }
	switch {
	case d.LimitedFor > 0:
		d.untouched = true
		d.again(d.LimitedFor) // when the CA said
	case slices.ContainsFunc(d.st.Authorizations, unread):
		d.next(ReadAuthorizations)
	case d.st.State != cmacme.Pending:
		d.next(ReadOrder)
	case d.m.Due.Start(d.Now).After(d.Now):
		// After a restart Due is not known, and the CA is asked at once.
		d.next(MakeChallenges)
	default:
		// The challenges may be unable to ask the CA, for the reason that keeps them from being
		// presented.
		d.next(ReadOrder)
	}
}

// looking reports whether the order was read although its challenges are open.
func (d *decider) looking() bool { return d.st.State == cmacme.Pending && d.Made == nil }

// expired reports whether the order at the CA has expired, and until when it was valid.
func (d *decider) expired() (until time.Time, expired bool) {
	until = d.Order.CreationTimestamp.Add(longest)
	if d.CA.Expires != nil {
		until = *d.CA.Expires
	}
	ended := d.CA.Status == acme.StatusValid || d.CA.Status == acme.StatusInvalid
	return until, !d.Now.Before(until) && !ended
}

// orderRead follows ReadOrder.
func (d *decider) orderRead() {
	until, expired := d.expired()
	switch {
	case expired:
		d.lapse(fmt.Sprintf("the order expired at %s and was still %s", until.UTC().Format(time.RFC3339), d.CA.Status))
	case d.CA.Status == acme.StatusInvalid:
		d.invalid()
	case d.looking():
		d.m.Due.Clear()
		d.next(CheckAuthorizations)
	case d.CA.Status == acme.StatusReady:
		d.next(CheckWanted)
	default:
		d.progress()
	}
}

// challengesMade follows MakeChallenges.
func (d *decider) challengesMade() {
	again := d.reportWaiting()
	if !d.Made.Created && !d.Made.Open {
		d.next(ReadOrder)
		return
	}
	// A change of a challenge starts a pass. Without one, the next pass reports what is waited for, or
	// asks the CA.
	next := d.m.Due.Start(d.Now).Sub(d.Now)
	if again > 0 {
		next = min(next, again)
	}
	d.again(max(next, time.Millisecond))
}

// wantedChecked follows CheckWanted.
func (d *decider) wantedChecked() {
	switch {
	case d.Wanted.Deleted:
		d.end(cmacme.Errored, "the Certificate was deleted, so that the order is not finalized")
	case d.Wanted.Later:
		d.again(0) // the write of the Order causes the next pass
	default:
		d.next(Finalize)
	}
}

// finalized follows Finalize.
func (d *decider) finalized() {
	err := d.FinalizeErr
	var p *acme.Problem
	switch {
	case err == nil:
		d.m.Finalized.Start(d.Now)
		if d.CA.Status == acme.StatusInvalid {
			d.invalid()
			return
		}
		d.progress()
	case acme.IsProblem(err, acme.ProblemOrderNotReady):
		d.again(d.m.Poll.Next(d.Now, time.Time{})) // another pass was faster, or the CA is
	case !errors.As(err, &p):
		d.fail(err)
	case diagnosis.AboutCAA(p):
		d.next(ExplainCAA)
	case p.Status == 404:
		d.lapse(fmt.Sprintf("the CA no longer knows the order: %s", p))
	case p.Type == acme.ProblemMalformed, p.Type == acme.ProblemUnauthorized:
		d.next(CheckAuthorizations)
	default:
		d.fail(err)
	}
}

// progress goes on by the status that the order has at the CA.
func (d *decider) progress() {
	switch d.CA.Status {
	case acme.StatusValid:
		d.next(Fetch)
		return
	case acme.StatusPending:
		if worst := worst(d.Challenges); worst != "" {
			// The CA may need a moment to mark the order as invalid. No other outcome is possible.
			d.conclude(verdict{worst, why(d.CA, d.Challenges)})
			return
		}
		// No challenge is open here. An authorization from before this order may have expired, and some
		// CAs show that only in the authorization.
		useless := func(z cmacme.ACMEAuthorization) bool { return z.InitialState == cmacme.Expired }
		if d.m.Poll.Slow() || slices.ContainsFunc(d.st.Authorizations, useless) {
			d.next(CheckAuthorizations)
			return
		}
	}
	d.poll()
}

// poll waits for the CA.
func (d *decider) poll() {
	if d.Finalized && d.CA.RetryAfter.IsZero() {
		d.again(poll.First / 10) // the CA needs a moment, and has not said how long
		return
	}
	// When the CA said, or a little later each time.
	wait := d.m.Poll.Next(d.Now, d.CA.RetryAfter)
	// Most CAs need only a moment, which is not worth a write of the status.
	if d.CA.Status == acme.StatusProcessing && (!d.Finalized || wait >= poll.WorthReporting) {
		d.st.State, d.st.Reason = cmacme.Processing, "The ACME server is processing the order"
		if !d.CA.RetryAfter.IsZero() && wait >= poll.WorthReporting {
			d.st.Reason += ", and is asked again at " + d.Now.Add(wait).UTC().Format(time.RFC3339)
		}
	}
	d.again(wait)
}

// authorizationsChecked follows CheckAuthorizations, which is done for an order that waits long for
// its challenges, that could not be finalized, that failed without a reason, or that stays pending
// without an open challenge.
func (d *decider) authorizationsChecked() {
	d.m.Due.KeepEarlier(d.Expiry)
	switch {
	case d.Lapse != "":
		d.lapse(d.Lapse)
	case d.FinalizeErr != nil:
		d.fail(d.FinalizeErr)
	case d.CA.Status == acme.StatusInvalid:
		d.conclude(verdict{cmacme.Invalid, why(d.CA, d.Challenges)})
	case d.looking():
		d.expect()
		d.next(MakeChallenges)
	default:
		d.poll()
	}
}

// invalid handles an order that is invalid at the CA.
func (d *decider) invalid() {
	switch worst := worst(d.Challenges); {
	case worst == cmacme.Expired:
		d.lapse(why(d.CA, d.Challenges))
	case worst == "" && d.CA.Error == nil:
		d.next(CheckAuthorizations)
	case d.CA.Error != nil && diagnosis.AboutCAA(d.CA.Error):
		d.next(ExplainCAA)
	default:
		d.conclude(verdict{cmacme.Invalid, why(d.CA, d.Challenges)})
	}
}

// explained follows ExplainCAA.
func (d *decider) explained() {
	if d.FinalizeErr != nil {
		d.failWith(d.FinalizeErr, ". "+d.CAA)
		return
	}
	d.conclude(d.invalidVerdict())
}

// verdict is the final state of an order, and its reason.
type verdict struct {
	state  cmacme.State
	reason string
}

// invalidVerdict is that of an order that is invalid, with what the CAA records say.
func (d *decider) invalidVerdict() verdict {
	v := verdict{cmacme.Invalid, why(d.CA, d.Challenges)}
	if d.CAA != "" {
		v.reason += ". " + d.CAA
	}
	return v
}

// conclude ends the order. If it is invalid, its failed validations are counted before the status
// is written: until then a restart can read them again.
func (d *decider) conclude(v verdict) {
	if v.state == cmacme.Invalid {
		d.next(CountFailures)
		return
	}
	d.end(v.state, v.reason)
}

// failuresCounted follows CountFailures.
func (d *decider) failuresCounted() {
	v := d.invalidVerdict()
	if len(d.Paused) > 0 {
		at := metav1.NewTime(d.PausedUntil)
		d.st.PausedUntil = &at
		v.reason += fmt.Sprintf("; %s failed again and again, and is paused until %s, then tried once a day",
			strings.Join(d.Paused, ", "), d.PausedUntil.UTC().Format(time.RFC3339))
		d.event(corev1.EventTypeWarning, "Paused", "%s", v.reason)
	}
	d.end(v.state, v.reason)
}

// fetched follows Fetch.
func (d *decider) fetched() {
	if d.Fetched.OtherKey && d.m.Finalized.IsZero() {
		// Nothing was issued for this Order, whatever its state says. The other request may be an Order
		// that was stuck for too long to wait for, or of another client.
		d.end(
			cmacme.Expired,
			"the CA has answered another request for the same names with this order, too, and issued it for that "+
				"one's key",
		)
		return
	}
	d.Events = append(d.Events, d.Fetched.Warnings...)
	d.st.Certificate, d.st.State, d.st.Reason = d.Fetched.Certificate, cmacme.Valid, ""
	d.event(corev1.EventTypeNormal, "Complete", "Order completed successfully")
	d.again(0)
}

// lapse ends an order that became useless without a failed proof: it took too long, or belongs to
// another account. Another order replaces it at once, unless the CA was asked to finalize this one:
// then the CA may have issued a certificate.
func (d *decider) lapse(reason string) {
	state := cmacme.Expired
	if d.st.State == cmacme.Processing || !d.m.Finalized.IsZero() {
		state = cmacme.Errored
	}
	d.end(state, reason)
}

// end ends an order that brings no certificate.
func (d *decider) end(state cmacme.State, reason string) {
	d.st.State, d.st.Reason = state, reason
	if d.st.FailureTime == nil {
		t := metav1.NewTime(d.Now)
		d.st.FailureTime = &t
	}
	d.event(corev1.EventTypeWarning, "Failed", "%s", reason)
	d.again(0)
}
