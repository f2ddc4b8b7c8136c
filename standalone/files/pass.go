package files

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
)

// Reasons of conditions and events. For a Certificate that is not ready, its own reason is used.
const (
	reasonDeployed       = "Deployed"
	reasonReloading      = "Reloading"
	reasonReloadFailed   = "ReloadFailed"
	reasonWaiting        = "WaitingForCertificate"
	reasonExpired        = "Expired"
	reasonInvalid        = "Invalid"
	reasonDirectoryTaken = "DirectoryTaken"
	reasonWriteFailed    = "WriteFailed"
	reasonWriteRefused   = "APIWriteRefused"
	reasonRemoveFailed   = "RemoveFailed"
	reasonRemoved        = "FilesRemoved"
	reasonLeft           = "FilesLeft"
)

const (
	// Failures on this machine or at the API are retried after these delays, because there is no event
	// when a disk has space again or a user exists.
	firstPause = 5 * time.Second
	lastPause  = 5 * time.Minute
	// conflictPause is the delay before an object is read again after a conflicting write of another
	// client.
	conflictPause = 20 * time.Millisecond
	// confirmPause is the delay before a Certificate is read again if its status is older than its
	// Secret, in case the event of its change is missed.
	confirmPause = 10 * time.Second
)

// statusKey, after the name of a CertificateFile, is the key of the attempts to write its status.
const statusKey = "/status"

// trouble is the reason why a CertificateFile is not ready.
type trouble struct {
	reason, message string
	// retry means that perenniald retries after a delay, not only when something changes.
	retry bool
	// kept means that existing files stay deployed.
	kept bool
	// unconfirmed means that the controller has not yet verified the certificate in the Secret.
	unconfirmed bool
}

// reconcile processes one CertificateFile and, even after failures, writes its status in one patch.
func (r *reconciler) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	cf := &perennial.CertificateFile{}
	if err := r.client.Get(ctx, request.NamespacedName, cf); apierrors.IsNotFound(err) {
		r.gone(ctx, request.Name)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	guarded := r.guard(ctx, cf)
	before := cf.DeepCopy()
	var again time.Duration
	var err error
	if cf.DeletionTimestamp != nil {
		var left bool
		if left, again = r.remove(ctx, cf); !left {
			return reconcile.Result{}, nil
		}
	} else if again, err = r.carryOut(ctx, cf, guarded); err != nil {
		return reconcile.Result{}, err
	}
	cf.Status.ObservedGeneration = cf.Generation
	r.stall(cf)
	r.mu.Lock()
	r.known[cf.Name] = cf.DeepCopy()
	r.mu.Unlock()
	return r.write(ctx, before, cf, again)
}

// write writes the status if it has changed.
func (r *reconciler) write(ctx context.Context, before, cf *perennial.CertificateFile,
	again time.Duration) (reconcile.Result, error) {
	if equality.Semantic.DeepEqual(before.Status, cf.Status) {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	err := r.client.Status().Patch(ctx, cf.DeepCopy(), client.MergeFromWithOptions(before,
		client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictPause}, nil // read it again
	case client.IgnoreNotFound(err) != nil && ctx.Err() != nil:
		return reconcile.Result{}, nil // the process is ending
	case client.IgnoreNotFound(err) != nil:
		pause := r.pause(cf.Name + statusKey)
		r.say(cf, corev1.EventTypeWarning, reasonWriteRefused, fmt.Sprintf(
			"the API server does not store the status: %v; see what refuses it, such as an admission policy; the next attempt "+
				"is at %s", err, r.at(pause)))
		r.report(before, cf)
		return reconcile.Result{RequeueAfter: pause}, nil // the cause of the refusal may be gone
	}
	r.calm(cf.Name + statusKey)
	r.reported(cf)
	r.report(before, cf)
	return reconcile.Result{RequeueAfter: again}, nil
}

// report logs a change of the Ready condition.
func (r *reconciler) report(was, is *perennial.CertificateFile) {
	now, before := meta.FindStatusCondition(is.Status.Conditions, perennial.ConditionReady),
		meta.FindStatusCondition(was.Status.Conditions, perennial.ConditionReady)
	if now == nil || now.Reason == reasonReloading || before != nil && before.Message == now.Message &&
		before.Status == now.Status {
		return
	}
	kind := corev1.EventTypeWarning
	if now.Status == metav1.ConditionTrue || now.Reason == reasonWaiting {
		kind = corev1.EventTypeNormal
	}
	r.say(is, kind, now.Reason, now.Message)
}

// say writes a log line and an event.
func (r *reconciler) say(cf *perennial.CertificateFile, kind, reason, message string) {
	r.Report(fmt.Sprintf("files of %s: %s", cf.Name, message))
	r.events.Event(cf, kind, reason, message)
}

// pause returns the delay after one more consecutive failure of the operation with the given key.
func (r *reconciler) pause(key string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.attempts[key]
	r.attempts[key]++
	return pauseAfter(n, firstPause, lastPause)
}

// pauseAfter doubles the first delay for each earlier failure, up to the last.
func pauseAfter(failures int, first, last time.Duration) time.Duration {
	if failures >= 10 {
		return last
	}
	return min(last, first<<max(failures, 0))
}

// calm resets the count of failures.
func (r *reconciler) calm(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.attempts, key)
}

func (r *reconciler) at(pause time.Duration) string {
	return r.Clock.Now().Add(pause).UTC().Format(time.RFC3339)
}

// condition sets a condition.
func (r *reconciler) condition(cf *perennial.CertificateFile, t string, status metav1.ConditionStatus, reason,
	message string) {
	meta.SetStatusCondition(&cf.Status.Conditions, metav1.Condition{
		Type: t, Status: status, Reason: reason, Message: message, ObservedGeneration: cf.Generation,
		LastTransitionTime: metav1.NewTime(r.Clock.Now()),
	})
}

// stall sets or removes the condition Stalled, after the condition Ready. It is not set because of
// a Certificate that is not ready, which has its own condition Stalled.
func (r *reconciler) stall(cf *perennial.CertificateFile) {
	ready := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady)
	if ready != nil && ready.Status == metav1.ConditionFalse {
		switch ready.Reason {
		case reasonInvalid, reasonDirectoryTaken, reasonWriteFailed, reasonWriteRefused, reasonReloadFailed,
			reasonRemoveFailed:
			r.condition(cf, perennial.ConditionStalled, metav1.ConditionTrue, ready.Reason, ready.Message)
			return
		}
	}
	meta.RemoveStatusCondition(&cf.Status.Conditions, perennial.ConditionStalled)
}

// carryOut updates the files, starts the reload and sets the conditions. It returns the delay until
// the next pass, 0 for the next event.
func (r *reconciler) carryOut(ctx context.Context, cf *perennial.CertificateFile,
	guarded *trouble) (again time.Duration, err error) {
	at, wrong := r.claim(ctx, cf)
	ours := wrong == nil
	if wrong == nil {
		wrong = guarded
	}
	var v version
	var leaf *x509.Certificate
	if wrong == nil {
		if v, leaf, wrong, err = r.source(ctx, cf); err != nil {
			return 0, err
		}
	}
	if wrong == nil {
		wrong = r.deploy(ctx, cf, at, v, leaf)
	}
	deployed := cf.Status.Deployed
	there := ours && deployed != nil && (deployed.Directory == "" || deployed.Directory == cf.Spec.Directory)
	if wrong != nil && wrong.unconfirmed {
		again = confirmPause
		if there {
			wrong = nil // the files are still current
		}
	}
	if wrong != nil && wrong.retry {
		again = r.pause(cf.Name)
		wrong.message += "; the next attempt is at " + r.at(again)
	} else {
		r.calm(cf.Name)
	}
	if wrong != nil && !(wrong.kept && there) {
		r.condition(cf, perennial.ConditionDeployed, metav1.ConditionFalse, wrong.reason, wrong.message)
	}
	if !there {
		r.condition(cf, perennial.ConditionReady, metav1.ConditionFalse, wrong.reason, wrong.message)
		return again, nil
	}

	text := fmt.Sprintf("certificate %s/%s is in %s, valid until %s", cf.Spec.CertificateRef.Namespace,
		cf.Spec.CertificateRef.Name, cf.Spec.Directory, deployed.NotAfter.UTC().Format(time.RFC3339))
	if wrong == nil {
		r.condition(cf, perennial.ConditionDeployed, metav1.ConditionTrue, reasonDeployed, text)
	}
	unreloaded, soon, err := r.reloaded(cf, at, text)
	if err != nil && wrong == nil {
		soon = r.pause(cf.Name)
		wrong = &trouble{reason: reasonWriteFailed, message: err.Error() + advice(err) + "; the next attempt is at " +
			r.at(soon)}
	}
	return sooner(sooner(again, soon), r.ready(cf, text, wrong, unreloaded)), nil
}

// ready sets the Ready condition for existing files. It returns the time until they expire.
func (r *reconciler) ready(cf *perennial.CertificateFile, text string, wrong, unreloaded *trouble) time.Duration {
	deployed, ref := cf.Status.Deployed, cf.Spec.CertificateRef
	left := deployed.NotAfter.Sub(r.Clock.Now())
	switch {
	case wrong != nil:
		r.condition(cf, perennial.ConditionReady, metav1.ConditionFalse, wrong.reason,
			wrong.message+holding(deployed, cf.Spec.Directory, left))
	case left <= 0:
		r.condition(cf, perennial.ConditionReady, metav1.ConditionFalse, reasonExpired, fmt.Sprintf(
			"the certificate in %s expired at %s: see why Certificate %s/%s is not renewed", cf.Spec.Directory,
			deployed.NotAfter.UTC().Format(time.RFC3339), ref.Namespace, ref.Name))
	case unreloaded != nil:
		r.condition(cf, perennial.ConditionReady, metav1.ConditionFalse, unreloaded.reason, unreloaded.message)
	default:
		r.condition(cf, perennial.ConditionReady, metav1.ConditionTrue, reasonDeployed, text)
	}
	if left <= 0 {
		return 0
	}
	return left + time.Second // when the files stop being ready
}

// holding says what the files contain in the meantime.
func holding(d *perennial.DeployedCertificate, directory string, left time.Duration) string {
	verb := "is valid until"
	if left <= 0 {
		verb = "expired at"
	}
	return fmt.Sprintf(". The files in %s are left as they are: their certificate %s %s", directory, verb,
		d.NotAfter.UTC().Format(time.RFC3339))
}

// sooner returns the shorter of two delays; 0 means none.
func sooner(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}

// deploy writes v to the files.
func (r *reconciler) deploy(ctx context.Context, cf *perennial.CertificateFile, at place, v version,
	leaf *x509.Certificate) *trouble {
	changed, err := at.put(v)
	if err != nil {
		return &trouble{reason: reasonWriteFailed, message: err.Error() + advice(err), retry: true, kept: changed}
	}
	was := cf.Status.Deployed
	if fingerprint := pki.Fingerprint(leaf); changed || was == nil || was.Fingerprint != fingerprint ||
		was.Directory != cf.Spec.Directory {
		cf.Status.Deployed = &perennial.DeployedCertificate{
			Serial: fmt.Sprintf("%x", leaf.SerialNumber), Fingerprint: fingerprint, Directory: cf.Spec.Directory,
			NotAfter: metav1.NewTime(leaf.NotAfter), Time: metav1.NewTime(r.Clock.Now()),
		}
	}
	if was != nil && was.Directory != "" && was.Directory != cf.Spec.Directory {
		r.moved(ctx, cf, was.Directory)
	}
	return nil
}
