package lifecycle

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/renewal"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// issueIfDue begins, continues or ends an issuance, if there is a reason for one.
func (d *decider) issueIfDue() {
	why := d.violation
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	asked := issuing != nil && issuing.Status == cmmeta.ConditionTrue
	held := false
	if why == nil && !d.plan.At.IsZero() && !d.Now.Before(d.plan.At) {
		if later := renewal.Postponed(
			d.effective(d.present.chain),
			&d.Certificate.Spec,
			d.Now,
		); !later.IsZero() && !asked &&
			!d.urgent() {
			d.recheckAt(later, "the next renewal window begins")
			held = true
		} else {
			why = &violation{reasonRenewing, d.renewingMessage()}
		}
	}
	switch {
	case why == nil && asked:
		why = &violation{issuing.Reason, issuing.Message}
	case why == nil && held && d.triesAgain():
		d.stillFailed()
		return // the failure stays in the status until then
	case why == nil && (d.triesAgain() || d.resumes()):
		// Not the reason of the manual trigger: that was answered by the attempt that failed, and this
		// attempt must not look like a new trigger.
		why = &violation{reasonRenewing, "Renewing certificate again, as the last attempt failed"}
	case why == nil:
		d.nothingDue()
		return
	}
	d.issue(why, asked)
}

// triesAgain reports whether a failed issuance, or the next attempt at it, goes on although the
// certificate is good: a user has asked for it, or its renewal window has ended.
func (d *decider) triesAgain() bool {
	return d.Status.FailedIssuanceAttempts != nil && d.Next != nil && d.owned(d.Next) &&
		d.fits(d.Next, &d.Certificate.Spec)
}

// nothingDue handles a Certificate that needs nothing.
func (d *decider) nothingDue() {
	if next := d.Next; next != nil && d.owned(next) {
		chain, err := d.Limits.DecodeChainPEM(next.Status.Certificate)
		if err == nil && issued(next) && chain[0].Equal(d.present.chain[0]) {
			// The certificate was stored, and only the status lacks it.
			d.complete(next, d.present.key, chain, &violation{})
			return
		}
		d.discard(next) // overtaken
	}
	d.endRehearsal()
	d.forgetFailures()
	if d.plan.WindowErr == nil {
		d.over = true
		return
	}
	d.block(ReasonWindowError, d.plan.WindowErr.Error())
}

func (d *decider) issue(why *violation, asked bool) {
	next := d.Next
	if next != nil && !d.owned(next) {
		if !d.ofEarlierIncarnation(next) {
			d.block(
				reasonNameTaken,
				fmt.Sprintf("CertificateRequest %q exists, but does not belong to this Certificate: delete it", next.Name),
			)
			return
		}
		d.discard(next)
		next = nil
	}
	if problem := unreadableKey(d.Observation, d.present); problem != nil {
		d.keepKeys = d.KeySecrets
		d.block(problem.reason, problem.message)
		return
	}
	next, csr := d.usable(next)
	var chain []*x509.Certificate
	if next != nil {
		f := failureOf(next)
		if f == nil && issued(next) {
			chain, f = d.answer(next, csr)
		}
		if f != nil {
			if !d.failed(next, f, asked) {
				return
			}
			d.discard(next)
			next = nil
		} else if d.endsPause(next) {
			d.discard(next)
			d.overtaken, next = d.causeByHand(), nil
		}
	} else if !d.rehearsalSettled(asked) {
		return
	} else if wait := d.backoffEnd(); d.Next == nil && !asked && d.Now.Before(wait) {
		// The failed request was deleted. That does not end the back-off.
		d.recheckAt(wait, "the back-off of the failed issuance ends")
		d.stillFailed()
		return
	}
	if next == nil || !d.proceed(next, csr, chain, why) {
		d.request(why, asked)
	}
}

// usable decides whether the next request is still for what the Certificate says, by a key that may
// be used. If not, it is discarded.
func (d *decider) usable(next *cmapi.CertificateRequest) (*cmapi.CertificateRequest, *x509.CertificateRequest) {
	if next == nil {
		return nil, nil
	}
	csr, err := d.Limits.DecodeCSRPEM(next.Spec.Request)
	switch {
	case err != nil || len(d.requestDifferences(next, csr, &d.Certificate.Spec)) > 0:
		// The spec has changed since: the certificate of the request is not wanted, and the cause of its
		// failure may be corrected.
		d.discard(next)
		d.forgetFailures()
		d.overtaken, next = earlyissuance.SpecChanged, nil
	case !issued(next) && (d.provedOtherwise(next, d.Issuer) || d.redundant(csr) ||
		durationAdded(next, &d.Certificate.Spec)):
		// So has the way in which the names are proved, or the duration.
		d.discard(next)
		d.forgetFailures()
		d.overtaken, next = earlyissuance.SpecChanged, nil
	case d.compromised() && pki.SamePublicKey(csr.PublicKey, d.present.key.Public()):
		d.discard(next) // its private key has been compromised since
		d.overtaken, next = earlyissuance.RequestLost, nil
	}
	return next, csr
}

// proceed completes a request that is issued, or waits for it. It reports false if the private key
// of the request is lost, so that the request is of no use.
func (d *decider) proceed(
	next *cmapi.CertificateRequest, csr *x509.CertificateRequest, chain []*x509.Certificate, why *violation,
) bool {
	key, keySecret := d.nextKey(csr, d.present)
	switch {
	case key == nil:
		d.discard(next)
		d.overtaken = earlyissuance.RequestLost
		return false
	case issued(next):
		d.complete(next, key, chain, why)
	default:
		d.wait(next, key, keySecret, why)
	}
	return true
}

// request makes a request for the next revision.
func (d *decider) request(why *violation, asked bool) {
	spec := &d.Certificate.Spec
	if err := d.check(why); err != nil {
		d.block(reasonInvalidSpec, err.Error())
		return
	}
	kept, problem := keptKey(d.Observation, d.present)
	if problem != nil {
		d.block(problem.reason, problem.message)
		return
	}
	counts, admitted := d.admitted(why, asked)
	if !admitted {
		return
	}
	if !d.rehearsed(why, asked) {
		if d.Rehearse != nil {
			d.Rehearse.Counts = counts
		}
		return
	}
	generated, ok := d.newKey(why, kept.key == nil, false)
	if !ok {
		return
	}
	name := write{writesRequest, RequestName(d.Certificate.Name, d.revision()+1)}
	keyName := write{writesKey, KeySecretName(d.Certificate, d.revision()+1)}
	if d.withholdRequest(name) || d.withhold(keyName) {
		d.keepKeys = append(d.keepKeys, d.KeySecrets...) // the next attempt may use them
		return
	}
	d.underWay = true
	r := &NewRequest{New: generated, Counts: counts, Revision: d.revision() + 1, Key: kept.key,
		ManualTrigger: cmp.Or(d.manualTrigger(), d.refusedTrigger(name), d.refusedTrigger(keyName)), Events: d.takeBefore()}
	if d.rehearsal != nil && r.ManualTrigger == "" {
		r.ManualTrigger = d.rehearsal.Annotations[signer.ManualTriggerAnnotation]
	}
	if kept.key != nil {
		r.event(
			corev1.EventTypeNormal,
			"Reused",
			fmt.Sprintf("Reusing private key stored in existing Secret resource %q", spec.SecretName),
		)
	}
	d.Request = r
	if d.rehearsal == nil && (!asked || byHand(why.reason)) {
		r.event(corev1.EventTypeNormal, "Issuing", CauseOf(why.message))
	}
	r.event(
		corev1.EventTypeNormal,
		"Requested",
		fmt.Sprintf("Created new CertificateRequest resource %q", RequestName(d.Certificate.Name, r.Revision)),
	)
	r.Attempt = 1
	if n := d.Status.FailedIssuanceAttempts; n != nil {
		r.Attempt += *n
	}
	if d.inProcess() && d.answersAtOnce(nil) {
		// If the number of failures has changed, it must be written: otherwise old failures would count
		// for this attempt, or a new one would be lost.
		d.HoldStatus = ptr.Equal(d.Certificate.Status.FailedIssuanceAttempts, d.Status.FailedIssuanceAttempts)
		d.recheckAt(d.Now.Add(settleTime), "the request should have been answered by then")
		return
	}
	d.StoreKey = &StoreKey{Revision: r.Revision, Key: kept.key}
	if kept.key == nil && generated != nil {
		d.StoreKey.Key = generated
	}
	r.event(
		corev1.EventTypeNormal,
		"Generated",
		fmt.Sprintf("Stored new private key in temporary Secret resource %q", KeySecretName(d.Certificate, r.Revision)),
	)
	d.announce(why, "")
	d.storeTemporary(kept.key)
}

// inProcess reports whether this process signs the request without any other service.
func (d *decider) inProcess() bool {
	return d.Issuer != nil && signer.InProcess(d.Issuer.Type())
}

// answersAtOnce reports whether the issuer of this process is ready to sign a request, nil for one
// that is to be made, and its approval does not depend on others.
func (d *decider) answersAtOnce(cr *cmapi.CertificateRequest) bool {
	ready := cmapi.GetIssuerCondition(d.Issuer.GetStatus(), cmapi.IssuerConditionReady)
	if ready == nil || ready.Status != cmmeta.ConditionTrue {
		return false
	}
	return !d.Settings.ApprovedByOthers || cr != nil && cmapi.CertificateRequestIsApproved(&cr.Status)
}

// storeTemporary puts a temporary certificate into the Secret, if the Certificate asks for it and
// the Secret has no usable certificate.
func (d *decider) storeTemporary(key crypto.Signer) {
	if d.Certificate.Annotations[cmapi.IssueTemporaryCertificateAnnotation] != "true" || d.present.reason == "" {
		return
	}
	if d.problemOfPasswords() != "" || d.withhold(d.secretWrite()) {
		return
	}
	d.Apply = &Content{
		Key: key, Temporary: true, CertificateName: d.Certificate.Name,
		Events: []Event{{corev1.EventTypeNormal, "Issuing", "Issued temporary certificate"}},
	}
}

// wait deals with a request that has not been answered.
func (d *decider) wait(next *cmapi.CertificateRequest, key crypto.Signer, keySecret *corev1.Secret, why *violation) {
	d.underWay = true
	settled := next.CreationTimestamp.Add(settleTime)
	// An in-process signer answers in a moment: the status does not announce the issuance, unless it
	// has already.
	if keySecret == nil && d.inProcess() && d.Now.Before(settled) && d.answersAtOnce(next) {
		d.HoldStatus = true
		d.recheckAt(settled, "the request should have been answered by then")
		return
	}
	detail := notAnswered(next)
	if detail != "" && d.Now.Before(settled) {
		detail = "" // what it waits for in its first moments is not worth a write
		d.recheckAt(settled, "what the request waits for is said then")
	}
	d.announce(why, detail)
	if keySecret != nil {
		d.keepKeys = append(d.keepKeys, keySecret)
		d.Status.NextPrivateKeySecretName = ptr.To(keySecret.Name)
	} else {
		d.storeKeyOf(next, key)
	}
	d.storeTemporary(key)
}

// notAnswered says what a request waits for.
func notAnswered(cr *cmapi.CertificateRequest) string {
	if c := cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionApprovalForbidden); c != nil {
		return fmt.Sprintf("CertificateRequest %q is not approved, which the controller cannot do: %s", cr.Name, c.Message)
	}
	if ready := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady); ready != nil {
		return strings.TrimPrefix(ready.Message, "Waiting on ") // which the text says already
	}
	ref := cr.Spec.IssuerRef
	switch {
	case !signer.External(ref):
		return ""
	case !cmapi.CertificateRequestIsApproved(&cr.Status):
		if c := cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionApprovalForbidden); c != nil {
			return c.Message
		}
		return fmt.Sprintf(
			"CertificateRequest %q is not approved: approve it, or let the controller do so by RBAC on signers.cert-manager.io",
			cr.Name,
		)
	}
	return fmt.Sprintf(
		"no controller of %s has said anything about it: is the one for %s.%s running?",
		ref.GroupOrDefault(),
		ref.KindOrDefault(),
		ref.GroupOrDefault(),
	)
}

// announce writes into the status that an issuance is under way. detail says what it waits for.
func (d *decider) announce(why *violation, detail string) {
	d.underWay = true
	message := why.message
	if without := d.unrehearsed(); without != "" {
		detail = strings.TrimSuffix(without+"; "+detail, "; ")
	}
	if detail != "" {
		message = waitMessage(message, detail)
		d.cause = waitingFor + detail
	}
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, why.reason, message)
	d.Status.NextPrivateKeySecretName = ptr.To(KeySecretName(d.Certificate, d.revision()+1))
}

// complete stores an issued certificate.
func (d *decider) complete(next *cmapi.CertificateRequest, key crypto.Signer, chain []*x509.Certificate,
	why *violation) {
	if problem := d.problemOfPasswords(); problem != "" {
		was := d.condition(cmapi.CertificateConditionIssuing)
		d.keepKeyOf(next, key)
		d.announce(why, problem)
		d.stallWithoutPassword(issuedAt(next), problem)
		if was == nil || !strings.Contains(was.Message, problem) {
			d.event(corev1.EventTypeWarning, reasonKeystorePassword, problem)
		}
		return
	}
	stored := d.present.reason == "" && d.present.chain[0].Equal(chain[0]) &&
		d.Secret.Annotations[temporaryAnnotation] == ""
	if !stored && d.refused(d.secretWrite()) != nil {
		d.keepKeyOf(next, key)
		d.announce(why, "")
		d.withhold(d.secretWrite())
		return
	}
	if !stored {
		d.Apply = &Content{
			Key: key, Chain: chain, CA: d.trust(chain, next.Status.CA),
			Issuer: d.Certificate.Spec.IssuerRef, CertificateName: d.Certificate.Name,
		}
		d.noteKeystores(d.Apply)
	}
	d.present, d.from = pair{key: key, chain: chain}, next
	d.violation = nil
	d.rememberAtOnce(chain[0])
	d.plan = d.schedule(chain)
	d.Status.Revision = ptr.To(d.revision() + 1)
	d.endRehearsal()
	d.forgetFailures()
	d.over = true
	d.ForgetKey = next.Name
	d.Issued = next
	d.event(corev1.EventTypeNormal, "Issuing", "The certificate has been successfully issued")
	d.tellDifferences()
}

// stallWithoutPassword marks the Certificate as stalled if the password of a keystore has been
// missing for longer than fault.MissingGrace; until then it may be on its way. The issuance goes on
// when it is there.
func (d *decider) stallWithoutPassword(since time.Time, problem string) {
	at := since.Add(fault.MissingGrace)
	if d.Now.Before(at) {
		d.recheckAt(at, "the password of a keystore should be there by then")
		return
	}
	d.failure, d.stalled = &violation{reasonKeystorePassword, problem}, true
}

// issuedAt is when a request got its certificate, as far as it says.
func issuedAt(cr *cmapi.CertificateRequest) time.Time {
	ready := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady)
	if ready != nil && ready.LastTransitionTime != nil {
		return ready.LastTransitionTime.Time
	}
	return cr.CreationTimestamp.Time
}

// keepKeyOf makes sure that the private key of a waiting request is stored.
func (d *decider) keepKeyOf(next *cmapi.CertificateRequest, key crypto.Signer) {
	csr, err := d.Limits.DecodeCSRPEM(next.Spec.Request)
	if err != nil {
		return
	}
	if _, secret := d.nextKey(csr, pair{}); secret != nil {
		d.keepKeys = append(d.keepKeys, secret)
		return
	}
	d.storeKeyOf(next, key)
}

// storeKeyOf stores the private key of a request, unless that was refused.
func (d *decider) storeKeyOf(next *cmapi.CertificateRequest, key crypto.Signer) {
	if d.withhold(write{writesKey, KeySecretName(d.Certificate, d.revision()+1)}) {
		return
	}
	d.StoreKey = &StoreKey{Revision: d.revision() + 1, Key: key}
	d.ForgetKey = next.Name
}

// secretWrite is the write of the Secret.
func (d *decider) secretWrite() write { return write{writesSecret, d.Certificate.Spec.SecretName} }

func (d *decider) problemOfPasswords() string {
	for _, p := range []Password{d.JKSPassword, d.PKCS12Password} {
		if p.Problem != "" {
			return p.Problem
		}
	}
	return ""
}

// owned reports whether the request belongs to this Certificate.
func (d *decider) owned(cr *cmapi.CertificateRequest) bool {
	return metav1.IsControlledBy(cr, d.Certificate)
}

// ofEarlierIncarnation reports whether the request belongs to a Certificate of this name that was
// deleted since.
func (d *decider) ofEarlierIncarnation(cr *cmapi.CertificateRequest) bool {
	owner := metav1.GetControllerOf(cr)
	if owner == nil { // it was orphaned, or restored without its owner
		return cr.Annotations[cmapi.CertificateNameKey] == d.Certificate.Name && revisionOf(cr) > 0
	}
	return owner.Kind == "Certificate" && owner.Name == d.Certificate.Name && owner.UID != d.Certificate.UID &&
		strings.HasPrefix(owner.APIVersion, cmmeta.DefaultIssuerGroup+"/")
}

// RequestName is the name of the CertificateRequest for a revision of a Certificate. It is
// cert-manager's.
func RequestName(certificate string, revision int) string {
	return shorten(certificate, 233) + "-" + strconv.Itoa(revision)
}
