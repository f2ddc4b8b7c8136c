package order_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/pki"
)

// forger is a CA that issues other certificates than requested.
type forger struct {
	t   *testing.T
	mu  sync.Mutex
	csr *x509.CertificateRequest
}

func (f *forger) key() crypto.Signer {
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		f.t.Error(err)
	}
	return key
}

// hear reads the CSR of a finalize request.
func (f *forger) hear(payload map[string]any) {
	text, _ := payload["csr"].(string)
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		f.t.Error(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.csr = csr
}

// forge answers with a certificate for the CSR, modified by the change.
func (f *forger) forge(reply *httptest.ResponseRecorder, change func(c *x509.Certificate, key *crypto.PublicKey)) {
	f.mu.Lock()
	csr := f.csr
	f.mu.Unlock()
	now := time.Now()
	ca, by := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "forger"},
		NotAfter:              now.Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, f.key()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
		DNSNames:     csr.DNSNames,
	}
	public := crypto.PublicKey(csr.PublicKey)
	change(leaf, &public)
	reply.Body.Reset()
	for _, c := range []struct {
		template *x509.Certificate
		public   crypto.PublicKey
	}{{leaf, public}, {ca, by.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, ca, c.public, by)
		if err != nil {
			f.t.Error(err)
		}
		if err := pem.Encode(reply.Body, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			f.t.Error(err)
		}
	}
}
