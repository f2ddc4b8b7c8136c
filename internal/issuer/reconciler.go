// Package issuer keeps the status of Issuers and ClusterIssuers: whether they can be used and, for
// type ca, which CA is in use and which ones it replaced.
package issuer

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/admissionpolicies"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// previousInterval is how often the controller checks whether replaced CAs are still in use.
// Nothing depends on their end, so a minute is enough.
const previousInterval = time.Minute

// refusedAgain is when a CA is asked again that refused: it may correct the cause itself.
const refusedAgain = time.Hour

// Reconciler keeps the status of the issuers of one kind.
type Reconciler struct {
	Client  client.Client
	Secrets *secrets.Store
	Scope   signer.Scope
	Signers signer.ByType
	Limits  pki.Limits
	Events  record.EventRecorder
	Metrics *observe.Metrics
	Clock   clock.PassiveClock
	Limiter *limiter.Limiter
	// Kind is signer.KindIssuer or signer.KindClusterIssuer.
	Kind string
	// CSRs says that Kubernetes CertificateSigningRequests are served. Their certificates keep a
	// replaced CA in use, too.
	CSRs bool
	// Policies knows whether ClusterIssuers are protected. It may be nil.
	Policies *admissionpolicies.Watcher
}

// object is what Issuer and ClusterIssuer have in common.
type object interface {
	client.Object
	cmapi.GenericIssuer
}

func (r *Reconciler) new() object {
	if r.Kind == signer.KindClusterIssuer {
		return &cmapi.ClusterIssuer{}
	}
	return &cmapi.Issuer{}
}

func (r *Reconciler) newList() client.ObjectList {
	if r.Kind == signer.KindClusterIssuer {
		return &cmapi.ClusterIssuerList{}
	}
	return &cmapi.IssuerList{}
}

// bySecret is the field index of issuers by the Secrets, namespace/name, that they refer to.
const bySecret = "spec.secrets"

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, r.new(), bySecret, func(o client.Object) []string {
		issuer := r.Scope.Of(o.(object))
		s, ok := r.Signers[issuer.Type()]
		if !ok {
			return nil
		}
		var keys []string
		for _, name := range s.References(&issuer.GetSpec().IssuerConfig) {
			keys = append(keys, issuer.SecretNamespace+"/"+name)
		}
		return keys
	})
	if err != nil {
		return fmt.Errorf("index %ss by Secret: %w", r.Kind, err)
	}
	name := map[string]string{signer.KindIssuer: "issuers", signer.KindClusterIssuer: "clusterissuers"}[r.Kind]
	secretChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.issuersOf(ctx, o.GetNamespace(), o.GetName())
		},
	)
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(r.new(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, secretChanged).
		WatchesRawSource(source.Kind(others, client.Object(secrets.Metadata()), secretChanged)).
		WatchesRawSource(r.Limiter.Wakeups())
	if r.guarded() {
		changed := make(chan event.GenericEvent, 1)
		r.Policies.OnChange(func() {
			select {
			case changed <- event.GenericEvent{Object: r.new()}: // for all issuers, not this one
			default:
			}
		})
		b = b.WatchesRawSource(source.Channel(changed, handler.EnqueueRequestsFromMapFunc(r.all)))
	}
	return b.Complete(observe.Instrument(r.Metrics, name, r.Limiter.Reconciler(r)))
}

// guarded reports whether the issuers are used only while admission policies protect them.
func (r *Reconciler) guarded() bool { return r.Policies != nil && r.Kind == signer.KindClusterIssuer }

// all returns all ClusterIssuers.
func (r *Reconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var list cmapi.ClusterIssuerList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

func (r *Reconciler) issuersOf(ctx context.Context, namespace, secret string) []reconcile.Request {
	if r.Kind == signer.KindClusterIssuer && namespace != r.Scope.ClusterResourceNamespace {
		return nil
	}
	list := r.newList()
	err := r.Client.List(ctx, list, client.MatchingFields{bySecret: namespace + "/" + secret},
		client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true})
	if err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	switch list := list.(type) {
	case *cmapi.IssuerList:
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	case *cmapi.ClusterIssuerList:
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile makes a pass for one issuer.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	o := r.new()
	if err := r.Client.Get(ctx, request.NamespacedName, o); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if o.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, nil
	}
	issuer := r.Scope.Of(o)
	before := o.DeepCopyObject().(object)

	readiness, err := r.check(ctx, issuer)
	if limiter.IsBusy(err) {
		return reconcile.Result{}, err
	}
	now := r.Clock.Now()
	var result reconcile.Result
	if readiness.CA != nil {
		status := issuer.GetStatus()
		status.CA = rotate(
			status.CA,
			readiness.CA,
			now,
			func(p cmapi.PreviousCA) bool { return r.inUse(ctx, issuer, p, now) },
		)
		status.CA.ChainDigest = r.chainDigest(ctx, issuer)
		// When the CA expires, the issuer stops being ready.
		result.RequeueAfter = status.CA.NotAfter.Sub(now)
		if len(status.CA.Previous) > 0 {
			result.RequeueAfter = min(result.RequeueAfter, previousInterval)
		}
	}
	if r.guarded() {
		issuer.GetStatus().SetUnprotected(now, r.Policies.Unprotected(), issuer.GetGeneration())
	}
	said := assess(issuer.GetStatus(), readiness, err, issuer.GetGeneration(), now)
	if !equality.Semantic.DeepEqual(before.GetStatus(), issuer.GetStatus()) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := r.Client.Status().Patch(ctx, o, patch); err != nil {
			return reconcile.Result{}, observe.StatusRefused(r.Events, before, err)
		}
		logTransition(ctx, before.GetStatus(), issuer.GetStatus())
	}
	for _, e := range said {
		r.Events.Event(o, e.kind, e.reason, e.message)
	}
	if c := cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionUnprotected); c != nil &&
		cmapi.GetIssuerCondition(before.GetStatus(), c.Type) == nil {
		r.Events.Event(o, corev1.EventTypeWarning, string(c.Type), c.Message)
	}
	at := stalledAt(issuer.GetStatus(), err)
	if err == nil {
		err = readiness.Unreachable
	}
	if err != nil {
		if result, err = again(err, now); err != nil {
			return result, err
		}
	}
	// At these times a missing object is no longer expected to appear, or what is not watched is
	// checked again.
	for _, wait := range []time.Duration{at.Sub(now), readiness.Again} {
		if wait > 0 && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
			result.RequeueAfter = wait
		}
	}
	return result, nil
}

// check asks the signer of the issuer's type.
func (r *Reconciler) check(ctx context.Context, issuer *signer.Issuer) (signer.Readiness, error) {
	if s, ok := r.Signers[issuer.Type()]; ok {
		return s.Check(ctx, issuer)
	}
	return signer.Readiness{}, fault.Misconfiguredf("UnsupportedType",
		"issuers of type %s are not supported by this version of Perennial", issuer.Type())
}

// issuerEvent is an event about the issuer.
type issuerEvent struct{ kind, reason, message string }

// assess writes what was found out about an issuer into its status, and returns the events of what
// changed.
func assess(status *cmapi.IssuerStatus, readiness signer.Readiness, err error, generation int64,
	now time.Time) (events []issuerEvent) {
	status.ObservedGeneration = generation
	event := func(problem bool, reason, message string) {
		kind := corev1.EventTypeNormal
		if problem {
			kind = corev1.EventTypeWarning
		}
		events = append(events, issuerEvent{kind, reason, message})
	}
	ready := cmapi.IssuerCondition{
		Type: cmapi.IssuerConditionReady, Status: cmmeta.ConditionTrue,
		Reason: readiness.Reason, Message: readiness.Message, ObservedGeneration: generation,
	}
	if err != nil {
		ready.Status, ready.Reason, ready.Message = cmmeta.ConditionFalse, fault.Of(err).Reason, err.Error()
		if ready.Reason == "" {
			ready.Reason = "Error" // the schema wants one
		}
	}
	old := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionReady)
	if old == nil || old.Status != ready.Status || old.Reason != ready.Reason {
		event(err != nil, ready.Reason, ready.Message)
	}
	cmapi.SetIssuerCondition(status, now, ready)
	stall(status, err, generation, now)

	message := ""
	if readiness.Unreachable != nil {
		message = readiness.Unreachable.Error()
	}
	was := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionUnreachable)
	if readiness.UnreachableReason != "" && err == nil && (was == nil || was.Reason != readiness.UnreachableReason) {
		event(true, readiness.UnreachableReason, message)
	}
	status.SetUnreachable(now, readiness.UnreachableReason, message, generation)

	solvers := readiness.Solvers
	if solvers == nil {
		solvers = &signer.SolverProblem{}
	}
	was = cmapi.GetIssuerCondition(status, cmapi.IssuerConditionSolversValid)
	if solvers.Reason != "" && (was == nil || was.Message != solvers.Message) {
		event(true, solvers.Reason, solvers.Message)
	}
	status.SetSolversInvalid(now, solvers.Reason, solvers.Message, generation)

	if readiness.ACME != nil {
		status.ACME = readiness.ACME
	}
	return events
}

// stall sets or removes the condition Stalled, after the condition Ready.
func stall(status *cmapi.IssuerStatus, err error, generation int64, now time.Time) {
	ready := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionReady)
	if at := stalledAt(status, err); at.IsZero() || now.Before(at) {
		status.SetStalled(now, "", "", generation)
	} else {
		status.SetStalled(now, ready.Reason, ready.Message, generation)
	}
}

// stalledAt returns from when on the issuer becomes ready only if a person acts, zero if never.
func stalledAt(status *cmapi.IssuerStatus, err error) time.Time {
	ready := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionReady)
	if err == nil || ready == nil || ready.LastTransitionTime == nil {
		return time.Time{}
	}
	return fault.Of(err).Stalled(ready.LastTransitionTime.Time)
}

// again returns when an issuer is reconciled again after an error.
func again(err error, now time.Time) (reconcile.Result, error) {
	switch failure := fault.Of(err); failure.Class {
	case fault.Limited:
		return reconcile.Result{RequeueAfter: failure.Wait(now)}, nil // when the other side said
	case fault.Refused:
		return reconcile.Result{RequeueAfter: refusedAgain}, nil // the CA may correct the cause itself
	case fault.Misconfigured:
		if !failure.Until.IsZero() {
			// The fault passes then, as for a CA that is not valid yet.
			return reconcile.Result{RequeueAfter: failure.Wait(now)}, nil
		}
		return reconcile.Result{}, nil // changes of the issuer and its Secrets are watched
	}
	return reconcile.Result{}, err // again with the queue's back-off
}

// inUse reports whether there is an unexpired certificate signed by a replaced CA: in the Secret of
// a Certificate, or in a request without a Certificate.
func (r *Reconciler) inUse(ctx context.Context, issuer *signer.Issuer, p cmapi.PreviousCA, now time.Time) bool {
	anchor, err := r.Limits.DecodeCertificatePEM([]byte(p.Certificate))
	if err != nil {
		return false
	}
	alive := func(chainPEM []byte) bool {
		chain, err := r.Limits.DecodeChainPEM(chainPEM)
		return err == nil && now.Before(chain[0].NotAfter) && SignedBy(chain, p.Fingerprint, anchor)
	}

	var certificates cmapi.CertificateList
	if err := r.Client.List(ctx, &certificates, issuer.OfIssuer()...); err != nil {
		return true
	}
	owned := map[types.UID]bool{}
	for i := range certificates.Items {
		crt := &certificates.Items[i]
		owned[crt.UID] = true
		secret, err := r.Secrets.Get(ctx, crt.Namespace, crt.Spec.SecretName)
		if err == nil && alive(secret.Data[corev1.TLSCertKey]) {
			return true
		}
	}
	var requests cmapi.CertificateRequestList
	if err := r.Client.List(ctx, &requests, issuer.OfIssuer()...); err != nil {
		return true
	}
	for i := range requests.Items {
		owner := metav1.GetControllerOf(&requests.Items[i])
		if (owner == nil || !owned[owner.UID]) && alive(requests.Items[i].Status.Certificate) {
			return true
		}
	}
	if r.CSRs {
		var csrs certificatesv1.CertificateSigningRequestList
		if err := r.Client.List(ctx, &csrs, client.UnsafeDisableDeepCopy); err != nil {
			return true
		}
		for i := range csrs.Items {
			if csrs.Items[i].Spec.SignerName == issuer.SignerName() && alive(csrs.Items[i].Status.Certificate) {
				return true
			}
		}
	}
	return false
}

// Watch makes a controller watch the issuers of a scope.
func Watch(b *builder.Builder, scope signer.Scope, h handler.EventHandler, which predicate.Predicate) *builder.Builder {
	b = b.Watches(&cmapi.Issuer{}, h, builder.WithPredicates(which))
	if scope.Namespace == "" {
		b = b.Watches(&cmapi.ClusterIssuer{}, h, builder.WithPredicates(which))
	}
	return b
}

// Changed is a predicate for the changes of an issuer that matter to the objects that refer to it:
// in its spec and its status.
func Changed() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, is := e.ObjectOld.(cmapi.GenericIssuer), e.ObjectNew.(cmapi.GenericIssuer)
		return was.GetGeneration() != is.GetGeneration() || was.GetUID() != is.GetUID() ||
			!equality.Semantic.DeepEqual(was.GetStatus(), is.GetStatus())
	}}
}

// Anchors returns the certificates that clients of the CA's leaves are to trust now: of the CA in
// use and of those it replaced.
func Anchors(
	ca *cmapi.CAIssuerStatus,
	limits pki.Limits,
	now time.Time,
) (current *x509.Certificate, previous []*x509.Certificate) {
	current, err := limits.DecodeCertificatePEM([]byte(ca.Certificate))
	if err != nil {
		return nil, nil
	}
	for _, p := range ca.Previous {
		c, err := limits.DecodeCertificatePEM([]byte(p.Certificate))
		if err == nil && now.Before(c.NotAfter) && !c.Equal(current) {
			previous = append(previous, c)
		}
	}
	return current, previous
}
