// Package renewalinfo asks ACME servers when they want certificates to be renewed (ACME Renewal
// Information, RFC 9773), and writes the answers into the status of the Certificates. Package
// lifecycle decides from the status when to renew, and sends no requests itself.
package renewalinfo

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// The controller follows the server's Retry-After within these bounds.
	soonest, latest = time.Minute, 24 * time.Hour
	// usual is the wait without a Retry-After, and after errors that last (RFC 9773 section 4.3.3).
	usual = 6 * time.Hour
	// firstRetry is the wait after an error that may pass. It doubles up to usual.
	firstRetry = time.Minute
	// maxError is how much of an error is written into a status, in bytes.
	maxError = 500
	// unsupported is the wait for a server that does not offer renewal information.
	unsupported = 24 * time.Hour
	// notReady is the wait for an issuer that is not ready.
	notReady = 10 * time.Minute
)

// Reconciler asks ACME servers about the certificates of Certificates.
type Reconciler struct {
	Client   client.Client
	Secrets  *secrets.Store
	Scope    signer.Scope
	Accounts *account.Accounts
	Limits   pki.Limits
	Events   record.EventRecorder
	Metrics  *observe.Metrics
	Clock    clock.PassiveClock
	Limiter  *limiter.Limiter
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	const name = "certificates-renewalinfo"
	changed := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var list cmapi.CertificateList
		options := append(r.Scope.Of(o.(cmapi.GenericIssuer)).OfIssuer(), client.UnsafeDisableDeepCopy)
		if err := r.Client.List(ctx, &list, options...); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	})
	b := ctrl.NewControllerManagedBy(mgr).
		Named(name).
		WithOptions(o).
		For(&cmapi.Certificate{}).
		WatchesRawSource(r.Limiter.Wakeups())
	return issuer.Watch(b, r.Scope, changed, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, r.Limiter.Reconciler(r)))
}

// Reconcile makes a pass for one Certificate.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	crt := &cmapi.Certificate{}
	if err := r.Client.Get(ctx, request.NamespacedName, crt, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if crt.DeletionTimestamp != nil || signer.External(crt.Spec.IssuerRef) {
		return reconcile.Result{}, nil
	}
	by, err := r.Scope.Get(ctx, r.Client, crt.Namespace, crt.Spec.IssuerRef)
	if err != nil || by == nil {
		return reconcile.Result{}, err
	}
	if spec := by.GetSpec().ACME; spec == nil || spec.RenewalInformationSource == cmacme.ACMERenewalInformationSourceNone {
		return reconcile.Result{}, r.write(ctx, crt, nil)
	}
	leaf, err := r.leaf(ctx, crt)
	if err != nil || leaf == nil || !r.Clock.Now().Before(leaf.NotAfter) {
		return reconcile.Result{}, err // the Certificate changes when there is another
	}
	now := r.Clock.Now()
	was := known(crt)
	if wait := untilNext(was, now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil // when the server said
	}
	session, err := r.Accounts.Session(ctx, by, nil, nil)
	if err != nil {
		return reconcile.Result{RequeueAfter: notReady}, nil // its condition says why
	}
	id, err := acme.CertID(leaf)
	if err != nil {
		return reconcile.Result{}, nil // it names no authority: no server knows it
	}
	info, err := session.RenewalInfo(ctx, id)
	session.Release(ctx)
	if limiter.IsBusy(err) {
		return reconcile.Result{}, err
	}
	if busy := fault.Of(err); busy.Class == fault.Limited {
		// The server was not asked. Retry when it answers again.
		return reconcile.Result{RequeueAfter: busy.Wait(now)}, nil
	}
	var no *acme.UnsupportedError
	if errors.As(err, &no) {
		if err := r.write(ctx, crt, nil); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: unsupported}, nil // the server may offer it later
	}
	next := after(was, info, err, session.Account.URL, now)
	if err := r.write(ctx, crt, next); err != nil {
		return reconcile.Result{}, err
	}
	// The first suggestion is no news: it is in the status, and needs no event.
	first := (was == nil || was.SuggestedWindow == nil) && next.ExplanationURL == ""
	if w := next.SuggestedWindow; w != nil && !first &&
		(was == nil || !equality.Semantic.DeepEqual(w, was.SuggestedWindow) || next.ExplanationURL != was.ExplanationURL) {
		message := fmt.Sprintf("The ACME server suggests renewal between %s and %s", stamp(w.Start), stamp(w.End))
		if next.ExplanationURL != "" {
			message += ": see " + next.ExplanationURL
		}
		r.Events.Event(crt, corev1.EventTypeNormal, "RenewalInfo", message)
	}
	return reconcile.Result{RequeueAfter: next.NextCheck.Sub(now)}, nil // the same
}

func stamp(t *metav1.Time) string { return t.UTC().Format(time.RFC3339) }

// leaf returns the certificate that the issuer of a Certificate has issued for it, or nil.
func (r *Reconciler) leaf(ctx context.Context, crt *cmapi.Certificate) (*x509.Certificate, error) {
	secret, err := r.Secrets.Get(ctx, crt.Namespace, crt.Spec.SecretName)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if !signer.SecretNamesIssuer(crt.Spec.IssuerRef, secret) || secret.Annotations[cmapi.CertificateNameKey] != crt.Name {
		return nil, nil
	}
	chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil || crt.Status.NotAfter == nil || !crt.Status.NotAfter.Time.Equal(chain[0].NotAfter) {
		return nil, nil // package lifecycle says what is wrong with it, or is about to
	}
	return chain[0], nil
}

func known(crt *cmapi.Certificate) *cmapi.CertificateACMEARIStatus {
	if crt.Status.ACME == nil {
		return nil
	}
	return crt.Status.ACME.ARI
}

// untilNext returns how long to wait before the next request. It ignores a time that is further
// away than latest: a clock that was ahead has set it.
func untilNext(was *cmapi.CertificateACMEARIStatus, now time.Time) time.Duration {
	if was == nil || was.NextCheck == nil || was.NextCheck.Sub(now) > latest {
		return 0
	}
	return max(0, was.NextCheck.Sub(now))
}

// after returns the status after a request. It is a pure function. A failed request keeps the known
// window, and each request keeps what package lifecycle has recorded about the certificates before.
// account is that of the issuer. The status keeps the account of the first request, which is the
// one that the certificate was issued to.
func after(
	was *cmapi.CertificateACMEARIStatus,
	info acme.RenewalInfo,
	err error,
	account string,
	now time.Time,
) *cmapi.CertificateACMEARIStatus {
	at := func(t time.Time) *metav1.Time { m := metav1.NewTime(t.Truncate(time.Second)); return &m }
	next := &cmapi.CertificateACMEARIStatus{LastChecked: at(now), Account: account}
	if was != nil {
		next.AtOnce = was.AtOnce
	}
	if was != nil && was.Account != "" {
		next.Account = was.Account
	}
	if err == nil {
		next.SuggestedWindow = &cmapi.ACMERenewalWindow{
			Start: at(info.SuggestedWindow.Start),
			End:   at(info.SuggestedWindow.End),
		}
		next.ExplanationURL = info.ExplanationURL
		wait := usual
		if !info.RetryAfter.IsZero() {
			wait = min(max(info.RetryAfter.Sub(now), soonest), latest)
		}
		next.NextCheck = at(now.Add(wait))
		return next
	}
	wait := usual
	var problem *acme.Problem
	var protocol *acme.ProtocolError
	switch {
	case errors.As(err, &problem) && !problem.RetryAfter.IsZero():
		wait = min(max(problem.RetryAfter.Sub(now), soonest), latest)
	case errors.As(err, &problem) && problem.Status < 500,
		errors.As(err, &protocol): // asking again soon would change nothing
	case was != nil && was.LastError != "" && was.LastChecked != nil && was.NextCheck != nil:
		wait = min(max(2*was.NextCheck.Sub(was.LastChecked.Time), firstRetry), usual)
	default:
		wait = firstRetry
	}
	if was != nil {
		next.SuggestedWindow, next.ExplanationURL = was.SuggestedWindow, was.ExplanationURL
	}
	next.LastError, next.NextCheck = egress.Truncate(err.Error(), maxError), at(now.Add(wait))
	return next
}

// write writes the renewal information into the status, if that changes it. Nil removes it.
func (r *Reconciler) write(ctx context.Context, crt *cmapi.Certificate, ari *cmapi.CertificateACMEARIStatus) error {
	if equality.Semantic.DeepEqual(known(crt), ari) {
		return nil
	}
	next := crt.DeepCopy()
	next.Status.ACME = nil
	if ari != nil {
		next.Status.ACME = &cmapi.CertificateACMEStatus{ARI: ari}
	}
	// The optimistic lock prevents a write about a certificate that was renewed meanwhile.
	err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{}))
	return client.IgnoreNotFound(err)
}
