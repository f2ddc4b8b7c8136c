package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// answer makes what a CA answers with: a leaf for key below by.
func answer(t testing.TB, by issuer, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "www.example.com"}, DNSNames: []string{"www.example.com",
			"*.example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, NotBefore: testStart, NotAfter: testStart.Add(24 * time.Hour),
		BasicConstraintsValid: true,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestJudge(t *testing.T) {
	now := testStart.Add(time.Hour)
	root := newRoot(t, "root", ecKey())
	middle := root.intermediate(t, "middle", otherKey())
	sibling := issuer{root.sign(t, Request{CommonName: "middle", IsCA: true}, otherKey()), otherKey()}
	stranger := newRoot(t, "root", rsaKey())
	noName := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: testStart, NotAfter: testEnd, IsCA: true,
		BasicConstraintsValid: true}
	selfSigned, err := SelfSign(rand.Reader, noName, ecKey())
	if err != nil {
		t.Fatal(err)
	}
	nameless := issuer{selfSigned, ecKey()}
	wanted := Request{
		CommonName: "www.example.com", DNSNames: []string{"WWW.example.com", "a.example.org"},
		IPAddresses: []string{"192.0.2.1"},
		Usages:      []string{"digital signature", "server auth"},
	}
	same := func(*x509.Certificate) {}
	of := func(by issuer, change func(*x509.Certificate)) *x509.Certificate {
		return answer(t, by, edKey(), change)
	}
	certs := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	old := func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }
	server := func(c *x509.Certificate) { c.NotBefore = now.Add(4 * time.Minute) }
	expired := issuer{answer(t, root, otherKey(), func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.ExtKeyUsage = middle.cert.Subject, true, nil
		old(c)
	}), otherKey()}
	only := issuer{answer(t, root, otherKey(), func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.ExtKeyUsage = pkix.Name{CommonName: "clients"}, true,
			[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}), otherKey()}
	inside := newRootWithConstraints(t, "inside", ecKey(), &NameConstraints{PermittedDNSDomains: []string{"example.org"}})

	for name, test := range map[string]struct {
		asked  func(*Asked)
		issued Issued
		defect Defect
		says   string // of the error, or of the differences
	}{
		"as it was asked for": {nil, Issued{certs(of(middle, same), middle.cert), certs(root.cert)}, "", ""},
		"the CA is not told":  {nil, Issued{certs(of(middle, same), middle.cert), nil}, "", ""},
		"the leaf alone":      {nil, Issued{certs(of(middle, same)), nil}, "", ""},
		"the root in the chain": {
			nil, Issued{certs(of(middle, same), middle.cert, root.cert), certs(root.cert)}, "", ""},
		"the intermediate is what to trust": {nil, Issued{certs(of(middle, same)), certs(middle.cert)}, "", ""},
		"CAs of which one has signed it": {
			nil, Issued{certs(of(middle, same), middle.cert), certs(stranger.cert, root.cert)}, "", ""},
		"the chain upside down": {nil, Issued{certs(of(middle, same), root.cert, middle.cert), certs(root.cert)}, "", ""},
		"a cross-signed sibling": {
			nil, Issued{certs(of(middle, same), middle.cert, sibling.cert), certs(root.cert)}, "",
			"1 of the certificates that came with it are not part"},
		"of two intermediates one has expired": {
			nil, Issued{certs(of(middle, same), expired.cert, middle.cert), certs(root.cert)}, "", "are not part"},
		"the clock of the CA is four minutes on": {nil, Issued{certs(of(root, server)), certs(root.cert)}, "", ""},
		"another key": {
			nil, Issued{certs(answer(t, root, otherKey(), same)), nil}, KeyMismatch, "another private key"},
		"nothing": {nil, Issued{}, SignatureInvalid, "no certificate"},
		"a name is missing": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] })), nil}, NamesMissing,
			`"a.example.org"`},
		"an address is missing": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.IPAddresses = nil })), nil}, NamesMissing, `"192.0.2.1"`},
		"a URI is missing": {
			func(a *Asked) { a.CSR = mustCSR(t, Request{URIs: []string{"spiffe://a/b"}}, edKey()) },
			Issued{certs(of(root, same)), nil}, NamesMissing, "spiffe://a/b"},
		"an email address is missing": {
			func(a *Asked) { a.CSR = mustCSR(t, Request{EmailAddresses: []string{"a@example.com"}}, edKey()) },
			Issued{certs(of(root, same)), nil}, NamesMissing, "a@example.com"},
		"the only name is missing": {
			func(a *Asked) { a.CSR = mustCSR(t, Request{CommonName: "other"}, edKey()) }, Issued{certs(of(root, same)), nil},
			NamesMissing, `"other"`},
		"the only name stands in another place": {
			func(a *Asked) { a.CSR = mustCSR(t, Request{CommonName: "WWW.example.com"}, edKey()) },
			Issued{certs(of(root, func(c *x509.Certificate) {
				c.Subject = pkix.Name{}
				c.DNSNames = c.DNSNames[:1]
				c.IPAddresses = nil
			})), nil}, "", ""},
		"names that were not asked for": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "x.example.com") })), nil},
			"", `names that were not asked for: "*.example.org", "x.example.com"`},
		"another subject": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "x"} })), nil}, "",
			`its subject is "CN=x", and "CN=www.example.com" was asked for`},
		"a subject that was not asked for": {
			func(a *Asked) { a.CSR = mustCSR(t, Request{DNSNames: []string{"www.example.com"}}, edKey()) },
			Issued{certs(of(root, func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1]; c.IPAddresses = nil })), nil}, "",
			""},
		"no common name beside the same DNS name": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.Subject = pkix.Name{} })), nil}, "", ""},
		"a shorter life": {
			func(a *Asked) { a.Duration = 48 * time.Hour }, Issued{certs(of(root, same)), nil}, "",
			"it lives for 24h0m0s, and 48h0m0s was asked for"},
		"a CA that was not asked for": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.IsCA = true })), nil}, "", "it is a CA"},
		"not valid yet": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.NotBefore = now.Add(6 * time.Minute) })), nil}, NotYetValid,
			"it is not valid before"},
		"expired": {nil, Issued{certs(of(root, old)), nil}, Expired, "it expired at"},
		"an expired intermediate": {
			nil, Issued{certs(of(middle, same), expired.cert), certs(root.cert)}, Expired,
			`the intermediate certificate "CN=middle" expired`},
		"an expired CA": {
			nil, Issued{certs(of(middle, same)), certs(expired.cert)}, Expired, `the CA certificate "CN=middle" expired`},
		"an expired root that is not told": {nil, Issued{certs(of(root, same), root.cert), nil}, "", ""},
		"the CA of another": {
			nil, Issued{certs(of(middle, same), middle.cert), certs(stranger.cert)}, SignatureInvalid,
			`no certificate that signed "CN=middle"`},
		"the chain of another": {
			nil, Issued{certs(of(middle, same), root.cert), nil}, SignatureInvalid, "not signed by the next one"},
		"signed by what is no CA": {
			nil, Issued{certs(answer(t, issuer{of(root, same), edKey()}, edKey(), same), of(root, same)), certs(root.cert)},
			SignatureInvalid, "not signed by the next one"},
		"a CA without a subject": {
			nil, Issued{certs(of(nameless, func(c *x509.Certificate) { c.Subject = pkix.Name{} })), certs(nameless.cert)},
			SignatureInvalid, "has the subject of the CA"},
		"it names no CA": {
			nil, Issued{certs(of(nameless, func(c *x509.Certificate) { c.Subject = pkix.Name{} })), nil}, SignatureInvalid,
			"it names no issuer"},
		"too many CAs": {func(a *Asked) { a.IsCA = true },
			Issued{certs(of(issuer{answer(t, root, otherKey(), func(c *x509.Certificate) {
				c.Subject, c.IsCA, c.MaxPathLenZero, c.ExtKeyUsage = pkix.Name{CommonName: "zero"}, true, true, nil
			}), otherKey()}, func(c *x509.Certificate) { c.IsCA = true })), certs(
				answer(t, root, otherKey(), func(c *x509.Certificate) {
					c.Subject, c.IsCA, c.MaxPathLenZero, c.ExtKeyUsage = pkix.Name{CommonName: "zero"}, true, true, nil
				}))}, PathTooLong, `the CA "CN=zero" has the path length 0`},
		"a name that the CA may not sign": {
			nil, Issued{certs(of(inside, same)), certs(inside.cert)}, NamesNotPermitted, "www.example.com"},
		"no CA was issued": {func(a *Asked) { a.IsCA = true }, Issued{certs(of(root, same)), nil}, NotCA, "may not sign"},
		"its name constraints are missing": {func(a *Asked) {
			a.IsCA = true
			a.CSR = mustCSR(t, Request{CommonName: "www.example.com", IsCA: true,
				NameConstraints: &NameConstraints{PermittedDNSDomains: []string{"example.com"}}}, edKey())
		}, Issued{certs(of(root, func(c *x509.Certificate) { c.IsCA = true })), nil}, ConstraintsMissing, "name constraints"},
		"a usage is missing": {
			func(a *Asked) { a.Usages = []string{"server auth", "client auth"} }, Issued{certs(of(root, same)), nil},
			UsagesMissing, `["client auth"]`},
		"the CA decides on usages": {
			func(a *Asked) { a.Usages, a.UsagesByCA = []string{"server auth", "client auth"}, true },
			Issued{certs(of(root, same)), nil}, "", `["client auth"]`},
		"the CA leaves nothing of the usages": {
			func(a *Asked) { a.Usages, a.UsagesByCA = []string{"client auth"}, true }, Issued{certs(of(root, same)), nil},
			UsagesMissing, `["client auth"]`},
		"no extended usages, which means all": {
			nil, Issued{certs(of(root, func(c *x509.Certificate) { c.ExtKeyUsage = nil })), nil}, "", ""},
		"a usage that the CA is not for": {
			nil, Issued{certs(of(only, same), only.cert), certs(root.cert)}, UsagesMissing,
			`the CA "CN=clients" is not for the usage "server auth"`},
	} {
		t.Run(name, func(t *testing.T) {
			asked := Asked{CSR: mustCSR(t, wanted, edKey()), Usages: wanted.Usages}
			if test.asked != nil {
				test.asked(&asked)
			}
			differences, err := Judge(asked, test.issued, now)
			if got := DefectOf(err); got != test.defect || (err == nil) != (test.defect == "") {
				t.Fatalf("got %q, %v", got, err)
			}
			says := differences.String()
			if err != nil {
				says = err.Error()
			}
			switch {
			case test.defect != "" && !strings.Contains(says, test.says):
				t.Errorf("it says %q", says)
			case test.defect == "" && test.says == "" && says != "" &&
				says != `it has names that were not asked for: "*.example.org"`:
				t.Errorf("it differs: %s", says)
			case !strings.Contains(says, test.says):
				t.Errorf("it says %q", says)
			}
		})
	}
}

func FuzzJudge(f *testing.F) {
	root := newRootWithConstraints(f, "root", ecKey(), &NameConstraints{PermittedDNSDomains: []string{"example.com"}})
	leaf := root.sign(f, Request{CommonName: "leaf", DNSNames: []string{"example.com"}}, edKey())
	asked := Asked{CSR: mustCSR(f, Request{CommonName: "leaf", DNSNames: []string{"example.com"}}, edKey()),
		Usages: []string{"server auth"}}
	f.Add(leaf.Raw, root.cert.Raw, true)
	f.Add(root.cert.Raw, root.cert.Raw, false)
	f.Fuzz(func(t *testing.T, first, second []byte, told bool) {
		chain, err := DecodeChainPEM(append(EncodeCertificatePEM(&x509.Certificate{Raw: first}),
			EncodeCertificatePEM(&x509.Certificate{Raw: second})...))
		if err != nil {
			return
		}
		issued := Issued{Chain: chain}
		if told {
			issued = Issued{Chain: chain[:1], CAs: chain[1:]}
		}
		if _, err := Judge(asked, issued, testStart); err == nil && !SamePublicKey(chain[0].PublicKey, edKey().Public()) {
			t.Fatal("a certificate for another key was accepted")
		} else if err == nil && told && !bytes.Equal(chain[0].Raw, chain[1].Raw) && !SignedBy(chain[0], chain[1]) {
			t.Fatal("a certificate of another CA was accepted")
		}
		_, _ = JudgeCA(issued, testStart)
	})
}

func TestFirstToExpire(t *testing.T) {
	until := func(end time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = testStart.Add(end) }
	}
	authority := func(by issuer, name string, key crypto.Signer, end time.Duration) issuer {
		return issuer{answer(t, by, key, func(c *x509.Certificate) {
			until(end)(c)
			c.Subject, c.DNSNames, c.IPAddresses = pkix.Name{CommonName: name}, nil, nil
			c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		}), key}
	}
	const hour = time.Hour
	root := newRoot(t, "root", ecKey()) // for 90 days
	short, long := authority(root, "middle", otherKey(), 10*hour), authority(root, "middle", otherKey(), 1000*hour)
	leaf := answer(t, long, edKey(), until(100*hour))
	of := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	for name, test := range map[string]struct {
		issued Issued
		want   *x509.Certificate
	}{
		"the leaf":                         {Issued{Chain: of(leaf, long.cert), CAs: of(root.cert)}, leaf},
		"a leaf alone":                     {Issued{Chain: of(leaf)}, leaf},
		"the intermediate":                 {Issued{Chain: of(leaf, short.cert), CAs: of(root.cert)}, short.cert},
		"the CA":                           {Issued{Chain: of(leaf), CAs: of(short.cert)}, short.cert},
		"of two CAs with one key the last": {Issued{Chain: of(leaf), CAs: of(short.cert, long.cert)}, leaf},
		"what is not above it does not count": {Issued{Chain: of(leaf, long.cert), CAs: of(root.cert,
			authority(root, "another", rsaKey(), hour).cert)}, leaf},
		"the CA above a longer lived one that clients trust": {Issued{Chain: of(leaf, long.cert, root.cert),
			CAs: of(long.cert)}, leaf},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.issued.FirstToExpire(); got != test.want {
				t.Errorf("got %s until %s", got.Subject, got.NotAfter)
			}
		})
	}
}
