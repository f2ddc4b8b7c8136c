package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// GiveUpAfter is how long a deleted Certificate, or its Order, waits for the revocation.
	GiveUpAfter = 10 * time.Minute
	// again is when a revocation is retried after an error that may pass or that the user may correct.
	// Issuers and Secrets are not watched for these few minutes.
	again = 15 * time.Second
	// atWorkAgain is how often the reconciler checks whether a pass from before the deletion is over.
	// Such a pass takes a few writes.
	atWorkAgain = 100 * time.Millisecond
)

// Reconciler revokes the certificates of deleted Certificates.
type Reconciler struct {
	Client client.Client
	// Live reads namespaces, which are not cached for this.
	Live     client.Reader
	Secrets  *secrets.Store
	Scope    signer.Scope
	Accounts *account.Accounts
	Limits   pki.Limits
	Events   record.EventRecorder
	Metrics  *observe.Metrics
	Clock    clock.PassiveClock
	Limiter  *limiter.Limiter
	// AtWork reports whether a pass of another reconciler of this process is under way for a
	// Certificate: it may still write, for example the Secret, what it decided before the deletion.
	// Nil for never.
	AtWork func(types.NamespacedName) bool

	// over has the deleted Certificates of which only the finalizer is left.
	over memory.Records[bool]
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	const name = "certificates-revocation"
	return ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmapi.Certificate{}, builder.WithPredicates(predicate.NewPredicateFuncs(waits))).
		WatchesRawSource(r.Limiter.Wakeups()).
		Complete(observe.Instrument(r.Metrics, name, r.Limiter.Reconciler(r)))
}

// waits reports whether a Certificate was deleted and waits for its revocation.
func waits(o client.Object) bool {
	return o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), Finalizer)
}

// Reconcile revokes the certificates of a deleted Certificate, and then removes its finalizer.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	crt := &cmapi.Certificate{}
	if err := r.Client.Get(ctx, request.NamespacedName, crt); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.over.Drop(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !waits(crt) {
		return reconcile.Result{}, nil
	}
	if *r.over.Of(crt) {
		return reconcile.Result{}, r.release(ctx, crt) // the CA is not asked again
	}
	if r.AtWork != nil && r.AtWork(request.NamespacedName) {
		return reconcile.Result{RequeueAfter: atWorkAgain}, nil
	}
	if RevokeForValue(crt) == "" {
		return reconcile.Result{}, r.release(ctx, crt) // the spec no longer asks for it
	}
	now := r.Clock.Now()
	end := crt.DeletionTimestamp.Add(GiveUpAfter)
	secret, err := r.Secrets.Get(ctx, crt.Namespace, crt.Spec.SecretName)
	if err != nil {
		secret = nil
	}
	if err = client.IgnoreNotFound(err); err != nil {
		if wait := end.Sub(now); wait > 0 { // the revocation may need its key
			r.Events.Eventf(
				crt,
				corev1.EventTypeWarning,
				"RevocationError",
				"The Secret %q, whose certificate is to be revoked, cannot be read yet, which is tried until %s: %s",
				crt.Spec.SecretName,
				stamp(end),
				err,
			)
			return reconcile.Result{RequeueAfter: min(again, wait)}, nil
		}
		r.abandon(ctx, crt, unread(crt, err))
	}
	known, err := r.known(ctx, crt, secret)
	if err != nil {
		return reconcile.Result{}, err // only a cache that is stopping fails
	}
	var unnoted error
	for _, c := range known {
		if !now.Before(c.leaf.NotAfter) {
			continue
		}
		how, later, failure := r.try(ctx, crt, c, reasonOf(crt), end)
		switch {
		case later > 0:
			return reconcile.Result{RequeueAfter: later}, nil // retried until the limit
		case failure != nil:
			r.abandon(ctx, crt, abandoned(crt, secret, c, failure))
			continue
		}
		noted, err := r.note(ctx, crt, secret, c, how.byKey)
		if err != nil {
			unnoted = err
			continue
		}
		secret = noted
	}
	if wait := end.Sub(r.Clock.Now()); unnoted != nil && wait > 0 {
		if apierrors.IsConflict(unnoted) {
			return reconcile.Result{}, unnoted // the cache has the newer version soon
		}
		r.Events.Eventf(
			crt,
			corev1.EventTypeWarning,
			"RevocationError",
			"It is revoked, which cannot be noted yet, and is tried until %s: %s",
			stamp(end),
			unnoted,
		)
		return reconcile.Result{RequeueAfter: min(again, wait)}, nil
	} else if unnoted != nil {
		r.abandon(
			ctx,
			crt,
			fmt.Sprintf(
				"Gave up noting on Secret %q that its certificate is revoked: %s. A Certificate that is made for it later "+
					"goes on with that: "+
					"delete the Secret, or note it by hand: %s",
				secret.Name,
				unnoted,
				byHand(crt),
			),
		)
	}
	*r.over.Of(crt) = true
	return reconcile.Result{}, r.release(ctx, crt)
}

// release removes the finalizer of a Certificate.
func (r *Reconciler) release(ctx context.Context, crt *cmapi.Certificate) error {
	next := crt.DeepCopy()
	controllerutil.RemoveFinalizer(next, Finalizer)
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) == nil {
		r.over.Drop(client.ObjectKeyFromObject(crt))
	}
	return observe.FinalizerRefused(r.Events, crt, err)
}

// try revokes a certificate, and reports it in an event of the object that it belongs to. If later
// is not 0, the caller retries then; otherwise a failure is final.
func (r *Reconciler) try(
	ctx context.Context,
	of client.Object,
	c certificate,
	reason cmapi.RevocationReason,
	end time.Time,
) (how outcome, later time.Duration, failure error) {
	if how, failure = r.revoke(ctx, of.GetNamespace(), reason, c); failure == nil {
		if !how.before {
			r.Events.Eventf(
				of,
				corev1.EventTypeNormal,
				"Revoked",
				"The certificate with serial number %x is revoked at %s: %s",
				c.leaf.SerialNumber,
				how.at,
				reason,
			)
		}
		return how, 0, nil
	}
	final := r.IsPermanent(ctx, of.GetNamespace(), failure)
	now := r.Clock.Now()
	if final || !now.Before(end) {
		return how, 0, failure
	}
	if busy := new(limiter.ErrBusy); errors.As(failure, &busy) {
		return how, min(busy.After, end.Sub(now)), failure // it was not asked yet
	}
	r.Events.Eventf(
		of,
		corev1.EventTypeWarning,
		"RevocationError",
		"The certificate with serial number %x is not revoked yet, which is tried until %s: %s",
		c.leaf.SerialNumber,
		stamp(end),
		failure,
	)
	later = again
	if f := fault.Of(failure); f.Class == fault.Limited {
		later = max(f.Until.Sub(now), again)
	}
	return how, min(later, end.Sub(now)), failure
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// abandon reports that a revocation is given up.
func (r *Reconciler) abandon(ctx context.Context, of client.Object, text string) {
	// Log it, too: a namespace that is being deleted accepts no events.
	ctrl.LoggerFrom(ctx).Info("a revocation is given up", "because", text)
	r.Events.Event(of, corev1.EventTypeWarning, "RevocationFailed", text)
}

// Left revokes the certificate of an Order after its Certificate was deleted. It returns when to
// try again, or 0 if it has succeeded or was given up.
func (r *Reconciler) Left(
	ctx context.Context,
	order *cmacme.Order,
	leaf *x509.Certificate,
	reason cmapi.RevocationReason,
	end time.Time,
) time.Duration {
	if !r.Clock.Now().Before(leaf.NotAfter) {
		return 0
	}
	c := certificate{leaf: leaf, by: order.Spec.IssuerRef}
	_, later, failure := r.try(ctx, order, c, reason, end)
	if later == 0 && failure != nil {
		r.abandon(ctx, order, gaveUp(c, failure)+lost(c))
	}
	return later
}

// ReportLost reports that the controller could not find out what the CA has issued for an Order
// after its Certificate was deleted.
func (r *Reconciler) ReportLost(ctx context.Context, order *cmacme.Order, err error) {
	r.abandon(
		ctx,
		order,
		fmt.Sprintf("The CA may have issued a certificate for the order %s after its Certificate was deleted, "+
			"which is not known and not revoked: %s. It can be revoked with the account key by any ACME client",
			order.Status.URL, err),
	)
}

// abandoned says that a certificate was not revoked, and what the user can do.
func abandoned(crt *cmapi.Certificate, secret *corev1.Secret, c certificate, err error) string {
	text := gaveUp(c, err)
	if c.key != nil && secret != nil && stays(secret, crt) {
		return text + "To revoke it by hand: " + byHand(crt)
	}
	return text + lost(c)
}

// unread says that the Secret of a Certificate could not be read, and what the user can do.
func unread(crt *cmapi.Certificate, err error) string {
	return fmt.Sprintf(
		"Gave up reading the Secret %q: %s. What it holds is revoked only as far as the Certificate and its requests "+
			"say what that is, and not noted as revoked. "+
			"If it stays, delete it after: %s",
		crt.Spec.SecretName,
		err,
		byHand(crt),
	)
}

// byHand returns the command that revokes the certificate in the Secret of a Certificate, and
// records that on the Secret.
func byHand(crt *cmapi.Certificate) string {
	return fmt.Sprintf("perennial revoke --secret %s -n %s --reason %s", crt.Spec.SecretName, crt.Namespace, reasonOf(crt))
}

func gaveUp(c certificate, err error) string {
	return fmt.Sprintf("Gave up revoking the certificate with serial number %x, which is valid until %s: %s. ",
		c.leaf.SerialNumber, stamp(c.leaf.NotAfter), err)
}

func lost(c certificate) string {
	return fmt.Sprintf(
		"Without its private key it can be revoked with the account key of %s %q by any ACME client",
		c.by.KindOrDefault(),
		c.by.Name,
	)
}

// certificate is one to revoke.
type certificate struct {
	leaf *x509.Certificate
	by   cmmeta.IssuerReference
	// key is its private key, nil if that is not there.
	key crypto.Signer
}

// known returns the certificates of a Certificate that some object still has. The account of the
// issuer, which tenants share, revokes each of them. So each comes from a source that the user
// cannot forge: the status, as only the controller writes that field; requests, as only the
// controller writes their certificates; or the Secret if it has the private key, which may revoke
// the certificate anyway. A certificate alone is public and proves nothing, whatever the
// annotations of its Secret say.
func (r *Reconciler) known(ctx context.Context, crt *cmapi.Certificate, secret *corev1.Secret) ([]certificate, error) {
	var all []certificate
	var key crypto.Signer
	if secret != nil {
		key, _ = r.Limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	}
	add := func(leaf *x509.Certificate, by cmmeta.IssuerReference) {
		if slices.ContainsFunc(all, func(c certificate) bool { return bytes.Equal(c.leaf.Raw, leaf.Raw) }) {
			return
		}
		c := certificate{leaf: leaf, by: by}
		if key != nil && pki.SamePublicKey(key.Public(), leaf.PublicKey) {
			c.key = key
		}
		all = append(all, c)
	}
	if c := crt.Status.Revocable; c != nil {
		if leaf, err := x509.ParseCertificate(c.Certificate); err == nil {
			add(leaf, c.IssuerRef)
		}
	}
	if leaf, by := r.inSecret(ctx, crt, secret, key); leaf != nil {
		add(leaf, by)
	}
	var requests cmapi.CertificateRequestList
	if err := r.Client.List(ctx, &requests, client.InNamespace(crt.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list CertificateRequests: %w", err)
	}
	for i := range requests.Items {
		cr := &requests.Items[i]
		if !metav1.IsControlledBy(cr, crt) || cr.Annotations[signer.RehearsalAnnotation] != "" {
			continue
		}
		if leaf := IssuedLeaf(r.Limits, cr.Spec.Request, cr.Status.Certificate); leaf != nil {
			if ours, err := r.ofACME(ctx, crt, cr.Spec.IssuerRef); err != nil || ours {
				add(leaf, cr.Spec.IssuerRef)
			}
		}
	}
	return all, nil
}

// inSecret returns the certificate of an ACME issuer that a Secret has for a Certificate, or nil.
// An issuer that cannot be read may be one.
func (r *Reconciler) inSecret(
	ctx context.Context, crt *cmapi.Certificate, secret *corev1.Secret, key crypto.Signer,
) (*x509.Certificate, cmmeta.IssuerReference) {
	if secret == nil || secret.Annotations[cmapi.CertificateNameKey] != crt.Name {
		return nil, cmmeta.IssuerReference{}
	}
	a := secret.Annotations
	by := cmmeta.IssuerReference{
		Name:  a[cmapi.IssuerNameAnnotationKey],
		Kind:  a[cmapi.IssuerKindAnnotationKey],
		Group: a[cmapi.IssuerGroupAnnotationKey],
	}
	chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil || by.Name == "" || key == nil || !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
		return nil, by
	}
	if ours, err := r.ofACME(ctx, crt, by); err == nil && !ours {
		return nil, by
	}
	return chain[0], by
}

// ofACME reports whether an issuer exists and is an ACME issuer.
func (r *Reconciler) ofACME(ctx context.Context, crt *cmapi.Certificate, by cmmeta.IssuerReference) (bool, error) {
	i, err := r.Scope.Get(ctx, r.Client, crt.Namespace, by)
	return i != nil && i.GetSpec().ACME != nil, err
}

// outcome is how a certificate was revoked.
type outcome struct {
	// at is the directory of the server. before says that it was revoked earlier, and byKey that its
	// own key signed the request.
	at            string
	before, byKey bool
}

// revoke revokes a certificate. Unless the key is compromised, the account key signs the request:
// CAs treat the certificate's own key as compromised if that key signs it.
func (r *Reconciler) revoke(
	ctx context.Context,
	namespace string,
	reason cmapi.RevocationReason,
	c certificate,
) (outcome, error) {
	i, err := r.Scope.Get(ctx, r.Client, namespace, c.by)
	if err != nil {
		return outcome{}, err
	}
	if i == nil || i.GetSpec().ACME == nil {
		return outcome{}, fault.Misconfiguredf(
			"IssuerNotFound",
			"there is no longer an ACME %s %q",
			c.by.KindOrDefault(),
			c.by.Name,
		)
	}
	defer limiter.Release(ctx)
	ask := func(byKey bool, why acme.RevocationReason) error {
		if byKey {
			return r.Accounts.RevokeWithKey(ctx, i, c.key, c.leaf.Raw, why)
		}
		session, err := r.Accounts.Session(ctx, i, nil, nil)
		if apierrors.IsNotFound(err) {
			err = fault.Misconfiguredf("IssuerNotReady", "the Secret with the account key of %s does not exist", i)
		}
		if err != nil {
			return err
		}
		return session.Revoke(ctx, c.leaf.Raw, why)
	}
	ways := []bool{false}
	if c.key != nil {
		ways = []bool{false, true}
		if reason == cmapi.RevocationReasonKeyCompromise {
			ways = []bool{true, false}
		}
	}
	for _, byKey := range ways {
		err = ask(byKey, Reasons[reason])
		if acme.IsProblem(err, acme.ProblemBadRevocationReason) {
			err = ask(byKey, acme.ReasonUnspecified) // the revocation matters more than its reason
		}
		before := acme.IsProblem(err, acme.ProblemAlreadyRevoked)
		if err == nil || before {
			return outcome{at: i.GetSpec().ACME.Server, before: before, byKey: byKey}, nil
		}
		if class := fault.Of(err).Class; class == fault.Transient || class == fault.Limited {
			break // the other key would ask the same server
		}
	}
	return outcome{}, err
}

// IsPermanent reports whether another attempt is useless: the CA has refused, or an object is
// missing that cannot come back as its namespace is being deleted. A controller for one namespace
// may be unable to see that; then another attempt may succeed.
func (r *Reconciler) IsPermanent(ctx context.Context, inNamespace string, err error) bool {
	var unsupported *acme.UnsupportedError
	switch class := fault.Of(err).Class; {
	case acme.IsProblem(err, acme.ProblemAccountDoesNotExist):
		return false // CAs may say so for a moment, or package account registers it again
	case class == fault.Refused, errors.As(err, &unsupported):
		return true
	case class != fault.Misconfigured:
		return false
	}
	namespace := &corev1.Namespace{}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: inNamespace}, namespace); err != nil {
		ctrl.LoggerFrom(ctx).
			Error(err, "cannot see whether the namespace ends, so that a revocation waits until its time is over")
		return false
	}
	return namespace.DeletionTimestamp != nil
}

// stays reports whether a Secret remains when its Certificate is deleted.
func stays(secret *corev1.Secret, crt *cmapi.Certificate) bool {
	return !metav1.IsControlledBy(secret, crt) || slices.Contains(crt.Finalizers, metav1.FinalizerOrphanDependents)
}

// note records on a Secret that stays that its certificate is revoked and, if so, that its key is
// compromised. It returns the Secret as it is then.
func (r *Reconciler) note(
	ctx context.Context,
	crt *cmapi.Certificate,
	secret *corev1.Secret,
	c certificate,
	byKey bool,
) (*corev1.Secret, error) {
	if c.key == nil || !stays(secret, crt) {
		return secret, nil
	}
	next := secret.DeepCopy()
	changed := false
	if chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey]); err == nil && chain[0].Equal(c.leaf) {
		changed = NoteRevoked(next, c.leaf)
	}
	if byKey || reasonOf(crt) == cmapi.RevocationReasonKeyCompromise {
		changed = NoteCompromised(next, c.leaf) || changed
	}
	if !changed {
		return secret, nil
	}
	if err := r.Client.Patch(
		ctx,
		next,
		client.MergeFromWithOptions(secret, client.MergeFromWithOptimisticLock{}),
	); client.IgnoreNotFound(
		err,
	) != nil {
		return nil, fmt.Errorf("note the revocation on Secret %q: %w", secret.Name, err)
	}
	return next, nil
}
