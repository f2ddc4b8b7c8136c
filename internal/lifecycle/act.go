package lifecycle

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// act carries out a decision. If it fails midway the next pass observes how far it came.
func (r *Reconciler) act(ctx context.Context, o *Observation, d *Decision) error {
	crt := o.Certificate
	if has := slices.Contains(crt.Finalizers, revocation.Finalizer); has != d.Finalizer {
		next := crt.DeepCopy()
		if d.Finalizer {
			controllerutil.AddFinalizer(next, revocation.Finalizer)
		} else {
			controllerutil.RemoveFinalizer(next, revocation.Finalizer)
		}
		if err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{})); err != nil {
			if apierrors.IsNotFound(err) {
				return nil // deleted meanwhile
			}
			return fmt.Errorf("write finalizer: %w", err)
		}
		crt = next
	}
	for _, cr := range d.DeleteRequests {
		r.dropKey(cr)
		if err := r.delete(ctx, cr); err != nil {
			return fmt.Errorf("delete CertificateRequest %q: %w", cr.Name, err)
		}
	}
	var key crypto.Signer
	if s := d.StoreKey; s != nil {
		var err error
		if key, err = r.storeKey(ctx, o, s); err != nil {
			return fmt.Errorf("store private key: %w", err)
		}
	}
	if n := d.Request; n != nil {
		if n.Key != nil {
			key = n.Key
		}
		if err := r.request(ctx, o, n, key); err != nil {
			return err
		}
		r.tell(crt, n.Events)
	}
	if n := d.Rehearse; n != nil {
		if err := r.rehearse(ctx, o, n); err != nil {
			return err
		}
		r.tell(crt, n.Events)
	}
	if c := d.Apply; c != nil {
		if c.Key == nil {
			c.Key = key
		}
		if err := r.apply(ctx, o, c); err != nil {
			return err
		}
		r.tell(crt, c.Events)
	}
	for _, secret := range d.DeleteKeys {
		if err := r.delete(ctx, secret); err != nil {
			return fmt.Errorf("delete Secret %q with an unused private key: %w", secret.Name, err)
		}
	}
	if !d.HoldStatus && !equality.Semantic.DeepEqual(crt.Status, d.Status) {
		next := crt.DeepCopy()
		next.Status = d.Status
		if err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(crt, client.MergeFromWithOptimisticLock{})); err != nil {
			if apierrors.IsNotFound(err) {
				return nil // deleted meanwhile
			}
			return fmt.Errorf("write status: %w", err)
		}
	}
	if d.ForgetKey != "" {
		r.Keyring.Drop(types.NamespacedName{Namespace: crt.Namespace, Name: d.ForgetKey})
	}
	if d.Issued != nil {
		r.Metrics.Issued(crt.Spec.IssuerRef, o.Now.Sub(d.Issued.CreationTimestamp.Time))
	}
	if d.Failed != "" {
		r.Metrics.IssuanceFailed(crt.Spec.IssuerRef, d.Failed)
	}
	r.tell(crt, d.Events)
	return nil
}

func (r *Reconciler) tell(crt *cmapi.Certificate, events []Event) {
	for _, e := range events {
		r.Events.Event(crt, e.Type, e.Reason, e.Message)
	}
}

// delete deletes the object that was observed, and no later one of its name.
func (r *Reconciler) delete(ctx context.Context, object client.Object) error {
	uid := object.GetUID()
	err := r.Client.Delete(ctx, object, client.Preconditions{UID: &uid})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// storeKey stores the private key, or a new one, in a Secret of its own, and returns it.
func (r *Reconciler) storeKey(ctx context.Context, o *Observation, s *StoreKey) (crypto.Signer, error) {
	crt := o.Certificate
	key := s.Key
	if key == nil {
		spec, _ := keySpec(&crt.Spec)
		var err error
		if key, err = spec.Generate(rand.Reader); err != nil {
			return nil, err
		}
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		return nil, err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: crt.Namespace, Name: KeySecretName(crt, s.Revision),
			Labels: map[string]string{
				cmapi.IsNextPrivateKeySecretLabelKey:      "true",
				cmapi.PartOfCertManagerControllerLabelKey: "true",
			},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))},
		},
		Data: map[string][]byte{corev1.TLSPrivateKeyKey: encoded},
		Type: corev1.SecretTypeOpaque,
	}
	err = r.Client.Create(ctx, secret)
	if !apierrors.IsAlreadyExists(err) {
		return key, err
	}
	had := &corev1.Secret{}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(secret), had); err != nil {
		return nil, fmt.Errorf("read Secret %q: %w", secret.Name, err)
	}
	if !metav1.IsControlledBy(had, crt) {
		return nil, fmt.Errorf("the Secret %q exists, but does not belong to this Certificate: delete it", secret.Name)
	}
	was := had.DeepCopy()
	had.Labels, had.Data = secret.Labels, secret.Data
	return key, r.Client.Patch(ctx, had, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
}

// request makes a CertificateRequest. Without a key it makes a new one, which stays in memory.
func (r *Reconciler) request(ctx context.Context, o *Observation, n *NewRequest, key crypto.Signer) error {
	crt := o.Certificate
	spec := &crt.Spec
	name := types.NamespacedName{Namespace: crt.Namespace, Name: RequestName(crt.Name, n.Revision)}
	inMemory := key == nil
	if inMemory {
		ks, _ := keySpec(spec)
		var err error
		if key, err = ks.Generate(rand.Reader); err != nil {
			return fmt.Errorf("generate private key: %w", err)
		}
	}
	cr, err := r.requestFor(crt, n, o.Issuer, key)
	if err != nil {
		return err
	}
	cr.Name = name.Name
	cr.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] = strconv.Itoa(n.Revision)
	cr.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey] = KeySecretName(crt, n.Revision)
	if wanted := revocation.For(crt); wanted != "" && o.Issuer != nil && o.Issuer.GetSpec().ACME != nil {
		cr.Annotations[revocation.ForAnnotation] = wanted
	}
	if id := replaces(o); id != "" {
		cr.Annotations[signer.ReplacesAnnotation] = id
	}
	if inMemory {
		r.Keyring.Put(name, key) // before somebody else sees the request and signs with it
	}
	if err := r.Client.Create(ctx, cr); err != nil {
		if inMemory {
			r.Keyring.Drop(name)
		}
		return r.notCreated(crt, cr, err)
	}
	return nil
}

// rehearse makes the request to the rehearsal issuer. Nobody gets its private key: what it signs is thrown away, and neither the next key nor the one in
// use is shown to another CA.
func (r *Reconciler) rehearse(ctx context.Context, o *Observation, n *NewRequest) error {
	crt := o.Certificate
	ks, _ := keySpec(&crt.Spec)
	key, err := ks.Generate(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate private key: %w", err)
	}
	cr, err := r.requestFor(crt, n, o.RehearsalIssuer, key)
	if err != nil {
		return err
	}
	cr.Name, cr.Spec.IssuerRef = RehearsalName(crt.Name), *crt.Spec.RehearsalIssuerRef
	cr.Annotations[signer.RehearsalAnnotation] = "true"
	if err := r.Client.Create(ctx, cr); err != nil {
		return r.notCreated(crt, cr, err)
	}
	return nil
}

// requestFor returns what all requests for a Certificate have, but for their name.
func (r *Reconciler) requestFor(crt *cmapi.Certificate, n *NewRequest, issuer *signer.Issuer, key crypto.Signer) (*cmapi.CertificateRequest, error) {
	spec := &crt.Spec
	asked := requestOf(spec)
	asked.LeaveOutCovered = ofACME(issuer)
	csr, err := asked.CSR(rand.Reader, key)
	if err != nil {
		return nil, err // Decide has checked all that depends on the spec
	}
	annotations := copiedAnnotations(crt.Annotations, r.Settings.CopiedAnnotations)
	annotations[cmapi.CertificateNameKey] = crt.Name
	if n.Attempt > 1 {
		annotations[attemptAnnotation] = strconv.Itoa(n.Attempt)
	}
	if issuer != nil {
		annotations[issuerAnnotation] = issuer.Generation()
	}
	for _, ours := range []string{signer.ReplacesAnnotation, signer.ProfileAnnotation, signer.RehearsalAnnotation, signer.ManualAnnotation, revocation.ForAnnotation} {
		delete(annotations, ours) // it is for us to say
	}
	if n.Wish != "" {
		annotations[signer.ManualAnnotation] = n.Wish
	}
	if spec.ACMEProfile != "" {
		annotations[signer.ProfileAnnotation] = spec.ACMEProfile
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: crt.Namespace, Labels: signer.CopiedLabels(crt.Labels), Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))},
		},
		Spec: cmapi.CertificateRequestSpec{
			Duration: spec.Duration, IssuerRef: spec.IssuerRef, Request: pki.EncodeCSRPEM(csr), IsCA: spec.IsCA, Usages: spec.Usages,
		},
	}, nil
}

// notCreated is the error of a request that could not be made.
func (r *Reconciler) notCreated(crt *cmapi.Certificate, cr *cmapi.CertificateRequest, err error) error {
	if apierrors.IsAlreadyExists(err) {
		// The one that was deleted is not gone yet, for somebody's finalizer. Its end is watched.
		return fmt.Errorf("create CertificateRequest %q: the one before it is still being deleted: %w", cr.Name, err)
	}
	r.Events.Eventf(crt, corev1.EventTypeWarning, "RequestFailed", "Failed to create CertificateRequest: %s", err)
	return fmt.Errorf("create CertificateRequest %q: %w", cr.Name, err)
}

// replaces is the identifier, RFC 9773 section 4.1, of the certificate that a request is to renew, if its ACME server says when to renew, and
// has issued it to the account that asks now, for one of the names at least. Another order it would refuse.
func replaces(o *Observation) string {
	crt := o.Certificate
	if crt.Status.ACME == nil || crt.Status.ACME.ARI == nil || o.Secret == nil || !signer.Issued(crt.Spec.IssuerRef, o.Secret) {
		return ""
	}
	if o.Issuer == nil || o.Issuer.GetStatus().ACME == nil {
		return ""
	}
	if by := crt.Status.ACME.ARI.Account; by != "" && by != o.Issuer.GetStatus().ACME.URI {
		return ""
	}
	chain, err := o.Limits.DecodeChainPEM(o.Secret.Data[corev1.TLSCertKey])
	if err != nil {
		return ""
	}
	if !sharesNames(chain[0], requestOf(&crt.Spec)) {
		return ""
	}
	id, err := acme.CertID(chain[0])
	if err != nil {
		return ""
	}
	return id
}

// sharesNames reports whether a certificate has one of the names or addresses of a request.
func sharesNames(cert *x509.Certificate, r pki.Request) bool {
	has := pki.DNSNames(cert.DNSNames)
	return slices.ContainsFunc(pki.DNSNames(append(slices.Clone(r.DNSNames), r.CommonName)), func(name string) bool { return slices.Contains(has, name) }) ||
		slices.ContainsFunc(r.IPAddresses, func(address string) bool {
			return slices.ContainsFunc(cert.IPAddresses, func(ip net.IP) bool { return ip.String() == pki.ComparableIP(address) })
		})
}

// copiedAnnotations chooses the annotations that a request gets.
func copiedAnnotations(all map[string]string, prefixes []string) map[string]string {
	if prefixes == nil {
		prefixes = DefaultCopiedAnnotations()
	}
	chosen := map[string]string{}
	for k, v := range all {
		include := false
		for _, p := range prefixes {
			if out, ok := strings.CutPrefix(p, "-"); ok {
				if strings.HasPrefix(k, out) {
					include = false
					break
				}
			} else if p == "*" || strings.HasPrefix(k, p) {
				include = true
			}
		}
		if include {
			chosen[k] = v
		}
	}
	return chosen
}

// apply writes the Secret. What others own in it stays.
func (r *Reconciler) apply(ctx context.Context, o *Observation, c *Content) error {
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
	// The type of a Secret cannot be changed. One that somebody made before may have another.
	secretType := corev1.SecretTypeTLS
	if o.Secret != nil {
		secretType = o.Secret.Type
	}
	secret := corev1ac.Secret(crt.Spec.SecretName, crt.Namespace).
		WithLabels(cfg.labels).WithAnnotations(cfg.annotations).WithData(cfg.data).WithType(secretType)
	if ref := cfg.owner; ref != nil {
		secret.WithOwnerReferences(metav1ac.OwnerReference().WithAPIVersion(ref.APIVersion).WithKind(ref.Kind).WithName(ref.Name).WithUID(ref.UID).
			WithController(*ref.Controller).WithBlockOwnerDeletion(*ref.BlockOwnerDeletion))
	}
	if err := r.Client.Apply(ctx, secret, client.FieldOwner(secretManager), client.ForceOwnership); err != nil {
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			r.Events.Eventf(crt, corev1.EventTypeWarning, "SecretWriteFailed", "Secret %q cannot be written: %s", crt.Spec.SecretName, err)
		}
		return fmt.Errorf("write Secret %q: %w", crt.Spec.SecretName, err)
	}
	return nil
}
