package lifecycle

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/renewal"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/pki"
)

// Decision is what to do about a Certificate now. Its parts are carried out in the order of the
// fields: each leaves a state from which the next pass goes on if this one ends there.
type Decision struct {
	// Finalizer says that the Certificate is to have revocation.Finalizer. It is settled before
	// anything is requested.
	Finalizer bool
	// DeleteRequests are requests that are no longer needed, nor are their private keys.
	DeleteRequests []*cmapi.CertificateRequest
	// StoreKey stores a private key until its certificate is there.
	StoreKey *StoreKey
	// Request is made with the key that StoreKey has stored, or that is kept in memory.
	Request *NewRequest
	// Generate is the private key that is needed before anything else is done. It takes long, see
	// internal/keygen.
	Generate *Generate
	// Rehearse is a request to make to the rehearsal issuer. Its private key is thrown away.
	Rehearse *NewRequest
	// Apply is what the Secret is to hold.
	Apply *Content
	// Disown is the Secret, if it is no longer to be deleted with the Certificate and is not written
	// otherwise.
	Disown *corev1.Secret
	// DeleteKeys are Secrets with private keys that are of no use any more.
	DeleteKeys []*corev1.Secret
	// ForgetKey is the name of a request; its private key is no longer needed in memory. It may be
	// empty.
	ForgetKey string
	// Status is what the status is to be.
	Status cmapi.CertificateStatus
	// HoldStatus leaves the status as it is for now: the issuance takes a moment, and its outcome is
	// written in one update.
	HoldStatus bool
	// Events are about changes of the status. They are reported when it is written: if the write
	// fails, the next pass decides the same again. An event about an object that is created belongs to
	// that object instead, as the next pass finds it created.
	Events []Event
	// Failed and Issued are for the metrics. Failed is the reason of a failure that is counted in this
	// pass.
	Failed string
	Issued *cmapi.CertificateRequest
	// Again is when to look again if nothing happens before, zero for never. Why says why then.
	Again time.Time
	Why   string

	// withheld are the writes that are left out because they failed.
	withheld map[write]*FailedWrite
}

// Event is an event about the Certificate.
type Event struct{ Type, Reason, Message string }

// Generate is a private key to generate outside of the workers.
type Generate struct {
	Spec pki.KeySpec
	// Rehearsal says that the key is for a rehearsal, and is not kept.
	Rehearsal bool
}

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
	// Counts is why the issuance starts before the present certificate is due, see
	// internal/earlyissuance. It is empty if that is due.
	Counts earlyissuance.Cause
	// ManualTrigger is the manual trigger of the request, see decider.manualTrigger, or empty.
	ManualTrigger string
	// Events are reported when the request is created.
	Events []Event
	// Key is the private key that is kept; nil for that of StoreKey or, if there is none, for a new
	// one that is held in memory.
	Key crypto.Signer
	// New is that new one, if it took long to generate.
	New crypto.Signer
}

// Content is what the Secret is to hold.
type Content struct {
	// Key is nil for that of StoreKey.
	Key   crypto.Signer
	Chain []*x509.Certificate
	CA    []byte
	// Issuer and CertificateName are for the annotations that say where it comes from. Empty values
	// leave them out.
	Issuer          cmmeta.IssuerReference
	CertificateName string
	// Temporary asks for a stand-in in the place of Chain.
	Temporary bool
	// Events are reported when the Secret is written.
	Events []Event
}

// Decide says what to do.
func Decide(o *Observation) *Decision {
	d := &decider{
		Observation: o,
		Decision: &Decision{
			Status:    *o.Certificate.Status.DeepCopy(),
			Finalizer: slices.Contains(o.Certificate.Finalizers, revocation.Finalizer),
		},
	}
	d.present, d.from, d.rehearsal = decodePair(o.Limits, o.Secret), o.Current, o.Rehearsal
	if other := rival(o); other != nil {
		d.yield(other)
	} else if o.overwrites() {
		d.leaveForeignSecret()
	} else {
		d.maintain()
	}
	d.withholdRelease()
	d.withholdDeletions()
	d.Status.ObservedGeneration = o.Certificate.Generation
	d.conclude()
	d.Events = append(d.takeBefore(), d.Events...)
	if d.Generate != nil {
		// Until the key is there all stays as it is, so that the next pass decides the same.
		d.DeleteRequests, d.DeleteKeys = nil, nil
	}
	return d.Decision
}

// maintain is for a Certificate that has the Secret to itself.
func (d *decider) maintain() {
	d.violation = violated(d.Observation, d.present)
	if len(d.present.chain) > 0 && d.present.reason == "" {
		d.plan = d.schedule(d.present.chain)
	}
	d.issueIfDue()
	d.settleKeys()
	d.repair()
	d.settleOwner()
	d.provideRevocation()
	d.withholdFinalizer()
	d.describe()
	d.pause()
	d.pruneHistory()
}

// decider is a Decision that is being made.
type decider struct {
	*Observation
	*Decision
	present pair
	// from is the request that the present certificate comes from, nil if that is not there any more.
	from      *cmapi.CertificateRequest
	violation *violation
	plan      renewal.Schedule
	// keepKeys are the next private key Secrets that are still needed.
	keepKeys []*corev1.Secret
	// rehearsal is Rehearsal, or nil if that is no longer needed.
	rehearsal *cmapi.CertificateRequest
	// before are events about the cause of the next request. They are reported when that is created,
	// as the cause is gone afterwards.
	before []Event
	// differences is how the certificate of the next request differs from what was asked for.
	differences pki.Differences
	// overtaken is why a request is replaced before the back-off of its failure ends, or empty.
	overtaken earlyissuance.Cause
	// retries says that the last request failed and that its back-off has ended.
	retries bool
	// delayed is why the certificate is not issued again yet, or empty.
	delayed earlyissuance.Cause
	// underWay says that an issuance is not over.
	underWay bool
	// over says that there is no issuance, so that the condition Issuing goes unless there is a
	// failure.
	over bool
	// failure is why the issuance cannot go on; stalled says that only a person can end it. cause is
	// what an issuance waits for.
	failure *violation
	stalled bool
	cause   string
}

func (d *decider) recheckAt(at time.Time, why string) {
	if !at.IsZero() && (d.Again.IsZero() || at.Before(d.Again)) {
		d.Again, d.Why = at, why
	}
}

func (d *decider) event(eventType, reason, message string) {
	d.Events = append(d.Events, Event{eventType, reason, message})
}

func (d *decider) takeBefore() []Event {
	taken := d.before
	d.before = nil
	return taken
}

func (n *NewRequest) event(eventType, reason, message string) {
	n.Events = append(n.Events, Event{eventType, reason, message})
}

func (d *decider) set(
	t cmapi.CertificateConditionType,
	status cmmeta.ConditionStatus,
	reason, message string,
) (changed bool) {
	return cmapi.SetCertificateCondition(&d.Status, d.Now, cmapi.CertificateCondition{
		Type: t, Status: status, Reason: reason, Message: message, ObservedGeneration: d.Certificate.Generation,
	})
}

func (d *decider) condition(t cmapi.CertificateConditionType) *cmapi.CertificateCondition {
	return cmapi.GetCertificateCondition(&d.Certificate.Status, t)
}

func (d *decider) discard(cr *cmapi.CertificateRequest) {
	d.DeleteRequests = append(d.DeleteRequests, cr)
}

// yield leaves the Secret to the Certificate that has it.
func (d *decider) yield(other *cmapi.Certificate) {
	message := ""
	if d.Secret != nil && d.Secret.Annotations[cmapi.CertificateNameKey] == other.Name {
		message = issuedForOther(other.Name) + " "
	}
	message += fmt.Sprintf(
		"spec.secretName %q is also that of Certificate %q, which has it: change one of the two",
		d.Certificate.Spec.SecretName,
		other.Name,
	)
	if d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, reasonIncorrectCertificate, message) {
		if was := d.condition(cmapi.CertificateConditionReady); was == nil || was.Reason != reasonIncorrectCertificate {
			d.event(corev1.EventTypeWarning, reasonIncorrectCertificate, message)
		}
	}
	d.stop(reasonIncorrectCertificate, message)
}

// stop ends what is under way for a Secret that is not the Certificate's.
func (d *decider) stop(reason, message string) {
	cmapi.RemoveCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
	d.failure, d.stalled = &violation{reason, message}, true
	if d.Next != nil && d.owned(d.Next) && !issued(d.Next) {
		d.discard(d.Next)
	}
	d.endRehearsal()
	d.DeleteKeys = d.KeySecrets
	d.Status.NextPrivateKeySecretName = nil
	d.Status.NotBefore, d.Status.NotAfter, d.Status.RenewalTime = nil, nil, nil
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

// pruneHistory deletes requests that the history need not keep, and a stray one.
func (d *decider) pruneHistory() {
	keep := 1
	if n := d.Certificate.Spec.RevisionHistoryLimit; n != nil {
		keep = int(*n)
	}
	if d.Stray != nil {
		d.discard(d.Stray)
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
