package request

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
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

// Annotations of a CertificateSigningRequest, for what its spec has no fields for.
const (
	durationAnnotation  = "experimental.cert-manager.io/request-duration"
	isCAAnnotation      = "experimental.cert-manager.io/request-is-ca"
	keySecretAnnotation = "experimental.cert-manager.io/private-key-secret-name"
)

// minimumCSRDuration is that of spec.expirationSeconds.
const minimumCSRDuration = 10 * time.Minute

// CSRReconciler signs Kubernetes CertificateSigningRequests with a signerName for an issuer of this
// controller. Other clients approve them, as usual in Kubernetes.
type CSRReconciler struct {
	Client  client.Client
	Scope   signer.Scope
	Signers signer.ByType
	Limits  pki.Limits
	Events  record.EventRecorder
	Metrics *observe.Metrics
	Clock   clock.PassiveClock
	// Guard says why an issuer must not be used now. It may be nil.
	Guard func(*signer.Issuer) error
}

// bySignerName is the field index of unfinished CertificateSigningRequests by signerName.
// byCSRKeySecret is their field index by the name of the Secret with the private key.
const (
	bySignerName   = "spec.signerName"
	byCSRKeySecret = "metadata.annotations." + keySecretAnnotation
)

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours.
func (r *CSRReconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	for field, value := range map[string]func(*certificatesv1.CertificateSigningRequest) string{
		bySignerName: func(csr *certificatesv1.CertificateSigningRequest) string { return csr.Spec.SignerName },
		byCSRKeySecret: func(csr *certificatesv1.CertificateSigningRequest) string {
			return csr.Annotations[keySecretAnnotation]
		},
	} {
		err := mgr.GetFieldIndexer().
			IndexField(ctx, &certificatesv1.CertificateSigningRequest{}, field, func(o client.Object) []string {
				csr := o.(*certificatesv1.CertificateSigningRequest)
				if v := value(csr); v != "" && !csrFinished(csr) {
					return []string{v}
				}
				return nil
			})
		if err != nil {
			return fmt.Errorf("index CertificateSigningRequests by %s: %w", field, err)
		}
	}
	matching := func(ctx context.Context, field, value string) []reconcile.Request {
		var list certificatesv1.CertificateSigningRequestList
		if err := r.Client.List(ctx, &list, client.MatchingFields{field: value}, client.UnsafeDisableDeepCopy,
			&client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	}
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			return matching(ctx, bySignerName, r.Scope.Of(o.(cmapi.GenericIssuer)).SignerName())
		},
	)
	keyChanged := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return matching(ctx, byCSRKeySecret, o.GetName())
	})
	const name = "certificatesigningrequests"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&certificatesv1.CertificateSigningRequest{},
			builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
				csr := o.(*certificatesv1.CertificateSigningRequest)
				_, _, ours := r.issuerOf(csr.Spec.SignerName)
				return ours && !csrFinished(csr)
			}))).
		Owns(&cmacme.Order{}).
		Watches(&corev1.Secret{}, keyChanged).
		WatchesRawSource(source.Kind(others, client.Object(secrets.Metadata()), keyChanged))
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, reconcile.Reconciler(r)))
}

// issuerOf is the inverse of signer.Issuer.SignerName. The names of namespaces have no dots, those
// of issuers may.
func (r *CSRReconciler) issuerOf(signerName string) (namespace string, ref cmmeta.IssuerReference, ok bool) {
	resource, name, ok := strings.Cut(signerName, "/")
	if !ok || name == "" {
		return "", ref, false
	}
	switch resource {
	case "clusterissuers." + cmmeta.DefaultIssuerGroup:
		return "", cmmeta.IssuerReference{Kind: signer.KindClusterIssuer, Name: name}, r.Scope.Namespace == ""
	case "issuers." + cmmeta.DefaultIssuerGroup:
		namespace, name, ok = strings.Cut(name, ".")
		return namespace, cmmeta.IssuerReference{Kind: signer.KindIssuer, Name: name},
			ok && namespace != "" && name != "" && (r.Scope.Namespace == "" || r.Scope.Namespace == namespace)
	}
	return "", ref, false
}

func csrHas(csr *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(
		csr.Status.Conditions,
		func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t },
	)
}

func csrFinished(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || csrHas(csr, certificatesv1.CertificateFailed) ||
		csrHas(csr, certificatesv1.CertificateDenied)
}

// Reconcile makes a pass for one CertificateSigningRequest.
func (r *CSRReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := r.Client.Get(ctx, request.NamespacedName, csr, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	namespace, ref, ours := r.issuerOf(csr.Spec.SignerName)
	if !ours || csrFinished(csr) || csr.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if !csrHas(csr, certificatesv1.CertificateApproved) {
		r.Events.Event(csr, corev1.EventTypeNormal, "WaitingApproval", "Waiting for the Approved condition before issuing")
		return reconcile.Result{}, nil
	}
	issuer, err := r.Scope.Get(ctx, r.Client, namespace, ref)
	if err != nil {
		return reconcile.Result{}, err
	}
	return r.bySigner(ctx, csr, namespace, ref, issuer)
}

// bySignerName lets the issuer sign an approved request. The issuer is nil if it does not exist.
func (r *CSRReconciler) bySigner(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, namespace string,
	ref cmmeta.IssuerReference, issuer *signer.Issuer) (reconcile.Result, error) {
	if ref.Kind == signer.KindIssuer {
		// Before it is said whether the Issuer exists, which is not for everyone to know.
		allowed, err := r.mayReference(ctx, csr, namespace, ref.Name)
		if fault.RefusedByAPI(err) {
			r.Events.Eventf(csr, corev1.EventTypeWarning, "AccessReviewRefused",
				"%v. Let the controller create subjectaccessreviews of authorization.k8s.io; it is tried again", err)
		}
		if err != nil {
			return reconcile.Result{}, err
		}
		if !allowed {
			return r.failed(ctx, csr, "DeniedReference", fmt.Sprintf(
				"Requester may not reference Namespaced Issuer %s/%s: user %q needs the verb reference on "+
					"signers.cert-manager.io %q in that namespace",
				namespace, ref.Name, csr.Spec.Username, ref.Name))
		}
	}
	if issuer == nil {
		r.Events.Eventf(
			csr,
			corev1.EventTypeWarning,
			"IssuerNotFound",
			"Referenced %s %s not found: create it",
			ref.Kind,
			strings.TrimPrefix(namespace+"/"+ref.Name, "/"),
		)
		return reconcile.Result{}, nil
	}
	req, err := r.request(csr, issuer)
	if err != nil {
		return r.failed(ctx, csr, fault.Of(err).Reason, err.Error())
	}
	if ready, why := issuer.Ready(); !ready {
		message := fmt.Sprintf("Referenced %s does not have a Ready status condition", issuer)
		if why != "" {
			message += ": " + why
		}
		r.Events.Event(csr, corev1.EventTypeWarning, "IssuerNotReady", message)
		return reconcile.Result{}, nil
	}
	if r.Guard != nil {
		if err := r.Guard(issuer); err != nil {
			r.Events.Event(csr, corev1.EventTypeWarning, "IssuerNotReady", err.Error())
			return reconcile.Result{RequeueAfter: unprotectedAgain}, nil
		}
	}
	s, ok := r.Signers[issuer.Type()]
	if !ok {
		r.Events.Eventf(
			csr,
			corev1.EventTypeWarning,
			"IssuerNotReady",
			"%s is of type %s, which is not supported by this version of Perennial",
			issuer,
			issuer.Type(),
		)
		return reconcile.Result{}, nil
	}
	answer, err := s.Sign(ctx, issuer, req)
	if err != nil {
		return r.signFailed(ctx, csr, err)
	}
	return r.answered(ctx, csr, answer)
}

// signFailed reports why a signer does not sign, and returns when to ask it again.
func (r *CSRReconciler) signFailed(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, err error) (
	reconcile.Result, error) {
	failure := fault.Of(err)
	if failure.Class == fault.Refused {
		return r.failed(ctx, csr, failure.Reason, err.Error())
	}
	message := err.Error()
	if failure.Class == fault.Transient {
		message = fault.Retried(err)
	}
	r.Events.Event(csr, corev1.EventTypeWarning, failure.Reason, message)
	switch failure.Class {
	case fault.Misconfigured:
		return reconcile.Result{RequeueAfter: mendedBackstop}, nil // what is corrected may not be watched
	case fault.Limited:
		// Retry when the server said.
		return reconcile.Result{RequeueAfter: failure.Wait(r.Clock.Now())}, nil
	}
	return reconcile.Result{}, err // again with the queue's back-off
}

// answered stores the certificate of an answer, or reports what the signer waits for.
func (r *CSRReconciler) answered(ctx context.Context, csr *certificatesv1.CertificateSigningRequest,
	answer signer.Result) (reconcile.Result, error) {
	if len(answer.Certificate) == 0 {
		reason, message := "IssuancePending", answer.Pending
		if answer.Created != "" {
			reason, message = "OrderCreated", answer.Created
		}
		r.Events.Event(csr, corev1.EventTypeNormal, reason, message)
		if now := r.Clock.Now(); answer.Again.After(now) {
			return reconcile.Result{RequeueAfter: answer.Again.Sub(now)}, nil // when the signer said
		}
		return reconcile.Result{}, nil
	}
	next := csr.DeepCopy()
	next.Status.Certificate = answer.Certificate
	if err := r.write(ctx, csr, next); err != nil {
		return reconcile.Result{}, err
	}
	if answer.Warning != "" {
		r.Events.Event(csr, corev1.EventTypeWarning, answer.WarningReason, answer.Warning)
	}
	r.Events.Event(csr, corev1.EventTypeNormal, "CertificateIssued", issuedMessage)
	return reconcile.Result{}, nil
}

// request returns what the CertificateSigningRequest asks for. Its errors are final.
func (r *CSRReconciler) request(
	csr *certificatesv1.CertificateSigningRequest,
	issuer *signer.Issuer,
) (signer.Request, error) {
	req := signer.Request{
		Namespace: issuer.SecretNamespace, Name: csr.Name,
		Owner:     *metav1.NewControllerRef(csr, certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest")),
		Labels:    csr.Labels,
		KeySecret: csr.Annotations[keySecretAnnotation], KeyAnnotation: keySecretAnnotation, KeyMissing: "SecretNotFound",
		IssuerRef: cmmeta.IssuerReference{Name: issuer.GetName(), Kind: issuer.Kind, Group: cmmeta.DefaultIssuerGroup},
		IsCA:      csr.Annotations[isCAAnnotation] == "true",
		Duration:  cmapi.DefaultCertificateDuration,
	}
	for _, u := range csr.Spec.Usages {
		req.Usages = append(req.Usages, string(u))
	}
	if seconds := csr.Spec.ExpirationSeconds; seconds != nil {
		req.Duration = time.Duration(*seconds) * time.Second
	} else if text, ok := csr.Annotations[durationAnnotation]; ok {
		d, err := time.ParseDuration(text)
		if err != nil {
			return req, fault.Refusedf(
				"ErrorParseDuration",
				"Failed to parse requested duration: annotation %s: %w",
				durationAnnotation,
				err,
			)
		}
		req.Duration = d
	}
	// Without an annotation, cert-manager asks for its default.
	req.Asked = &metav1.Duration{Duration: req.Duration}
	if req.Duration < minimumCSRDuration {
		return req, fault.Refusedf(
			"InvalidDuration",
			"CertificateSigningRequest minimum allowed duration is %s, requested %s",
			minimumCSRDuration,
			req.Duration,
		)
	}
	var err error
	if req.CSR, err = r.Limits.DecodeCSRPEM(csr.Spec.Request); err != nil {
		return req, fault.Refusedf("RequestParsingError", "spec.request: %w", err)
	}
	if err := cmp.Or(pki.CheckCSR(req.CSR, req.IsCA, req.Usages), pki.CheckCSRNames(req.CSR)); err != nil {
		return req, fault.Refusedf("RequestParsingError", "%w", err)
	}
	return req, nil
}

// mayReference asks whether the requester may use an Issuer of the namespace: a
// CertificateSigningRequest has no namespace, so without this check every user could use every
// Issuer.
func (r *CSRReconciler) mayReference(
	ctx context.Context,
	csr *certificatesv1.CertificateSigningRequest,
	namespace, name string,
) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, permissionTimeout)
	defer cancel()
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range csr.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	for _, name := range []string{name, "*"} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group:     cmmeta.DefaultIssuerGroup,
				Resource:  "signers",
				Verb:      "reference",
				Namespace: namespace,
				Name:      name,
				Version:   "*",
			},
		}}
		if err := r.Client.Create(ctx, review, &client.CreateOptions{DisableReadYourWritesConsistency: true}); err != nil {
			return false, fmt.Errorf(
				"ask whether user %q may reference Issuer %s/%s: %w",
				csr.Spec.Username,
				namespace,
				name,
				err,
			)
		}
		if review.Status.Allowed {
			return true, nil
		}
	}
	return false, nil
}

func (r *CSRReconciler) failed(
	ctx context.Context,
	csr *certificatesv1.CertificateSigningRequest,
	reason, message string,
) (reconcile.Result, error) {
	next := csr.DeepCopy()
	now := metav1.NewTime(r.Clock.Now())
	next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastUpdateTime: now, LastTransitionTime: now,
	})
	if err := r.write(ctx, csr, next); err != nil {
		return reconcile.Result{}, err
	}
	r.Events.Event(csr, corev1.EventTypeWarning, reason, message)
	return reconcile.Result{}, nil
}

func (r *CSRReconciler) write(ctx context.Context, was, is *certificatesv1.CertificateSigningRequest) error {
	err := r.Client.Status().Patch(ctx, is, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return observe.StatusRefused(r.Events, was, err)
	}
	return nil
}
