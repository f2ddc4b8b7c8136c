package lifecycle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/renewal"
)

// Reasons of the Issuing condition when a write fails.
const (
	// reasonRequestFailed: the CertificateRequest cannot be created. cert-manager's event has this
	// reason.
	reasonRequestFailed = "RequestFailed"
	// reasonCountFailed: the count of issuances, without which none that is early begins, cannot be
	// saved.
	reasonCountFailed = earlyissuance.ReasonNotSaved
	// reasonSecretFailed: the Secret cannot be written.
	reasonSecretFailed = "SecretWriteFailed"
	// reasonKeystore: a keystore cannot be made of the certificate and its password.
	reasonKeystore = "KeystoreFailed"
	// reasonKeyFailed: the private key of the next certificate cannot be stored.
	reasonKeyFailed = "PrivateKeyWriteFailed"
	// reasonFinalizerFailed: the finalizer that revokes on deletion cannot be written.
	reasonFinalizerFailed = "FinalizerWriteFailed"
	// ReasonDeletionFailed: an object that is no longer needed cannot be deleted. Issuance is not
	// affected.
	ReasonDeletionFailed = "DeletionFailed"
	// ReasonReleaseFailed: the Secret cannot be kept from being deleted with the Certificate. Issuance
	// is not affected.
	ReasonReleaseFailed = "SecretReleaseFailed"
	// reasonReadFailed: what belongs to the Certificate cannot be read.
	reasonReadFailed = "ReadFailed"
)

// The time between two attempts at a write that fails doubles from first to last.
const (
	firstRefusedRetry, lastRefusedRetry     = 10 * time.Second, 10 * time.Minute
	firstTransientRetry, lastTransientRetry = time.Second, time.Minute
	// Transient failures are written into the status from this one in a row on.
	reportedTransient = 2
)

// write is one write of act: what it does, and to which object.
type write struct{ what, name string }

// What writes do.
const (
	writesFinalizer = "finalizer"
	writesKey       = "key"
	writesRequest   = "request"
	writesRehearsal = "rehearsal"
	writesSecret    = "secret"
	deletes         = "delete"
	releases        = "release"
	reads           = "read"
)

// aside reports whether an issuance does not depend on the write.
func (w write) aside() bool { return w.what == deletes || w.what == releases }

// writeError is the failure of a write.
type writeError struct {
	write
	reason string
	// text introduces the API server's words, advice says what to do.
	text, advice string
	err          error
}

func (e *writeError) Error() string { return e.text + ": " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// FailedWrite is a write that failed, and is not tried again for a while.
type FailedWrite struct {
	Reason string
	// Class is never fault.Limited.
	Class fault.Class
	// Message says what failed, in the API server's words, and what to do.
	Message string
	// Attempts counts the failures in a row, the latest of them at At.
	Attempts int
	At       time.Time
	// Until is when the next attempt is made. Zero means when what it depends on changes.
	Until time.Time
	// ManualTrigger is the manual trigger that the attempt was made for, see decider.manualTrigger.
	ManualTrigger string

	// inputs and surroundings are digests of what the write depends on.
	inputs, surroundings string
}

// reportable reports whether the refusal is to be written into the status.
func (f *FailedWrite) reportable() bool {
	return f.Class != fault.Transient || f.Attempts >= reportedTransient
}

// classOf is the class of an error of the API server, or of one that has a class.
func classOf(err error) fault.Class {
	if e := (*fault.Error)(nil); errors.As(err, &e) {
		return e.Class
	}
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsMethodNotSupported(err) {
		return fault.Refused
	}
	return fault.Transient
}

// passing reports whether an error is not about the write itself: another client wrote meanwhile,
// the Certificate or its namespace is being deleted, or the process ends.
func passing(ctx context.Context, err error) bool {
	return apierrors.IsConflict(err) || errors.Is(ctx.Err(), context.Canceled) || ofEndingNamespace(err)
}

// ofEndingNamespace reports whether a write was refused as the namespace of the Certificate is
// being deleted. The count of issuances is in the controller's namespace: if that is, Certificates
// elsewhere stay, and their status must say what fails.
func ofEndingNamespace(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) &&
		fault.Of(err).Reason != earlyissuance.ReasonNotSaved
}

// next is the refusal after another failure. was may be nil.
func (f *FailedWrite) next(was *FailedWrite, name string) {
	f.Attempts = 1
	if was != nil {
		f.Attempts += was.Attempts
	}
	first, last := firstRefusedRetry, lastRefusedRetry
	if f.Class == fault.Transient {
		first, last = firstTransientRetry, lastTransientRetry
	}
	wait := last
	if doubled := f.Attempts - 1; doubled < 10 {
		wait = min(first<<doubled, last)
	}
	// Writes that failed at the same time are not retried at the same time.
	spread := time.Duration(float64(wait) / 4 * renewal.Fraction(name, fmt.Sprint(f.Attempts)))
	f.Until = f.At.Add(wait + spread)
	if f.Class == fault.Misconfigured {
		f.Until = time.Time{}
	}
}

// failedWrites is the memory of the writes that failed, by Certificate. It does not survive a
// restart, after which each write is tried once.
type failedWrites struct {
	mu sync.Mutex
	of map[types.NamespacedName]map[write]*FailedWrite
}

func (r *failedWrites) get(key types.NamespacedName) map[write]*FailedWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.of[key])
}

func (r *failedWrites) set(key types.NamespacedName, failed map[write]*FailedWrite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(failed) == 0 {
		delete(r.of, key)
		return
	}
	if r.of == nil {
		r.of = map[types.NamespacedName]map[write]*FailedWrite{}
	}
	r.of[key] = failed
}

// inputs is a digest of what the user asks for, and of what decides whether the API server accepts
// it.
func (o *Observation) inputs() string {
	generation := ""
	if o.Issuer != nil {
		generation = issuerVersion(o.Issuer)
	}
	return digest(string(o.Certificate.UID), fmt.Sprint(o.Certificate.Generation), generation,
		o.JKSPassword.Value, o.JKSPassword.Problem, o.PKCS12Password.Value, o.PKCS12Password.Problem)
}

// surroundings is a digest of objects that others may change often.
func (o *Observation) surroundings() string {
	parts := []string{}
	if s := o.Secret; s != nil {
		parts = append(parts, string(s.UID), fmt.Sprint(ptr.Deref(s.Immutable, false)))
	}
	for _, cr := range []*cmapi.CertificateRequest{o.Next, o.Rehearsal} {
		if cr != nil {
			parts = append(parts, string(cr.UID))
		}
	}
	// Requests have copies of these.
	for _, m := range []map[string]string{o.Certificate.Labels, o.Certificate.Annotations} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			parts = append(parts, k, m[k])
		}
	}
	return digest(parts...)
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return string(h.Sum(nil))
}

// refused returns the failure of a write that is not to be tried now, or nil.
func (d *decider) refused(w write) *FailedWrite {
	f := d.FailedWrites[w]
	switch {
	case f == nil:
		return nil
	case f.inputs != d.inputs(), d.askedSince(f), f.At.After(d.Now):
		return nil
	case f.surroundings != d.surroundings() && !d.Now.Before(f.At.Add(firstRefusedRetry)):
		return nil
	case !f.Until.IsZero() && !d.Now.Before(f.Until):
		return nil
	}
	if f.surroundings != d.surroundings() {
		d.recheckAt(f.At.Add(firstRefusedRetry), "what a refused write depends on has changed")
	}
	return f
}

// askedSince reports whether a user has triggered an issuance since the write failed.
func (d *decider) askedSince(f *FailedWrite) bool {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	trigger := manualTriggerOf(issuing)
	return trigger != "" && trigger != f.ManualTrigger
}

// withhold leaves out a write that failed, and says why. It reports whether it did.
func (d *decider) withhold(w write) bool {
	f := d.refused(w)
	if f == nil {
		return false
	}
	if d.withheld == nil {
		d.withheld = map[write]*FailedWrite{}
	}
	d.withheld[w] = f
	d.recheckAt(f.Until, "a write that failed is tried again")
	if f.reportable() && !w.aside() {
		d.fail(f.Reason, d.refusalMessage(f), f.Class != fault.Transient)
	}
	return true
}

// refusalMessage says what failed, what to do, and when the next attempt is.
func (d *decider) refusalMessage(f *FailedWrite) string {
	if f.Until.IsZero() {
		return fmt.Sprintf("%s. It is tried again when that changes (attempt %d, %s)", f.Message, f.Attempts, f.Reason)
	}
	return fmt.Sprintf("%s. The next attempt is at %s, or when spec or the issuer change (attempt %d, %s). "+
		"To try now: perennial renew %s -n %s",
		f.Message, stamp(f.Until), f.Attempts, f.Reason, d.Certificate.Name, d.Certificate.Namespace)
}

// conditionStalled says, by the rules of kstatus, that the certificate becomes ready only if a
// person acts.
const conditionStalled cmapi.CertificateConditionType = "Stalled"

// fail sets Issuing to False: the issuance cannot go on. If the certificate is not ready, this is
// the cause. stalled says that only a person can end it. The first failure of a pass stays.
func (d *decider) fail(reason, message string, stalled bool) {
	if d.failure != nil {
		return
	}
	d.failure, d.stalled, d.HoldStatus = &violation{reason, message}, stalled, false
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, reason, message)
}

// stillFailed keeps the failure in the condition Issuing.
func (d *decider) stillFailed() {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	if issuing == nil || issuing.Status != cmmeta.ConditionFalse {
		return
	}
	d.fail(issuing.Reason, issuing.Message, d.condition(conditionStalled) != nil)
}

// resumes reports whether an issuance that a failed write has ended is to go on although the
// present certificate is good: a user has asked for it.
func (d *decider) resumes() bool {
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	if issuing == nil || issuing.Status != cmmeta.ConditionFalse ||
		issuing.ObservedGeneration != d.Certificate.Generation {
		return false
	}
	switch issuing.Reason {
	case reasonRequestFailed, reasonCountFailed, reasonKeyFailed:
		return true
	case reasonSecretFailed, reasonKeystore:
		return d.Next != nil && d.owned(d.Next) && d.fits(d.Next, &d.Certificate.Spec)
	case reasonFinalizerFailed:
		return d.refusedTrigger(finalizerWrite(d.Certificate)) != ""
	}
	return false
}

// withholdRelease leaves out the release of a Secret that was refused, and says that the Secret
// does not stay.
func (d *decider) withholdRelease() {
	if d.Disown == nil {
		return
	}
	w := releaseOf(d.Disown)
	if !d.withhold(w) {
		return
	}
	d.Disown = nil
	if f := d.withheld[w]; f.reportable() {
		d.set(conditionSecretStays, cmmeta.ConditionFalse, f.Reason, d.refusalMessage(f))
		d.Events = slices.DeleteFunc(d.Events, func(e Event) bool { return e.Reason == string(conditionSecretStays) })
	}
}

// withholdDeletions leaves out what cannot be deleted. The condition Issuing says so if no issuance
// is under way.
func (d *decider) withholdDeletions() {
	d.DeleteRequests = slices.DeleteFunc(d.DeleteRequests, func(cr *cmapi.CertificateRequest) bool {
		return d.withhold(deletionOf(cr))
	})
	d.DeleteKeys = slices.DeleteFunc(d.DeleteKeys, func(s *corev1.Secret) bool { return d.withhold(deletionOf(s)) })
	if !d.over {
		return
	}
	byName := func(a, b write) int { return strings.Compare(a.name, b.name) }
	for _, w := range slices.SortedFunc(maps.Keys(d.withheld), byName) {
		if f := d.withheld[w]; w.what == deletes && f.reportable() {
			d.fail(f.Reason, d.refusalMessage(f), f.Class != fault.Transient)
		}
	}
}

// withholdRequest reports whether no request of the name can be made now, as that or the deletion
// of the one before it was refused.
func (d *decider) withholdRequest(w write) bool {
	for _, cr := range d.DeleteRequests {
		if f := d.refused(deletionOf(cr)); f != nil && cr.Name == w.name {
			if f.reportable() {
				d.fail(f.Reason, d.refusalMessage(f), f.Class != fault.Transient)
			}
			return true
		}
	}
	return d.withhold(w)
}

// refusedTrigger returns the manual trigger of a request that could not be created, or "".
func (d *decider) refusedTrigger(w write) string {
	if f := d.FailedWrites[w]; f != nil {
		return f.ManualTrigger
	}
	return ""
}

// conclude completes the status at the end of a pass: it removes Issuing if there is no issuance,
// and sets Stalled if a person is needed.
func (d *decider) conclude() {
	if d.over && d.failure == nil {
		cmapi.RemoveCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
	}
	ready := cmapi.GetCertificateCondition(&d.Status, cmapi.CertificateConditionReady)
	if d.failure != nil && d.stalled && (ready == nil || ready.Status != cmmeta.ConditionTrue) {
		d.set(conditionStalled, cmmeta.ConditionTrue, d.failure.reason, d.failure.message)
	} else {
		cmapi.RemoveCertificateCondition(&d.Status, conditionStalled)
	}
}

// because returns a message of cert-manager's about a certificate that is not ready, and the cause
// after it.
func (d *decider) because(message string) string {
	cause := d.cause
	if d.failure != nil && cause == "" {
		cause = d.failure.message
	}
	if strings.HasPrefix(cause, message) {
		return cause
	}
	if cause == "" {
		return message
	}
	return strings.TrimSuffix(message, ".") + ". " + cause
}

// remember notes the writes that failed in a pass, and forgets those that did not.
func (r *Reconciler) remember(ctx context.Context, o *Observation, d *Decision, failed []*writeError) {
	key := types.NamespacedName{Namespace: o.Certificate.Namespace, Name: o.Certificate.Name}
	before := r.failedWrites.get(key)
	after := map[write]*FailedWrite{}
	maps.Copy(after, d.withheld)
	issuing := cmapi.GetCertificateCondition(&o.Certificate.Status, cmapi.CertificateConditionIssuing)
	for _, e := range failed {
		f := &FailedWrite{
			Reason: e.reason, Class: classOf(e.err), Message: strings.TrimSuffix(e.Error(), "."),
			At: o.Now, ManualTrigger: manualTriggerOf(issuing), inputs: o.inputs(), surroundings: o.surroundings(),
		}
		if f.Class == fault.Limited {
			f.Class = fault.Transient
		}
		if e.advice != "" && f.Class == fault.Refused {
			f.Message += ". " + e.advice
		}
		was := before[e.write]
		if f.next(was, string(o.Certificate.UID)); f.ManualTrigger == "" && was != nil {
			f.ManualTrigger = was.ManualTrigger
		}
		after[e.write] = f
		if !e.aside() && e.what != reads {
			r.Metrics.IssuanceFailed(o.Certificate.Spec.IssuerRef, f.Reason)
		}
		// After a restart the status knows what was said before.
		known := was != nil && was.reportable() && was.Message == f.Message ||
			issuing != nil && issuing.Reason == f.Reason && strings.HasPrefix(issuing.Message, f.Message)
		logger := ctrl.LoggerFrom(ctx)
		if was != nil && was.Message == f.Message {
			logger = logger.V(1)
		}
		logger.Info("write failed",
			"reason", f.Reason, "class", f.Class, "attempt", f.Attempts, "until", f.Until, "error", e.Error())
		if f.reportable() && !known {
			r.Events.Event(o.Certificate, corev1.EventTypeWarning, f.Reason, f.Message)
		}
	}
	r.failedWrites.set(key, after)
	o.FailedWrites = after
}

// manualTriggerOf returns when a user triggered an issuance, by the condition Issuing, or "".
func manualTriggerOf(issuing *cmapi.CertificateCondition) string {
	if issuing == nil || issuing.Status != cmmeta.ConditionTrue || !byHand(issuing.Reason) ||
		issuing.LastTransitionTime == nil {
		return ""
	}
	return stamp(issuing.LastTransitionTime.Time)
}

// unread writes the status of a Certificate if one of its objects cannot be read. There is no
// decision then, but the certificate may expire meanwhile.
func (r *Reconciler) unread(ctx context.Context, o *Observation, err error) error {
	if passing(ctx, err) {
		return nil
	}
	crt := o.Certificate
	e := &writeError{
		write{reads, crt.Name}, reasonReadFailed,
		"What the Certificate needs cannot be read", "Allow the controller to read it", err,
	}
	r.remember(ctx, o, &Decision{withheld: o.FailedWrites}, []*writeError{e})
	d := decideUnread(o, o.FailedWrites[e.write])
	if !o.FailedWrites[e.write].reportable() && !becomesUnready(o, d) {
		return nil
	}
	return r.writeStatus(ctx, o, d)
}

// decideUnread decides on the status if an object of the Certificate cannot be read.
func decideUnread(o *Observation, f *FailedWrite) *Decision {
	d := &decider{Observation: o, Decision: &Decision{Status: *o.Certificate.Status.DeepCopy()}}
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	if f.reportable() && (issuing == nil || issuing.Reason == reasonReadFailed) {
		d.fail(f.Reason, f.Message+". It is tried again each minute", f.Class != fault.Transient)
	} else {
		d.stillFailed()
	}
	ready, end := d.condition(cmapi.CertificateConditionReady), o.Certificate.Status.NotAfter
	if ready != nil && ready.Status == cmmeta.ConditionTrue && end != nil && o.Now.After(end.Time) {
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, reasonExpired, d.because(expiredOn(end.Time)))
	}
	d.conclude()
	return d.Decision
}
