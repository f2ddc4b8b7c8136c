package lifecycle_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestEachNameIsCertifiedOnce reads the issued certificates with OpenSSL.
func TestEachNameIsCertifiedOnce(t *testing.T) {
	w := newWorld(t)
	w.run(controller.Options{})
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("twice", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.DNSNames = []string{"dup.example.com", "DUP.example.com", "dup.example.com.", "Bücher.example",
			"xn--bcher-kva.example"}
		crt.Spec.IPAddresses = []string{"192.0.2.1", "::ffff:192.0.2.1"}
		crt.Spec.URIs = []string{"spiffe://Cluster.local/A", "SPIFFE://cluster.local/A"}
		crt.Spec.EmailAddresses = []string{"Jane@example.com", "Jane@EXAMPLE.com"}
	}))
	w.untilReady("twice", 1)
	out := opensslNames(t, w.secret("twice").Data["tls.crt"])
	const want = "DNS:dup.example.com, DNS:xn--bcher-kva.example, email:Jane@example.com, IP Address:192.0.2.1, " +
		"URI:spiffe://cluster.local/A"
	if !strings.Contains(out, want+"\n") {
		t.Errorf("OpenSSL reads\n%s\nwant %s", out, want)
	}
	// Another spelling is no other certificate.
	change(w, named(&cmapi.Certificate{}, "twice"),
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"bücher.EXAMPLE", "Dup.Example.com"} })
	crt := w.until("twice", func(crt *cmapi.Certificate) error {
		if c := cmapi.GetCertificateCondition(&crt.Status,
			cmapi.CertificateConditionReady); c.ObservedGeneration != crt.Generation || c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("the status is %+v", crt.Status)
		}
		return nil
	})
	if *crt.Status.Revision != 1 {
		t.Errorf("it was issued anew: %+v", crt.Status)
	}
}

// TestEachNameOfACSRIsCertifiedOnce signs a CSR of another program with a CA.
func TestEachNameOfACSRIsCertifiedOnce(t *testing.T) {
	w := newWorld(t)
	w.run(controller.Options{})
	w.caIssuer("ca", 24*time.Hour)
	w.selfSigned("self")
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "dup"},
		DNSNames:       []string{"dup.example.com", "DUP.example.com", "dup.example.com.", "dup.example.com"},
		EmailAddresses: []string{"Jane@EXAMPLE.com", "Jane@example.com"},
		URIs: []*url.URL{
			{Scheme: "spiffe", Host: "Cluster.local", Path: "/A"},
			{Scheme: "spiffe", Host: "cluster.local", Path: "/A"},
		},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "key"}, Data: map[string][]byte{"tls.key": keyPEM}})
	for _, issuer := range []string{"ca", "self"} {
		cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: issuer,
			Annotations: map[string]string{cmapi.CertificateRequestPrivateKeyAnnotationKey: "key"}},
			Spec: cmapi.CertificateRequestSpec{
				IssuerRef: cmmeta.IssuerReference{Name: issuer}, Request: pki.EncodeCSRPEM(der)}}
		w.create(cr)
		cluster.Eventually(t, func() error {
			if err := w.Get(t.Context(), clientKey(cr), cr); err != nil {
				return err
			}
			if len(cr.Status.Certificate) == 0 {
				return cluster.NotYet("%s has not signed: %+v", issuer, cr.Status)
			}
			return nil
		})
		const want = "DNS:dup.example.com, email:Jane@example.com, URI:spiffe://cluster.local/A"
		if names := opensslNames(t, cr.Status.Certificate); !strings.Contains(names, want+"\n") {
			t.Errorf("%s: OpenSSL reads\n%s\nwant %s", issuer, names, want)
		}
	}
}

// opensslNames returns the alternative names that OpenSSL reads from a certificate.
func opensslNames(t *testing.T, certificate []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tls.crt")
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", file, "-noout", "-ext",
		"subjectAltName").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestWhatCanBeNoNameIsNotSigned(t *testing.T) {
	w := newWorld(t)
	w.run(controller.Options{})
	w.caIssuer("ca", 24*time.Hour)
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, dns := range map[string]string{"url": "https://www.example.com/", "port": "www.example.com:443",
		"address": "192.0.2.1", "empty": "a..b"} {
		der, err := x509.CreateCertificateRequest(rand.Reader,
			&x509.CertificateRequest{DNSNames: []string{"www.example.com", dns}}, key)
		if err != nil {
			t.Fatal(err)
		}
		cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateRequestSpec{
			IssuerRef: cmmeta.IssuerReference{Name: "ca"}, Request: pki.EncodeCSRPEM(der),
		}}
		w.create(cr)
		cluster.Eventually(t, func() error {
			if err := w.Get(t.Context(), clientKey(cr), cr); err != nil {
				return err
			}
			c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady)
			if c == nil || c.Reason != cmapi.CertificateRequestReasonFailed ||
				!strings.Contains(c.Message, pki.CheckDNSName(dns).Error()) {
				return cluster.NotYet("%s: the condition is %+v", name, c)
			}
			return nil
		})
	}
	// A name that only the controller can judge is refused before there is a request.
	w.create(certificate("letters", "ca",
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"a\u0378.example"} }))
	c := w.condition("letters", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "InvalidSpec")
	if !strings.Contains(c.Message, `spec.dnsNames[0]: "a\u0378.example" has characters that no domain name has`) {
		t.Errorf("it says %s", c.Message)
	}
}
