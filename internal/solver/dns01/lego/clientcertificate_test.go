package lego

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

func TestAServerThatIsNotVerifiedGetsTheClientCertificate(t *testing.T) {
	var shown []*x509.Certificate
	server := httptest.NewUnstartedServer(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown = r.TLS.PeerCertificates }),
	)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := newClient(&kind{}, values{
		"insecureSkipVerify": "true",
		"tlsCert":            string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		"tlsKey":             string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}, Owner, egress.Reach{})
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if len(shown) != 1 || !bytes.Equal(shown[0].Raw, pair.Certificate[0]) {
		t.Error("it gets another certificate, or none")
	}
}

// pairPEM returns the certificate of a test server and its key.
func pairPEM(t *testing.T) (cert, key string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestErrorsOfAClientCertificateNameTheBlock(t *testing.T) {
	cert, key := pairPEM(t)
	other, err := pki.KeySpec{Algorithm: pki.ECDSA, Size: 256}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPEM, err := pki.EncodeKeyPEM(other, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	cut := cert[:strings.Index(cert, "-----END")]
	for name, test := range map[string]struct{ cert, key, says string }{
		"the second certificate is cut off": {cert + cut, key, "tlsCert: decode certificate chain: PEM block 2 (line"},
		"the second certificate is not base64": {cert + strings.Replace(cert, "MII", "M*I", 1), key,
			"has characters that are not base64"},
		"a key in place of the certificate": {key, key, `it is a "PRIVATE KEY", not a certificate`},
		"a certificate in place of the key": {cert, cert, `tlsKey: decode private key: the PEM block is a "CERTIFICATE"`},
		"the key is cut off": {cert, key[:strings.Index(key, "-----END")], "tlsKey: decode private key: " +
			"PEM block 1"},
		"no key":         {cert, "", "tlsKey: decode private key: no PEM block found: it is empty"},
		"no certificate": {"", key, "tlsCert: decode certificate chain: no PEM block found: it is empty"},
		"the key of another certificate": {cert, string(otherPEM), "tlsKey is not the key of the first certificate " +
			"in tlsCert"},
		"a key that is too long": {cert, key + strings.Repeat("\n", pki.MaxPrivateKeySize), "tlsKey: decode " +
			"private key: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clientCertificate(values{"tlsCert": test.cert, "tlsKey": test.key})
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("it says %v", err)
			}
		})
	}
	secret := map[string][]byte{"password": []byte("b"), "tlsCert": []byte(cert + cut), "tlsKey": []byte(key)}
	config := []byte(`{"username": "a"}`)
	for _, err := range []error{
		Check("regru", config, secret, true, Tenant),
		func() error { _, err := New("regru", config, secret, Tenant, time.Now); return err }(),
	} {
		if err == nil || fault.Of(err).Class != fault.Misconfigured ||
			!strings.Contains(
				err.Error(),
				"the Secret of dns01.provider.secretRef: tlsCert: decode certificate chain: PEM block 2",
			) {
			t.Errorf("it says %v", err)
		}
	}
}

func TestAClientCertificateKeepsItsChain(t *testing.T) {
	cert, key := pairPEM(t)
	pair, err := clientCertificate(values{"tlsCert": cert + cert, "tlsKey": key})
	if err != nil {
		t.Fatal(err)
	}
	if len(pair.Certificate) != 2 {
		t.Errorf("it has %d certificates", len(pair.Certificate))
	}
	if none, err := clientCertificate(values{}); none != nil || err != nil {
		t.Errorf("without the settings it is %v, %v", none, err)
	}
}
