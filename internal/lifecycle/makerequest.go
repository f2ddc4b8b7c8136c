package lifecycle

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// request makes a CertificateRequest. Without a key it makes a new one, which stays in memory.
func (r *Reconciler) request(ctx context.Context, o *Observation, n *NewRequest, key crypto.Signer) *writeError {
	if n == nil {
		return nil
	}
	if n.Key != nil {
		key = n.Key
	}
	name := RequestName(o.Certificate.Name, n.Revision)
	if err := r.start(ctx, o.Certificate, n, false,
		func() error { return r.makeRequest(ctx, o, n, key, name) }); err != nil {
		return notCreated(write{writesRequest, name}, err)
	}
	r.recordEvents(o.Certificate, n.Events)
	return nil
}

func (r *Reconciler) makeRequest(ctx context.Context, o *Observation, n *NewRequest, key crypto.Signer,
	named string) error {
	crt := o.Certificate
	spec := &crt.Spec
	name := types.NamespacedName{Namespace: crt.Namespace, Name: named}
	inMemory := key == nil
	if inMemory && n.New != nil {
		key = n.New
	} else if inMemory {
		ks, _ := keySpec(spec)
		var err error
		if key, err = generate(ks); err != nil {
			return err
		}
	}
	cr, err := r.requestFor(crt, n, o.Issuer, key)
	if err != nil {
		return err
	}
	cr.Name = name.Name
	if generation := externalGeneration(r.externalState(ctx, crt)); generation != "" {
		cr.Annotations[issuerAnnotation] = generation
	}
	cr.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] = strconv.Itoa(n.Revision)
	cr.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey] = KeySecretName(crt, n.Revision)
	if wanted := revocation.RevokeForValue(crt); wanted != "" && o.Issuer != nil && o.Issuer.GetSpec().ACME != nil {
		cr.Annotations[revocation.RevokeForAnnotation] = wanted
	}
	if id := replaces(o); id != "" {
		cr.Annotations[signer.ReplacesAnnotation] = id
	}
	if inMemory {
		r.Keyring.Put(name, key) // before an in-process signer sees the request
	}
	if err := r.Client.Create(ctx, cr); err != nil {
		if inMemory {
			r.Keyring.Drop(name)
		}
		return err
	}
	return nil
}

// rehearse makes the request to the rehearsal issuer. Its private key is thrown away, and so is the
// certificate: neither the next key nor the one in use is shown to another CA.
func (r *Reconciler) rehearse(ctx context.Context, o *Observation, n *NewRequest) *writeError {
	if n == nil {
		return nil
	}
	name := RehearsalName(o.Certificate.Name)
	if err := r.start(ctx, o.Certificate, n, true, func() error { return r.makeRehearsal(ctx, o, n, name) }); err != nil {
		return notCreated(write{writesRehearsal, name}, err)
	}
	r.recordEvents(o.Certificate, n.Events)
	return nil
}

func (r *Reconciler) makeRehearsal(ctx context.Context, o *Observation, n *NewRequest, name string) error {
	crt := o.Certificate
	key := n.New
	if key == nil {
		ks, _ := keySpec(&crt.Spec)
		var err error
		if key, err = generate(ks); err != nil {
			return err
		}
	}
	cr, err := r.requestFor(crt, n, o.RehearsalIssuer, key)
	if err != nil {
		return err
	}
	cr.Name, cr.Spec.IssuerRef = name, *crt.Spec.RehearsalIssuerRef
	cr.Annotations[signer.RehearsalAnnotation] = "true"
	return r.Client.Create(ctx, cr)
}

// requestFor returns a request for a Certificate without its name.
func (r *Reconciler) requestFor(
	crt *cmapi.Certificate,
	n *NewRequest,
	issuer *signer.Issuer,
	key crypto.Signer,
) (*cmapi.CertificateRequest, error) {
	spec := &crt.Spec
	asked := requestOf(spec)
	asked.LeaveOutCovered = ofACME(issuer)
	csr, err := asked.CSR(rand.Reader, key)
	if err != nil {
		return nil, err // Decide has checked all that depends on the spec
	}
	annotations := copiedAnnotations(crt.Annotations, r.Settings.CopiedAnnotations)
	// Only the controller sets these.
	maps.DeleteFunc(annotations, func(key, _ string) bool { return strings.HasPrefix(key, ownAnnotations) })
	annotations[cmapi.CertificateNameKey] = crt.Name
	if n.Attempt > 1 {
		annotations[attemptAnnotation] = strconv.Itoa(n.Attempt)
	}
	if issuer != nil {
		annotations[issuerAnnotation] = issuerVersion(issuer)
	}
	if n.ManualTrigger != "" {
		annotations[signer.ManualTriggerAnnotation] = n.ManualTrigger
	}
	if spec.ACMEProfile != "" {
		annotations[signer.ProfileAnnotation] = spec.ACMEProfile
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   crt.Namespace,
			Labels:      signer.CopiedLabels(crt.Labels),
			Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate")),
			},
		},
		Spec: cmapi.CertificateRequestSpec{
			Duration:  spec.Duration,
			IssuerRef: spec.IssuerRef,
			Request:   pki.EncodeCSRPEM(csr),
			IsCA:      spec.IsCA,
			Usages:    spec.Usages,
		},
	}, nil
}

// notCreated is the error of a request that could not be made. It begins as cert-manager's event
// does, unless the count of issuances, which is saved before, is what failed.
func notCreated(w write, err error) *writeError {
	if of := (*fault.Error)(nil); errors.As(err, &of) && of.Reason == earlyissuance.ReasonNotSaved {
		return &writeError{w, reasonCountFailed,
			"The controller cannot save the count of issuances, and requests no certificate before its renewal time without it",
			"An administrator of the controller must let it write ConfigMaps in its own namespace", err}
	}
	e := &writeError{w, reasonRequestFailed, "Failed to create CertificateRequest",
		"Change what refuses it, or the Certificate", err}
	if apierrors.IsAlreadyExists(err) {
		// Its finalizers keep it. The controller watches for its end.
		e.text += fmt.Sprintf(": %q before it is still being deleted: its finalizers keep it", w.name)
	}
	return e
}

// replaces returns the identifier (RFC 9773 section 4.1) of the certificate that a request renews.
// It is empty unless the ACME server says when to renew it, has issued it to the account of this
// request, and both have a name in common: the server would refuse any other order.
func replaces(o *Observation) string {
	crt := o.Certificate
	if crt.Status.ACME == nil || crt.Status.ACME.ARI == nil || o.Secret == nil ||
		!signer.SecretNamesIssuer(crt.Spec.IssuerRef, o.Secret) {
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
	// Without its private key the certificate may be that of another user of the account.
	key, err := o.Limits.DecodeKeyPEM(o.Secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil || !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
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
	return slices.ContainsFunc(pki.DNSNames(append(slices.Clone(r.DNSNames), r.CommonName)),
		func(name string) bool { return slices.Contains(has, name) }) ||
		slices.ContainsFunc(r.IPAddresses, func(address string) bool {
			return slices.ContainsFunc(cert.IPAddresses,
				func(ip net.IP) bool { return ip.String() == pki.ComparableIP(address) })
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
