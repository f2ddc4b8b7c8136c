// Package request approves and signs CertificateRequests, and signs Kubernetes
// CertificateSigningRequests for the same issuers. Requests to external issuers are only approved.
package request

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// approver is the reason of the Approved condition, and ApprovedMessage its text, that
	// cert-manager's own approver writes.
	approver        = "cert-manager.io"
	approvedMessage = "Certificate request has been approved by cert-manager.io"
	issuedMessage   = "Certificate fetched from issuer successfully"
	checkedMessage  = "The CSR asks for no more than the spec"

	// mendedBackstop is when a request retries with an issuer that was ready and had an invalid
	// Secret. Usually the issuer's condition changes meanwhile, and that starts a pass. The condition
	// does not change if the Secret is corrected before the issuer's own pass.
	mendedBackstop = time.Minute
	// unprotectedAgain is how often a waiting request checks whether the admission policies are
	// enforced, as requests do not watch that.
	unprotectedAgain = 15 * time.Second
)

// Reconciler approves and signs CertificateRequests.
type Reconciler struct {
	Client  client.Client
	Scope   signer.Scope
	Signers signer.ByType
	Limits  pki.Limits
	Events  record.EventRecorder
	Metrics *observe.Metrics
	Clock   clock.PassiveClock
	// DisableApproval leaves approval to other approvers.
	DisableApproval bool
	// Unprotected says, as a text for users, why approval and the credentials of ClusterIssuers are
	// not safe now. It is empty if they are.
	Unprotected func() string

	// Live reads from the API server.
	Live client.Reader

	permissions permissions
	signers     signers
}

// byKeySecret is the field index of unfinished CertificateRequests by the Secret, namespace/name,
// with their private key.
const byKeySecret = "metadata.annotations." + cmapi.CertificateRequestPrivateKeyAnnotationKey

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	r.permissions = permissions{client: r.Client, clock: r.Clock}
	r.signers = signers{client: r.Client, live: r.Live, clock: r.Clock}
	err := mgr.GetFieldIndexer().IndexField(ctx, &cmapi.CertificateRequest{}, byKeySecret, func(o client.Object) []string {
		cr := o.(*cmapi.CertificateRequest)
		name := cr.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey]
		if name == "" || finished(&cr.Status) {
			return nil
		}
		return []string{cr.Namespace + "/" + name}
	})
	if err != nil {
		return fmt.Errorf("index CertificateRequests by key: %w", err)
	}
	unfinished := func(ctx context.Context, options ...client.ListOption) []reconcile.Request {
		var list cmapi.CertificateRequestList
		if err := r.Client.List(ctx, &list, options...); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			if !finished(&list.Items[i].Status) {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
			}
		}
		return requests
	}
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			return unfinished(ctx, r.Scope.Of(o.(cmapi.GenericIssuer)).OfIssuer()...)
		},
	)
	keyChanged := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return unfinished(ctx, client.MatchingFields{byKeySecret: o.GetNamespace() + "/" + o.GetName()},
			client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true})
	})
	const name = "certificaterequests"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmapi.CertificateRequest{}, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(e event.CreateEvent) bool { return !isDone(e.Object.(*cmapi.CertificateRequest)) },
			UpdateFunc: func(e event.UpdateEvent) bool { return !isDone(e.ObjectNew.(*cmapi.CertificateRequest)) },
			DeleteFunc: func(event.DeleteEvent) bool { return false },
		})).
		Owns(&cmacme.Order{}).
		Watches(&corev1.Secret{}, keyChanged).
		WatchesRawSource(source.Kind(others, client.Object(secrets.Metadata()), keyChanged))
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, reconcile.Reconciler(r)))
}

// isDone reports whether the controller has nothing left to do.
func isDone(cr *cmapi.CertificateRequest) bool {
	if finished(&cr.Status) {
		return true
	}
	decided := cmapi.CertificateRequestIsApproved(&cr.Status) && checked(&cr.Status) ||
		cmapi.CertificateRequestIsDenied(&cr.Status)
	return decided && signer.External(cr.Spec.IssuerRef) && !forbidden(cr)
}

// Reconcile makes a pass for one CertificateRequest.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	cr := &cmapi.CertificateRequest{}
	if err := r.Client.Get(ctx, request.NamespacedName, cr, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if isDone(cr) || cr.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if signer.External(cr.Spec.IssuerRef) && r.Scope.Namespace == "" {
		if changed := r.publish(ctx, cr); changed {
			return reconcile.Result{RequeueAfter: signersSettle}, nil // when the policy has seen it
		}
	}
	o, err := r.observe(ctx, cr)
	if err != nil {
		return reconcile.Result{}, err
	}
	d := decide(o)
	if d.verdict == leave && o.forbidden == "" && !forbidden(cr) {
		if r.DisableApproval {
			return reconcile.Result{}, nil
		}
		// The controller has no permission yet, and does not watch RBAC.
		return reconcile.Result{RequeueAfter: permissionLife}, nil
	}
	return r.act(ctx, cr, o, d)
}

// act carries out a decision, and writes the status in one patch.
func (r *Reconciler) act(
	ctx context.Context,
	cr *cmapi.CertificateRequest,
	o observation,
	d decision,
) (reconcile.Result,
	error) {
	next := cr.DeepCopy()
	forbid(next, o.forbidden, r.Clock.Now())
	var result reconcile.Result
	if o.forbidden != "" {
		result.RequeueAfter = permissionLife // RBAC is not watched
	}
	failure := o.unasked
	if d.check {
		mark(next, r.Clock.Now())
	}
	if d.approve {
		cmapi.SetCertificateRequestCondition(&next.Status, r.Clock.Now(), cmapi.CertificateRequestCondition{
			Type:    cmapi.CertificateRequestConditionApproved,
			Status:  cmmeta.ConditionTrue,
			Reason:  approver,
			Message: approvedMessage,
		})
	}
	var say func() // called after the patch: if that fails, the next pass says the same
	switch d.verdict {
	case refuse:
		say = r.refuse(next, d.message)
	case approve:
		if !d.approve && !r.DisableApproval {
			result.RequeueAfter = permissionLife // as above
		}
	case deny:
		r.fail(next, cmapi.CertificateRequestReasonDenied, d.message)
	case wait:
		say = r.pending(next, d.reason, d.message)
		next.Status.SetUnreachable(r.Clock.Now(), d.unreachable, d.message)
		switch {
		case d.reason == "WaitingForApproval" && !r.DisableApproval:
			result.RequeueAfter = permissionLife // RBAC is not watched
		case d.reason == reasonUnprotected:
			result.RequeueAfter = unprotectedAgain
		}
	case sign:
		say, result, failure = r.sign(ctx, next, o.issuer, o.csr)
	}
	if equality.Semantic.DeepEqual(cr.Status, next.Status) {
		return result, failure
	}
	err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(cr, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsForbidden(err) && d.approve:
		// The permission was withdrawn, or is missing for this external issuer.
		r.permissions.refused()
		if err := r.writeForbidden(ctx, cr, d.check, err); err != nil {
			return reconcile.Result{}, err
		}
		return reconcile.Result{RequeueAfter: permissionLife}, nil // RBAC is not watched
	case err != nil:
		return reconcile.Result{}, observe.StatusRefused(r.Events, cr, err)
	}
	logTransition(ctx, cr, next, r.Clock.Now())
	if d.verdict == wait {
		logWait(ctx, cr, next)
	}
	if say != nil {
		say()
	}
	return result, failure
}

// publish writes the resource name of a request's external issuer for the admission policy. Without
// the entry the policy derives the name from the kind, so a failure only delays an approval.
func (r *Reconciler) publish(ctx context.Context, cr *cmapi.CertificateRequest) (changed bool) {
	kind, err := r.permissions.installed(cr.Spec.IssuerRef)
	if err == nil && kind != nil {
		changed, err = r.signers.publish(ctx, kind)
	}
	if err != nil {
		log.FromContext(ctx).Info("the admission policy goes by the name of the issuer's kind", "kind",
			cr.Spec.IssuerRef.Kind, "error", err.Error())
	}
	return changed
}

func (r *Reconciler) observe(ctx context.Context, cr *cmapi.CertificateRequest) (observation, error) {
	o := observation{request: cr}
	if r.Unprotected != nil {
		o.unprotected = r.Unprotected()
	}
	var err error
	if o.csr, o.unfit, err = r.check(ctx, cr); err != nil {
		return o, err
	}
	switch {
	case r.DisableApproval, cmapi.CertificateRequestIsApproved(&cr.Status), cmapi.CertificateRequestIsDenied(&cr.Status):
	default:
		needs := ""
		o.mayApprove, needs, o.unasked = r.permissions.mayApprove(ctx, cr)
		switch {
		case o.unasked != nil:
			o.forbidden = o.unasked.Error()
		case !o.mayApprove && needs != "":
			o.forbidden = r.permissions.missing(ctx, cr, needs)
		}
	}
	o.issuer, err = r.Scope.Get(ctx, r.Client, cr.Namespace, cr.Spec.IssuerRef)
	return o, err
}

// check decodes the CSR of a request, and says what is wrong with it: it is invalid, or asks for
// more than the spec. Approvers rely on the spec.
func (r *Reconciler) check(ctx context.Context, cr *cmapi.CertificateRequest) (csr *x509.CertificateRequest,
	unfit string, err error) {
	csr, err = r.Limits.DecodeCSRPEM(cr.Spec.Request)
	if err != nil {
		return nil, fmt.Sprintf("spec.request: %s", err), nil
	}
	if err := pki.CheckCSR(csr, cr.Spec.IsCA, words(cr.Spec.Usages)); err != nil {
		return nil, err.Error(), nil
	}
	// External issuers check names themselves.
	if signer.External(cr.Spec.IssuerRef) || pki.CheckCSRNames(csr) == nil {
		return csr, "", nil
	}
	accepted, err := r.ownNames(ctx, cr)
	if err != nil {
		return nil, "", err
	}
	if err := pki.CheckCSRNames(csr, accepted...); err != nil {
		return nil, err.Error(), nil
	}
	return csr, "", nil
}

// ownNames returns the DNS names of the Certificate that a request is for, which were checked when
// it was applied. A request without a Certificate has none: anyone can write an owner reference.
func (r *Reconciler) ownNames(ctx context.Context, cr *cmapi.CertificateRequest) ([]string, error) {
	owner := metav1.GetControllerOf(cr)
	if owner == nil || owner.Kind != cmapi.CertificateKind {
		return nil, nil
	}
	crt := &cmapi.Certificate{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: cr.Namespace, Name: owner.Name}, crt)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get Certificate %s of the request: %w", owner.Name, err)
	}
	if err != nil || crt.UID != owner.UID {
		return nil, nil
	}
	return crt.Spec.DNSNames, nil
}

// refuse ends a request with a CSR that must not be signed.
func (r *Reconciler) refuse(cr *cmapi.CertificateRequest, message string) (say func()) {
	cmapi.SetCertificateRequestCondition(&cr.Status, r.Clock.Now(), cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionInvalidRequest, Status: cmmeta.ConditionTrue,
		Reason: "RequestParsingError", Message: message,
	})
	r.fail(cr, cmapi.CertificateRequestReasonFailed, message)
	return r.warning(cr, "RequestParsingError", message)
}

// sign signs and sets the outcome in the status of cr. The error again asks for a retry by the
// queue.
func (r *Reconciler) sign(ctx context.Context, cr *cmapi.CertificateRequest, issuer *signer.Issuer,
	csr *x509.CertificateRequest) (say func(), result reconcile.Result, again error) {
	s, ok := r.Signers[issuer.Type()]
	if !ok {
		return r.pending(
			cr,
			"IssuerNotReady",
			fmt.Sprintf("%s is of type %s, which is not supported by this version of Perennial", issuer, issuer.Type()),
		), reconcile.Result{}, nil
	}
	if cr.Annotations[signer.ProfileAnnotation] != "" && issuer.Type() != signer.TypeACME {
		message := fmt.Sprintf(
			"spec.acmeProfile: %s is not an ACME issuer: leave the profile out, or name another issuer",
			issuer,
		)
		r.fail(cr, cmapi.CertificateRequestReasonFailed, message)
		return r.warning(cr, "InvalidProfile", message), reconcile.Result{}, nil
	}
	answer, err := s.Sign(ctx, issuer, signer.Request{
		Namespace:     cr.Namespace,
		Name:          cr.Name,
		Owner:         *metav1.NewControllerRef(cr, cmapi.SchemeGroupVersion.WithKind("CertificateRequest")),
		Labels:        cr.Labels,
		Annotations:   cr.Annotations,
		KeySecret:     cr.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey],
		KeyAnnotation: cmapi.CertificateRequestPrivateKeyAnnotationKey,
		KeyMissing:    "MissingSecret",
		IssuerRef:     cr.Spec.IssuerRef,
		CSR:           csr,
		IsCA:          cr.Spec.IsCA,
		Usages:        words(cr.Spec.Usages),
		Duration:      cr.Spec.DurationOrDefault(),
		Asked:         cr.Spec.Duration,
	})
	now := r.Clock.Now()
	pause(cr, answer.Paused, now)
	cr.Status.SetUnreachable(now, answer.Unreachable, answer.Pending)
	if err != nil {
		switch failure := fault.Of(err); failure.Class {
		case fault.Refused:
			r.fail(cr, cmapi.CertificateRequestReasonFailed, err.Error())
			return r.warning(cr, failure.Reason, err.Error()), reconcile.Result{}, nil
		case fault.Misconfigured:
			return r.pending(cr, failure.Reason, err.Error()), reconcile.Result{RequeueAfter: mendedBackstop}, nil
		case fault.Limited:
			return r.pending(
					cr,
					failure.Reason,
					err.Error(),
				), reconcile.Result{
					RequeueAfter: failure.Wait(now),
				}, nil // when the other side said
		default:
			// Retry with the queue's back-off.
			return r.pending(cr, failure.Reason, fault.Retried(err)), reconcile.Result{}, err
		}
	}
	if len(answer.Certificate) == 0 {
		if answer.Again.After(now) {
			result.RequeueAfter = answer.Again.Sub(now) // when the signer said
		}
		// No event for this: the event OrderCreated says enough.
		r.pending(cr, "IssuancePending", answer.Pending)
		if answer.Created != "" {
			// Report it now: the next pass finds the Order created.
			r.Events.Event(cr, corev1.EventTypeNormal, "OrderCreated", answer.Created)
		}
		return nil, result, nil
	}
	cr.Status.Certificate, cr.Status.CA = answer.Certificate, answer.CA
	cmapi.SetCertificateRequestCondition(&cr.Status, now, cmapi.CertificateRequestCondition{
		Type:    cmapi.CertificateRequestConditionReady,
		Status:  cmmeta.ConditionTrue,
		Reason:  cmapi.CertificateRequestReasonIssued,
		Message: issuedMessage,
	})
	if answer.Warning == "" {
		// No event: the condition says the same, and an event costs a write for each certificate.
		return nil, reconcile.Result{}, nil
	}
	return r.warning(cr, answer.WarningReason, answer.Warning), reconcile.Result{}, nil
}

// pause sets the condition Paused of a request, or removes it if why is empty.
func pause(cr *cmapi.CertificateRequest, why string, now time.Time) {
	if why == "" {
		cr.Status.Conditions = slices.DeleteFunc(
			cr.Status.Conditions,
			func(c cmapi.CertificateRequestCondition) bool { return c.Type == signer.ConditionPaused },
		)
		return
	}
	cmapi.SetCertificateRequestCondition(&cr.Status, now, cmapi.CertificateRequestCondition{
		Type: signer.ConditionPaused, Status: cmmeta.ConditionTrue, Reason: signer.ReasonValidationsFailed, Message: why,
	})
}

// fail ends the request.
func (r *Reconciler) fail(cr *cmapi.CertificateRequest, reason, message string) {
	now := metav1.NewTime(r.Clock.Now())
	if cr.Status.FailureTime == nil {
		cr.Status.FailureTime = &now
	}
	cmapi.SetCertificateRequestCondition(&cr.Status, now.Time, cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionReady, Status: cmmeta.ConditionFalse, Reason: reason, Message: message,
	})
}

// pending sets what the request waits for. There is one event when it begins to wait, not one for
// each change.
func (r *Reconciler) pending(cr *cmapi.CertificateRequest, reason, message string) (say func()) {
	first := cmapi.CertificateRequestReadyReason(&cr.Status) != cmapi.CertificateRequestReasonPending
	cmapi.SetCertificateRequestCondition(&cr.Status, r.Clock.Now(), cmapi.CertificateRequestCondition{
		Type:    cmapi.CertificateRequestConditionReady,
		Status:  cmmeta.ConditionFalse,
		Reason:  cmapi.CertificateRequestReasonPending,
		Message: message,
	})
	if !first {
		return nil
	}
	return func() { r.Events.Event(cr, corev1.EventTypeNormal, reason, message) }
}

func (r *Reconciler) warning(cr *cmapi.CertificateRequest, reason, message string) (say func()) {
	return func() { r.Events.Event(cr, corev1.EventTypeWarning, reason, message) }
}

func words(usages []cmapi.KeyUsage) []string {
	var s []string
	for _, u := range usages {
		s = append(s, string(u))
	}
	return s
}
