package lifecycle_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/pki"
)

// newCA creates a root.
func newCA(t testing.TB, name string, valid time.Duration) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{CommonName: name}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template, err := pki.Template{NotBefore: now, NotAfter: now.Add(valid), IsCA: true}.Certificate(csr)
	if err != nil {
		t.Fatal(err)
	}
	root, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return root, key
}
