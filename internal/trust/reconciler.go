package trust

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
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
	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/pki"
)

// Reconciler reconciles TrustBundles.
type Reconciler struct {
	// Client reads TrustBundles, issuers, the Secrets that are ours, and the metadata of namespaces
	// from caches, and writes.
	Client client.Client
	// Live reads ConfigMaps, and the objects to write, from the API server.
	Live client.Reader
	// Secrets reads the Secrets that are sources.
	Secrets *secrets.Store
	// Namespace is the namespace of the Secrets and ConfigMaps that are sources.
	Namespace string
	Limits    pki.Limits
	Events    record.EventRecorder
	Metrics   *observe.Metrics
	Clock     clock.PassiveClock

	// known is a cache of metadata: of the ConfigMaps and Secrets that this controller wrote, and of
	// all ConfigMaps in Namespace. SetupWithManager makes it.
	known cache.Cache

	mu     sync.Mutex
	states map[string]*state
	// ready is the condition Ready of each TrustBundle after its last pass.
	ready map[string]metav1.ConditionStatus
}

// state is kept for a TrustBundle between passes. Losing it costs a read of each written object.
type state struct {
	uid      types.UID
	contents []*content
	verified map[string]written
}

// Field indexes.
const (
	// bySource finds TrustBundles by the names of their sources, and by the kind of those that have a
	// selector.
	bySource = "spec.sources"
	// byBundle finds the metadata of ConfigMaps and Secrets by the TrustBundle that wrote them.
	byBundle = "perennial.dev/trust-bundle"
)

func (r *Reconciler) newCache(mgr ctrl.Manager) (cache.Cache, error) {
	written, err := labels.NewRequirement(api.TrustBundleLabelKey, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	only := labels.NewSelector().Add(*written)
	return cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultTransform: strip,
		ByObject: map[client.Object]cache.ByObject{
			metadata(configMapKind): {
				Namespaces: map[string]cache.Config{r.Namespace: {}, cache.AllNamespaces: {LabelSelector: only}},
			},
			metadata(secretKind): {Label: only},
		},
	})
}

// strip removes from metadata all that the Reconciler does not need. Any user can set the label by
// which objects are cached, and make the rest large.
func strip(object any) (any, error) {
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	bundle, labeled := o.Labels[api.TrustBundleLabelKey]
	owner := metav1.GetControllerOf(o)
	o.Labels, o.Annotations, o.OwnerReferences, o.Finalizers, o.ManagedFields = nil, nil, nil, nil, nil
	if labeled {
		o.Labels = map[string]string{api.TrustBundleLabelKey: bundle}
	}
	if owner != nil {
		o.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return o, nil
}

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	const name = "trustbundles"
	err := mgr.GetFieldIndexer().IndexField(ctx, &api.TrustBundle{}, bySource, func(o client.Object) []string {
		return sourceKeys(o.(*api.TrustBundle))
	})
	if err != nil {
		return fmt.Errorf("index TrustBundles by source: %w", err)
	}
	if r.known, err = r.newCache(mgr); err != nil {
		return fmt.Errorf("cache of the metadata of ConfigMaps: %w", err)
	}
	if err := mgr.Add(r.known); err != nil {
		return err
	}
	for _, kind := range []string{configMapKind, secretKind} {
		err := r.known.IndexField(ctx, metadata(kind), byBundle, func(o client.Object) []string {
			if bundle, ok := o.GetLabels()[api.TrustBundleLabelKey]; ok {
				return []string{bundle}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("index %ss by TrustBundle: %w", kind, err)
		}
	}

	writtenChanged := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		if bundle, ok := o.GetLabels()[api.TrustBundleLabelKey]; ok {
			return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: bundle}}}
		}
		return nil
	})
	sourceChanged := func(kind string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			if o.GetNamespace() != r.Namespace {
				return nil
			}
			return append(r.bundlesOf(ctx, kind+" "+o.GetName()), r.bundlesOf(ctx, kind)...)
		})
	}
	issuerChanged := func(kind string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.bundlesOf(
				ctx,
				issuerKey(&api.TrustIssuerSource{Kind: api.TrustIssuerKind(kind), Namespace: o.GetNamespace(), Name: o.GetName()}),
			)
		})
	}
	caChanged := builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, is := e.ObjectOld.(cmapi.GenericIssuer), e.ObjectNew.(cmapi.GenericIssuer)
		return was.GetUID() != is.GetUID() || !equality.Semantic.DeepEqual(was.GetStatus().CA, is.GetStatus().CA)
	}})
	return ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&api.TrustBundle{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(metadata("Namespace"), handler.EnqueueRequestsFromMapFunc(r.bundlesFor)).
		Watches(&cmapi.Issuer{}, issuerChanged(issuerKind), caChanged).
		Watches(&cmapi.ClusterIssuer{}, issuerChanged(clusterIssuerKind), caChanged).
		Watches(&corev1.Secret{}, sourceChanged(secretKind)).
		WatchesRawSource(source.Kind(others, client.Object(secrets.Metadata()), sourceChanged(secretKind))).
		WatchesRawSource(source.Kind(r.known, client.Object(metadata(configMapKind)), sourceChanged(configMapKind))).
		WatchesRawSource(source.Kind(r.known, client.Object(metadata(configMapKind)), writtenChanged)).
		WatchesRawSource(source.Kind(r.known, client.Object(metadata(secretKind)), writtenChanged)).
		Complete(observe.Instrument(r.Metrics, name, reconcile.Reconciler(r)))
}

// sourceKeys returns the values under which a TrustBundle is found in the index bySource.
func sourceKeys(bundle *api.TrustBundle) []string {
	var keys []string
	for i := range bundle.Spec.Sources {
		s := &bundle.Spec.Sources[i]
		object := func(kind string, o *api.TrustObjectSource) string {
			if o.Selector != nil {
				return kind
			}
			return kind + " " + o.Name
		}
		switch {
		case s.Issuer != nil:
			keys = append(keys, issuerKey(s.Issuer))
		case s.Secret != nil:
			keys = append(keys, object(secretKind, s.Secret))
		case s.ConfigMap != nil:
			keys = append(keys, object(configMapKind, s.ConfigMap))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// bundlesOf returns the TrustBundles that have a source of the key.
func (r *Reconciler) bundlesOf(ctx context.Context, key string) []reconcile.Request {
	return r.bundles(ctx, func(*api.TrustBundle) bool { return true }, client.MatchingFields{bySource: key})
}

// bundlesFor returns the TrustBundles that select a namespace.
func (r *Reconciler) bundlesFor(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.bundles(ctx, func(bundle *api.TrustBundle) bool {
		selector, err := metav1.LabelSelectorAsSelector(&bundle.Spec.Target.NamespaceSelector)
		return err == nil && selector.Matches(labels.Set(namespace.GetLabels()))
	})
}

func (r *Reconciler) bundles(
	ctx context.Context,
	filter func(*api.TrustBundle) bool,
	o ...client.ListOption,
) []reconcile.Request {
	var list api.TrustBundleList
	if err := r.Client.List(
		ctx,
		&list,
		append(o, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)...); err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if filter(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile brings one TrustBundle and the objects that it writes up to date.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	bundle := &api.TrustBundle{}
	if err := r.Client.Get(ctx, request.NamespacedName, bundle); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(request.Name) // garbage collection deletes the objects that it owns
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if bundle.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	before := bundle.DeepCopy()
	now := r.Clock.Now()

	gathered, err := r.gather(ctx, bundle, now)
	if err != nil {
		// The written objects stay as they are, because the content of the sources is not known.
		r.unreadable(bundle, err, now)
		_, failure := r.write(ctx, before, bundle)
		return again(errors.Join(err, failure))
	}
	certs, certificates, next := resolve(facts{
		spec: &bundle.Spec, gathered: gathered, before: bundle.Status.Certificates, limits: r.Limits, now: now,
		alive: func(ca *x509.Certificate, others []*x509.Certificate) (time.Time, string) {
			return r.alive(ctx, ca, others, now)
		},
	})
	outcome := r.put(ctx, bundle, certs)

	status := &bundle.Status
	status.ObservedGeneration = bundle.Generation
	if outcome.held {
		// Nothing was written, so the status keeps the certificates of the last pass.
		next = time.Time{}
	} else {
		status.Certificates = certificates
		status.CertificateCount, status.RetainedCount = int32(len(certificates)), 0
		for i := range certificates {
			if certificates[i].Retained != nil {
				status.RetainedCount++
			}
		}
		status.NamespaceCount = int32(outcome.namespaces)
	}
	r.setConditions(bundle, gathered, outcome, now)
	stalled := stall(bundle, gathered, outcome, now)
	gone, failure := r.write(ctx, before, bundle)
	if gone {
		return reconcile.Result{}, nil
	}
	result, err := again(append(outcome.failures, failure)...)
	if err == nil && !next.IsZero() {
		// At that time a certificate expires, or the controller checks whether one is still in use.
		if wait := max(next.Sub(now), time.Second); result.RequeueAfter == 0 || wait < result.RequeueAfter {
			result.RequeueAfter = wait
		}
	}
	if wait := stalled.Sub(now); err == nil && wait > 0 && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
		result.RequeueAfter = wait // from then on a missing object counts as a failure
	}
	return result, err
}

// again returns when to reconcile again after failures.
func again(failures ...error) (result reconcile.Result, err error) {
	for _, failure := range failures {
		switch {
		case failure == nil:
		case fault.Of(failure).Class == fault.Misconfigured, fault.RefusedByAPI(failure):
			result.RequeueAfter = conflictInterval // what is in the way is not watched
		default:
			return reconcile.Result{}, errors.Join(failures...) // again with the queue's back-off
		}
	}
	return result, nil
}

// write writes the status if it has changed, and events about the changes. It reports whether the
// TrustBundle is gone. If the status cannot be written, only an event can say so.
func (r *Reconciler) write(ctx context.Context, before, bundle *api.TrustBundle) (gone bool, err error) {
	r.noteReady(bundle)
	if equality.Semantic.DeepEqual(before.Status, bundle.Status) {
		return false, nil
	}
	if err := ctx.Err(); err != nil {
		return false, err // the process ends, which is no failure to report
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	switch err := r.Client.Status().Patch(ctx, bundle.DeepCopy(), patch); {
	case apierrors.IsNotFound(err):
		r.forget(bundle.Name)
		return true, nil
	case fault.RefusedByAPI(err):
		r.Events.Eventf(bundle, corev1.EventTypeWarning, "StatusNotWritten",
			"The status is not what is so, as it cannot be written: %s. It is tried again every 5 minutes",
			egress.Truncate(err.Error(), maxAnswer))
		return false, fmt.Errorf("write status: %w", err)
	case err != nil:
		return false, fmt.Errorf("write status: %w", err)
	}
	r.tell(before, bundle)
	return false, nil
}

// maxAnswer is how much of an answer of the API server is shown.
const maxAnswer = 1 << 10

// put writes the bundle to the targets in the spec.
func (r *Reconciler) put(ctx context.Context, bundle *api.TrustBundle, certs []*x509.Certificate) outcome {
	hold := func(err error) outcome { return outcome{held: true, failures: []error{err}} }
	selector, err := metav1.LabelSelectorAsSelector(&bundle.Spec.Target.NamespaceSelector)
	if err != nil {
		return hold(fault.Misconfiguredf("InvalidSelector", "spec.target.namespaceSelector: %w", err))
	}
	if len(certs) == 0 && len(bundle.Status.Certificates) == 0 {
		return hold(fault.Misconfiguredf(reasonNoCertificates, "no source has a CA certificate that can be used"))
	}
	if len(certs) > 0 {
		if _, err := r.Limits.DecodeBundlePEM(pki.EncodeCertificatePEM(certs...)); err != nil {
			return hold(fault.Misconfiguredf("TooLarge", "the bundle of all sources: %w", err))
		}
	}
	state := r.state(bundle)
	all, err := contents(bundle, certs, state.contents)
	if err != nil {
		return hold(fault.Misconfiguredf("CannotEncode", "spec.target: %w", err))
	}
	state.contents = all

	list := metadataList("Namespace")
	if err := r.Client.List(
		ctx,
		list,
		client.MatchingLabelsSelector{Selector: selector},
		client.UnsafeDisableDeepCopy,
	); err != nil {
		return hold(fmt.Errorf("list namespaces: %w", err))
	}
	var namespaces []string
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			namespaces = append(namespaces, list.Items[i].Name)
		}
	}
	slices.Sort(namespaces)
	done, failures := r.distribute(ctx, bundle, all, namespaces, state.verified)
	return outcome{namespaces: done, selected: len(namespaces), failures: failures}
}

func (r *Reconciler) state(bundle *api.TrustBundle) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.states == nil {
		r.states = map[string]*state{}
	}
	s := r.states[bundle.Name]
	if s == nil || s.uid != bundle.UID {
		s = &state{uid: bundle.UID, verified: map[string]written{}}
		r.states[bundle.Name] = s
	}
	return s
}

func (r *Reconciler) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.states, name)
	delete(r.ready, name)
}

// alive searches the labelled Secrets for certificates that are trusted because of ca and not
// because of one of the others.
func (r *Reconciler) alive(
	ctx context.Context,
	ca *x509.Certificate,
	others []*x509.Certificate,
	now time.Time,
) (until time.Time, in string) {
	var list corev1.SecretList
	err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil { // only a cache that is stopping fails
		return now.Add(time.Minute), "(unknown)"
	}
	for i := range list.Items {
		secret := &list.Items[i]
		if !secrets.Cached(secret) {
			full, err := r.Secrets.Get(ctx, secret.Namespace, secret.Name)
			if err != nil {
				if apierrors.IsNotFound(err) {
					continue
				}
				return now.Add(time.Minute), "(unknown)"
			}
			secret = full
		}
		chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
		if err != nil || !chain[0].NotAfter.After(now) || !chain[0].NotAfter.After(until) {
			continue
		}
		if needs(chain, ca) &&
			!slices.ContainsFunc(others, func(other *x509.Certificate) bool { return needs(chain, other) }) {
			until, in = chain[0].NotAfter, client.ObjectKeyFromObject(secret).String()
		}
	}
	return until, in
}
