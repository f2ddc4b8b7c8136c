package shim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	gwbeta "sigs.k8s.io/gateway-api/apis/v1beta1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

const (
	// discovered is how long the API server may take to serve a new CRD. After that the controller
	// waits for a change of the CRD.
	discovered = time.Minute
	// lookAgain is the interval at which the controller checks before that.
	lookAgain = time.Second
	// fillLimit is how long the caches of a view may take to fill.
	fillLimit = time.Minute

	// byGateway is the field index of ListenerSets by their Gateway.
	byGateway = "spec.parentRef"
)

// gatewayKinds are the kinds of the Gateway API that are watched, by their CRDs. ListenerSets and
// ReferenceGrants are newer than Gateways, so a cluster may have only Gateways.
var gatewayKinds = map[string]schema.GroupVersionKind{
	"gateways." + gwapi.GroupName:        kindGateway,
	"listenersets." + gwapi.GroupName:    kindListenerSet,
	"referencegrants." + gwapi.GroupName: {Group: gwapi.GroupName, Version: "v1beta1", Kind: "ReferenceGrant"},
}

// gatewayCache has the cache of the Gateway API while the cluster has that API.
type gatewayCache struct {
	client.Client
	kinds map[string]bool
	ctx   context.Context // ends with the view
	end   context.CancelFunc
}

func (v *gatewayCache) has(kind string) bool { return v != nil && v.kinds[kind] }

// definition is the metadata of CRDs.
func definition() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(
		schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	)
	return o
}

// stripDefinition removes all metadata from a CRD that is not needed to see that it changed.
func stripDefinition(object any) (any, error) {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		o.ManagedFields, o.Annotations, o.Labels, o.OwnerReferences = nil, nil, nil, nil
	}
	return object, nil
}

// served returns the kinds of the Gateway API that the API server has, and whether it is about to
// have more.
func (r *Reconciler) served(ctx context.Context) (kinds map[string]bool, soon bool, err error) {
	kinds = map[string]bool{}
	var defined []schema.GroupVersionKind
	for name, kind := range gatewayKinds {
		crd := definition()
		switch err := r.definitions.Get(ctx, types.NamespacedName{Name: name}, crd); {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, false, err
		case crd.DeletionTimestamp == nil:
			defined = append(defined, kind)
			soon = soon || time.Since(crd.CreationTimestamp.Time) < discovered
		}
	}
	if len(defined) == 0 {
		return kinds, false, nil
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(r.mgr.GetConfig(), r.mgr.GetHTTPClient())
	if err != nil {
		return nil, false, err
	}
	lists := map[string]*metav1.APIResourceList{}
	for _, kind := range defined {
		version := kind.GroupVersion().String()
		if lists[version] == nil {
			list, err := d.ServerResourcesForGroupVersion(version)
			if client.IgnoreNotFound(err) != nil {
				return nil, false, fmt.Errorf("ask what %s has: %w", version, err)
			}
			if err != nil {
				list = &metav1.APIResourceList{}
			}
			lists[version] = list
		}
		if slices.ContainsFunc(lists[version].APIResources, func(a metav1.APIResource) bool { return a.Kind == kind.Kind }) {
			kinds[kind.Kind] = true
		}
	}
	return kinds, soon && len(kinds) < len(defined), nil
}

// look starts a view when the cluster gets the Gateway API, and ends it when the cluster loses that
// API. base is the context of the process.
func (r *Reconciler) look(ctx, base context.Context) (reconcile.Result, error) {
	kinds, soon, err := r.served(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	var result reconcile.Result
	if soon {
		result.RequeueAfter = lookAgain // no event says that a new CRD is served
	}
	was := r.view.Load()
	if was != nil && maps.Equal(was.kinds, kinds) || was == nil && !kinds[kindGateway.Kind] {
		return result, nil
	}
	if was != nil {
		r.view.Store(nil)
		was.end()
	}
	if !kinds[kindGateway.Kind] {
		r.mgr.GetLogger().Info("the Gateway API is gone from the cluster: Gateways and ListenerSets get no certificates")
		return result, nil
	}
	if err := r.open(base, kinds); err != nil {
		return reconcile.Result{}, fmt.Errorf("watch the Gateway API: %w", err)
	}
	r.mgr.GetLogger().Info("the cluster has the Gateway API", "kinds", slices.Sorted(maps.Keys(kinds)))
	return result, nil
}

// open starts a view.
func (r *Reconciler) open(base context.Context, kinds map[string]bool) (err error) {
	v := &gatewayCache{kinds: kinds}
	v.ctx, v.end = context.WithCancel(base)
	defer func() {
		if err != nil {
			v.end()
		}
	}()
	c, err := r.newView(v)
	if err != nil {
		return err
	}
	informers, err := v.watch(c)
	if err != nil {
		return err
	}
	go func() { _ = c.Start(v.ctx) }() // it only ends with the context
	filled, cancel := context.WithTimeout(v.ctx, fillLimit)
	defer cancel()
	if !c.WaitForCacheSync(filled) {
		return errors.New("the cache does not fill")
	}
	r.view.Store(v)
	// Handlers get all objects that are there, so none is missed.
	for _, informer := range informers {
		if err := r.follow(v, informer); err != nil {
			return err
		}
	}
	return r.enqueueRequested(v)
}

// newView makes the cache of a view, and its client.
func (r *Reconciler) newView(v *gatewayCache) (cache.Cache, error) {
	options := cache.Options{
		HTTPClient:       r.mgr.GetHTTPClient(),
		Scheme:           r.mgr.GetScheme(),
		Mapper:           r.mgr.GetRESTMapper(),
		DefaultTransform: stripGateway,
		DefaultWatchErrorHandler: func(ctx context.Context, reflector *toolscache.Reflector, err error) {
			if !apierrors.IsNotFound(err) { // the API is gone, and the view ends soon
				toolscache.DefaultWatchErrorHandler(ctx, reflector, err)
			}
		},
	}
	if r.Scope.Namespace != "" {
		options.DefaultNamespaces = map[string]cache.Config{r.Scope.Namespace: {}}
	}
	c, err := cache.New(r.mgr.GetConfig(), options)
	if err != nil {
		return nil, err
	}
	v.Client, err = client.New(r.mgr.GetConfig(), client.Options{
		HTTPClient: r.mgr.GetHTTPClient(), Scheme: r.mgr.GetScheme(), Mapper: r.mgr.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: c, EnableReadYourWritesConsistency: ptr.To(true)},
	})
	return c, err
}

// watch starts to watch the kinds of the Gateway API that there are.
func (v *gatewayCache) watch(c cache.Cache) ([]cache.Informer, error) {
	watched := []client.Object{&gwapi.Gateway{}}
	if v.kinds[kindListenerSet.Kind] {
		watched = append(watched, &gwapi.ListenerSet{})
		if err := c.IndexField(v.ctx, &gwapi.ListenerSet{}, byGateway, func(o client.Object) []string {
			return []string{gatewayOf(o.(*gwapi.ListenerSet)).String()}
		}); err != nil {
			return nil, err
		}
	}
	for _, o := range watched {
		if err := c.IndexField(v.ctx, o, bySecret, secretsOf); err != nil {
			return nil, err
		}
	}
	if v.kinds["ReferenceGrant"] {
		watched = append(watched, &gwbeta.ReferenceGrant{})
	}
	var informers []cache.Informer
	for _, o := range watched {
		informer, err := c.GetInformer(v.ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, err
		}
		informers = append(informers, informer)
	}
	return informers, nil
}

// follow enqueues what a change of an object of the Gateway API affects.
func (r *Reconciler) follow(v *gatewayCache, informer cache.Informer) error {
	changed := func(o any) {
		if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if o, ok := o.(client.Object); ok && v.ctx.Err() == nil {
			for _, request := range r.affected(v.ctx, o) {
				r.queue.Add(request)
			}
		}
	}
	_, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: changed, DeleteFunc: changed, UpdateFunc: func(was, is any) { changed(was); changed(is) },
	})
	return err
}

// enqueueRequested enqueues the objects that Certificates name in RequestedByAnnotation. An object
// that was deleted while there was no view has left Certificates in other namespaces.
func (r *Reconciler) enqueueRequested(v *gatewayCache) error {
	var list cmapi.CertificateList
	if err := r.Client.List(v.ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		if by := list.Items[i].Annotations[RequestedByAnnotation]; by != "" {
			if request, ok := requestOf(by); ok {
				r.queue.Add(request)
			}
		}
	}
	return nil
}

// requestOf turns the value of RequestedByAnnotation into a request.
func requestOf(by string) (reconcile.Request, bool) {
	kind, rest, _ := strings.Cut(by, "/")
	namespace, name, found := strings.Cut(rest, "/")
	if !found || kind != kindGateway.Kind && kind != kindListenerSet.Kind {
		return reconcile.Request{}, false
	}
	return request(kind, namespace, name), true
}

// stripGateway removes from Gateways, ListenerSets and ReferenceGrants all that the Reconciler does
// not need.
func stripGateway(object any) (any, error) {
	if o, ok := object.(client.Object); ok {
		o.SetManagedFields(nil)
		if annotations := o.GetAnnotations(); annotations != nil {
			delete(annotations, corev1.LastAppliedConfigAnnotation)
		}
	}
	switch o := object.(type) {
	case *gwapi.Gateway:
		o.Status = gwapi.GatewayStatus{}
	case *gwapi.ListenerSet:
		o.Status = gwapi.ListenerSetStatus{}
	}
	return object, nil
}

// grantFunc returns a function that checks the ReferenceGrants in the namespace of a Secret.
func (r *Reconciler) granted(ctx context.Context, v *gatewayCache) grantFunc {
	return func(kind, from string, secret types.NamespacedName) bool {
		if !v.kinds["ReferenceGrant"] || r.Scope.Namespace != "" {
			return false
		}
		var list gwbeta.ReferenceGrantList
		if err := v.List(ctx, &list, client.InNamespace(secret.Namespace), client.UnsafeDisableDeepCopy); err != nil {
			return false // only a cache that is stopping fails
		}
		return slices.ContainsFunc(
			list.Items,
			func(g gwbeta.ReferenceGrant) bool { return grants(g.Spec, kind, from, secret.Name) },
		)
	}
}
