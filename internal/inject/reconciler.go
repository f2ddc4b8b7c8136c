package inject

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	ctrlsource "sigs.k8s.io/controller-runtime/pkg/source"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/pki"
)

// FieldManager is the field manager of the injected bundles. It is cert-manager's name, so that a
// cluster can migrate, and so that tools that are configured to ignore its fields still do.
const FieldManager = "cert-manager-cainjector"

// apiServerInterval is how often the controller reads the CA of the API server again. It is in a
// file, which cannot be watched as objects can.
const apiServerInterval = 10 * time.Minute

// Reconciler injects CA certificates.
type Reconciler struct {
	// Client reads Certificates from a cache and writes.
	Client client.Client
	// Live reads the targets that have an annotation.
	Live    client.Reader
	Secrets *secrets.Store
	// Targets are the kinds of objects that get a bundle, some or all of Targets().
	Targets []Target
	// Namespace, if set, is the only namespace from which Certificates and Secrets are injected.
	Namespace string
	// APIServerCA reads the CA certificates of the API server, PEM. See [APIServerCA].
	APIServerCA func() ([]byte, error)
	Limits      pki.Limits
	Events      record.EventRecorder
	Metrics     *observe.Metrics
	Clock       clock.PassiveClock

	// known is a cache of the metadata of targets. SetupWithManager makes it.
	known cache.Cache
}

// APIServerCA returns a function that reads the CA with which config verifies the API server.
func APIServerCA(config *rest.Config) func() ([]byte, error) {
	data, file := config.CAData, config.CAFile
	return func() ([]byte, error) {
		if len(data) > 0 || file == "" {
			return data, nil
		}
		return os.ReadFile(file)
	}
}

// strip removes from the metadata of targets all that the Reconciler does not need, such as the
// annotation in which kubectl apply keeps a copy of a whole CRD.
func strip(object any) (any, error) {
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	annotations := map[string]string{}
	for _, name := range []string{
		cmapi.WantInjectAnnotation, cmapi.WantInjectFromSecretAnnotation, cmapi.WantInjectAPIServerCAAnnotation,
	} {
		if value, ok := o.Annotations[name]; ok {
			annotations[name] = value
		}
	}
	o.Annotations = annotations
	o.Labels, o.OwnerReferences, o.Finalizers = nil, nil, nil
	o.ManagedFields = slices.DeleteFunc(
		o.ManagedFields,
		func(f metav1.ManagedFieldsEntry) bool { return f.Manager != FieldManager },
	)
	for i := range o.ManagedFields {
		o.ManagedFields[i].FieldsV1 = nil
	}
	return o, nil
}

// bySource is the field index of the metadata of targets by their source.
const bySource = "perennial.dev/source"

// request names a target. Targets have no namespace, so that of the request says which of them it
// is.
func (t *Target) request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: t.Resource, Name: name}}
}

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours. Kinds that the API server does not have are left out.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	const name = "cainjector"
	served := r.Targets[:0:0]
	options := cache.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
		ByObject:   map[client.Object]cache.ByObject{},
	}
	for _, t := range r.Targets {
		_, err := mgr.GetRESTMapper().RESTMapping(t.Kind.GroupKind(), t.Kind.Version)
		switch {
		case meta.IsNoMatchError(err):
			mgr.GetLogger().
				Info("no CA injection, as the API server does not know the kind", "kind", t.Kind.GroupKind().String())
			continue
		case err != nil:
			return fmt.Errorf("look for %s: %w", t.Resource, err)
		}
		served = append(served, t)
		options.ByObject[t.metadata()] = cache.ByObject{Transform: strip}
	}
	r.Targets = served
	known, err := cache.New(mgr.GetConfig(), options)
	if err != nil {
		return fmt.Errorf("cache of the metadata of targets: %w", err)
	}
	if err := mgr.Add(known); err != nil {
		return err
	}
	r.known = known

	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o)
	for _, t := range r.Targets {
		err := known.IndexField(ctx, t.metadata(), bySource, func(o client.Object) []string {
			// With several annotations, wanted returns the one that counts together with an error.
			if s, _ := sourceOf(o.GetAnnotations()); !s.none() {
				return []string{s.key()}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("index %s by source: %w", t.Resource, err)
		}
		changed := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			return []reconcile.Request{t.request(o.GetName())}
		})
		b = b.WatchesRawSource(
			ctrlsource.Kind(known, client.Object(t.metadata()), changed, predicate.NewPredicateFuncs(concerns)),
		)
	}
	secretChanged := handler.EnqueueRequestsFromMapFunc(func(
		ctx context.Context, o client.Object,
	) []reconcile.Request {
		requests := r.targetsOf(ctx, source{cmapi.WantInjectFromSecretAnnotation, client.ObjectKeyFromObject(o)})
		if certificate, ok := o.GetAnnotations()[cmapi.CertificateNameKey]; ok {
			key := client.ObjectKey{Namespace: o.GetNamespace(), Name: certificate}
			requests = append(requests, r.targetsOf(ctx, source{cmapi.WantInjectAnnotation, key})...)
		}
		return requests
	})
	return b.Watches(&corev1.Secret{}, secretChanged).
		WatchesRawSource(ctrlsource.Kind(others, client.Object(secrets.Metadata()), secretChanged)).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(func(
			ctx context.Context, o client.Object,
		) []reconcile.Request {
			return r.targetsOf(ctx, source{cmapi.WantInjectAnnotation, client.ObjectKeyFromObject(o)})
		})).
		Complete(observe.Instrument(r.Metrics, name, reconcile.Reconciler(r)))
}

// concerns reports whether a target has an annotation, or had one.
func concerns(o client.Object) bool {
	s, err := sourceOf(o.GetAnnotations())
	return !s.none() || err != nil || owned(o) >= 0
}

// owned returns the index of this controller's entry in the managed fields, or -1.
func owned(o client.Object) int {
	return slices.IndexFunc(o.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == FieldManager && f.Operation == metav1.ManagedFieldsOperationApply
	})
}

// targetsOf returns the targets into which the source is injected.
func (r *Reconciler) targetsOf(ctx context.Context, s source) []reconcile.Request {
	var requests []reconcile.Request
	for _, t := range r.Targets {
		list := t.metadataList()
		if err := r.known.List(
			ctx,
			list,
			client.MatchingFields{bySource: s.key()},
			client.UnsafeDisableDeepCopy,
		); err != nil {
			return requests // only a cache that is stopping fails
		}
		for i := range list.Items {
			requests = append(requests, t.request(list.Items[i].Name))
		}
	}
	return requests
}

// Reconcile brings the bundles of one target up to date.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	i := slices.IndexFunc(r.Targets, func(t Target) bool { return t.Resource == request.Namespace })
	if i < 0 {
		return reconcile.Result{}, reconcile.TerminalError(
			fmt.Errorf("CA injection into %s is turned off", request.Namespace),
		)
	}
	t := &r.Targets[i]
	known := t.metadata()
	if err := r.known.Get(ctx, client.ObjectKey{Name: request.Name}, known); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if known.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	from, err := sourceOf(known.Annotations)
	if err != nil {
		r.warn(known, err)
	}
	if from.none() {
		if err == nil && owned(known) >= 0 {
			return r.outcome(known, 0, r.release(ctx, t, request.Name))
		}
		return reconcile.Result{}, nil
	}
	again, err := r.inject(ctx, t, known, from)
	return r.outcome(known, again, err)
}

// retryInterval is how often a write is retried that the API server refuses. What makes it refuse
// is not watched, so a timer must retry.
const retryInterval = 5 * time.Minute

// outcome reports the result of a pass. It uses an event, because a target has no status for it.
func (r *Reconciler) outcome(known *metav1.PartialObjectMetadata, again time.Duration,
	err error) (reconcile.Result, error) {
	switch failure := fault.Of(err); {
	case err == nil:
		return reconcile.Result{RequeueAfter: again}, nil
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		// The target was changed or deleted during the pass. The watch reports that, and starts another
		// pass.
		return reconcile.Result{}, nil
	case failure.Class == fault.Misconfigured:
		r.warn(known, err)
		return reconcile.Result{}, nil
	case fault.RefusedByAPI(err):
		r.Events.Eventf(known, corev1.EventTypeWarning, reasonInjectionFailed, "%s. It is tried again every 5 minutes",
			egress.Truncate(err.Error(), maxAnswer))
		return reconcile.Result{RequeueAfter: retryInterval}, nil // why it is refused is not watched
	default:
		r.Events.Eventf(known, corev1.EventTypeWarning, reasonInjectionFailed, "%s. It is tried again",
			egress.Truncate(err.Error(), maxAnswer))
		return reconcile.Result{}, err
	}
}

// reasonInjectionFailed is the reason of events about failed reads and writes. maxAnswer is how
// many bytes of the cause they have.
const (
	reasonInjectionFailed = "InjectionFailed"
	maxAnswer             = 1 << 10
)

func (r *Reconciler) warn(target runtime.Object, err error) {
	r.Events.Event(target, corev1.EventTypeWarning, fault.Of(err).Reason, err.Error())
}

// inject brings the bundles of a target up to date and returns the time until the next pass, 0 for
// none.
func (r *Reconciler) inject(
	ctx context.Context,
	t *Target,
	known *metav1.PartialObjectMetadata,
	from source,
) (time.Duration, error) {
	cas, err := r.read(ctx, from)
	if err != nil {
		return 0, err
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(t.Kind)
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(known), object); err != nil {
		return 0, fmt.Errorf("read %s %s: %w", t.Kind.Kind, known.Name, err)
	}
	if s, _ := sourceOf(object.GetAnnotations()); s != from || object.GetUID() != known.UID {
		return 0, nil // the cache is behind, and the watch will report the change
	}
	current, err := t.bundles(object.Object)
	if err != nil {
		return 0, err
	}
	now := r.Clock.Now()
	var again time.Duration
	sooner := func(d time.Duration) {
		if again == 0 || d < again {
			again = d
		}
	}
	if from.annotation == cmapi.WantInjectAPIServerCAAnnotation {
		sooner(apiServerInterval)
	}
	next := slices.Clone(current)
	for i := range next {
		merged, expiry := merge(current[i].pem, cas, r.Limits, now)
		if merged == nil {
			return 0, fault.Misconfiguredf("CAExpired", "the CA certificates of %s have expired: renew them", from)
		}
		next[i].pem = merged
		sooner(expiry.Sub(now)) // to drop what expires then
	}
	if same(current, next) {
		return again, nil
	}
	if err := r.apply(ctx, t, object, t.apply(next)); err != nil {
		return 0, err
	}
	r.Events.Eventf(known, corev1.EventTypeNormal, "CAInjected", "CA certificates of %s injected", from)
	return again, nil
}

// apply writes fields of a target. The patch has the resource version that was read, so that a
// concurrent change is a conflict, and a deleted target is not created again.
func (r *Reconciler) apply(
	ctx context.Context,
	t *Target,
	object *unstructured.Unstructured,
	fields map[string]any,
) error {
	fields["apiVersion"], fields["kind"] = t.Kind.GroupVersion().String(), t.Kind.Kind
	fields["metadata"] = map[string]any{"name": object.GetName(), "resourceVersion": object.GetResourceVersion()}
	patch, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	target := t.metadata()
	target.Name = object.GetName()
	err = r.Client.Patch(
		ctx,
		target,
		client.RawPatch(types.ApplyPatchType, patch),
		client.ForceOwnership,
		client.FieldOwner(FieldManager),
		client.DisableReadYourWritesConsistency,
	)
	if err != nil {
		return fmt.Errorf("write CA certificates into %s %s: %w", t.Kind.Kind, object.GetName(), err)
	}
	return nil
}

// release gives up the ownership of the bundles of a target whose annotation was removed. The
// bundles stay, so that calls still succeed. The managed-fields entry is removed, so that the owner
// of the rest can remove them by server-side apply.
func (r *Reconciler) release(ctx context.Context, t *Target, name string) error {
	live := t.metadata()
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, live); err != nil {
		return client.IgnoreNotFound(err)
	}
	i := owned(live)
	if s, err := sourceOf(live.Annotations); !s.none() || err != nil || i < 0 {
		return nil // the cache is behind
	}
	patch, err := json.Marshal([]map[string]string{
		{"op": "test", "path": "/metadata/resourceVersion", "value": live.ResourceVersion},
		{"op": "remove", "path": fmt.Sprintf("/metadata/managedFields/%d", i)},
	})
	if err != nil {
		return err
	}
	err = r.Client.Patch(
		ctx,
		live,
		client.RawPatch(types.JSONPatchType, patch),
		client.FieldOwner(FieldManager),
		client.DisableReadYourWritesConsistency,
	)
	if apierrors.IsInvalid(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the test failed: another client changed it, and the watch reports that
	}
	if err != nil {
		return fmt.Errorf("give up the CA certificates in %s %s: %w", t.Kind.Kind, name, err)
	}
	return nil
}

// read returns the CA certificates of a source, at least one.
func (r *Reconciler) read(ctx context.Context, from source) ([]*x509.Certificate, error) {
	if from.annotation == cmapi.WantInjectAPIServerCAAnnotation {
		data, err := r.APIServerCA()
		if err != nil {
			return nil, fmt.Errorf("read the CA of the API server: %w", err)
		}
		if len(data) == 0 {
			return nil, fault.Misconfiguredf(
				"SourceHasNoCA",
				"the controller knows no CA of the API server: its kubeconfig has none",
			)
		}
		return r.decode(data, "the CA of the API server")
	}
	if r.Namespace != "" && from.name.Namespace != r.Namespace {
		return nil, fault.Misconfiguredf(
			"SourceNotServed",
			"%s is not injected, as Perennial is restricted to namespace %s",
			from,
			r.Namespace,
		)
	}
	at := from.name
	if from.annotation == cmapi.WantInjectAnnotation {
		certificate := &cmapi.Certificate{}
		err := r.Client.Get(ctx, from.name, certificate)
		switch {
		case apierrors.IsNotFound(err):
			return nil, from.missing()
		case err != nil:
			return nil, fmt.Errorf("get %s: %w", from, err)
		}
		at.Name = certificate.Spec.SecretName
	}
	secret, err := r.Secrets.Get(ctx, at.Namespace, at.Name)
	switch {
	case apierrors.IsNotFound(err) && from.annotation == cmapi.WantInjectAnnotation:
		return nil, fault.Misconfiguredf("SourceNotFound", "Secret %s of %s does not exist yet", at, from)
	case apierrors.IsNotFound(err):
		return nil, from.missing()
	case err != nil:
		return nil, fmt.Errorf("get Secret %s: %w", at, err)
	}
	switch from.annotation {
	case cmapi.WantInjectAnnotation:
		if name := secret.Annotations[cmapi.CertificateNameKey]; name != from.name.Name {
			return nil, fault.Misconfiguredf(
				"SourceNotAllowed",
				"Secret %s belongs to Certificate %q, not to %s",
				at,
				name,
				from,
			)
		}
	default:
		if secret.Annotations[cmapi.AllowsInjectionFromSecretAnnotation] != "true" {
			return nil, fault.Misconfiguredf(
				"SourceNotAllowed",
				`Secret %s does not allow it: annotate it with %s: "true"`,
				at,
				cmapi.AllowsInjectionFromSecretAnnotation,
			)
		}
	}
	data, ok := secret.Data[cmmeta.TLSCAKey]
	if !ok || len(data) == 0 {
		return nil, fault.Misconfiguredf(
			"SourceHasNoCA",
			"Secret %s has no %s: its issuer does not tell its CA",
			at,
			cmmeta.TLSCAKey,
		)
	}
	return r.decode(data, fmt.Sprintf("%s of Secret %s", cmmeta.TLSCAKey, at))
}

func (r *Reconciler) decode(data []byte, what string) ([]*x509.Certificate, error) {
	cas, err := r.Limits.DecodeBundlePEM(data)
	if err != nil {
		return nil, fault.Misconfiguredf("SourceInvalid", "%s: %w", what, err)
	}
	return cas, nil
}
