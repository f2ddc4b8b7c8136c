package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Keys that tests share: none of them depends on what they are.
var (
	rsaKey   = sync.OnceValue(func() crypto.Signer { return mustGenerate(KeySpec{}) })
	ecKey    = sync.OnceValue(func() crypto.Signer { return mustGenerate(KeySpec{Algorithm: ECDSA}) })
	otherKey = sync.OnceValue(func() crypto.Signer { return mustGenerate(KeySpec{Algorithm: ECDSA, Size: 384}) })
	edKey    = sync.OnceValue(func() crypto.Signer { return mustGenerate(KeySpec{Algorithm: Ed25519}) })
)

var (
	testStart = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	testEnd   = testStart.Add(90 * 24 * time.Hour)
)

func mustGenerate(spec KeySpec) crypto.Signer {
	key, err := spec.Generate(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func mustCSR(t testing.TB, r Request, key crypto.Signer) *x509.CertificateRequest {
	t.Helper()
	der, err := r.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := DecodeCSRPEM(EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// issuer is a CA of a test.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newRoot(t testing.TB, name string, key crypto.Signer) issuer {
	t.Helper()
	return newRootWithConstraints(t, name, key, nil)
}

func newRootWithConstraints(t testing.TB, name string, key crypto.Signer, constraints *NameConstraints) issuer {
	t.Helper()
	csr := mustCSR(t, Request{CommonName: name, IsCA: true, NameConstraints: constraints}, key)
	tmpl, err := Template{NotBefore: testStart, NotAfter: testEnd, IsCA: true}.Certificate(csr)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := SelfSign(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{cert, key}
}

func (i issuer) sign(t testing.TB, r Request, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl, err := Template{
		NotBefore: testStart,
		NotAfter:  testEnd,
		IsCA:      r.IsCA,
		Usages:    r.Usages,
	}.Certificate(
		mustCSR(t, r, key),
	)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := Sign(rand.Reader, tmpl, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (i issuer) intermediate(t testing.TB, name string, key crypto.Signer) issuer {
	t.Helper()
	return issuer{i.sign(t, Request{CommonName: name, IsCA: true}, key), key}
}

// wantError fails unless err is an error that says all of what.
func wantError(t testing.TB, err error, what ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", what)
	}
	for _, w := range what {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func mustCIDR(t testing.TB, s string) *net.IPNet {
	t.Helper()
	_, ipnet, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return ipnet
}
