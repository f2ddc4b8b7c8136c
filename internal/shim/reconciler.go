package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
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
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	gwbeta "sigs.k8s.io/gateway-api/apis/v1beta1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// byOwner is the field index of Certificates by the UID of the object that controls them, or by
	// RequestedByAnnotation, and bySecret that of the objects by the Secrets that they name.
	byOwner  = "metadata.ownerReferences.controller"
	bySecret = "spec.tls.secretName"

	parentFallback = cmacme.ACMECertificateHTTP01ParentRefFallback
)

// Reconciler makes the Certificates of Ingresses, Gateways and ListenerSets.
type Reconciler struct {
	Client   client.Client
	Scope    signer.Scope
	Settings Settings
	// Ingresses, Gateways and ListenerSets say which kinds are reconciled. Gateways and ListenerSets
	// are skipped while a cluster does not have them.
	Ingresses, Gateways, ListenerSets bool
	Events                            record.EventRecorder
	Metrics                           *observe.Metrics
	Clock                             clock.Clock

	// SetupWithManager sets these.
	mgr         ctrl.Manager
	definitions cache.Cache
	queue       workqueue.TypedRateLimitingInterface[reconcile.Request]
	mistakes    reportMemory
	// gatewayCache is nil while the cluster has no Gateway API.
	view atomic.Pointer[gatewayCache]
}

// Strip removes from an Ingress all that the Reconciler does not need. It is a transform of the
// cache.
func Strip(o any) (any, error) {
	if i, ok := o.(*networkingv1.Ingress); ok {
		i.ManagedFields, i.Status = nil, networkingv1.IngressStatus{}
		i.Spec.Rules, i.Spec.DefaultBackend = nil, nil
		delete(i.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return o, nil
}

// request returns the request for an object: the name is KIND/NAME.
func request(kind, namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: kind + "/" + name}}
}

// gatewayAPI is the request to check whether the cluster has the Gateway API.
var gatewayAPI = request("CustomResourceDefinition", "", gwapi.GroupName)

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	_ cache.Cache,
	o controller.Options,
) error {
	r.mgr = mgr
	r.Settings.ClusterScoped = func(kind schema.GroupKind) bool {
		mapping, err := mgr.GetRESTMapper().RESTMapping(kind)
		return err == nil && mapping.Scope.Name() == meta.RESTScopeNameRoot
	}
	err := mgr.GetFieldIndexer().IndexField(ctx, &cmapi.Certificate{}, byOwner, func(o client.Object) []string {
		var owners []string
		if owner := metav1.GetControllerOf(o); owner != nil {
			owners = append(owners, string(owner.UID))
		}
		if by := o.GetAnnotations()[RequestedByAnnotation]; by != "" {
			owners = append(owners, by)
		}
		return owners
	})
	if err != nil {
		return fmt.Errorf("index Certificates by owner: %w", err)
	}
	const name = "shim"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		WatchesRawSource(source.Func(func(
			_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request],
		) error {
			r.queue = queue
			return nil
		})).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(r.wantedBy), builder.WithPredicates(predicate.Or(
			predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})))
	if r.Ingresses {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &networkingv1.Ingress{}, bySecret, func(o client.Object) []string {
			var secrets []string
			for _, w := range ofIngress(o.(*networkingv1.Ingress)).tls {
				secrets = append(secrets, w.secret.String())
			}
			return secrets
		}); err != nil {
			return fmt.Errorf("index Ingresses by Secret: %w", err)
		}
		b = b.Watches(&networkingv1.Ingress{}, handler.EnqueueRequestsFromMapFunc(r.affected))
	}
	if r.Gateways || r.ListenerSets {
		if r.definitions, err = cache.New(mgr.GetConfig(), cache.Options{
			HTTPClient:       mgr.GetHTTPClient(),
			Scheme:           mgr.GetScheme(),
			Mapper:           mgr.GetRESTMapper(),
			DefaultTransform: stripDefinition,
		}); err != nil {
			return fmt.Errorf("cache of the metadata of CRDs: %w", err)
		}
		if err := mgr.Add(r.definitions); err != nil {
			return err
		}
		ours := predicate.NewTypedPredicateFuncs(
			func(o *metav1.PartialObjectMetadata) bool { _, found := gatewayKinds[o.Name]; return found },
		)
		b = b.WatchesRawSource(source.Kind(r.definitions, definition(), handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, *metav1.PartialObjectMetadata) []reconcile.Request {
				return []reconcile.Request{gatewayAPI}
			}), ours))
	}
	b = issuer.Watch(b, r.Scope, handler.EnqueueRequestsFromMapFunc(r.askingFor), predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(event.UpdateEvent) bool { return false }, // only its existence matters
	})
	return b.Complete(
		observe.Instrument(
			r.Metrics,
			name,
			reconcile.Reconciler(reconcile.Func(func(rctx context.Context, request reconcile.Request) (reconcile.Result, error) {
				if request == gatewayAPI {
					return r.look(rctx, ctx)
				}
				return r.reconcile(rctx, request)
			})),
		),
	)
}

// affected returns the objects to reconcile when one has changed. These are the object itself and
// all objects that want the same Secrets, because they must agree. A ListenerSet inherits from its
// Gateway, and a ReferenceGrant affects the objects that it names.
func (r *Reconciler) affected(ctx context.Context, o client.Object) []reconcile.Request {
	var requests []reconcile.Request
	secrets := secretsOf(o)
	v := r.view.Load()
	switch o := o.(type) {
	case *networkingv1.Ingress:
		requests = append(requests, request(kindIngress.Kind, o.Namespace, o.Name))
		for _, w := range ofIngress(o).tls {
			secrets = append(secrets, w.secret.String())
		}
	case *gwapi.Gateway:
		requests = append(requests, request(kindGateway.Kind, o.Namespace, o.Name))
		if v.has(kindListenerSet.Kind) {
			requests = append(
				requests,
				r.listed(
					ctx,
					v,
					&gwapi.ListenerSetList{},
					client.MatchingFields{byGateway: client.ObjectKeyFromObject(o).String()},
				)...)
		}
	case *gwapi.ListenerSet:
		requests = append(requests, request(kindListenerSet.Kind, o.Namespace, o.Name))
	case *gwbeta.ReferenceGrant:
		for _, from := range o.Spec.From {
			if v != nil {
				requests = append(requests, r.listed(ctx, v, &gwapi.GatewayList{}, client.InNamespace(from.Namespace))...)
			}
			if v.has(kindListenerSet.Kind) {
				requests = append(requests, r.listed(ctx, v, &gwapi.ListenerSetList{}, client.InNamespace(from.Namespace))...)
			}
		}
	}
	for _, secret := range secrets {
		requests = append(requests, r.naming(ctx, secret)...)
	}
	return requests
}

// wantedBy returns the objects that a Certificate is for.
func (r *Reconciler) wantedBy(ctx context.Context, o client.Object) []reconcile.Request {
	requests := r.naming(ctx, client.ObjectKeyFromObject(o).String())
	if owner := metav1.GetControllerOf(o); owner != nil {
		for _, kind := range []string{kindIngress.Kind, kindGateway.Kind, kindListenerSet.Kind} {
			if owner.Kind == kind {
				requests = append(requests, request(kind, o.GetNamespace(), owner.Name))
			}
		}
	}
	if by, ok := requestOf(o.GetAnnotations()[RequestedByAnnotation]); ok {
		requests = append(requests, by)
	}
	return requests
}

// askingFor returns the objects whose Certificates name an issuer that was created or deleted.
func (r *Reconciler) askingFor(ctx context.Context, o client.Object) []reconcile.Request {
	var list cmapi.CertificateList
	options := append(r.Scope.Of(o.(cmapi.GenericIssuer)).OfIssuer(), client.UnsafeDisableDeepCopy)
	if err := r.Client.List(ctx, &list, options...); err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(requests, r.wantedBy(ctx, &list.Items[i])...)
	}
	return requests
}

// naming returns the objects that name a Secret.
func (r *Reconciler) naming(ctx context.Context, secret string) []reconcile.Request {
	var requests []reconcile.Request
	naming := client.MatchingFields{bySecret: secret}
	if r.Ingresses {
		requests = append(requests, r.listed(ctx, r.Client, &networkingv1.IngressList{}, naming)...)
	}
	if v := r.view.Load(); v != nil {
		requests = append(requests, r.listed(ctx, v, &gwapi.GatewayList{}, naming)...)
		if v.has(kindListenerSet.Kind) {
			requests = append(requests, r.listed(ctx, v, &gwapi.ListenerSetList{}, naming)...)
		}
	}
	return requests
}

// listed returns the objects of a list that are reconciled.
func (r *Reconciler) listed(
	ctx context.Context,
	c client.Reader,
	list client.ObjectList,
	which client.ListOption,
) []reconcile.Request {
	if err := c.List(
		ctx,
		list,
		which,
		client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true},
	); err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	switch list := list.(type) {
	case *networkingv1.IngressList:
		for _, o := range list.Items {
			requests = append(requests, request(kindIngress.Kind, o.Namespace, o.Name))
		}
	case *gwapi.GatewayList:
		for _, o := range list.Items {
			requests = append(requests, request(kindGateway.Kind, o.Namespace, o.Name))
		}
	case *gwapi.ListenerSetList:
		for _, o := range list.Items {
			requests = append(requests, request(kindListenerSet.Kind, o.Namespace, o.Name))
		}
	}
	return requests
}

// read returns the object that a request names, and the client to write it with. The object is nil
// if it does not exist. known is false if its kind is not reconciled, or the cluster does not have
// it.
func (r *Reconciler) read(
	ctx context.Context,
	request reconcile.Request,
) (s *certificateSource, writer client.Client, known bool, err error) {
	kind, name, _ := strings.Cut(request.Name, "/")
	key := types.NamespacedName{Namespace: request.Namespace, Name: name}
	v := r.view.Load()
	get := func(c client.Client, o client.Object) bool {
		err = c.Get(ctx, key, o, client.UnsafeDisableDeepCopy)
		return err == nil
	}
	switch {
	case kind == kindIngress.Kind && r.Ingresses:
		o := &networkingv1.Ingress{}
		if get(r.Client, o) {
			s = ofIngress(o)
		}
		return s, r.Client, true, client.IgnoreNotFound(err)
	case kind == kindGateway.Kind && r.Gateways && v != nil:
		o := &gwapi.Gateway{}
		if get(v, o) {
			s = ofGateway(o, r.Settings.ExtraProtocols, r.granted(ctx, v))
		}
		return s, v, true, client.IgnoreNotFound(err)
	case kind == kindListenerSet.Kind && r.ListenerSets && v.has(kindListenerSet.Kind):
		o := &gwapi.ListenerSet{}
		if !get(v, o) {
			return nil, v, true, client.IgnoreNotFound(err)
		}
		gateway := &gwapi.Gateway{}
		if err := v.Get(ctx, gatewayOf(o), gateway, client.UnsafeDisableDeepCopy); apierrors.IsNotFound(err) {
			gateway = nil
		} else if err != nil {
			return nil, nil, false, err
		}
		return ofListenerSet(o, gateway, r.Settings.ExtraProtocols, r.granted(ctx, v)), v, true, nil
	}
	return nil, nil, false, nil
}

// reconcile brings the Certificates of one object up to date.
func (r *Reconciler) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if v := r.view.Load(); v != nil && !strings.HasPrefix(request.Name, kindIngress.Kind) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(v.ctx, cancel)() // after that its cache does not answer
	}
	s, writer, known, err := r.read(ctx, request)
	switch {
	case err != nil || !known:
		return reconcile.Result{}, err
	case s == nil || s.GetDeletionTimestamp() != nil:
		// Garbage collection deletes the Certificates in its own namespace.
		r.mistakes.forget(request)
		kind, name, _ := strings.Cut(request.Name, "/")
		_, failure, err := r.prune(ctx, nil, kind+"/"+request.Namespace+"/"+name, nil)
		return reconcile.Result{}, cmp.Or(err, failure)
	}
	d := desiredBy(s, r.Settings)
	var failure error
	if !d.broken {
		mistakes, failed, err := r.apply(ctx, s, d)
		if err != nil {
			return reconcile.Result{}, err
		}
		failure = failed
		d.mistakes = append(d.mistakes, mistakes...)
	}
	result, err := r.report(ctx, request, writer, s, d.mistakes)
	return result, cmp.Or(failure, err)
}

// apply makes the Certificates of an object what they should be, and returns the mistakes. If an
// object no longer names an issuer, its Certificates stay and are renewed until the object is
// deleted or its TLS fields change. failure is the error of a write to retry, and err is the error
// of a read.
func (r *Reconciler) apply(
	ctx context.Context,
	s *certificateSource,
	d desiredState,
) (mistakes []Mistake, failure, err error) {
	if !d.asks {
		return nil, nil, nil
	}
	stay := d.kept
	for _, crt := range d.certificates {
		found, failed, err := r.applyOne(ctx, s, crt)
		if err != nil {
			return nil, nil, err
		}
		mistakes, failure = append(mistakes, found...), errors.Join(failure, failed)
		stay = append(stay, client.ObjectKeyFromObject(crt))
	}
	if len(d.certificates) > 0 {
		ref := d.certificates[0].Spec.IssuerRef
		i, err := r.Scope.Get(ctx, r.Client, s.GetNamespace(), ref)
		if err != nil {
			return nil, nil, err
		}
		if i == nil && !signer.External(ref) {
			mistakes = append(mistakes,
				Mistake{Field: "issuer", Message: fmt.Sprintf("there is no %s %q: create it, or correct the annotation", ref.Kind,
					ref.Name)})
		}
	}
	for _, owner := range []string{string(s.GetUID()), s.named()} {
		found, failed, err := r.prune(ctx, s, owner, stay)
		if err != nil {
			return nil, nil, err
		}
		mistakes, failure = append(mistakes, found...), errors.Join(failure, failed)
	}
	return mistakes, failure, nil
}

// prune deletes the Certificates of an object except those in stay.
func (r *Reconciler) prune(ctx context.Context, s *certificateSource, owner string,
	stay []types.NamespacedName) (mistakes []Mistake, failure, err error) {
	var owned cmapi.CertificateList
	if err := r.Client.List(ctx, &owned, client.MatchingFields{byOwner: owner}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, err
	}
	for i := range owned.Items {
		crt := &owned.Items[i]
		if crt.DeletionTimestamp != nil || slices.Contains(stay, client.ObjectKeyFromObject(crt)) {
			continue
		}
		err := r.Client.Delete(ctx, crt, client.Preconditions{UID: &crt.UID})
		switch {
		case client.IgnoreNotFound(err) == nil:
			if s != nil {
				r.Events.Eventf(s.Object, corev1.EventTypeNormal, "DeleteCertificate",
					"Successfully deleted unrequired Certificate %q", crt.Name)
			}
		case s == nil || apierrors.IsConflict(err):
			failure = errors.Join(failure, fmt.Errorf("delete Certificate %s: %w", client.ObjectKeyFromObject(crt), err))
		default:
			m, failed := writeFailed("Certificate "+crt.Name, "is wanted no more, and cannot be deleted", err)
			mistakes, failure = append(mistakes, m), errors.Join(failure, failed)
		}
	}
	return mistakes, failure, nil
}

// applyOne makes one Certificate what it should be.
func (r *Reconciler) applyOne(ctx context.Context, s *certificateSource,
	should *cmapi.Certificate) (mistakes []Mistake, failure, err error) {
	if mistakes, err = r.contested(ctx, s, should); err != nil {
		return nil, nil, err
	}
	is := &cmapi.Certificate{}
	err = r.Client.Get(ctx, client.ObjectKeyFromObject(should), is, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		m, failure := r.written(s, should, "cannot be created", r.Client.Create(ctx, should))
		if m == nil && failure == nil {
			r.Events.Eventf(s.Object, corev1.EventTypeNormal, "CreateCertificate", "Successfully created Certificate %q",
				should.Name)
		}
		return append(mistakes, m...), failure, nil
	case err != nil:
		return nil, nil, err
	}
	next := merge(is, should, s)
	if !metav1.IsControlledBy(is, s) &&
		(is.Namespace == s.GetNamespace() || is.Annotations[RequestedByAnnotation] != s.named()) {
		if len(mistakes) == 0 && !equality.Semantic.DeepEqual(is.Spec, next.Spec) {
			mistakes = append(mistakes,
				Mistake{Field: s.field(),
					Message: fmt.Sprintf("Certificate %q, which is not this object's, provides the Secret with other content: "+
						"delete that Certificate, or name another Secret", is.Name)})
		}
		return mistakes, nil, nil
	}
	if equality.Semantic.DeepEqual(is, next) {
		return mistakes, nil, nil
	}
	m, failure := r.written(s, should, "cannot be updated",
		r.Client.Patch(ctx, next, client.MergeFromWithOptions(is, client.MergeFromWithOptimisticLock{})))
	if m == nil && failure == nil {
		r.Events.Eventf(s.Object, corev1.EventTypeNormal, "UpdateCertificate", "Successfully updated Certificate %q",
			should.Name)
	}
	return append(mistakes, m...), failure, nil
}

// contested returns a mistake if another object wants the same Secret with other content.
func (r *Reconciler) contested(ctx context.Context, s *certificateSource,
	should *cmapi.Certificate) (mistakes []Mistake, err error) {
	self := request(s.kind.Kind, s.GetNamespace(), s.GetName())
	for _, request := range r.naming(ctx, client.ObjectKeyFromObject(should).String()) {
		if request == self {
			continue
		}
		other, _, _, err := r.read(ctx, request)
		if err != nil {
			return nil, err
		}
		if other == nil || other.GetDeletionTimestamp() != nil {
			continue
		}
		for _, theirs := range desiredBy(other, r.Settings).certificates {
			if theirs.Name == should.Name && theirs.Namespace == should.Namespace &&
				!equality.Semantic.DeepEqual(theirs.Spec, should.Spec) {
				mistakes = append(mistakes, Mistake{Field: s.field(), Message: fmt.Sprintf(
					"%s %s wants Secret %q with other content: give each its own Secret, or the same hosts and annotations",
					other.kind.Kind, other.GetName(), should.Spec.SecretName)})
			}
		}
	}
	return mistakes, nil
}

// written returns the result of a write of a Certificate: a mistake if the API server refuses it,
// and a failure if a retry may succeed.
func (r *Reconciler) written(
	s *certificateSource,
	crt *cmapi.Certificate,
	failed string,
	err error,
) ([]Mistake, error) {
	switch name, wrong := "Certificate "+crt.Name, invalid(err); {
	case err == nil:
		return nil, nil
	case wrong != "":
		return []Mistake{{Field: name, Message: wrong}}, nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return nil, fmt.Errorf("%s of %s: %s: %w", name, s.named(), failed, err) // the cache is behind
	default:
		m, failure := writeFailed(name, failed, err)
		return []Mistake{m}, failure
	}
}

// field is the path of the field in which an object names its Secrets.
func (s *certificateSource) field() string {
	if s.ingress {
		return "spec.tls"
	}
	return "spec.listeners"
}

// invalid returns the fields of a Certificate that the API server rejects, and why. It returns ""
// if an admission policy refuses the Certificate, because the policy may change.
func invalid(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return ""
	}
	var causes []string
	for _, c := range status.Status().Details.Causes {
		if c.Field != "" {
			causes = append(causes, c.Field+": "+c.Message)
		}
	}
	return egress.Truncate(strings.Join(causes, "; "), maxAnswer)
}
