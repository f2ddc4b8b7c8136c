package lifecycle_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// caOf creates a Secret with a modified root, and an Issuer that uses it. The key has the form that
// openssl ecparam writes.
func (w *world) caOf(name string, edit func(*x509.Certificate)) {
	w.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(10000 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign,
	}
	edit(template)
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS1)
	if err != nil {
		w.Fatal(err)
	}
	keyPEM = append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), keyPEM...)
	w.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pki.EncodeCertificatePEM(selfSign(w, template, key)),
			corev1.TLSPrivateKeyKey: keyPEM},
	}, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: name}}}})
}

func selfSign(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issuerSays waits until the condition Ready of an Issuer has the status and the text.
func (w *world) issuerSays(name string, status cmmeta.ConditionStatus, says string) {
	w.Helper()
	cluster.Eventually(w, func() error {
		issuer := &cmapi.Issuer{}
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, issuer); err != nil {
			return err
		}
		c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady)
		if c == nil || c.Status != status || !strings.Contains(c.Message, says) {
			return cluster.NotYet("the issuer says %+v", c)
		}
		return nil
	})
}

func TestAnIssuerSaysWhyClientsWouldRefuseWhatItsCASigns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := newClock()
	w.caOf("early", func(c *x509.Certificate) { c.NotBefore = clock.Now().Add(time.Hour) })
	w.caOf("nameless", func(c *x509.Certificate) { c.Subject = pkix.Name{} })
	w.caOf("zero", func(c *x509.Certificate) { c.MaxPathLenZero, c.MaxPathLen = true, 0 })
	w.create(certificate("leaf", "zero"),
		certificate("sub", "zero", func(crt *cmapi.Certificate) { crt.Spec.IsCA = true }), certificate("late", "early"))
	w.run(controller.Options{Clock: clock})

	w.issuerSays("nameless", cmmeta.ConditionFalse, "it has no subject")
	w.issuerSays("early", cmmeta.ConditionFalse, "is not valid before")
	w.issuerSays("zero", cmmeta.ConditionTrue, "Signing CA verified")
	w.untilReady("leaf", 1)
	if c := w.condition("sub", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse,
		"Failed"); !strings.Contains(c.Message, "has the path length 0") {
		t.Errorf("the Certificate says %q", c.Message)
	}
	// When its CA becomes valid the issuer is ready, and what waited for it is issued.
	clock.Step(time.Hour)
	// the queue has its own clock
	change(w, named(&corev1.Secret{}, "early"), func(s *corev1.Secret) { s.Labels = map[string]string{"look": "again"} })
	w.issuerSays("early", cmmeta.ConditionTrue, "Signing CA verified")
	w.untilReady("late", 1)
	leaf := w.leaf(w.secret("late"))
	if want := clock.Now().Add(-time.Minute); leaf.NotBefore.After(want) ||
		leaf.NotAfter.Sub(leaf.NotBefore) != cmapi.DefaultCertificateDuration {
		t.Errorf("it is valid from %s to %s, and it is %s", leaf.NotBefore, leaf.NotAfter, clock.Now())
	}
}

// TestAnotherCAEndsTheBackOff corrects only the Secret of a CA that refused.
func TestAnotherCAEndsTheBackOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caOf("narrow", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} })
	w.run(controller.Options{})
	w.issuerSays("narrow", cmmeta.ConditionTrue, "Signing CA verified")
	w.create(certificate("a", "narrow"))
	c := w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "Failed")
	if !strings.Contains(c.Message, "clients would refuse the certificate") {
		t.Errorf("the Certificate says %q", c.Message)
	}
	refused := w.untilRequest("a-1")
	root := w.caSecret("narrow", 24*time.Hour)
	crt := w.untilReady("a", 1)
	if err := w.leaf(w.secret("a")).CheckSignatureFrom(root); err != nil {
		t.Errorf("the certificate is not of the CA that was put there: %v", err)
	}
	if again := w.untilRequest("a-1"); again.UID == refused.UID || crt.Status.FailedIssuanceAttempts != nil {
		t.Errorf("the request is the one that failed, or the failure is not forgotten: %+v", crt.Status)
	}
}

// TestAnotherIntermediateEndsTheBackOff replaces only the certificate above the CA, which has the
// same key and subject.
func TestAnotherIntermediateEndsTheBackOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root, rootKey := newCA(w, "root", 100*time.Hour)
	var keys []crypto.Signer
	for range 2 {
		key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	below := func(parent *x509.Certificate, by crypto.Signer, name string, key crypto.Signer,
		domains ...string) *x509.Certificate {
		t.Helper()
		cert, err := pki.Sign(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: root.NotBefore, NotAfter: root.NotAfter, IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
			KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomains: domains,
		}, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	narrow := below(root, rootKey, "intermediate", keys[0], "example.org")
	wide := below(root, rootKey, "intermediate", keys[0])
	issuing := below(narrow, keys[0], "issuing", keys[1])
	keyPEM, err := pki.EncodeKeyPEM(keys[1], pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "chain"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pki.EncodeCertificatePEM(issuing, narrow),
			corev1.TLSPrivateKeyKey: keyPEM, cmmeta.TLSCAKey: pki.EncodeCertificatePEM(root)}},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "chain"},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "chain"}}}})
	w.run(controller.Options{})
	w.issuerSays("chain", cmmeta.ConditionTrue, "Signing CA verified")
	w.create(certificate("a", "chain"))
	w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "Failed")
	refused := w.untilRequest("a-1")
	change(w, named(&corev1.Secret{}, "chain"), func(s *corev1.Secret) {
		s.Data[corev1.TLSCertKey] = pki.EncodeCertificatePEM(issuing, wide)
	})
	crt := w.untilReady("a", 1)
	if again := w.untilRequest("a-1"); again.UID == refused.UID || crt.Status.FailedIssuanceAttempts != nil {
		t.Errorf("the request is the one that failed, or the failure is not forgotten: %+v", crt.Status)
	}
}

// answer answers a request to an external issuer with a modified certificate.
func (w *world) answer(request *cmapi.CertificateRequest, by *x509.Certificate, key crypto.Signer,
	ca *x509.Certificate, edit func(*x509.Certificate)) {
	w.Helper()
	csr, err := pki.DecodeCSRPEM(request.Spec.Request)
	if err != nil {
		w.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, by, csr.PublicKey, key)
	if err != nil {
		w.Fatal(err)
	}
	changeStatus(w, named(&cmapi.CertificateRequest{}, request.Name), func(cr *cmapi.CertificateRequest) {
		cr.Status.Certificate = pki.EncodeCertificatePEM(&x509.Certificate{Raw: der})
		cr.Status.CA = pki.EncodeCertificatePEM(ca)
		cmapi.SetCertificateRequestCondition(&cr.Status, time.Now(), cmapi.CertificateRequestCondition{Type: "Ready",
			Status: "True", Reason: "Issued"})
	})
}

// TestACertificateIsRenewedBeforeItsCAExpires uses an external issuer whose CA expires long before
// the certificates that it signs.
func TestACertificateIsRenewedBeforeItsCAExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := newClock()
	w.run(controller.Options{Clock: clock})
	root, key := newCA(t, "root", 30*time.Hour)
	crt := certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "Thing", Group: "issuers.example.com"}
		crt.Spec.Usages = []cmapi.KeyUsage{"digital signature", "server auth"}
	})
	w.create(crt)
	w.answer(w.untilRequest("a-1"), root, key, root,
		func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(2160 * time.Hour) })
	crt = w.untilReady("a", 1)
	if at := crt.Status.RenewalTime; at == nil || !at.Time.Before(root.NotAfter.Add(-time.Hour)) {
		t.Errorf("it is renewed at %v, and its CA ends at %s", at, root.NotAfter)
	}
	if end := crt.Status.NotAfter; !end.After(root.NotAfter) {
		t.Errorf("notAfter %s is not that of the certificate", end)
	}
	c := w.condition("a", "LifetimeCapped", cmmeta.ConditionTrue, "ChainEndsFirst")
	if !strings.Contains(c.Message, "CN=root") || !strings.Contains(c.Message, root.NotAfter.UTC().Format(time.RFC3339)) {
		t.Errorf("the condition says %q", c.Message)
	}
	w.untilEvent("Certificate", "a", "ChainEndsFirst")
	// The issuer has renewed its CA by then.
	clock.Step(crt.Status.RenewalTime.Sub(clock.Now()) + time.Second)
	w.nudge("a")
	next, nextKey := newCA(t, "root", 2200*time.Hour)
	w.answer(w.untilRequest("a-2"), next, nextKey, next,
		func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(2160 * time.Hour) })
	if crt = w.untilReady("a", 2); cmapi.GetCertificateCondition(&crt.Status, "LifetimeCapped") != nil {
		t.Errorf("the condition is still there: %+v", crt.Status)
	}
	if at := crt.Status.RenewalTime; at == nil || at.Sub(clock.Now()) < 1000*time.Hour {
		t.Errorf("it is renewed at %v", at)
	}
}

func TestWhatClientsWouldRefuseIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(controller.Options{})
	root, rootKey := newCA(t, "root", time.Hour)
	other, _ := newCA(t, "other", time.Hour)
	for name, test := range map[string]struct {
		edit   func(*x509.Certificate)
		ca     *x509.Certificate
		reason string
	}{
		"expired": {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, root, "Expired"},
		"names":   {func(c *x509.Certificate) { c.DNSNames = []string{"other.example.com"} }, root, "NamesMissing"},
		"ca":      {func(*x509.Certificate) {}, other, "SignatureInvalid"},
		"usages": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, root,
			"UsagesMissing"},
		"good": {func(*x509.Certificate) {}, root, ""},
	} {
		crt := certificate(name, "ca", func(crt *cmapi.Certificate) {
			crt.Spec.Usages = []cmapi.KeyUsage{"digital signature",
				"server auth"}
		})
		crt.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "Thing", Group: "issuers.example.com"}
		w.create(crt)
		request := w.untilRequest(name + "-1")
		w.answer(request, root, rootKey, test.ca, test.edit)
		if test.reason == "" {
			w.untilReady(name, 1)
			continue
		}
		w.condition(name, cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, test.reason)
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name},
			&corev1.Secret{}); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("%s: there is a Secret: %v", name, err)
		}
	}
	if n := len(w.requests()); n != 5 {
		t.Errorf("there are %d requests for 5 certificates", n)
	}
}
