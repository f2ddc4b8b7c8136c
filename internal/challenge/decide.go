package challenge

import (
	"cmp"
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
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/poll"
	"github.com/perennial-pki/perennial/internal/solver"
)

const (
	// presentLimit is how long presenting may take before the authorization is read again: it may have
	// ended.
	presentLimit = time.Minute
	// seenFor is how long a proof that was seen is not checked again before the CA is asked to look.
	seenFor = 10 * time.Second
	// lostAgain is how long after its presentation a proof that is seen nowhere is presented again.
	// Some services only publish late, so the time since the first presentation doubles with each
	// attempt.
	lostAgain = 5 * time.Minute
	// clockTolerance is how far the clocks of two replicas may differ.
	clockTolerance = 5 * time.Minute
	// giveUpAfter is how long after its presentation a challenge fails if its proof cannot be seen, or
	// if the CA does not finish it. The Order fails, and another follows after the back-off.
	giveUpAfter = 2 * time.Hour
	// Checks are checkAgain apart at first, and less often after these times.
	checkAgain             = 2 * time.Second
	slowAfter, rareAfter   = acmestatus.SlowAfter, 15 * time.Minute
	checkSlowly, checkRare = 10 * time.Second, time.Minute
)

// decider makes one decision.
type decider struct {
	Observation
	*Decision
	st *cmacme.ChallengeStatus
	m  *Memory
}

// Decide says what to do next. It is a pure function.
func Decide(o Observation) Decision {
	d := decider{Observation: o, Decision: &Decision{Status: *o.Challenge.Status.DeepCopy(), Memory: o.Memory}}
	d.st, d.m = &d.Decision.Status, &d.Decision.Memory
	switch o.Done {
	case Wait:
		d.begin()
	case Admit:
		d.admitted()
	case ReadAuthorization:
		d.authorizationRead()
	case Present:
		d.presented()
	case Check:
		d.checked()
	case Restore:
		d.restored()
	case Accept:
		d.accepted()
	case Count:
		d.counted()
	case Diagnose:
		d.diagnosed()
	}
	return *d.Decision
}

// again ends the pass, and says when the next one is.
func (d *decider) again(after time.Duration) { d.Decision.Action, d.Decision.Again = Wait, after }

func (d *decider) next(a Action) { d.Decision.Action = a }

// event reports something when the status is written.
func (d *decider) event(eventType, reason, format string, args ...any) {
	d.Events = append(d.Events, Event{eventType, reason, fmt.Sprintf(format, args...)})
}

// eventNow reports something at once.
func (d *decider) eventNow(eventType, reason, format string, args ...any) {
	d.Decision.Done = append(d.Decision.Done, Event{eventType, reason, fmt.Sprintf(format, args...)})
}

// eventNowOnce is eventNow for what is reported once.
func (d *decider) eventNowOnce(reported *bool, eventType, reason, format string, args ...any) {
	if !*reported {
		*reported = true
		d.eventNow(eventType, reason, format, args...)
	}
}

// begin is the first decision of a pass.
func (d *decider) begin() {
	st := d.st
	// cert-manager does not say when, and a time to come would keep a challenge from being given up.
	if st.Presented && (st.PresentedAt == nil || st.PresentedAt.After(d.Now.Add(clockTolerance))) {
		at := metav1.NewTime(d.Now)
		st.PresentedAt = &at
	}
	accepted := st.State == cmacme.Processing
	switch {
	case d.Blocked != nil:
		d.fail(d.Blocked)
	case st.Presented && d.Now.Sub(st.PresentedAt.Time) >= giveUpAfter:
		d.fail(fault.Refusedf("TimedOut", "given up after it was presented for %s: %s", giveUpAfter,
			withoutNextAttempt(st.Reason)))
	case d.LimitedFor > 0:
		d.again(d.inTime(d.LimitedFor)) // when the CA, or the service, said
	case accepted && d.m.Poll.NamedWait(d.Now) > 0:
		d.again(d.m.Poll.NamedWait(d.Now)) // when the CA said
	case !st.Presented:
		d.next(Admit)
	case accepted:
		d.next(ReadAuthorization)
	default: // between presenting and accepting the CA has no news
		d.check()
	}
}

// inTime is a wait that does not outlast the challenge.
func (d *decider) inTime(wait time.Duration) time.Duration {
	if d.st.PresentedAt == nil {
		return wait
	}
	return min(wait, max(d.st.PresentedAt.Add(giveUpAfter).Sub(d.Now), time.Second))
}

// admitted follows Admit.
func (d *decider) admitted() {
	if d.Observation.Err != nil {
		d.fail(d.Observation.Err)
		return
	}
	slot := d.Observation.Slot
	d.st.EffectiveName = slot.Place
	switch {
	case !slot.Free:
		if len(slot.Ahead) > 0 {
			d.st.Reason = waitingBehind(d.Challenge, slot, d.Capacity)
		}
		d.again(slot.Again) // the scheduler calls earlier, unless something is missed
	case d.m.Presenting.IsZero():
		d.next(ReadAuthorization) // the name may be authorized already, or the authorization lost
	default:
		d.present()
	}
}

// ended reports whether an authorization has come to its end.
func ended(z acme.Authorization) bool { return z.Status != acme.StatusPending }

// authorizationRead follows ReadAuthorization, which is done before presenting, after accepting,
// and where a lost proof or a refusal of Accept may mean that the authorization has ended.
func (d *decider) authorizationRead() {
	z := d.Authorization
	switch {
	case d.Observation.Err != nil:
		d.fail(d.Observation.Err)
	case ended(z), d.Refusal != nil && d.expired():
		d.conclude()
	case d.Refusal != nil:
		d.fail(d.Refusal)
	case d.Sight != nil:
		d.next(Restore)
	case d.st.State == cmacme.Processing:
		d.again(d.m.Poll.Next(d.Now, z.RetryAfter)) // the CA is looking
	default:
		d.m.Presenting.Start(d.Now)
		d.eventNowOnce(&d.m.Reported.Started, corev1.EventTypeNormal, "Started", "Challenge scheduled for processing")
		d.present()
	}
}

// expired reports whether the authorization has expired at a CA that calls it pending.
func (d *decider) expired() bool {
	return d.Authorization.Expires != nil && !d.Now.Before(*d.Authorization.Expires)
}

// present sets the proof up. Where there are few slots, it writes Processing into the status first.
// So a challenge without Processing has no proof there, and nothing to clean up.
func (d *decider) present() {
	if d.Capacity > 0 && !d.st.Processing {
		d.st.Processing, d.Decision.Slot = true, Keep
		d.again(0) // the write of the status causes the next pass
		return
	}
	d.next(Present)
}

// presented follows Present.
func (d *decider) presented() {
	err := d.Observation.Err
	later := new(solver.RetryLaterError)
	isLater := errors.As(err, &later)
	if isLater || limiter.IsBusy(err) {
		if d.Now.Sub(d.m.Presenting.Start(d.Now)) > presentLimit {
			d.m.Presenting.Clear() // the CA is asked again whether it is wanted
		}
		if !isLater {
			d.fail(err)
			return
		}
		if later.Tell {
			d.delayed(later.Why)
		}
		d.Decision.Slot = Keep
		d.again(later.After) // when the solver said
		return
	}
	d.m.Presenting.Clear()
	if err != nil {
		d.event(corev1.EventTypeWarning, "PresentError", "%s", err)
		d.fail(err)
		return
	}
	at := metav1.NewTime(d.Now)
	d.st.Processing, d.st.Presented, d.st.PresentedAt, d.st.State = true, true, &at, cmacme.Pending
	d.eventNowOnce(&d.m.Reported.Presented, corev1.EventTypeNormal, "Presented",
		"Presented challenge using %s challenge mechanism", d.Challenge.Spec.Type)
	d.check()
}

// delayed reports what the user should know before presenting goes on.
func (d *decider) delayed(why string) {
	d.st.Reason = why
	if d.m.Delayed != why {
		d.m.Delayed = why
		d.event(corev1.EventTypeWarning, "ForeignRecords", "%s", why)
	}
}

// check looks for the proof from outside, unless the solver waits instead.
func (d *decider) check() {
	s := d.Challenge.Spec.Solver
	if wait := s.WaitInsteadOfSelfCheck; wait != nil {
		if until := d.st.PresentedAt.Add(wait.Duration); d.Now.Before(until) {
			d.st.Reason = fmt.Sprintf("Waiting instead of a self check: %s, until %s", wait.Duration,
				until.UTC().Format(time.RFC3339))
			d.again(until.Sub(d.Now)) // the end of the wait
			return
		}
		d.propagate()
		return
	}
	seen := d.m.Seen
	if s.WaitForRecordToPropagate == nil && !seen.IsZero() && d.Now.Sub(seen.Time) < seenFor {
		d.propagate() // the limiter had no slot for the request to the CA
		return
	}
	d.next(Check)
}

// checked follows Check.
func (d *decider) checked() {
	if d.Observation.Err != nil {
		d.fail(d.Observation.Err)
		return
	}
	seen := d.Sight
	if !seen.Visible {
		d.invisible(seen)
		return
	}
	if seen.Unseen == "" && d.m.Seen.IsZero() {
		d.m.Seen.Start(d.Now)
		for _, s := range d.Siblings {
			if s.Key.Name != "" {
				d.Wake = append(d.Wake, s.Key)
			}
		}
	}
	d.m.Asked = ""
	if !d.m.Restoring.IsZero() {
		d.m.Restoring.Clear()
		d.presentedAgain()
	}
	d.propagate()
}

// invisible is for a proof that cannot be seen, or not everywhere.
func (d *decider) invisible(seen *solver.CheckResult) {
	if seen.Ask != "" && seen.Ask != d.m.Asked {
		d.event(corev1.EventTypeWarning, "ActionRequired", "For the %s challenge of %s, %s", d.Challenge.Spec.Type,
			d.Challenge.Spec.DNSName, seen.Ask)
	}
	d.m.Asked = seen.Ask
	d.st.Reason = fmt.Sprintf("Waiting for %s challenge propagation: %s", d.Challenge.Spec.Type, seen.Why)
	d.m.Seen.Clear()
	if seen.Lost && d.lost() {
		// Another order may have proven the same name by the same value, and removed that.
		d.next(ReadAuthorization)
		return
	}
	d.checkLater()
}

// lost reports whether a proof that is seen nowhere was presented so long ago that it is to be
// presented again: another tool may have removed it, or the clean-up of another challenge with the
// same value.
func (d *decider) lost() bool {
	first := d.st.PresentedAt.Time
	last := first
	if !d.m.Restored.IsZero() {
		last = d.m.Restored.Time
	}
	return !d.Now.Before(last.Add(max(lostAgain, last.Sub(first))))
}

// checkLater waits for servers, which cannot be watched, to have the proof.
func (d *decider) checkLater() { d.again(checkDelay(d.Now.Sub(d.st.PresentedAt.Time))) }

// checkDelay is when a proof is checked again, so long after it was presented.
func checkDelay(since time.Duration) time.Duration {
	switch {
	case since < slowAfter:
		return checkAgain
	case since < rareAfter:
		return checkSlowly
	}
	return checkRare
}

// restored follows Restore. If it failed the challenge goes on as before.
func (d *decider) restored() {
	err := d.Observation.Err
	if limiter.IsBusy(err) {
		d.fail(err)
		return
	}
	if later := new(solver.RetryLaterError); errors.As(err, &later) {
		d.m.Restoring.Start(d.Now)
		d.again(later.After) // when the solver said
		return
	}
	d.m.Restoring.Clear()
	d.m.Restored.Time = d.Now
	if err != nil {
		d.eventNow(corev1.EventTypeWarning, "PresentError",
			"It could be seen nowhere, and presenting it again fails: %s", err)
	} else {
		d.presentedAgain()
	}
	d.checkLater()
}

func (d *decider) presentedAgain() {
	d.eventNow(corev1.EventTypeWarning, "PresentedAgain",
		"What was presented for the %s challenge of %s could be seen nowhere, and was presented again",
		d.Challenge.Spec.Type, d.Challenge.Spec.DNSName)
}

// propagate asks the CA to look, after the wait that the solver wants, and that for siblings.
func (d *decider) propagate() {
	if wait := d.Challenge.Spec.Solver.WaitForRecordToPropagate; wait != nil {
		if until := d.m.Seen.Start(d.Now).Add(wait.Duration); d.Now.Before(until) {
			d.st.Reason = fmt.Sprintf("Waiting after the proof could be seen: %s, until %s", wait.Duration,
				until.UTC().Format(time.RFC3339))
			d.again(until.Sub(d.Now)) // the end of the wait
			return
		}
	}
	unseen := d.Sight != nil && d.Sight.Unseen != ""
	if s := d.awaited(); s != nil && !unseen {
		d.st.Reason = fmt.Sprintf("Waiting for the value of %s in the same record, as the CA's resolver caches "+
			"the record",
			cmp.Or(s.Key.Name, "another Challenge"))
		d.again(checkAgain) // the sibling wakes this one when it is visible, unless it fails
		return
	}
	d.next(Accept)
}

// accepted follows Accept.
func (d *decider) accepted() {
	switch {
	case d.Refusal != nil:
		// The authorization may have ended while the proof was on its way.
		d.next(ReadAuthorization)
		return
	case d.Observation.Err != nil:
		d.fail(d.Observation.Err)
		return
	}
	d.st.State, d.st.Reason = cmacme.Processing, "The ACME server is looking at the challenge"
	if d.Sight != nil && d.Sight.Unseen != "" {
		d.st.Reason += ", though nothing can be seen from here: " + d.Sight.Unseen
		d.eventNowOnce(&d.m.Reported.SelfCheckSkipped, corev1.EventTypeWarning, "SelfCheckSkipped",
			"The ACME server is asked to look, though nothing can be seen from here: %s", d.Sight.Unseen)
	}
	d.m.Poll = poll.Backoff{}
	if d.RetryAfter.IsZero() {
		d.again(poll.First / 4) // the CA needs a moment
		return
	}
	d.again(d.m.Poll.Next(d.Now, d.RetryAfter)) // when the CA said
}

// verdict is the end of the challenge, which is that of its authorization.
func (d *decider) verdict() Verdict {
	switch z := d.Authorization; {
	case z.Status == acme.StatusValid:
		return Verdict{cmacme.Valid, "Successfully authorized domain"}
	case z.Status == acme.StatusInvalid:
		return Verdict{cmacme.Invalid, diagnosis.Refusal(diagnosis.ProblemOf(d.Challenge, z))}
	case z.Status == acme.StatusPending:
		return Verdict{cmacme.Expired, "the authorization is expired"}
	default: // deactivated, expired, revoked
		return Verdict{cmacme.Expired, "the authorization is " + z.Status}
	}
}

// conclude ends the challenge. The CA's verdict is counted before it is written: until then it can
// be read again.
func (d *decider) conclude() {
	d.Verdict = d.verdict()
	if d.Verdict.State == cmacme.Expired {
		d.finish(d.Verdict)
		return
	}
	d.next(Count)
}

// counted follows Count.
func (d *decider) counted() {
	switch v := d.verdict(); {
	case d.Observation.Err != nil:
		d.fail(d.Observation.Err)
	case v.State == cmacme.Invalid && d.st.Presented:
		d.next(Diagnose)
	default:
		d.finish(v)
	}
}

// diagnosed follows Diagnose.
func (d *decider) diagnosed() {
	if d.Observation.Err != nil {
		d.fail(d.Observation.Err)
		return
	}
	d.finish(Verdict{cmacme.Invalid, d.Diagnosis})
}

// finish writes the end of the challenge.
func (d *decider) finish(v Verdict) {
	d.st.State, d.st.Reason = v.State, v.Reason
	d.st.Processing = d.st.Processing && !d.st.Presented // then it may still stand there
	switch v.State {
	case cmacme.Valid:
		d.event(corev1.EventTypeNormal, "DomainVerified", "Domain %q verified with %q validation",
			d.Challenge.Spec.DNSName, d.Challenge.Spec.Type)
	default:
		d.event(corev1.EventTypeWarning, "Failed", "%s", v.Reason)
	}
	d.again(0) // the Order deletes it
}

// waitingBehind says what a challenge waits for at its place.
func waitingBehind(ch *cmacme.Challenge, slot Slot, capacity int) string {
	why := "where the DNS provider can have only one value at once"
	switch {
	case ch.Spec.Type == cmacme.ACMEChallengeTypeTLSALPN01:
		why = "where only one challenge can be answered at once"
	case capacity > 1:
		why = fmt.Sprintf("where the DNS provider can have only %d values at once", capacity)
	}
	return fmt.Sprintf("Waiting for its turn at %s, %s, after %s", strings.TrimSuffix(slot.Place, "."), why,
		named(ch.Namespace, slot.Ahead))
}

// named names the first of some challenges of a namespace, and counts those of others, which its
// users may not know.
func named(namespace string, all []*cmacme.Challenge) string {
	const few = 3
	var own []string
	for _, ch := range all {
		if ch.Namespace == namespace {
			own = append(own, ch.Name)
		}
	}
	others, more := len(all)-len(own), len(own)-few
	names := slices.Clone(own[:min(len(own), few)])
	if more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if others > 0 {
		names = append(names, fmt.Sprintf("%d of other namespaces", others))
	}
	return strings.Join(names, ", ")
}
