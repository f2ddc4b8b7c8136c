// Package lifecycle keeps one Certificate and its Secret as its spec says, from the first request
// to the last renewal.
//
// There is one reconciler. It observes everything that is known about a Certificate (Observation),
// decides by a pure function what to do (Decide), and acts. Each write leaves a state that the next
// pass goes on from, in this process or in one that is started later.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/keygen"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// ownAnnotations is the prefix of the annotations that only the controller writes on requests. An
// admission policy enforces that.
const ownAnnotations = "perennial.dev/"

// issuerAnnotation on a request has the version of the issuer that it was made for, so that a
// change of the issuer ends the back-off after a refusal.
const issuerAnnotation = "perennial.dev/issuer-generation"

// attemptAnnotation on a request says which attempt in a row it is. The first has none.
const attemptAnnotation = "perennial.dev/attempt"

// Reconciler looks after Certificates.
type Reconciler struct {
	Client   client.Client
	Secrets  *secrets.Store
	Scope    signer.Scope
	Keyring  *signer.Keyring
	Limits   pki.Limits
	Settings Settings
	Events   record.EventRecorder
	Metrics  *observe.Metrics
	Clock    clock.PassiveClock
	// Issuances bounds how often a Certificate is issued before its renewal time.
	Issuances *earlyissuance.Store
	// Keys generates private keys that take long.
	Keys *keygen.Pool
	// External reads external issuers. It may be nil.
	External *external.StateCache

	atWork       sync.Map // the keys with a pass under way
	failedWrites failedWrites
}

// AtWork reports whether a pass for a Certificate is under way.
func (r *Reconciler) AtWork(key types.NamespacedName) bool {
	_, is := r.atWork.Load(key)
	return is
}

// Field indexes. Those of Certificates have values without the namespace.
const (
	bySecretName     = "spec.secretName"
	byPasswordSecret = "spec.keystores.passwordSecretRef"
	byRehearsal      = "spec.rehearsalIssuerRef" // by signer.Key
	byOwner          = "metadata.controller"     // of CertificateRequests and of our Secrets, by UID
)

// fromCache reads from the cache without a copy and without waiting for our own writes.
var fromCache = []client.ListOption{
	client.UnsafeDisableDeepCopy,
	&client.ListOptions{DisableReadYourWritesConsistency: true},
}

// SetupWithManager registers the reconciler. Others is the cache of the metadata of Secrets that
// are not ours.
func (r *Reconciler) SetupWithManager(
	ctx context.Context,
	mgr ctrl.Manager,
	others cache.Cache,
	o controller.Options,
) error {
	owner := func(o client.Object) []string {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.Kind == "Certificate" {
			return []string{string(ref.UID)}
		}
		return nil
	}
	for _, index := range []struct {
		object client.Object
		field  string
		values client.IndexerFunc
	}{
		{&cmapi.CertificateRequest{}, byOwner, owner},
		{&corev1.Secret{}, byOwner, owner},
		{&cmapi.Certificate{}, bySecretName, func(o client.Object) []string { return []string{o.(*cmapi.Certificate).Spec.SecretName} }},
		{&cmapi.Certificate{}, byRehearsal, func(o client.Object) []string {
			if ref := o.(*cmapi.Certificate).Spec.RehearsalIssuerRef; ref != nil {
				return []string{signer.Key(o.GetNamespace(), *ref)}
			}
			return nil
		}},
		{&cmapi.Certificate{}, byPasswordSecret, func(o client.Object) []string { return passwordSecrets(&o.(*cmapi.Certificate).Spec) }},
	} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, index.object, index.field, index.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.field, err)
		}
	}

	ofOwner := func(o client.Object) []reconcile.Request {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.Kind == "Certificate" {
			return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: ref.Name}}}
		}
		return nil
	}
	list := func(ctx context.Context, options ...client.ListOption) []reconcile.Request {
		var list cmapi.CertificateList
		if err := r.Client.List(ctx, &list, append(options, fromCache...)...); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	}
	secretChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			requests := ofOwner(o) // next private keys
			requests = append(
				requests,
				list(ctx, client.InNamespace(o.GetNamespace()), client.MatchingFields{bySecretName: o.GetName()})...)
			return append(
				requests,
				list(ctx, client.InNamespace(o.GetNamespace()), client.MatchingFields{byPasswordSecret: o.GetName()})...)
		},
	)
	requestChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(_ context.Context, o client.Object) []reconcile.Request {
			r.forgetKeyOf(o.(*cmapi.CertificateRequest))
			return ofOwner(o)
		},
	)
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			issuer := r.Scope.Of(o.(cmapi.GenericIssuer))
			return append(list(ctx, issuer.OfIssuer()...), list(ctx, client.MatchingFields{byRehearsal: issuer.Key()})...)
		},
	)
	// When a Certificate is deleted or names another Secret, the other Certificates with its Secret
	// get a pass.
	rivals := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return list(
			ctx,
			client.InNamespace(o.GetNamespace()),
			client.MatchingFields{bySecretName: o.(*cmapi.Certificate).Spec.SecretName},
		)
	})

	// Certificates that end with their CA are renewed with it.
	leaves := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return r.ofCA(ctx, o.(*cmapi.Certificate))
	})

	const name = "certificates"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmapi.Certificate{}).
		Watches(&cmapi.Certificate{}, rivals, builder.WithPredicates(predicate.Funcs{
			// The new Certificate finds rivals in its own pass, and an older one keeps the Secret.
			CreateFunc: func(event.CreateEvent) bool { return false },
			UpdateFunc: func(e event.UpdateEvent) bool {
				return e.ObjectOld.(*cmapi.Certificate).Spec.SecretName != e.ObjectNew.(*cmapi.Certificate).Spec.SecretName
			},
		})).
		Watches(&cmapi.Certificate{}, leaves, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList && e.Object.(*cmapi.Certificate).Spec.IsCA },
			UpdateFunc: func(e event.UpdateEvent) bool {
				was, is := e.ObjectOld.(*cmapi.Certificate), e.ObjectNew.(*cmapi.Certificate)
				return (was.Spec.IsCA || is.Spec.IsCA) && (!was.Status.RenewalTime.Equal(is.Status.RenewalTime) ||
					was.Spec.SecretName != is.Spec.SecretName)
			},
			DeleteFunc: func(e event.DeleteEvent) bool { return e.Object.(*cmapi.Certificate).Spec.IsCA },
		})).
		Watches(&cmapi.CertificateRequest{}, requestChanged, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(e event.CreateEvent) bool { return e.IsInInitialList }, // otherwise we made it
			DeleteFunc: r.requestDeleted,
		})).
		Watches(&corev1.Secret{}, secretChanged).
		WatchesRawSource(source.Func(func(_ context.Context,
			queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.Keys.OnDone(func(name types.NamespacedName) { queue.Add(reconcile.Request{NamespacedName: name}) })
			return nil
		})).
		WatchesRawSource(source.Kind(others, client.Object(secrets.Metadata()), secretChanged))
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, reconcile.Reconciler(r)))
}

// Reconcile makes a pass for one Certificate.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	r.atWork.Store(request.NamespacedName, nil) // before it is read whether it was deleted
	defer r.atWork.Delete(request.NamespacedName)
	crt := &cmapi.Certificate{}
	if err := r.Client.Get(ctx, request.NamespacedName, crt, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.failedWrites.set(request.NamespacedName, nil)
			r.Keys.Drop(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if crt.DeletionTimestamp != nil {
		r.failedWrites.set(request.NamespacedName, nil)
		r.Keys.Drop(request.NamespacedName)
		return reconcile.Result{}, nil
	}
	o, err := r.observe(ctx, crt)
	if err != nil {
		return reconcile.Result{}, errors.Join(err, r.unread(ctx, o, err))
	}
	d, err := r.decide(o)
	if err != nil {
		return reconcile.Result{}, err
	}
	d, err = r.act(ctx, o, d)
	switch {
	case errors.Is(err, errDeleted):
		return reconcile.Result{}, nil
	case ofEndingNamespace(err):
		return reconcile.Result{RequeueAfter: lastTransientRetry}, nil // its end is an event
	case err != nil:
		return reconcile.Result{}, err
	}
	if d.Again.IsZero() {
		return reconcile.Result{}, nil
	}
	ctrl.LoggerFrom(ctx).V(1).Info("will look again", "at", d.Again, "because", d.Why)
	// At least a millisecond: controller-runtime does not requeue after a time that is not positive.
	return reconcile.Result{RequeueAfter: max(d.Again.Sub(r.Clock.Now()), time.Millisecond)}, nil
}

// observe gathers what is known. With an error it is what was known before.
func (r *Reconciler) observe(ctx context.Context, crt *cmapi.Certificate) (*Observation, error) {
	o := &Observation{
		Now: r.Clock.Now(), Settings: r.Settings, Limits: r.Limits, Certificate: crt,
		FailedWrites: r.failedWrites.get(client.ObjectKeyFromObject(crt)),
	}
	var err error
	if o.Issuances, err = r.Issuances.Get(ctx, client.ObjectKeyFromObject(crt)); err != nil {
		return o, err
	}
	secret, err := r.Secrets.Get(ctx, crt.Namespace, crt.Spec.SecretName)
	switch {
	case err == nil:
		o.Secret = secret
	case !apierrors.IsNotFound(err):
		return o, err
	}
	if o.Issuer, err = r.Scope.Get(ctx, r.Client, crt.Namespace, crt.Spec.IssuerRef); err != nil {
		return o, err
	}
	if ref := crt.Spec.RehearsalIssuerRef; ref != nil {
		if o.RehearsalIssuer, err = r.Scope.Get(ctx, r.Client, crt.Namespace, *ref); err != nil {
			return o, err
		}
	}
	if o.CARenewal, err = r.caRenewal(ctx, o.Issuer); err != nil {
		return o, err
	}
	if err := r.observeRivals(ctx, o); err != nil {
		return o, err
	}
	if err := r.observeRequests(ctx, o); err != nil {
		return o, err
	}
	if o.Next != nil && failureOf(o.Next) != nil {
		o.External = r.externalState(ctx, crt)
	}
	if err := r.observeKeys(ctx, o); err != nil {
		return o, err
	}
	if jks := jksOf(&crt.Spec); jks != nil {
		if o.JKSPassword, err = r.password(
			ctx,
			crt,
			"jks",
			jks.PasswordSecretRef.Name,
			jks.PasswordSecretRef.Key,
			jks.Password,
		); err != nil {
			return o, err
		}
	}
	if p12 := pkcs12Of(&crt.Spec); p12 != nil {
		if o.PKCS12Password, err = r.password(
			ctx,
			crt,
			"pkcs12",
			p12.PasswordSecretRef.Name,
			p12.PasswordSecretRef.Key,
			p12.Password,
		); err != nil {
			return o, err
		}
	}
	return o, nil
}

// observeRivals finds the other Certificates that want the same Secret.
func (r *Reconciler) observeRivals(ctx context.Context, o *Observation) error {
	crt := o.Certificate
	var same cmapi.CertificateList
	if err := r.Client.List(
		ctx,
		&same,
		append(
			[]client.ListOption{client.InNamespace(crt.Namespace), client.MatchingFields{bySecretName: crt.Spec.SecretName}},
			fromCache...)...); err != nil {
		return fmt.Errorf("list Certificates: %w", err)
	}
	for i := range same.Items {
		if same.Items[i].Name != crt.Name && same.Items[i].DeletionTimestamp == nil {
			o.Rivals = append(o.Rivals, &same.Items[i])
		}
	}
	return nil
}

// observeKeys finds the Secrets of private keys that are to be used next.
func (r *Reconciler) observeKeys(ctx context.Context, o *Observation) error {
	crt := o.Certificate
	var keys corev1.SecretList
	if err := r.Client.List(
		ctx,
		&keys,
		append(
			[]client.ListOption{client.InNamespace(crt.Namespace), client.MatchingFields{byOwner: string(crt.UID)}},
			fromCache...)...); err != nil {
		return fmt.Errorf("list next private keys: %w", err)
	}
	for i := range keys.Items {
		key := &keys.Items[i]
		if key.Labels[cmapi.IsNextPrivateKeySecretLabelKey] != "true" {
			continue
		}
		if !secrets.Cached(key) {
			var err error
			if key, err = r.Secrets.Get(ctx, key.Namespace, key.Name); apierrors.IsNotFound(err) {
				continue
			} else if err != nil {
				return err
			}
		}
		o.KeySecrets = append(o.KeySecrets, key)
	}
	return nil
}

// caRenewal is when a Certificate renews the CA of the issuer, or zero.
func (r *Reconciler) caRenewal(ctx context.Context, issuer *signer.Issuer) (time.Time, error) {
	var at time.Time
	if issuer == nil || issuer.GetSpec().CA == nil {
		return at, nil
	}
	var list cmapi.CertificateList
	in := []client.ListOption{client.InNamespace(issuer.SecretNamespace),
		client.MatchingFields{bySecretName: issuer.GetSpec().CA.SecretName}}
	if err := r.Client.List(ctx, &list, append(in, fromCache...)...); err != nil {
		return at, fmt.Errorf("list Certificates of the CA: %w", err)
	}
	for i := range list.Items {
		// If several name the Secret, only the one that holds it has a renewal time.
		if renewal := list.Items[i].Status.RenewalTime; renewal != nil && list.Items[i].DeletionTimestamp == nil {
			at = renewal.Time
		}
	}
	return at, nil
}

// ofCA returns the Certificates of the issuers that have their CA from a Certificate.
func (r *Reconciler) ofCA(ctx context.Context, crt *cmapi.Certificate) []reconcile.Request {
	var issuers []cmapi.GenericIssuer
	var namespaced cmapi.IssuerList
	if err := r.Client.List(ctx, &namespaced, append([]client.ListOption{client.InNamespace(crt.Namespace)},
		fromCache...)...); err != nil {
		return nil // only a cache that is stopping fails
	}
	for i := range namespaced.Items {
		issuers = append(issuers, &namespaced.Items[i])
	}
	if r.Scope.Namespace == "" && crt.Namespace == r.Scope.ClusterResourceNamespace {
		var cluster cmapi.ClusterIssuerList
		if err := r.Client.List(ctx, &cluster, fromCache...); err != nil {
			return nil
		}
		for i := range cluster.Items {
			issuers = append(issuers, &cluster.Items[i])
		}
	}
	var requests []reconcile.Request
	for _, i := range issuers {
		if ca := i.GetSpec().CA; ca == nil || ca.SecretName != crt.Spec.SecretName {
			continue
		}
		var leaves cmapi.CertificateList
		if err := r.Client.List(ctx, &leaves, r.Scope.Of(i).OfIssuer()...); err != nil {
			return nil
		}
		for j := range leaves.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&leaves.Items[j])})
		}
	}
	return requests
}

// observeRequests finds the requests of the Certificate. Those of the present and the next revision
// are read by name, which waits until the cache has what we wrote; of older ones the cache is good
// enough.
func (r *Reconciler) observeRequests(ctx context.Context, o *Observation) error {
	crt := o.Certificate
	get := func(name string) (*cmapi.CertificateRequest, error) { return r.getRequest(ctx, crt.Namespace, name) }
	var err error
	revision := o.revision()
	if o.Next, err = get(RequestName(crt.Name, revision+1)); err != nil {
		return err
	}
	if crt.Spec.RehearsalIssuerRef != nil {
		if o.Rehearsal, err = get(RehearsalName(crt.Name)); err != nil {
			return err
		}
	}
	if revision > 0 {
		if o.Current, err = get(RequestName(crt.Name, revision)); err != nil {
			return err
		}
		if o.Current != nil && !metav1.IsControlledBy(o.Current, crt) {
			o.Current = nil
		}
	}
	var all cmapi.CertificateRequestList
	if err := r.Client.List(
		ctx,
		&all,
		append(
			[]client.ListOption{client.InNamespace(crt.Namespace), client.MatchingFields{byOwner: string(crt.UID)}},
			fromCache...)...); err != nil {
		return fmt.Errorf("list CertificateRequests: %w", err)
	}
	for i := range all.Items {
		o.observeRequest(&all.Items[i], revision)
	}
	o.setStrayAside()
	if o.Next != nil {
		o.KeyInMemory = r.Keyring.Get(client.ObjectKeyFromObject(o.Next))
	}
	return nil
}

// getRequest returns a request, or nil if there is none.
func (r *Reconciler) getRequest(ctx context.Context, namespace, name string) (*cmapi.CertificateRequest, error) {
	cr := &cmapi.CertificateRequest{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, cr, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get CertificateRequest: %w", err)
	}
	return cr, nil
}

// observeRequest takes a request of the Certificate as the current one, the next, a rehearsal that
// is no longer asked for, or as an old one.
func (o *Observation) observeRequest(cr *cmapi.CertificateRequest, revision int) {
	crt := o.Certificate
	switch cr.Name {
	case RequestName(crt.Name, revision), RequestName(crt.Name, revision+1):
		return
	case RehearsalName(crt.Name):
		if crt.Spec.RehearsalIssuerRef == nil {
			o.Rehearsal = cr // it is no longer asked for
		}
		return
	}
	// Clusters have requests with generated names, from before names were made from the revision.
	switch n := revisionOf(cr); {
	case n == revision && n > 0 && o.Current == nil:
		o.Current = cr
	case n == revision+1 && o.Next == nil:
		o.Next = cr
	default:
		o.Old = append(o.Old, cr)
	}
}

// passwordSecrets are the names of the Secrets with the passwords of the keystores.
func passwordSecrets(spec *cmapi.CertificateSpec) []string {
	var names []string
	if jks := jksOf(spec); jks != nil && jks.PasswordSecretRef.Name != "" {
		names = append(names, jks.PasswordSecretRef.Name)
	}
	if p12 := pkcs12Of(spec); p12 != nil && p12.PasswordSecretRef.Name != "" {
		names = append(names, p12.PasswordSecretRef.Name)
	}
	return names
}

func (r *Reconciler) password(
	ctx context.Context,
	crt *cmapi.Certificate,
	keystore, name, key string,
	literal *string,
) (Password, error) {
	if name == "" {
		if literal == nil || *literal == "" {
			return Password{
				Problem: fmt.Sprintf("spec.keystores.%s needs a password: set password or passwordSecretRef", keystore),
			}, nil
		}
		return Password{Value: *literal, Source: "spec.keystores." + keystore + ".password"}, nil
	}
	secret, err := r.Secrets.Get(ctx, crt.Namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return Password{
			Problem: fmt.Sprintf(
				"Secret %q of spec.keystores.%s.passwordSecretRef does not exist: create it with an entry %q",
				name,
				keystore,
				key,
			),
		}, nil
	case err != nil:
		return Password{}, err
	case len(secret.Data[key]) == 0:
		return Password{
			Problem: fmt.Sprintf("Secret %q of spec.keystores.%s.passwordSecretRef has no entry %q", name, keystore, key),
		}, nil
	}
	return Password{Value: string(secret.Data[key]), Source: fmt.Sprintf("entry %q of Secret %q", key, name)}, nil
}

// requestDeleted drops the private key of a request that is gone. A request without finalizers
// never has a deletion time.
func (r *Reconciler) requestDeleted(e event.DeleteEvent) bool {
	r.dropKey(e.Object.(*cmapi.CertificateRequest))
	return true
}

// forgetKeyOf drops the private key in memory of a request that was deleted or answered. A request
// that was made anew under the same name has another key, which stays.
func (r *Reconciler) forgetKeyOf(cr *cmapi.CertificateRequest) {
	if cr.DeletionTimestamp == nil {
		return
	}
	r.dropKey(cr)
}

func (r *Reconciler) dropKey(cr *cmapi.CertificateRequest) {
	name := client.ObjectKeyFromObject(cr)
	key := r.Keyring.Get(name)
	if key == nil {
		return
	}
	if csr, err := r.Limits.DecodeCSRPEM(cr.Spec.Request); err != nil || pki.SamePublicKey(csr.PublicKey, key.Public()) {
		r.Keyring.Drop(name)
	}
}
