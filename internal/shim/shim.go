package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
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
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// ProblemAnnotation stands on an object whose certificates cannot be made as it asks, and says why. It goes when that is mended.
	ProblemAnnotation = "perennial.dev/certificate-problem"
	// maxProblem is how long it may be.
	maxProblem = 4 << 10

	// byOwner is the field index of Certificates by the UID of the object that controls them, or by RequestedByAnnotation, and bySecret
	// that of the objects by the Secrets that they name.
	byOwner  = "metadata.ownerReferences.controller"
	bySecret = "spec.tls.secretName"

	parentFallback = cmacme.ACMECertificateHTTP01ParentRefFallback
)

// Reconciler gives Ingresses, Gateways and ListenerSets their Certificates.
type Reconciler struct {
	Client   client.Client
	Scope    signer.Scope
	Settings Settings
	// Ingresses, Gateways and ListenerSets say which kinds are looked after. The latter two are wherever a cluster has them.
	Ingresses, Gateways, ListenerSets bool
	Events                            record.EventRecorder
	Metrics                           *observe.Metrics

	// SetupWithManager sets these.
	mgr         ctrl.Manager
	definitions cache.Cache
	queue       workqueue.TypedRateLimitingInterface[reconcile.Request]
	// view is nil while the cluster has no Gateway API.
	view atomic.Pointer[view]
}

// Strip leaves of an Ingress what the Reconciler looks at. It is a transform of its cache.
func Strip(o any) (any, error) {
	if i, ok := o.(*networkingv1.Ingress); ok {
		i.ManagedFields, i.Status = nil, networkingv1.IngressStatus{}
		i.Spec.Rules, i.Spec.DefaultBackend = nil, nil
		delete(i.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return o, nil
}

// request names an object. Its kind stands before its name.
func request(kind, namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: kind + "/" + name}}
}

// gatewayAPI is the request to look whether the cluster has the Gateway API.
var gatewayAPI = request("CustomResourceDefinition", "", gwapi.GroupName)

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	r.mgr = mgr
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
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
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
			HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), DefaultTransform: stripDefinition,
		}); err != nil {
			return fmt.Errorf("cache of the metadata of CRDs: %w", err)
		}
		if err := mgr.Add(r.definitions); err != nil {
			return err
		}
		ours := predicate.NewTypedPredicateFuncs(func(o *metav1.PartialObjectMetadata) bool { _, found := gatewayKinds[o.Name]; return found })
		b = b.WatchesRawSource(source.Kind(r.definitions, definition(), handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, *metav1.PartialObjectMetadata) []reconcile.Request {
				return []reconcile.Request{gatewayAPI}
			}), ours))
	}
	b = issuer.Watch(b, r.Scope, handler.EnqueueRequestsFromMapFunc(r.askingFor), predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(event.UpdateEvent) bool { return false }, // it is only asked whether it is there
	})
	return b.Complete(observe.Counted(r.Metrics, name, reconcile.Reconciler(reconcile.Func(func(rctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		if request == gatewayAPI {
			return r.look(rctx, ctx)
		}
		return reconcile.Result{}, r.reconcile(rctx, request)
	}))))
}

// affected returns the objects that have to be looked at when one has changed: itself, and those who want the same Secrets, as they
// agree, or none of them is right. A Gateway's ListenerSets inherit from it, and a ReferenceGrant concerns whom it names.
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
			requests = append(requests, r.listed(ctx, v, &gwapi.ListenerSetList{}, client.MatchingFields{byGateway: client.ObjectKeyFromObject(o).String()})...)
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

// askingFor returns the objects whose Certificates are of an issuer, which has come or gone.
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

// listed returns the objects of a list that are looked after.
func (r *Reconciler) listed(ctx context.Context, c client.Reader, list client.ObjectList, which client.ListOption) []reconcile.Request {
	if err := c.List(ctx, list, which, client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
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

// read returns the object that a request names, and the client that it is written with. Found is whether it is there; known is
// false if that cannot be told, as its kind is not looked after, or not there.
func (r *Reconciler) read(ctx context.Context, request reconcile.Request) (s *asker, writer client.Client, known bool, err error) {
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

// reconcile looks at one object.
func (r *Reconciler) reconcile(ctx context.Context, request reconcile.Request) error {
	if v := r.view.Load(); v != nil && !strings.HasPrefix(request.Name, kindIngress.Kind) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(v.ctx, cancel)() // its cache answers no more
	}
	s, writer, known, err := r.read(ctx, request)
	switch {
	case err != nil || !known:
		return err
	case s == nil || s.GetDeletionTimestamp() != nil:
		// Those of its namespace go with it.
		kind, name, _ := strings.Cut(request.Name, "/")
		return r.prune(ctx, nil, kind+"/"+request.Namespace+"/"+name, nil)
	}
	d := want(s, r.Settings)
	if !d.broken {
		mistakes, err := r.apply(ctx, s, d)
		if err != nil {
			return err
		}
		d.mistakes = append(d.mistakes, mistakes...)
	}
	return r.report(ctx, writer, s, d.mistakes)
}

// apply makes the Certificates of an object what they should be, and returns what stands against it. Those of an object that
// names no issuer any more stay, and are renewed: to stop that, it is deleted, or its fields change.
func (r *Reconciler) apply(ctx context.Context, s *asker, d desired) ([]Mistake, error) {
	if !d.asks {
		return nil, nil
	}
	var mistakes []Mistake
	stay := d.kept
	for _, crt := range d.certificates {
		mistake, err := r.applyOne(ctx, s, crt)
		if err != nil {
			return nil, err
		}
		mistakes = append(mistakes, mistake...)
		stay = append(stay, client.ObjectKeyFromObject(crt))
	}
	if len(d.certificates) > 0 {
		ref := d.certificates[0].Spec.IssuerRef
		i, err := r.Scope.Get(ctx, r.Client, s.GetNamespace(), ref)
		if err != nil {
			return nil, err
		}
		if i == nil && !signer.External(ref) {
			mistakes = append(mistakes, Mistake{"issuer", fmt.Sprintf("there is no %s %q: create it, or correct the annotation", ref.Kind, ref.Name)})
		}
	}
	for _, owner := range []string{string(s.GetUID()), s.named()} {
		if err := r.prune(ctx, s, owner, stay); err != nil {
			return nil, err
		}
	}
	return mistakes, nil
}

// prune deletes the Certificates of an object but for those that stay.
func (r *Reconciler) prune(ctx context.Context, s *asker, owner string, stay []types.NamespacedName) error {
	var owned cmapi.CertificateList
	if err := r.Client.List(ctx, &owned, client.MatchingFields{byOwner: owner}, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range owned.Items {
		crt := &owned.Items[i]
		if crt.DeletionTimestamp != nil || slices.Contains(stay, client.ObjectKeyFromObject(crt)) {
			continue
		}
		if err := r.Client.Delete(ctx, crt, client.Preconditions{UID: &crt.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete Certificate %s: %w", client.ObjectKeyFromObject(crt), err)
		}
		if s != nil {
			r.Events.Eventf(s.Object, corev1.EventTypeNormal, "DeleteCertificate", "Successfully deleted unrequired Certificate %q", crt.Name)
		}
	}
	return nil
}

func (r *Reconciler) applyOne(ctx context.Context, s *asker, should *cmapi.Certificate) ([]Mistake, error) {
	var mistakes []Mistake
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
		for _, theirs := range want(other, r.Settings).certificates {
			if theirs.Name == should.Name && theirs.Namespace == should.Namespace && !equality.Semantic.DeepEqual(theirs.Spec, should.Spec) {
				mistakes = append(mistakes, Mistake{s.field(), fmt.Sprintf("%s %s wants Secret %q with other content: give each its own Secret, or the same hosts and annotations",
					other.kind.Kind, other.GetName(), should.Spec.SecretName)})
			}
		}
	}
	is := &cmapi.Certificate{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(should), is, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		err := r.Client.Create(ctx, should)
		switch {
		case apierrors.IsInvalid(err):
			return append(mistakes, Mistake{"Certificate " + should.Name, invalid(err)}), nil
		case apierrors.IsAlreadyExists(err):
			return mistakes, fmt.Errorf("create Certificate %s: %w", should.Name, err) // the cache is behind
		case err != nil:
			return nil, fmt.Errorf("create Certificate %s: %w", should.Name, err)
		}
		r.Events.Eventf(s.Object, corev1.EventTypeNormal, "CreateCertificate", "Successfully created Certificate %q", should.Name)
		return mistakes, nil
	case err != nil:
		return nil, err
	}
	if !metav1.IsControlledBy(is, s) && (is.Namespace == s.GetNamespace() || is.Annotations[RequestedByAnnotation] != s.named()) {
		if len(mistakes) == 0 && !equality.Semantic.DeepEqual(is.Spec, should.Spec) {
			mistakes = append(mistakes, Mistake{s.field(), fmt.Sprintf("Certificate %q, which is not this object's, provides the Secret with other content: "+
				"delete that Certificate, or name another Secret", is.Name)})
		}
		return mistakes, nil
	}
	next := merge(is, should, r.Settings)
	if equality.Semantic.DeepEqual(is, next) {
		return mistakes, nil
	}
	err = r.Client.Patch(ctx, next, client.MergeFromWithOptions(is, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsInvalid(err) {
		return append(mistakes, Mistake{"Certificate " + should.Name, invalid(err)}), nil
	}
	if err != nil {
		return nil, fmt.Errorf("update Certificate %s: %w", should.Name, err)
	}
	r.Events.Eventf(s.Object, corev1.EventTypeNormal, "UpdateCertificate", "Successfully updated Certificate %q", should.Name)
	return mistakes, nil
}

// field is where an object names its Secrets.
func (s *asker) field() string {
	if s.ingress {
		return "spec.tls"
	}
	return "spec.listeners"
}

// invalid is what the API server has against a Certificate.
func invalid(err error) string {
	if s, ok := err.(apierrors.APIStatus); ok && s.Status().Details != nil { //nolint:errorlint // the client returns it so
		var causes []string
		for _, c := range s.Status().Details.Causes {
			causes = append(causes, c.Field+": "+c.Message)
		}
		if len(causes) > 0 {
			return fmt.Sprint(causes)
		}
	}
	return err.Error()
}

// report writes what is wrong onto the object, and an event when that changes.
func (r *Reconciler) report(ctx context.Context, writer client.Client, s *asker, mistakes []Mistake) error {
	is, stands := s.GetAnnotations()[ProblemAnnotation]
	should := text(mistakes)
	if len(should) > maxProblem {
		should = strings.ToValidUTF8(should[:maxProblem], "")
	}
	if is == should && (stands || should == "") {
		return nil
	}
	var value any // null removes it
	if should != "" {
		value = should
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{ProblemAnnotation: value}}})
	if err != nil {
		return err
	}
	target := s.Object.DeepCopyObject().(client.Object)
	if err := writer.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return client.IgnoreNotFound(err)
	}
	if should != "" {
		r.Events.Event(s.Object, corev1.EventTypeWarning, "BadConfig", should)
	}
	return nil
}
