package rig

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
)

// CA is a CA that can sign.
type CA struct {
	*x509.Certificate
	Key crypto.Signer
}

// NewCA creates a CA that is valid for a day, unless change modifies it.
func NewCA(t testing.TB, name string, change ...func(*x509.Certificate)) CA {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	for _, c := range change {
		c(template)
	}
	key := newKey(t)
	cert, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return CA{cert, key}
}

// Sign signs template for a new key. A missing validity is that of the CA.
func (c CA) Sign(t testing.TB, template x509.Certificate) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore = c.NotBefore
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = c.NotAfter
	}
	key := newKey(t)
	cert, err := pki.Sign(rand.Reader, &template, c.Certificate, key.Public(), c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// KeyPEM returns a private key as PEM.
func KeyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	pem, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	return pem
}

// PEM returns the certificates of CAs as PEM.
func PEM(cas ...CA) []byte {
	var certs []*x509.Certificate
	for _, c := range cas {
		certs = append(certs, c.Certificate)
	}
	return pki.EncodeCertificatePEM(certs...)
}

// Names returns the common names in a bundle, for messages.
func Names[T string | []byte](bundle T) string {
	certs, err := pki.DecodeBundlePEM([]byte(bundle))
	if err != nil {
		return fmt.Sprintf("%.40q", bundle)
	}
	var names []string
	for _, cert := range certs {
		names = append(names, cert.Subject.CommonName)
	}
	return strings.Join(names, ", ")
}

// Create creates an object and deletes it when the test ends.
func Create(t testing.TB, o client.Object) {
	t.Helper()
	admin := Admin(t)
	if err := admin.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
	t.Cleanup(func() {
		if err := admin.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil {
			t.Errorf("delete %T %s: %v", o, o.GetName(), err)
		}
	})
}

// Patch changes an object by a JSON merge patch.
func Patch(t testing.TB, o client.Object, format string, args ...any) {
	t.Helper()
	merge := fmt.Appendf(nil, format, args...)
	if err := Admin(t).Patch(t.Context(), o, client.RawPatch(types.MergePatchType, merge)); err != nil {
		t.Fatal(err)
	}
}

// Renew triggers a new issuance of a Certificate.
func Renew(t testing.TB, namespace, name string) {
	t.Helper()
	admin := Admin(t)
	crt := &cmapi.Certificate{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, crt); err != nil {
		t.Fatal(err)
	}
	before := crt.DeepCopy()
	cmapi.SetCertificateCondition(&crt.Status, time.Now(), cmapi.CertificateCondition{
		Type:               cmapi.CertificateConditionIssuing,
		Status:             cmmeta.ConditionTrue,
		Reason:             "ManuallyTriggered",
		ObservedGeneration: crt.Generation,
	})
	if err := admin.Status().Patch(t.Context(), crt, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// CAIssuer creates, in a namespace, an Issuer "ca", the Certificate "ca" for its CA, and a
// Certificate that it issues.
func CAIssuer(t testing.TB, namespace, leaf string, spec cmapi.CertificateSpec) {
	t.Helper()
	certificate := func(name, issuer string, spec cmapi.CertificateSpec) {
		spec.SecretName, spec.IssuerRef = name, cmmeta.IssuerReference{Name: issuer}
		spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}
		crt := &cmapi.Certificate{Spec: spec}
		crt.Namespace, crt.Name = namespace, name
		Create(t, crt)
	}
	issuer := func(name string, config cmapi.IssuerConfig) {
		i := &cmapi.Issuer{Spec: cmapi.IssuerSpec{IssuerConfig: config}}
		i.Namespace, i.Name = namespace, name
		Create(t, i)
	}
	issuer("root", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	certificate("ca", "root", cmapi.CertificateSpec{IsCA: true, CommonName: "ca"})
	issuer("ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}})
	certificate(leaf, "ca", spec)
}
