package lifecycle

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// errDeleted ends a pass of a Certificate that was deleted meanwhile.
var errDeleted = errors.New("the Certificate was deleted meanwhile")

// act carries out a decision and writes the status. If a write fails, it decides again without that
// write, so that the status is written in any case. It returns the last decision. The next pass
// finds what was not written.
func (r *Reconciler) act(ctx context.Context, o *Observation, d *Decision) (*Decision, error) {
	failed, err := r.carryOut(ctx, o, d)
	if err != nil {
		return d, err
	}
	r.remember(ctx, o, d, failed)
	if len(failed) == 0 {
		return d, r.writeStatus(ctx, o, d)
	}
	before := d
	d = Decide(o)
	d.Failed = cmp.Or(d.Failed, before.Failed)
	if d.StoreKey != nil {
		d.ForgetKey = "" // the next pass stores it
	}
	if !slices.ContainsFunc(failed, func(e *writeError) bool { return o.FailedWrites[e.write].reportable() }) &&
		!becomesUnready(o, d) {
		return d, nil // it may be over in a moment
	}
	return d, r.writeStatus(ctx, o, d)
}

// becomesUnready reports whether a decision takes Ready=True back.
func becomesUnready(o *Observation, d *Decision) bool {
	was := cmapi.GetCertificateCondition(&o.Certificate.Status, cmapi.CertificateConditionReady)
	is := cmapi.GetCertificateCondition(&d.Status, cmapi.CertificateConditionReady)
	return was != nil && was.Status == cmmeta.ConditionTrue && is != nil && is.Status != cmmeta.ConditionTrue
}

// carryOut makes the writes of a decision, but for the status. It stops at one that fails, unless
// the others do not depend on it. The error is of a pass that ends here.
func (r *Reconciler) carryOut(ctx context.Context, o *Observation, d *Decision) (failed []*writeError, err error) {
	note := func(e *writeError) bool {
		if e == nil {
			return true
		}
		if passing(ctx, e.err) || errors.Is(e.err, errDeleted) {
			err = e
			return false
		}
		failed = append(failed, e)
		return false
	}
	if !note(r.setFinalizer(ctx, o, d.Finalizer)) {
		return failed, err
	}
	for _, cr := range d.DeleteRequests {
		r.dropKey(cr)
		if !note(r.delete(ctx, cr)) && (err != nil || makes(o.Certificate, d, cr.Name)) {
			return failed, err
		}
	}
	var key crypto.Signer
	if d.StoreKey != nil {
		var e *writeError
		if key, e = r.storeKey(ctx, o, d.StoreKey); !note(e) {
			return failed, err
		}
	}
	for _, step := range []func() *writeError{
		func() *writeError { return r.request(ctx, o, d.Request, key) },
		func() *writeError { return r.rehearse(ctx, o, d.Rehearse) },
		func() *writeError { return r.apply(ctx, o, d.Apply, key) },
	} {
		if !note(step()) {
			return failed, err
		}
	}
	if !note(r.disown(ctx, o.Certificate, d.Disown)) && err != nil {
		return failed, err
	}
	for _, secret := range d.DeleteKeys {
		if !note(r.delete(ctx, secret)) && err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// makes reports whether a decision makes a CertificateRequest of the name.
func makes(crt *cmapi.Certificate, d *Decision, name string) bool {
	return d.Request != nil && name == RequestName(crt.Name, d.Request.Revision) || d.Rehearse != nil &&
		name == RehearsalName(crt.Name)
}

// setFinalizer sets or removes the finalizer that revokes on deletion.
func (r *Reconciler) setFinalizer(ctx context.Context, o *Observation, want bool) *writeError {
	crt := o.Certificate
	if slices.Contains(crt.Finalizers, revocation.Finalizer) == want {
		return nil
	}
	next := crt.DeepCopy()
	if want {
		controllerutil.AddFinalizer(next, revocation.Finalizer)
	} else {
		controllerutil.RemoveFinalizer(next, revocation.Finalizer)
	}
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsNotFound(err):
		err = errDeleted
	case err == nil:
		o.Certificate = next
		return nil
	}
	return &writeError{finalizerWrite(crt), reasonFinalizerFailed,
		fmt.Sprintf("The finalizer %s of the Certificate cannot be written", revocation.Finalizer),
		"Change what refuses it, or remove spec.revocation", err}
}

// writeStatus writes the status, if it has changed, and reports the events and metrics about it.
func (r *Reconciler) writeStatus(ctx context.Context, o *Observation, d *Decision) error {
	crt := o.Certificate
	if !d.HoldStatus && !equality.Semantic.DeepEqual(crt.Status, d.Status) {
		next := crt.DeepCopy()
		next.Status = d.Status
		if err := r.Client.Status().
			Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{})); err != nil {
			return observe.StatusRefused(r.Events, crt, err)
		}
		logTransitions(ctx, &crt.Status, &next.Status, o.Now)
	}
	if d.ForgetKey != "" {
		r.Keyring.Drop(types.NamespacedName{Namespace: crt.Namespace, Name: d.ForgetKey})
	}
	if d.Issued != nil {
		var due time.Time
		if at := d.Status.RenewalTime; at != nil {
			due = at.Time
		}
		r.Issuances.Issued(client.ObjectKeyFromObject(crt), due)
		r.Metrics.Issued(crt.Spec.IssuerRef, o.Now.Sub(d.Issued.CreationTimestamp.Time))
	}
	if d.Failed != "" {
		r.Metrics.IssuanceFailed(crt.Spec.IssuerRef, d.Failed)
	}
	r.recordEvents(crt, d.Events)
	return nil
}

// start makes a request by create. If the issuance counts as early, start records that first.
func (r *Reconciler) start(ctx context.Context, crt *cmapi.Certificate, n *NewRequest, rehearsal bool,
	create func() error) error {
	name := client.ObjectKeyFromObject(crt)
	undo := func() {}
	if n.Counts != "" {
		var err error
		if undo, err = r.Issuances.Count(ctx, name, n.Counts); err != nil {
			return err
		}
	}
	if err := create(); err != nil {
		undo()
		return err
	}
	r.Issuances.Started(name, rehearsal)
	r.Keys.Drop(name) // the request has it
	return nil
}

func (r *Reconciler) recordEvents(crt *cmapi.Certificate, events []Event) {
	for _, e := range events {
		r.Events.Event(crt, e.Type, e.Reason, e.Message)
	}
}

// disown removes the Certificate from the owners of a Secret, so that the garbage collector keeps
// the Secret.
func (r *Reconciler) disown(ctx context.Context, crt *cmapi.Certificate, secret *corev1.Secret) *writeError {
	if secret == nil {
		return nil
	}
	next := secret.DeepCopy()
	next.OwnerReferences = slices.DeleteFunc(next.OwnerReferences,
		func(ref metav1.OwnerReference) bool { return ref.UID == crt.UID })
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(secret, client.MergeFromWithOptimisticLock{}))
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return &writeError{releaseOf(secret), ReasonReleaseFailed,
		fmt.Sprintf("Secret %q holds what is not the Certificate's and cannot be kept from being deleted with it",
			secret.Name),
		"Change what refuses it, or remove the owner reference yourself", err}
}

// delete deletes the object that was observed, and no later one of its name.
func (r *Reconciler) delete(ctx context.Context, object client.Object) *writeError {
	uid := object.GetUID()
	err := r.Client.Delete(ctx, object, client.Preconditions{UID: &uid})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	w := deletionOf(object)
	return &writeError{w, ReasonDeletionFailed, fmt.Sprintf("%s is no longer needed and cannot be deleted", w.name),
		"Change what refuses it, or delete it yourself", err}
}

func deletionOf(object client.Object) write {
	kind := "Secret"
	if _, ok := object.(*cmapi.CertificateRequest); ok {
		kind = "CertificateRequest"
	}
	return write{deletes, fmt.Sprintf("%s %q", kind, object.GetName())}
}

func releaseOf(secret *corev1.Secret) write { return write{releases, secret.Name} }

func finalizerWrite(crt *cmapi.Certificate) write { return write{writesFinalizer, crt.Name} }

// storeKey stores the private key, or a new one, in a Secret of its own, and returns it.
func (r *Reconciler) storeKey(ctx context.Context, o *Observation, s *StoreKey) (crypto.Signer, *writeError) {
	name := KeySecretName(o.Certificate, s.Revision)
	key, err := r.writeKey(ctx, o, s, name)
	if err != nil {
		return nil, &writeError{write{writesKey, name}, reasonKeyFailed,
			fmt.Sprintf("The private key of the next certificate cannot be stored in Secret %q", name),
			"Change what refuses it, or the Certificate", err}
	}
	return key, nil
}

func (r *Reconciler) writeKey(ctx context.Context, o *Observation, s *StoreKey, name string) (crypto.Signer, error) {
	crt := o.Certificate
	key := s.Key
	if key == nil {
		spec, _ := keySpec(&crt.Spec)
		var err error
		if key, err = generate(spec); err != nil {
			return nil, err
		}
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		return nil, err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: crt.Namespace,
			Name:      name,
			Labels: map[string]string{
				cmapi.IsNextPrivateKeySecretLabelKey:      "true",
				cmapi.PartOfCertManagerControllerLabelKey: "true",
			},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate")),
			},
		},
		Data: map[string][]byte{corev1.TLSPrivateKeyKey: encoded},
		Type: corev1.SecretTypeOpaque,
	}
	err = r.Client.Create(ctx, secret)
	if !apierrors.IsAlreadyExists(err) {
		return key, err
	}
	had, err := r.Secrets.Get(ctx, secret.Namespace, secret.Name)
	if err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	if !metav1.IsControlledBy(had, crt) {
		return nil, fault.Refusedf(reasonNameTaken, "it exists, but does not belong to this Certificate: delete it")
	}
	// Another process may have been the leader meanwhile, and have stored this key for its own
	// request. Then this decision is out of date, and another key would make that request useless.
	observed := func(seen *corev1.Secret) bool {
		return seen.UID == had.UID && seen.ResourceVersion == had.ResourceVersion
	}
	if had.Labels[cmapi.IsNextPrivateKeySecretLabelKey] == "true" && !slices.ContainsFunc(o.KeySecrets, observed) {
		return nil, apierrors.NewConflict(corev1.Resource("secrets"), name,
			errors.New("it was made since the Certificate was read"))
	}
	was := had
	had = was.DeepCopy()
	had.Labels, had.Data = secret.Labels, secret.Data
	return key, r.Client.Patch(ctx, had, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
}

// apply writes the Secret. What others own in it stays.
func (r *Reconciler) apply(ctx context.Context, o *Observation, c *Content, key crypto.Signer) *writeError {
	if c == nil {
		return nil
	}
	if c.Key == nil {
		c.Key = key
	}
	err := r.writeSecret(ctx, o, c)
	if err == nil {
		r.recordEvents(o.Certificate, c.Events)
		return nil
	}
	name := o.Certificate.Spec.SecretName
	e := &writeError{write{writesSecret, name}, reasonSecretFailed, fmt.Sprintf("Secret %q cannot be written", name),
		"Change what refuses it, or the Certificate", err}
	if o.Secret != nil && ptr.Deref(o.Secret.Immutable, false) {
		e.advice = "The Secret is immutable: delete it, so that it is made anew, or write another spec.secretName"
	}
	if of := (*fault.Error)(nil); errors.As(err, &of) && of.Reason == reasonKeystore {
		e.reason, e.text = of.Reason, fmt.Sprintf("Secret %q is not written", name)
	}
	return e
}

func (r *Reconciler) writeSecret(ctx context.Context, o *Observation, c *Content) error {
	crt := o.Certificate
	if c.Temporary {
		cert, err := temporary(o, c.Key)
		if err != nil {
			return err
		}
		c.Chain = []*x509.Certificate{cert}
	}
	cfg, err := configOf(o, c)
	if err != nil {
		return err
	}
	if err := encodeKeystores(o, c, cfg); err != nil {
		return err
	}
	// The type of a Secret cannot be changed. A Secret that existed before may have another one.
	secretType := corev1.SecretTypeTLS
	if o.Secret != nil {
		secretType = o.Secret.Type
	}
	secret := corev1ac.Secret(crt.Spec.SecretName, crt.Namespace).
		WithLabels(cfg.labels).WithAnnotations(cfg.annotations).WithData(cfg.data).WithType(secretType)
	if ref := cfg.owner; ref != nil {
		secret.WithOwnerReferences(
			metav1ac.OwnerReference().WithAPIVersion(ref.APIVersion).WithKind(ref.Kind).WithName(ref.Name).WithUID(ref.UID).
				WithController(*ref.Controller).WithBlockOwnerDeletion(*ref.BlockOwnerDeletion),
		)
	}
	if o.Secret == nil && requestedBy(crt) != "" {
		// Create, not Apply: Apply would overwrite a Secret that another client creates at the same time.
		made := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: crt.Namespace, Name: crt.Spec.SecretName, Labels: cfg.labels,
				Annotations: maps.Clone(cfg.annotations)},
			Data: cfg.data, Type: secretType,
		}
		made.Annotations[signer.RequestedByAnnotation] = requestedBy(crt)
		if err := r.Client.Create(ctx, made, client.FieldOwner(makerManager)); err != nil {
			return err
		}
	}
	return r.Client.Apply(ctx, secret, client.FieldOwner(secretManager), client.ForceOwnership)
}
