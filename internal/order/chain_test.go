package order

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(
	t *testing.T,
	template, parent *x509.Certificate,
	public crypto.PublicKey,
	by crypto.Signer,
) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsWrongWithAChain(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	caKey, key := p256(t), p256(t)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "CA"},
		NotBefore:             now.AddDate(-1, 0, 0),
		NotAfter:              now.AddDate(5, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	root := sign(t, ca, ca, caKey.Public(), caKey)
	otherKey := p256(t)
	stranger := sign(t, ca, ca, otherKey.Public(), otherKey)
	leaf := func(change func(*x509.Certificate), public crypto.PublicKey) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 3, 0),
			DNSNames: []string{"www.example.com", "example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		}
		change(template)
		return sign(t, template, root, public, caKey)
	}
	same := func(*x509.Certificate) {}
	// old is what has expired an hour ago: a root, an intermediate below the root, and one above an
	// intermediate.
	old := func(
		name string, subject, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer,
	) *x509.Certificate {
		template := *ca
		template.NotAfter = now.Add(-time.Hour)
		if subject != nil {
			template.Subject = subject.Subject
		} else {
			template.Subject = pkix.Name{CommonName: name}
		}
		if parent == nil {
			parent = &template
		}
		return sign(t, &template, parent, public, by)
	}
	middleKey, otherRootKey := p256(t), p256(t)
	middle := &x509.Certificate{
		SerialNumber: big.NewInt(
			3,
		),
		Subject:               pkix.Name{CommonName: "middle"},
		NotBefore:             now.AddDate(-1, 0, 0),
		NotAfter:              now.AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	between := sign(t, middle, root, middleKey.Public(), caKey)
	oldBetween := old("", between, root, middleKey.Public(), caKey)
	oldRoot := old("old root", nil, nil, otherRootKey.Public(), otherRootKey)
	// the root, cross-signed by an older one
	cross := old("", root, oldRoot, caKey.Public(), otherRootKey)
	higher := func(public crypto.PublicKey) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 3, 0),
			DNSNames: []string{"www.example.com", "example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		}
		return sign(t, template, between, public, middleKey)
	}(key.Public())
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames: []string{"WWW.example.com", "example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	order := &cmacme.Order{Spec: cmacme.OrderSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
	}}
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		says  string
		extra []string
	}{
		"nothing":                   {[]*x509.Certificate{leaf(same, key.Public()), root}, "", nil},
		"nothing, without the root": {[]*x509.Certificate{leaf(same, key.Public())}, "", nil},
		"another key":               {[]*x509.Certificate{leaf(same, caKey.Public()), root}, "another private key", nil},
		"it has expired": {
			[]*x509.Certificate{leaf(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, key.Public()), root},
			"it expired at", nil},
		"a name is missing": {
			[]*x509.Certificate{leaf(func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }, key.Public()), root},
			`it lacks names that were asked for: "example.com"`, nil},
		"an address is missing": {
			[]*x509.Certificate{leaf(func(c *x509.Certificate) { c.IPAddresses = nil }, key.Public()), root},
			`it lacks names that were asked for: "192.0.2.1"`, nil},
		"it was signed by another": {[]*x509.Certificate{leaf(same, key.Public()), stranger}, "not signed by the " +
			"next one", nil},
		"nothing, with an intermediate": {[]*x509.Certificate{higher, between}, "", nil},
		"an intermediate has expired": {
			[]*x509.Certificate{higher, oldBetween}, `the intermediate certificate "CN=middle" expired at`, nil},
		"an intermediate has expired, and the root is there": {
			[]*x509.Certificate{higher, oldBetween, root}, `the intermediate certificate "CN=middle" expired at`, nil},
		"an intermediate has expired below a root that is old": {
			[]*x509.Certificate{higher, oldBetween, cross}, `the intermediate certificate "CN=middle" expired at`, nil},
		"nothing, if a root has expired that an older one has signed":                 {[]*x509.Certificate{higher, between, cross}, "", nil},
		"nothing, if a root has expired that an older one has signed, which is there": {[]*x509.Certificate{higher, between, cross, oldRoot}, "", nil},
		"it has more names": {[]*x509.Certificate{leaf(func(c *x509.Certificate) {
			c.DNSNames = append(c.DNSNames, "more.example.com")
			c.IPAddresses = append(c.IPAddresses, net.IPv4(192, 0, 2, 2))
		}, key.Public()), root}, "", []string{"more.example.com", "192.0.2.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var text []byte
			for _, c := range test.chain {
				text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
			extra, err := (&Reconciler{}).check(order, text, now)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v", err)
			}
			if !slices.Equal(extra, test.extra) {
				t.Errorf("more than was asked for: %v", extra)
			}
		})
	}
}
