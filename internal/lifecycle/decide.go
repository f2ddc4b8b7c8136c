package lifecycle

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Decision is what to do about a Certificate now. Its parts are carried out in the order of the fields: each leaves a state
// from which the next pass goes on if this one ends there.
type Decision struct {
	// Finalizer says that the Certificate is to have revocation.Finalizer. It is settled before anything is requested.
	Finalizer bool
	// DeleteRequests are requests that are of no use any more, nor are their private keys.
	DeleteRequests []*cmapi.CertificateRequest
	// StoreKey stores a private key until its certificate is there.
	StoreKey *StoreKey
	// Request is a request to make.
	Request *NewRequest
	// Rehearse is a request to make to the rehearsal issuer. Its private key is thrown away.
	Rehearse *NewRequest
	// Apply is what the Secret is to hold.
	Apply *Content
	// DeleteKeys are Secrets with private keys that are of no use any more.
	DeleteKeys []*corev1.Secret
	// ForgetKey is the request whose private key is no longer needed in memory, or empty.
	ForgetKey string
	// Status is what the status is to be.
	Status cmapi.CertificateStatus
	// HoldStatus leaves the status as it is for now: what it would say is over in a moment, and is written together with the outcome.
	HoldStatus bool
	// Events are told when all has been done.
	Events []Event
	// Failed and Issued are for the metrics. Failed is the reason of a failure that is counted in this pass.
	Failed string
	Issued *cmapi.CertificateRequest
	// Again is when to look again if nothing happens before, zero for never. Why says why then.
	Again time.Time
	Why   string
}

// Event is an event about the Certificate.
type Event struct{ Type, Reason, Message string }

// StoreKey is a private key to store in a Secret of its own.
type StoreKey struct {
	Revision int
	// Key is nil for a new one.
	Key crypto.Signer
}

// NewRequest is a CertificateRequest to make.
type NewRequest struct {
	Revision int
	// Attempt is 1, and one more for each that failed before.
	Attempt int
	// Manual says that somebody has asked for it by hand.
	Manual bool
	// Key is the private key that is kept; nil for that of StoreKey or, if there is none, for a new one that is held in memory.
	Key crypto.Signer
}

// Content is what the Secret is to hold.
type Content struct {
	// Key is nil for that of StoreKey.
	Key   crypto.Signer
	Chain []*x509.Certificate
	CA    []byte
	// Issuer and CertificateName are for the annotations that say where it comes from. Empty values leave them out.
	Issuer          cmmeta.IssuerReference
	CertificateName string
	// Temporary asks for a stand-in in the place of Chain.
	Temporary bool
}

// Decide says what to do.
func Decide(o *Observation) *Decision {
	d := &decider{Observation: o, Decision: &Decision{Status: *o.Certificate.Status.DeepCopy(), Finalizer: slices.Contains(o.Certificate.Finalizers, revocation.Finalizer)}}
	d.present, d.rehearsal = decodePair(o.Limits, o.Secret), o.Rehearsal
	if other := rival(o); other != nil {
		d.yield(other)
		return d.Decision
	}
	d.violation = violated(o, d.present)
	if len(d.present.chain) > 0 && d.present.reason == "" {
		d.plan = d.schedule(d.present.chain)
	}
	d.issueIfDue()
	d.settleKeys()
	d.repair()
	d.describe()
	d.provideRevocation()
	d.pause()
	d.pruneHistory()
	return d.Decision
}

// decider is a Decision that is being made.
type decider struct {
	*Observation
	*Decision
	present   pair
	violation *violation
	plan      schedule
	// keepKeys are the next private key Secrets that are still needed.
	keepKeys []*corev1.Secret
	// rehearsal is Rehearsal, unless it is of no use any more.
	rehearsal *cmapi.CertificateRequest
	// underWay says that an issuance is not over.
	underWay bool
}

func (d *decider) look(at time.Time, why string) {
	if !at.IsZero() && (d.Again.IsZero() || at.Before(d.Again)) {
		d.Again, d.Why = at, why
	}
}

func (d *decider) tell(eventType, reason, message string) {
	d.Events = append(d.Events, Event{eventType, reason, message})
}

func (d *decider) set(t cmapi.CertificateConditionType, status cmmeta.ConditionStatus, reason, message string) (changed bool) {
	return cmapi.SetCertificateCondition(&d.Status, d.Now, cmapi.CertificateCondition{
		Type: t, Status: status, Reason: reason, Message: message, ObservedGeneration: d.Certificate.Generation,
	})
}

func (d *decider) condition(t cmapi.CertificateConditionType) *cmapi.CertificateCondition {
	return cmapi.GetCertificateCondition(&d.Certificate.Status, t)
}

// yield leaves the Secret to the Certificate that has it.
func (d *decider) yield(other *cmapi.Certificate) {
	message := ""
	if d.Secret != nil && d.Secret.Annotations[cmapi.CertificateNameKey] == other.Name {
		message = issuedForOther(other.Name) + " "
	}
	message += fmt.Sprintf("spec.secretName %q is also that of Certificate %q, which has it: change one of the two", d.Certificate.Spec.SecretName, other.Name)
	if d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, reasonIncorrectCertificate, message) {
		if was := d.condition(cmapi.CertificateConditionReady); was == nil || was.Reason != reasonIncorrectCertificate {
			d.tell(corev1.EventTypeWarning, reasonIncorrectCertificate, message)
		}
	}
	cmapi.RemoveCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
	if d.Next != nil && d.owned(d.Next) && !issued(d.Next) {
		d.discard(d.Next)
	}
	d.endRehearsal()
	d.DeleteKeys = d.KeySecrets
	d.Status.NextPrivateKeySecretName = nil
	d.Status.NotBefore, d.Status.NotAfter, d.Status.RenewalTime = nil, nil, nil
}

// issueIfDue begins, continues or ends an issuance, if there is a reason for one.
func (d *decider) issueIfDue() {
	why := d.violation
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	asked := issuing != nil && issuing.Status == cmmeta.ConditionTrue
	if why == nil && !d.plan.at.IsZero() && !d.Now.Before(d.plan.at) {
		if later := postponed(d.present.chain[0], &d.Certificate.Spec, d.Now); !later.IsZero() && !asked && !d.urgent() {
			d.look(later, "the next renewal window begins")
		} else {
			why = &violation{reasonRenewing, d.renewingMessage()}
		}
	}
	switch {
	case why == nil && asked:
		why = &violation{issuing.Reason, issuing.Message}
	case why == nil:
		d.rest()
		return
	}
	d.issue(why, asked)
}

// rest is for a Certificate that needs nothing.
func (d *decider) rest() {
	if next := d.Next; next != nil && d.owned(next) {
		chain, err := d.Limits.DecodeChainPEM(next.Status.Certificate)
		if err == nil && issued(next) && chain[0].Equal(d.present.chain[0]) {
			// Its certificate was stored, and only the status does not know.
			d.complete(next, d.present.key, &violation{})
			return
		}
		d.discard(next) // overtaken
	}
	d.endRehearsal()
	d.forgetFailures()
	if d.plan.windowErr == nil {
		cmapi.RemoveCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
		return
	}
	d.block(reasonWindowError, d.plan.windowErr.Error())
}

func (d *decider) renewingMessage() string {
	message := "Renewing certificate as renewal was scheduled at " + d.plan.at.UTC().String()
	if ca := d.ca(); ca != nil && !d.signedByCA(d.present.chain) {
		message += ", as its CA was replaced at " + stamp(ca.Since.Time)
	}
	return message
}

func (d *decider) schedule(chain []*x509.Certificate) schedule {
	return renewal(chain[0], &d.Certificate.Spec, d.Certificate.UID, d.ca(), d.signedByCA(chain), d.suggested())
}

// suggested is when the CA wants the present certificate to be renewed, nil if it does not say, or is not to be asked.
func (d *decider) suggested() *cmapi.ACMERenewalWindow {
	if d.Issuer == nil || d.Status.ACME == nil || d.Status.ACME.ARI == nil {
		return nil
	}
	if spec := d.Issuer.GetSpec().ACME; spec == nil || spec.RenewalInformationSource == cmacme.ACMERenewalInformationSourceNone {
		return nil
	}
	return d.Status.ACME.ARI.SuggestedWindow
}

// urgent reports whether the CA wanted the renewal to be over by now, as it does before it revokes a certificate.
func (d *decider) urgent() bool {
	w := d.suggested()
	return w != nil && w.End != nil && !d.Now.Before(w.End.Time)
}

func (d *decider) issue(why *violation, asked bool) {
	next := d.Next
	if next != nil && !d.owned(next) {
		if !d.ofEarlierIncarnation(next) {
			d.block(reasonNameTaken, fmt.Sprintf("CertificateRequest %q exists, but does not belong to this Certificate: delete it", next.Name))
			return
		}
		d.discard(next)
		next = nil
	}
	var csr *x509.CertificateRequest
	if next != nil {
		var err error
		csr, err = d.Limits.DecodeCSRPEM(next.Spec.Request)
		switch {
		case err != nil || len(requestDifferences(next, csr, &d.Certificate.Spec)) > 0:
			// The spec changed since: what the request would bring is not wanted, and what it failed with may be mended.
			d.discard(next)
			d.forgetFailures()
			next = nil
		case d.compromised() && pki.SamePublicKey(csr.PublicKey, d.present.key.Public()):
			d.discard(next) // it was made for a key that was given away since
			next = nil
		}
	}
	if next != nil {
		if f := failureOf(next); f != nil {
			if !d.failed(next, f, asked) {
				return
			}
			d.discard(next)
			next = nil
		} else if d.endsPause(next) {
			d.discard(next)
			next = nil
		}
	} else if !d.rehearsalSettled(asked) {
		return
	} else if wait := d.backoffEnd(); d.Next == nil && !asked && d.Now.Before(wait) {
		// Somebody deleted the request that failed. That is no reason to ask the issuer again earlier.
		d.look(wait, "the back-off of the failed issuance ends")
		return
	}
	if next != nil {
		key, keySecret := d.nextKey(csr, d.present)
		switch {
		case key == nil:
			// Nobody has its private key: it is of no use.
			d.discard(next)
		case issued(next):
			if !d.complete(next, key, why) {
				return
			}
			d.discard(next)
		default:
			d.wait(next, key, keySecret, why)
			return
		}
	}
	d.request(why, asked)
}

// compromised reports whether the private key that is present must not be used again.
func (d *decider) compromised() bool { return revocation.Compromised(d.Secret, d.present.key) }

// manual reports whether somebody has asked by hand for a certificate.
func (d *decider) manual() bool {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	return issuing != nil && issuing.Status == cmmeta.ConditionTrue && issuing.Reason == reasonManuallyTriggered && issuing.LastTransitionTime != nil
}

// endsPause reports whether somebody wants another attempt for a request that is paused. Nothing was asked of anybody for that yet; the one that
// follows ends the pause.
func (d *decider) endsPause(cr *cmapi.CertificateRequest) bool {
	return pauseOf(cr) != nil && d.manual() && d.condition(cmapi.CertificateConditionIssuing).LastTransitionTime.After(cr.CreationTimestamp.Time)
}

// pauseOf is the condition of a request whose names are paused, or nil.
func pauseOf(cr *cmapi.CertificateRequest) *cmapi.CertificateRequestCondition {
	c := cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionPaused)
	if c == nil || c.Status != cmmeta.ConditionTrue {
		return nil
	}
	return c
}

// pause says that names of the Certificate are paused, as long as its request says so.
func (d *decider) pause() {
	next := d.Next
	if d.rehearsal != nil && !issued(d.rehearsal) {
		next = d.rehearsal
	}
	if next != nil && slices.Contains(d.DeleteRequests, next) {
		next = nil
	}
	if d.Request != nil || d.Rehearse != nil || next != nil && cmapi.GetCertificateRequestCondition(&next.Status, cmapi.CertificateRequestConditionReady) == nil {
		return // nobody has looked at the new request
	}
	if next == nil || pauseOf(next) == nil || !d.owned(next) {
		cmapi.RemoveCertificateCondition(&d.Status, signer.ConditionPaused)
		return
	}
	c := pauseOf(next)
	if was := d.condition(signer.ConditionPaused); was == nil || was.Status != cmmeta.ConditionTrue {
		d.tell(corev1.EventTypeWarning, signer.ConditionPaused, c.Message)
	}
	d.set(signer.ConditionPaused, cmmeta.ConditionTrue, c.Reason, c.Message)
}

// owned reports whether the request belongs to this Certificate.
func (d *decider) owned(cr *cmapi.CertificateRequest) bool {
	return metav1.IsControlledBy(cr, d.Certificate)
}

// ofEarlierIncarnation reports whether the request belongs to a Certificate of this name that was deleted since.
func (d *decider) ofEarlierIncarnation(cr *cmapi.CertificateRequest) bool {
	owner := metav1.GetControllerOf(cr)
	if owner == nil { // it was orphaned, or restored without its owner
		return cr.Annotations[cmapi.CertificateNameKey] == d.Certificate.Name && revisionOf(cr) > 0
	}
	return owner.Kind == "Certificate" && owner.Name == d.Certificate.Name && owner.UID != d.Certificate.UID &&
		strings.HasPrefix(owner.APIVersion, cmmeta.DefaultIssuerGroup+"/")
}

func (d *decider) discard(cr *cmapi.CertificateRequest) {
	d.DeleteRequests = append(d.DeleteRequests, cr)
}

// failed deals with a request that failed. It returns true if the issuance is to be tried again now.
func (d *decider) failed(next *cmapi.CertificateRequest, f *failure, asked bool) (again bool) {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	counted := d.counted(next, f)
	issuer := d.Issuer
	if next == d.rehearsal {
		issuer = d.RehearsalIssuer
	}
	switch {
	case asked && (counted || issuing.LastTransitionTime != nil && issuing.LastTransitionTime.After(f.at.Time)):
		return true // somebody asked for another attempt after this failure
	case issuer != nil && next.Annotations[issuerAnnotation] != "" && next.Annotations[issuerAnnotation] != issuer.Generation():
		d.forgetFailures()
		return true // the issuer is not the one that refused
	case !counted:
		attempts := 1
		if n := d.Certificate.Status.FailedIssuanceAttempts; n != nil {
			attempts += *n
		}
		d.Status.LastFailureTime = f.at.DeepCopy()
		d.Status.FailedIssuanceAttempts = &attempts
		d.Failed = f.reason
		d.ForgetKey = next.Name
	}
	end := d.backoffEnd()
	if counted && !f.waits && !d.Now.Before(end) {
		return true
	}
	message := f.intro + strings.TrimSuffix(f.message, ".")
	if f.waits {
		message += fmt.Sprintf(". The next attempt is made when spec or the issuer change (attempt %d, %s)", *d.Status.FailedIssuanceAttempts, f.reason)
	} else {
		d.look(end, "the back-off of the failed issuance ends")
		message += fmt.Sprintf(". The next attempt is at %s, or when spec or the issuer change (attempt %d, %s). To try now: perennial renew %s -n %s",
			stamp(end), *d.Status.FailedIssuanceAttempts, f.reason, d.Certificate.Name, d.Certificate.Namespace)
	}
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, f.reason, message)
	if d.Failed != "" {
		d.tell(corev1.EventTypeWarning, f.reason, message)
	}
	return false
}

// counted reports whether the status has the failure already. The request says which attempt it is; its time alone has only seconds.
func (d *decider) counted(next *cmapi.CertificateRequest, f *failure) bool {
	at, attempts := d.Certificate.Status.LastFailureTime, d.Certificate.Status.FailedIssuanceAttempts
	if at == nil || attempts == nil || at.Unix() < f.at.Unix() {
		return false
	}
	attempt, err := strconv.Atoi(next.Annotations[attemptAnnotation])
	return err != nil || *attempts >= attempt // without one it is the first
}

// backoffEnd is when the next attempt may be made after those that failed, or zero.
func (d *decider) backoffEnd() time.Time {
	at, attempts := d.Status.LastFailureTime, d.Status.FailedIssuanceAttempts
	if at == nil || attempts == nil || *attempts < 1 {
		return time.Time{}
	}
	least, most := d.Settings.MinBackoff, d.Settings.MaxBackoff
	if least <= 0 {
		least = DefaultMinBackoff
	}
	if most <= 0 {
		most = DefaultMaxBackoff
	}
	wait := least
	for i := 1; i < *attempts && wait < most; i++ {
		wait *= 2
	}
	return at.Add(min(wait, most))
}

func (d *decider) forgetFailures() {
	d.Status.LastFailureTime, d.Status.FailedIssuanceAttempts = nil, nil
}

// block says that nothing can be requested until somebody changes something.
func (d *decider) block(reason, message string) {
	was := d.condition(cmapi.CertificateConditionIssuing)
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, reason, message)
	if was == nil || was.Reason != reason || was.Message != message {
		d.tell(corev1.EventTypeWarning, reason, message)
	}
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
	if !d.rehearsed(why, asked) {
		return
	}
	d.underWay = true
	r := &NewRequest{Revision: d.revision() + 1, Key: kept.key, Manual: d.manual()}
	if kept.key != nil {
		d.tell(corev1.EventTypeNormal, "Reused", fmt.Sprintf("Reusing private key stored in existing Secret resource %q", spec.SecretName))
	}
	d.Request = r
	if d.rehearsal == nil && (!asked || why.reason == reasonManuallyTriggered) {
		d.tell(corev1.EventTypeNormal, "Issuing", why.message)
	}
	d.tell(corev1.EventTypeNormal, "Requested", fmt.Sprintf("Created new CertificateRequest resource %q", RequestName(d.Certificate.Name, r.Revision)))
	r.Attempt = 1
	if n := d.Status.FailedIssuanceAttempts; n != nil {
		r.Attempt += *n
	}
	if d.inProcess() {
		// Failures that were forgotten must not be taken for those of this attempt.
		d.HoldStatus = d.Certificate.Status.FailedIssuanceAttempts == nil || d.Status.FailedIssuanceAttempts != nil
		d.look(d.Now.Add(settleTime), "the request should have been answered by then")
		return
	}
	d.StoreKey = &StoreKey{Revision: r.Revision, Key: kept.key}
	d.tell(corev1.EventTypeNormal, "Generated", fmt.Sprintf("Stored new private key in temporary Secret resource %q", KeySecretName(d.Certificate, r.Revision)))
	d.announce(why, "")
	d.standIn(kept.key)
}

// check says what is wrong with the spec that the API server cannot see.
func (d *decider) check(why *violation) error {
	spec := &d.Certificate.Spec
	// Wrong windows are no reason to let a good certificate expire.
	if spec.Renewal != nil && why.reason != reasonRenewing {
		if _, err := parseWindows(spec.Renewal.Windows); err != nil {
			return err
		}
	}
	ks, _ := keySpec(spec)
	return requestOf(spec).Check(ks)
}

// inProcess reports whether nothing outside of this process happens when the request is signed.
func (d *decider) inProcess() bool {
	return d.Issuer != nil && signer.InProcess(d.Issuer.Type())
}

// announce writes into the status that an issuance is under way. detail says what it waits for.
func (d *decider) announce(why *violation, detail string) {
	d.underWay = true
	message := why.message
	if without := d.unrehearsed(); without != "" {
		detail = strings.TrimSuffix(without+"; "+detail, "; ")
	}
	if detail != "" {
		message = strings.TrimSuffix(baseMessage(message), ".") + waitingFor + detail
	}
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, why.reason, message)
	d.Status.NextPrivateKeySecretName = ptr.To(KeySecretName(d.Certificate, d.revision()+1))
}

// waitingFor separates, in the message of the Issuing condition, why a certificate is issued from what that waits for.
const waitingFor = ". Waiting: "

func baseMessage(message string) string {
	base, _, _ := strings.Cut(message, waitingFor)
	return base
}

// wait deals with a request that has not been answered.
func (d *decider) wait(next *cmapi.CertificateRequest, key crypto.Signer, keySecret *corev1.Secret, why *violation) {
	d.underWay = true
	settled := next.CreationTimestamp.Add(settleTime)
	// Nobody announces what an in-process signer does in a moment, unless it was announced before.
	if keySecret == nil && d.inProcess() && d.Now.Before(settled) {
		d.HoldStatus = true
		d.look(settled, "the request should have been answered by then")
		return
	}
	if keySecret == nil {
		d.StoreKey = &StoreKey{Revision: d.revision() + 1, Key: key}
		d.ForgetKey = next.Name
	} else {
		d.keepKeys = append(d.keepKeys, keySecret)
	}
	detail := notAnswered(next)
	if detail != "" && d.Now.Before(settled) {
		detail = "" // what it waits for in its first moments is not worth a write
		d.look(settled, "what the request waits for is said then")
	}
	d.announce(why, detail)
	if keySecret != nil {
		d.Status.NextPrivateKeySecretName = ptr.To(keySecret.Name)
	}
	d.standIn(key)
}

// notAnswered says what a request waits for.
func notAnswered(cr *cmapi.CertificateRequest) string {
	if ready := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady); ready != nil {
		return ready.Message
	}
	ref := cr.Spec.IssuerRef
	switch {
	case !signer.External(ref):
		return ""
	case !cmapi.CertificateRequestIsApproved(&cr.Status):
		return fmt.Sprintf("CertificateRequest %q is not approved: approve it, or let the controller do so by RBAC on signers.cert-manager.io", cr.Name)
	}
	return fmt.Sprintf("no controller of %s has said anything about it: is the one for %s.%s running?", ref.GroupOrDefault(), ref.KindOrDefault(), ref.GroupOrDefault())
}

// standIn puts a temporary certificate into the Secret, if the Certificate asks for it and the Secret has none at all.
func (d *decider) standIn(key crypto.Signer) {
	if d.Certificate.Annotations[cmapi.IssueTemporaryCertificateAnnotation] != "true" || d.present.reason == "" {
		return
	}
	if d.problemOfPasswords() != "" {
		return
	}
	d.Apply = &Content{Key: key, Temporary: true, CertificateName: d.Certificate.Name}
	d.tell(corev1.EventTypeNormal, "Issuing", "Issued temporary certificate")
}

// complete stores an issued certificate. It returns true if the certificate is of no use and another is to be requested now.
func (d *decider) complete(next *cmapi.CertificateRequest, key crypto.Signer, why *violation) (again bool) {
	chain, err := d.Limits.DecodeChainPEM(next.Status.Certificate)
	if err == nil && !pki.SamePublicKey(chain[0].PublicKey, key.Public()) {
		err = fmt.Errorf("it is for another public key than the request")
	}
	if err != nil {
		f := &failure{intro: "The certificate request has failed to complete and will be retried: ", reason: reasonInvalidCertificate, at: next.CreationTimestamp, message: fmt.Sprintf(
			"the issuer returned a certificate in status.certificate of CertificateRequest %q that cannot be used: %v", next.Name, err)}
		if ready := cmapi.GetCertificateRequestCondition(&next.Status, cmapi.CertificateRequestConditionReady); ready.LastTransitionTime != nil {
			f.at = *ready.LastTransitionTime
		}
		issuing := d.condition(cmapi.CertificateConditionIssuing)
		return d.failed(next, f, issuing != nil && issuing.Status == cmmeta.ConditionTrue)
	}
	if problem := d.problemOfPasswords(); problem != "" {
		was := d.condition(cmapi.CertificateConditionIssuing)
		d.keepKeyOf(next, key)
		d.announce(why, problem)
		if was == nil || !strings.Contains(was.Message, problem) {
			d.tell(corev1.EventTypeWarning, reasonKeystorePassword, problem)
		}
		return false
	}
	stored := d.present.reason == "" && d.present.chain[0].Equal(chain[0]) && d.Secret.Annotations[temporaryAnnotation] == ""
	if !stored {
		d.Apply = &Content{
			Key: key, Chain: chain, CA: d.trust(chain, next.Status.CA),
			Issuer: d.Certificate.Spec.IssuerRef, CertificateName: d.Certificate.Name,
		}
	}
	d.present = pair{key: key, chain: chain}
	d.violation = nil
	d.Status.ACME = nil // it was about the one before
	d.plan = d.schedule(chain)
	d.Status.Revision = ptr.To(d.revision() + 1)
	d.endRehearsal()
	d.forgetFailures()
	cmapi.RemoveCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
	d.ForgetKey = next.Name
	d.Issued = next
	d.tell(corev1.EventTypeNormal, "Issuing", "The certificate has been successfully issued")
	return false
}

// keepKeyOf sees that the private key of a request that must wait is stored.
func (d *decider) keepKeyOf(next *cmapi.CertificateRequest, key crypto.Signer) {
	csr, err := d.Limits.DecodeCSRPEM(next.Spec.Request)
	if err != nil {
		return
	}
	if _, secret := d.nextKey(csr, pair{}); secret != nil {
		d.keepKeys = append(d.keepKeys, secret)
		return
	}
	d.StoreKey = &StoreKey{Revision: d.revision() + 1, Key: key}
	d.ForgetKey = next.Name
}

func (d *decider) problemOfPasswords() string {
	for _, p := range []Password{d.JKSPassword, d.PKCS12Password} {
		if p.Problem != "" {
			return p.Problem
		}
	}
	return ""
}

// settleKeys deletes the next private key Secrets that nothing needs.
func (d *decider) settleKeys() {
	for _, secret := range d.KeySecrets {
		stored := d.StoreKey != nil && secret.Name == KeySecretName(d.Certificate, d.StoreKey.Revision)
		if !stored && !slices.Contains(d.keepKeys, secret) {
			d.DeleteKeys = append(d.DeleteKeys, secret)
		}
	}
	if !d.underWay {
		d.Status.NextPrivateKeySecretName = nil
	}
}

// repair brings back what a Secret with a good key pair must have besides. No new certificate is needed for that.
func (d *decider) repair() {
	if d.Apply != nil || d.Secret == nil || d.present.reason != "" || d.Secret.Annotations[temporaryAnnotation] == "true" {
		return
	}
	annotations := d.Secret.Annotations
	content := &Content{
		Key: d.present.key, Chain: d.present.chain, CA: d.Secret.Data[cmmeta.TLSCAKey],
		// Where it came from is not ours to change: only issuance does.
		Issuer: cmmeta.IssuerReference{
			Name: annotations[cmapi.IssuerNameAnnotationKey], Kind: annotations[cmapi.IssuerKindAnnotationKey], Group: annotations[cmapi.IssuerGroupAnnotationKey],
		},
		CertificateName: annotations[cmapi.CertificateNameKey],
	}
	if content.Issuer.Name != "" && sameIssuer(content.Issuer, d.Certificate.Spec.IssuerRef) {
		content.CA = d.trust(d.present.chain, content.CA)
	}
	drift := driftOf(d.Observation, content)
	if drift == "" {
		return
	}
	if problem := d.problemOfPasswords(); problem != "" {
		if ready := d.condition(cmapi.CertificateConditionReady); ready == nil || !strings.Contains(ready.Message, problem) {
			d.tell(corev1.EventTypeWarning, reasonKeystorePassword, problem)
		}
		if d.violation == nil {
			d.violation = &violation{reasonKeystorePassword, problem}
		}
		return
	}
	d.Apply = content
}

// describe writes into the status what the Secret holds.
func (d *decider) describe() {
	if d.present.reason != "" {
		d.Status.NotBefore, d.Status.NotAfter, d.Status.RenewalTime = nil, nil, nil
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, d.violation.reason, d.violation.message)
		cmapi.RemoveCertificateCondition(&d.Status, conditionCapped)
		return
	}
	leaf := d.present.chain[0]
	d.Status.NotBefore, d.Status.NotAfter = ptr.To(metav1.NewTime(leaf.NotBefore)), ptr.To(metav1.NewTime(leaf.NotAfter))
	d.Status.RenewalTime = nil
	if !d.plan.at.IsZero() {
		d.Status.RenewalTime = ptr.To(metav1.NewTime(d.plan.at))
		if was := d.Certificate.Status.RenewalTime; d.plan.overruled && (was == nil || !was.Time.Equal(d.plan.at)) {
			d.tell(corev1.EventTypeWarning, "RenewBeforeIgnored", fmt.Sprintf("renewBefore asks for renewal in the first half of the certificate's life, and the ACME server "+
				"suggests when to renew: it is renewed at %s. Ask for less, or set renewalInformationSource: None on the issuer", stamp(d.plan.at)))
		}
		if d.Now.Before(d.plan.at) {
			d.look(d.plan.at, "the certificate is to be renewed")
		}
	}
	bad := d.violation
	if bad == nil {
		bad = expired(d.present, d.Now)
	}
	if d.Now.Before(leaf.NotAfter) {
		d.look(leaf.NotAfter.Add(time.Second), "the certificate expires")
	}
	if bad != nil {
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, bad.reason, bad.message)
	} else {
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionTrue, reasonReady, "Certificate is up to date and has not expired")
	}
	d.warn()
}

// conditionCapped is the condition, ours, of a certificate that will not live as long as was asked for.
const conditionCapped cmapi.CertificateConditionType = "LifetimeCapped"

// warn sets and removes what the user should know of a certificate that is good.
func (d *decider) warn() {
	leaf := d.present.chain[0]
	if d.plan.capped {
		message := fmt.Sprintf("The certificate was asked for %s but ends with its CA at %s, and is not renewed before the CA is: renew the CA of %s",
			d.Certificate.Spec.DurationOrDefault(), stamp(leaf.NotAfter), d.Issuer)
		if cmapi.GetCertificateCondition(&d.Status, conditionCapped) == nil {
			d.tell(corev1.EventTypeWarning, "NotAfterCapped", message)
		}
		d.set(conditionCapped, cmmeta.ConditionTrue, "NotAfterCapped", message)
	} else {
		cmapi.RemoveCertificateCondition(&d.Status, conditionCapped)
	}
}

// conditionNotRevocable is the condition, ours, of a Certificate that asks for a revocation which its issuer does not offer.
const conditionNotRevocable cmapi.CertificateConditionType = "NotRevocable"

// provideRevocation sees to it that what is to be revoked when the Certificate is deleted is known then.
func (d *decider) provideRevocation() {
	spec := d.Certificate.Spec.Revocation
	if spec == nil || !spec.OnDelete {
		d.Finalizer, d.Status.Revocable = false, nil
		cmapi.RemoveCertificateCondition(&d.Status, conditionNotRevocable)
		return
	}
	ref := d.Certificate.Spec.IssuerRef
	external := signer.External(ref)
	if d.Issuer == nil && !external {
		return // it is not there yet, or no longer
	}
	acme := !external && d.Issuer.GetSpec().ACME != nil
	if d.holds(ref) {
		d.Status.Revocable = nil
		if acme {
			d.Status.Revocable = &cmapi.RevocableCertificate{Certificate: d.present.chain[0].Raw, IssuerRef: ref}
		}
	}
	d.Finalizer = acme || d.Status.Revocable != nil
	if acme {
		cmapi.RemoveCertificateCondition(&d.Status, conditionNotRevocable)
		return
	}
	message := fmt.Sprintf("spec.revocation.onDelete asks for a revocation, which %s %q does not offer, as it is not an ACME issuer of Perennial: name one, or remove spec.revocation",
		ref.KindOrDefault(), ref.Name)
	if cmapi.GetCertificateCondition(&d.Status, conditionNotRevocable) == nil && !d.HoldStatus {
		d.tell(corev1.EventTypeWarning, "NotRevocable", message)
	}
	d.set(conditionNotRevocable, cmmeta.ConditionTrue, "NotRevocable", message)
}

// holds reports whether the Secret holds, or is about to, a certificate of the issuer.
func (d *decider) holds(by cmmeta.IssuerReference) bool {
	switch {
	case d.present.reason != "" || d.Apply != nil && d.Apply.Temporary:
		return false
	case d.Apply != nil:
		return sameIssuer(d.Apply.Issuer, by)
	}
	return d.Secret != nil && d.Secret.Annotations[temporaryAnnotation] != "true" && signer.Issued(by, d.Secret)
}

// pruneHistory deletes requests that the history need not keep.
func (d *decider) pruneHistory() {
	keep := 1
	if n := d.Certificate.Spec.RevisionHistoryLimit; n != nil {
		keep = int(*n)
	}
	revision := 0
	if d.Status.Revision != nil {
		revision = *d.Status.Revision
	}
	all := slices.Clone(d.Old)
	if d.Current != nil {
		all = append(all, d.Current)
	}
	for _, cr := range all {
		if r := revisionOf(cr); r <= revision-keep && !slices.Contains(d.DeleteRequests, cr) {
			d.DeleteRequests = append(d.DeleteRequests, cr)
		}
	}
}

// RequestName is the name of the CertificateRequest for a revision of a Certificate. It is cert-manager's.
func RequestName(certificate string, revision int) string {
	return shorten(certificate, 233) + "-" + strconv.Itoa(revision)
}
