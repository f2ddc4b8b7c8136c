package lifecycle

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/renewal"
	"github.com/perennial-pki/perennial/internal/signer"
)

// failure is the end of a request without a certificate.
type failure struct {
	reason, message string
	// intro begins the message: it says what failed, the request or the rehearsal.
	intro string
	at    metav1.Time
	// waits says that only a change of the spec or the issuer can help.
	waits bool
}

// requestFailed introduces what the issuer said.
const requestFailed = "The certificate request has failed to complete and will be retried: "

// failureOf returns how the request failed, or nil if it did not.
func failureOf(cr *cmapi.CertificateRequest) *failure {
	at := func(c *cmapi.CertificateRequestCondition) metav1.Time {
		switch {
		case cr.Status.FailureTime != nil:
			return *cr.Status.FailureTime
		case c.LastTransitionTime != nil:
			return *c.LastTransitionTime
		}
		return cr.CreationTimestamp
	}
	if denial := signer.DenialOf(cr); denial != nil {
		// The time of the denial counts. With the time at which the request was marked as failed, the
		// failure would count twice.
		return &failure{intro: requestFailed, reason: cmapi.CertificateRequestReasonDenied, message: denial.Message,
			at: denial.At}
	}
	invalid := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionInvalidRequest)
	if invalid != nil && invalid.Status == cmmeta.ConditionTrue {
		return &failure{
			intro:   requestFailed,
			reason:  string(cmapi.CertificateRequestConditionInvalidRequest),
			message: invalid.Message,
			at:      at(invalid),
			waits:   true,
		}
	}
	ready := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady)
	if ready != nil && ready.Status == cmmeta.ConditionFalse &&
		(ready.Reason == cmapi.CertificateRequestReasonFailed || ready.Reason == cmapi.CertificateRequestReasonDenied) {
		return &failure{intro: requestFailed, reason: ready.Reason, message: ready.Message, at: at(ready)}
	}
	return nil
}

// failed deals with a request that failed. It returns true if the issuance is to be tried again
// now.
func (d *decider) failed(next *cmapi.CertificateRequest, f *failure, asked bool) (again bool) {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	counted := d.counted(next, f)
	issuer := d.Issuer
	if next == d.rehearsal {
		issuer = d.RehearsalIssuer
	}
	// Times have only seconds: the annotation of the request says whether it was made for this manual
	// trigger.
	again = asked &&
		(counted || d.unanswered(next) || issuing.LastTransitionTime != nil && issuing.LastTransitionTime.After(f.at.Time))
	switch {
	case issuer != nil && issuerChanged(issuer, next.Annotations[issuerAnnotation], f.at.Time):
		d.forgetFailures()
		d.overtaken = earlyissuance.IssuerChanged
		return true // the issuer is not the one that refused
	case d.externalChanged(next):
		d.forgetFailures()
		d.overtaken = earlyissuance.IssuerChanged
		return true
	case !counted:
		attempts := attemptOf(next)
		if n := d.Certificate.Status.FailedIssuanceAttempts; n != nil {
			attempts = max(attempts, *n+1)
		}
		d.Status.LastFailureTime = f.at.DeepCopy()
		d.Status.FailedIssuanceAttempts = &attempts
		d.Failed = f.reason
	}
	message := f.intro + strings.TrimSuffix(f.message, ".")
	end := d.backoffEnd()
	over := counted && !f.waits && !d.Now.Before(end)
	if again { // a user asked for another attempt after this failure
		if d.retries = over; !over {
			d.overtaken = d.causeByHand()
		}
		if !counted {
			d.before = append(d.before, Event{corev1.EventTypeWarning, f.reason, message})
		}
		return true
	}
	if over {
		d.retries = true
		return true
	}
	if at := d.externalReady(next, f); !at.IsZero() && at.Before(end) {
		if end = at; counted && !f.waits && !d.Now.Before(end) {
			d.overtaken = earlyissuance.IssuerChanged
			return true
		}
	}
	if next != d.rehearsal && externalGeneration(d.External) != "" {
		d.recheckAt(d.Now.Add(external.Interval), "the external issuer is read again then")
	}
	message = d.nextAttempt(next, f, message, end)
	d.fail(f.reason, message, true)
	if d.Failed != "" {
		d.ForgetKey = next.Name
		d.event(corev1.EventTypeWarning, f.reason, message)
	}
	return false
}

// nextAttempt schedules the attempt after a failure, and says in its message when that is.
func (d *decider) nextAttempt(next *cmapi.CertificateRequest, f *failure, message string, end time.Time) string {
	if f.waits {
		message += fmt.Sprintf(". The next attempt is made %s (attempt %d, %s)", d.whenChanged(next),
			*d.Status.FailedIssuanceAttempts, f.reason)
	} else {
		why := "the back-off of the failed issuance ends"
		if due := !d.plan.At.IsZero() && !end.Before(d.plan.At); due && d.violation == nil && !d.urgent() {
			if later := renewal.Postponed(d.effective(d.present.chain), &d.Certificate.Spec, end); !later.IsZero() {
				end, why = later, "the next renewal window begins"
			}
		}
		d.recheckAt(end, why)
		message += fmt.Sprintf(
			". The next attempt is at %s, or %s (attempt %d, %s). To try now: perennial renew %s -n %s",
			stamp(
				end,
			),
			d.whenChanged(next),
			*d.Status.FailedIssuanceAttempts,
			f.reason,
			d.Certificate.Name,
			d.Certificate.Namespace,
		)
	}
	return message
}

// whenChanged says which changes end the back-off of a request, and when. External issuers are not
// watched.
func (d *decider) whenChanged(next *cmapi.CertificateRequest) string {
	if next != d.rehearsal && externalGeneration(d.External) != "" {
		return "when spec changes, or within a minute after the issuer does"
	}
	return "when spec or the issuer change"
}

// counted reports whether the status has the failure already. The number of the attempt decides, as
// times have only seconds.
func (d *decider) counted(next *cmapi.CertificateRequest, f *failure) bool {
	at, attempts := d.Certificate.Status.LastFailureTime, d.Certificate.Status.FailedIssuanceAttempts
	if at == nil || attempts == nil || at.Unix() < f.at.Unix() {
		return false
	}
	return *attempts >= attemptOf(next)
}

// attemptOf returns which attempt in a row a request is.
func attemptOf(cr *cmapi.CertificateRequest) int {
	n, err := strconv.Atoi(cr.Annotations[attemptAnnotation])
	if err != nil {
		return 1 // the first has none
	}
	return n
}

// backoffEnd is when the next attempt may be made after those that failed, or zero.
func (d *decider) backoffEnd() time.Time {
	at, attempts := d.Status.LastFailureTime, d.Status.FailedIssuanceAttempts
	if at == nil || attempts == nil || *attempts < 1 {
		return time.Time{}
	}
	least, most := d.leastBackoff(), d.Settings.MaxBackoff
	if most <= 0 {
		most = DefaultMaxBackoff
	}
	wait := least
	for i := 1; i < *attempts && wait < most; i++ {
		wait *= 2
	}
	return at.Add(min(wait, most))
}

// leastBackoff is the time between the first failure and the next attempt.
func (d *decider) leastBackoff() time.Duration {
	if d.Settings.MinBackoff <= 0 {
		return DefaultMinBackoff
	}
	return d.Settings.MinBackoff
}

func (d *decider) forgetFailures() {
	d.Status.LastFailureTime, d.Status.FailedIssuanceAttempts = nil, nil
}

// block reports that nothing can be requested until the user changes something.
func (d *decider) block(reason, message string) {
	was := d.condition(cmapi.CertificateConditionIssuing)
	d.fail(reason, message, true)
	if was == nil || was.Reason != reason || was.Message != message {
		d.event(corev1.EventTypeWarning, reason, message)
	}
}
