package pki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/perennial-pki/perennial/pki"
)

// cert-manager does not export the functions that write its keystores. This test writes them in the
// same way, with the same libraries.
func TestKeystoresOfCertManagerAreFoundToMatch(t *testing.T) {
	start := time.Now()
	for name, key := range keys() {
		csr, err := ourCSR(cmapi.CertificateSpec{CommonName: "a", IsCA: true}, key)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := pki.Template{NotBefore: start, NotAfter: start.Add(time.Hour), IsCA: true}.Certificate(csr)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.SelfSign(rand.Reader, tmpl, key)
		if err != nil {
			t.Fatal(err)
		}
		cas := []*x509.Certificate{cert}
		checkPKCS12(t, name, key, cert, cas)
		checkJKS(t, name, key, cert, cas)

	}
}

// checkPKCS12 expects that keystores that cert-manager's library makes in each profile are
// accepted.
func checkPKCS12(t *testing.T, name string, key crypto.Signer, cert *x509.Certificate, cas []*x509.Certificate) {
	t.Helper()
	for profile, encoder := range map[pki.PKCS12Profile]*pkcs12.Encoder{
		pki.LegacyRC2: pkcs12.LegacyRC2, pki.LegacyDES: pkcs12.LegacyDES,
		pki.Modern2023: pkcs12.Modern2023, pki.Modern2026: pkcs12.Modern2026,
	} {
		store, err := encoder.Encode(key, cert, cas, "password")
		if err != nil {
			t.Fatal(err)
		}
		trust, err := encoder.EncodeTrustStore(cas, "password")
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.CheckPKCS12(store, "password", cert); err != nil {
			t.Errorf("%s %s: %v", name, profile, err)
		}
		if err := pki.CheckPKCS12Truststore(trust, "password", cas); err != nil {
			t.Errorf("%s %s: %v", name, profile, err)
		}
		for _, data := range [][]byte{store, trust} {
			if got, err := pki.PKCS12ProfileOf(data); got != profile || err != nil {
				t.Errorf("%s %s: the profile is %q, %v", name, profile, got, err)
			}
		}
	}
}

// checkJKS expects that keystores that cert-manager's library makes are accepted.
func checkJKS(t *testing.T, name string, key crypto.Signer, cert *x509.Certificate, cas []*x509.Certificate) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	store, trust := keystore.New(), keystore.New()
	entry := keystore.Certificate{Type: "X509", Content: cert.Raw}
	if err := store.SetPrivateKeyEntry(
		"Alias",
		keystore.PrivateKeyEntry{CreationTime: now, PrivateKey: der, CertificateChain: []keystore.Certificate{entry}},
		[]byte("password"),
	); err != nil {
		t.Fatal(err)
	}
	encode := func(s keystore.KeyStore) []byte {
		trusted := keystore.TrustedCertificateEntry{CreationTime: now, Certificate: entry}
		if err := s.SetTrustedCertificateEntry("ca", trusted); err != nil {
			t.Fatal(err)
		}
		var data bytes.Buffer
		if err := s.Store(&data, []byte("password")); err != nil {
			t.Fatal(err)
		}
		return data.Bytes()
	}
	o := pki.JKSOptions{Password: "password", Alias: "Alias"}
	if err := pki.CheckJKS(encode(store), o, cert); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if err := pki.CheckJKSTruststore(encode(trust), o, cas); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}
