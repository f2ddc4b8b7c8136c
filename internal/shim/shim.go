package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// ProblemAnnotation stands on an object whose certificates cannot be made as it asks, and says why. It goes when that is mended.
	ProblemAnnotation = "perennial.dev/certificate-problem"
	// maxProblem is how long it may be.
	maxProblem = 4 << 10

	// byOwner is the field index of Certificates by the UID of the object that controls them, and bySecret that of Ingresses by the
	// Secrets that they want.
	byOwner  = "metadata.ownerReferences.controller"
	bySecret = "spec.tls.secretName"
)

// Reconciler gives Ingresses their Certificates.
type Reconciler struct {
	Client   client.Client
	Scope    signer.Scope
	Settings Settings
	Events   record.EventRecorder
	Metrics  *observe.Metrics
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

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &cmapi.Certificate{}, byOwner, func(o client.Object) []string {
		if owner := metav1.GetControllerOf(o); owner != nil {
			return []string{string(owner.UID)}
		}
		return nil
	})
	if err == nil {
		err = mgr.GetFieldIndexer().IndexField(ctx, &networkingv1.Ingress{}, bySecret, func(o client.Object) []string {
			var names []string
			for _, w := range ofIngress(o.(*networkingv1.Ingress)).tls {
				names = append(names, w.secret)
			}
			return names
		})
	}
	if err != nil {
		return fmt.Errorf("index Certificates and Ingresses: %w", err)
	}
	// Those who want the same Secret look again, too: they agree, or none of them is right.
	sharers := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var requests []reconcile.Request
		for _, w := range ofIngress(o.(*networkingv1.Ingress)).tls {
			for _, other := range r.wanting(ctx, o.GetNamespace(), w.secret) {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(other)})
			}
		}
		return requests
	})
	const name = "ingress-shim"
	return ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&networkingv1.Ingress{}).
		Watches(&networkingv1.Ingress{}, sharers).
		Owns(&cmapi.Certificate{}).
		Complete(observe.Counted(r.Metrics, name, reconcile.Reconciler(r)))
}

// wanting returns the Ingresses of a namespace that want a Secret.
func (r *Reconciler) wanting(ctx context.Context, namespace, secret string) []*networkingv1.Ingress {
	var list networkingv1.IngressList
	if err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{bySecret: secret}, client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return nil // only a cache that is stopping fails
	}
	var found []*networkingv1.Ingress
	for i := range list.Items {
		found = append(found, &list.Items[i])
	}
	return found
}

// Reconcile looks at one Ingress.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	o := &networkingv1.Ingress{}
	if err := r.Client.Get(ctx, request.NamespacedName, o, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if o.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // its Certificates go with it
	}
	d := want(ofIngress(o), r.Settings)
	if d.asks && !d.broken {
		mistakes, err := r.apply(ctx, o, d.certificates)
		if err != nil {
			return reconcile.Result{}, err
		}
		d.mistakes = append(d.mistakes, mistakes...)
	}
	return reconcile.Result{}, r.report(ctx, o, d.mistakes)
}

// apply makes the Certificates of an object what they should be, and returns what stands against it.
func (r *Reconciler) apply(ctx context.Context, o client.Object, should []*cmapi.Certificate) ([]Mistake, error) {
	var mistakes []Mistake
	for _, crt := range should {
		mistake, err := r.applyOne(ctx, o, crt)
		if err != nil {
			return nil, err
		}
		mistakes = append(mistakes, mistake...)
	}
	if len(should) > 0 {
		ref := should[0].Spec.IssuerRef
		i, err := r.Scope.Get(ctx, r.Client, o.GetNamespace(), ref)
		if err != nil {
			return nil, err
		}
		if i == nil && !signer.External(ref) {
			mistakes = append(mistakes, Mistake{"issuer", fmt.Sprintf("there is no %s %q: create it, or correct the annotation", ref.Kind, ref.Name)})
		}
	}
	var owned cmapi.CertificateList
	if err := r.Client.List(ctx, &owned, client.InNamespace(o.GetNamespace()), client.MatchingFields{byOwner: string(o.GetUID())}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range owned.Items {
		crt := &owned.Items[i]
		if crt.DeletionTimestamp != nil || slices.ContainsFunc(should, func(s *cmapi.Certificate) bool { return s.Name == crt.Name }) {
			continue
		}
		if err := r.Client.Delete(ctx, crt, client.Preconditions{UID: &crt.UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete Certificate %s: %w", crt.Name, err)
		}
		r.Events.Eventf(o, corev1.EventTypeNormal, "DeleteCertificate", "Successfully deleted unrequired Certificate %q", crt.Name)
	}
	return mistakes, nil
}

func (r *Reconciler) applyOne(ctx context.Context, o client.Object, should *cmapi.Certificate) ([]Mistake, error) {
	var mistakes []Mistake
	for _, other := range r.wanting(ctx, o.GetNamespace(), should.Spec.SecretName) {
		if other.UID == o.GetUID() || other.DeletionTimestamp != nil {
			continue
		}
		for _, theirs := range want(ofIngress(other), r.Settings).certificates {
			if theirs.Name == should.Name && !equality.Semantic.DeepEqual(theirs.Spec, should.Spec) {
				mistakes = append(mistakes, Mistake{"spec.tls", fmt.Sprintf("Ingress %s wants Secret %q with other content: give each its own Secret, or the same hosts and annotations",
					other.Name, should.Spec.SecretName)})
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
		r.Events.Eventf(o, corev1.EventTypeNormal, "CreateCertificate", "Successfully created Certificate %q", should.Name)
		return mistakes, nil
	case err != nil:
		return nil, err
	}
	if !metav1.IsControlledBy(is, o) {
		if len(mistakes) == 0 && !equality.Semantic.DeepEqual(is.Spec, should.Spec) {
			mistakes = append(mistakes, Mistake{"spec.tls", fmt.Sprintf("Certificate %q, which is not this object's, provides the Secret with other content: "+
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
	r.Events.Eventf(o, corev1.EventTypeNormal, "UpdateCertificate", "Successfully updated Certificate %q", should.Name)
	return mistakes, nil
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
func (r *Reconciler) report(ctx context.Context, o client.Object, mistakes []Mistake) error {
	is, stands := o.GetAnnotations()[ProblemAnnotation]
	should := short4k(text(mistakes))
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
	target := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName()}}
	if err := r.Client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return client.IgnoreNotFound(err)
	}
	if should != "" {
		r.Events.Event(o, corev1.EventTypeWarning, "BadConfig", should)
	}
	return nil
}

func short4k(s string) string {
	if len(s) > maxProblem {
		return s[:maxProblem]
	}
	return s
}
