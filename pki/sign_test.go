package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

func TestWhatIsSignedVerifies(t *testing.T) {
	keys := map[string]crypto.Signer{"RSA": rsaKey(), "P-256": ecKey(), "P-384": otherKey(), "Ed25519": edKey()}
	for caName, caKey := range keys {
		root := newRoot(t, "root", caKey)
		middle := root.intermediate(t, "intermediate", otherKey())
		for leafName, leafKey := range keys {
			t.Run(caName+" signs "+leafName, func(t *testing.T) {
				leaf := middle.sign(
					t,
					Request{DNSNames: []string{"example.com"}, Usages: []string{"digital signature", "server auth"}},
					leafKey,
				)
				roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
				roots.AddCert(root.cert)
				intermediates.AddCert(middle.cert)
				_, err := leaf.Verify(
					x509.VerifyOptions{
						DNSName:       "example.com",
						Roots:         roots,
						Intermediates: intermediates,
						CurrentTime:   testStart.Add(time.Hour),
					},
				)
				if err != nil {
					t.Error(err)
				}
			})
		}
	}

	t.Run("name constraints hold", func(t *testing.T) {
		root := newRootWithConstraints(
			t,
			"root",
			ecKey(),
			&NameConstraints{
				Critical:            true,
				PermittedDNSDomains: []string{"example.com"},
				ExcludedIPRanges:    []string{"0.0.0.0/0"},
			},
		)
		roots := x509.NewCertPool()
		roots.AddCert(root.cert)
		for name, want := range map[string]bool{"a.example.com": true, "a.example.org": false} {
			leaf := root.sign(t, Request{DNSNames: []string{name}, Usages: []string{"server auth"}}, edKey())
			_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: testStart})
			if (err == nil) != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("a CA of the same subject as the one that signed it is found by its key identifier", func(t *testing.T) {
		root := newRoot(t, "same", ecKey())
		middle := root.intermediate(t, "same", otherKey())
		if !bytes.Equal(middle.cert.AuthorityKeyId, root.cert.SubjectKeyId) || len(root.cert.SubjectKeyId) == 0 {
			t.Errorf("the authority key identifier is %x, want %x", middle.cert.AuthorityKeyId, root.cert.SubjectKeyId)
		}
	})
	t.Run("a self-signed certificate that is no CA", func(t *testing.T) {
		tmpl, err := Template{
			NotBefore: testStart,
			NotAfter:  testEnd,
			Usages:    []string{"server auth"},
		}.Certificate(
			mustCSR(t, Request{DNSNames: []string{"a"}, Usages: []string{"server auth"}}, edKey()),
		)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := SelfSign(rand.Reader, tmpl, edKey())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(cert)
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: "a", Roots: roots, CurrentTime: testStart}); err != nil {
			t.Error(err)
		}
	})
}

func TestTemplateCarriesOverWhatTheCSRAsksFor(t *testing.T) {
	r := fullRequest()
	csr := mustCSR(t, r, ecKey())
	tmpl, err := Template{
		NotBefore: testStart,
		NotAfter:  testEnd,
		IsCA:      true,
		Usages:    []string{"client auth", "server auth", "cert sign", "decipher only", "signing"},
		CRLDistributionPoints: []string{
			"http://example.com/crl",
		},
		OCSPServers:            []string{"http://example.com/ocsp"},
		IssuingCertificateURLs: []string{"http://example.com/ca"},
	}.Certificate(csr)
	if err != nil {
		t.Fatal(err)
	}
	before := *tmpl
	cert, err := SelfSign(rand.Reader, tmpl, ecKey())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*tmpl, before) {
		t.Error("the template was changed")
	}

	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("subject", cert.RawSubject, csr.RawSubject)
	check("not before", cert.NotBefore, testStart)
	check("not after", cert.NotAfter, testEnd)
	check("version", cert.Version, 3)
	check("CA", cert.IsCA && cert.BasicConstraintsValid, true)
	check("path length", cert.MaxPathLen, -1)
	check(
		"usages",
		FormatUsages(cert.KeyUsage, cert.ExtKeyUsage),
		[]string{"digital signature", "cert sign", "decipher only", "client auth", "server auth"},
	)
	check("CRL", cert.CRLDistributionPoints, []string{"http://example.com/crl"})
	check("OCSP", cert.OCSPServer, []string{"http://example.com/ocsp"})
	check("issuer's URL", cert.IssuingCertificateURL, []string{"http://example.com/ca"})
	check("names", findExtension(cert.Extensions, oidSubjectAltName), findExtension(csr.Extensions, oidSubjectAltName))
	check(
		"name constraints",
		findExtension(cert.Extensions, oidNameConstraints),
		findExtension(csr.Extensions, oidNameConstraints),
	)
	check(
		"permitted ranges",
		cert.PermittedIPRanges,
		[]*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}, mustCIDR(t, "2001:db8::/32")},
	)
	check("unhandled critical extensions", cert.UnhandledCriticalExtensions, []asn1.ObjectIdentifier(nil))
}

func TestTemplateCriticalityOfNamesFollowsTheSubject(t *testing.T) {
	for _, test := range []struct {
		name       string
		commonName string
		want       bool
	}{{"a CSR of others, without a subject", "", true}, {"a CSR of others, with a subject", "a", false}} {
		t.Run(test.name, func(t *testing.T) {
			csr := csrWithExtension(t, test.commonName, oidSubjectAltName, []byte{0x30, 3, 0x82, 1, 'a'})
			tmpl, err := Template{NotBefore: testStart, NotAfter: testEnd}.Certificate(csr)
			if err != nil {
				t.Fatal(err)
			}
			ext := findExtension(tmpl.ExtraExtensions, oidSubjectAltName)
			if ext == nil || ext.Critical != test.want {
				t.Errorf("got %+v, want critical %t", ext, test.want)
			}
		})
	}
}

// TestTemplateHasEachNameOnceInItsCanonicalForm signs a CSR in the form that other programs write.
func TestTemplateHasEachNameOnceInItsCanonicalForm(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	names := []asn1.RawValue{{Tag: 8, Bytes: []byte{42}}} // a registered ID
	for _, name := range []string{"www.example.com", "WWW.Example.com", "www.example.com.", "www.example.com"} {
		names = append(names, asn1.RawValue{Tag: tagDNS, Bytes: []byte(name)})
	}
	names = append(names, asn1.RawValue{Tag: 8, Bytes: []byte{42}},
		asn1.RawValue{Tag: tagURI, Bytes: []byte("SPIFFE://Cluster.local/A")},
		asn1.RawValue{Tag: tagURI, Bytes: []byte("spiffe://cluster.local/A")},
		asn1.RawValue{Tag: tagEmail, Bytes: []byte("Jane@EXAMPLE.com")},
		asn1.RawValue{Tag: tagEmail, Bytes: []byte("jane@example.com")},
		asn1.RawValue{Tag: tagIP, Bytes: mapped.AsSlice()}, asn1.RawValue{Tag: tagIP, Bytes: mapped.Unmap().AsSlice()})
	for i := range names {
		names[i].Class = asn1.ClassContextSpecific
	}
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	csr := csrWithExtension(t, "a", oidSubjectAltName, value)
	tmpl, err := Template{NotBefore: testStart, NotAfter: testEnd}.Certificate(csr)
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(t, "root", ecKey())
	cert, err := Sign(rand.Reader, tmpl, root.cert, csr.PublicKey, root.key)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cert.DNSNames, cert.EmailAddresses, cert.IPAddresses, cert.URIs)
	const want = "[www.example.com] [Jane@example.com jane@example.com] [192.0.2.1] [spiffe://cluster.local/A]"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	value = findExtension(cert.Extensions, oidSubjectAltName).Value
	if n := bytes.Count(value, []byte{0x88, 1, 42}); n != 1 {
		t.Errorf("it has the registered ID %d times", n)
	}
}

func TestTemplateKeepsWhatGoHasNoFieldsFor(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	for name, test := range map[string]struct {
		id    asn1.ObjectIdentifier
		value []byte
	}{
		"a registered ID among the names": {oidSubjectAltName, []byte{0x30, 3, 0x88, 1, 42}},
		"a purpose nobody knows":          {oidExtKeyUsage, []byte{0x30, 4, 6, 2, 42, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			csr := csrWithExtension(t, "a", test.id, test.value)
			var usages []string
			if test.id.Equal(oidExtKeyUsage) {
				// With one usage extension a CSR states all usages: here, no key usage.
				csr.Extensions = append(
					csr.Extensions,
					mustCSR(t, Request{CommonName: "a", EncodeUsages: true}, ecKey()).Extensions...)
			}
			tmpl, err := Template{NotBefore: testStart, NotAfter: testEnd, Usages: usages}.Certificate(csr)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := Sign(rand.Reader, tmpl, root.cert, csr.PublicKey, root.key)
			if err != nil {
				t.Fatal(err)
			}
			if ext := findExtension(cert.Extensions, test.id); ext == nil || !bytes.Equal(ext.Value, test.value) {
				t.Errorf("got %+v, want the value %x", ext, test.value)
			}
		})
	}
	t.Run("but not a list of no names", func(t *testing.T) {
		tmpl, err := Template{
			NotBefore: testStart,
			NotAfter:  testEnd,
		}.Certificate(
			csrWithExtension(t, "a", oidSubjectAltName, []byte{0x30, 0}),
		)
		if err != nil || len(tmpl.ExtraExtensions) != 0 {
			t.Errorf("got %v, %v", tmpl, err)
		}
	})
	t.Run("and not extensions that nobody asked the signer about", func(t *testing.T) {
		tmpl, err := Template{
			NotBefore: testStart,
			NotAfter:  testEnd,
		}.Certificate(
			csrWithExtension(t, "a", asn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0}),
		)
		if err != nil || len(tmpl.ExtraExtensions) != 0 {
			t.Errorf("got %v, %v", tmpl, err)
		}
	})
}

func TestCheckCSR(t *testing.T) {
	stated := func(isCA bool, usages ...string) *x509.CertificateRequest {
		return mustCSR(
			t,
			Request{CommonName: "a", IsCA: isCA, Usages: usages, EncodeUsages: true, EncodeBasicConstraints: true},
			ecKey(),
		)
	}
	silent := mustCSR(t, Request{CommonName: "a"}, ecKey())
	for name, test := range map[string]struct {
		csr    *x509.CertificateRequest
		isCA   bool
		usages []string
		want   string
	}{
		"a CSR that states nothing agrees with all": {csr: silent, isCA: true, usages: []string{"any"}},
		"a CSR that states the same":                {csr: stated(true, "server auth", "client auth"), isCA: true, usages: []string{"client auth", "server auth"}},
		"words that mean the same":                  {csr: stated(false, "signing", "s/mime"), usages: []string{"email protection", "digital signature"}},
		"none and the default":                      {csr: stated(false), usages: []string{"key encipherment", "digital signature"}},
		"the CSR says CA": {csr: stated(true), want: "spec.request: the CSR says CA true, but " +
			"spec.isCA is false"},
		"the CSR says it is not a CA": {csr: stated(false), isCA: true, want: "spec.request: the CSR says " +
			"CA false, but spec.isCA is true"},
		"the CSR asks for other usages":         {csr: stated(false, "server auth"), usages: []string{"client auth", "signing"}, want: "spec.request: the CSR asks for the usages [server auth], but spec.usages and spec.isCA stand for [digital signature, client auth]"},
		"the CSR asks for more":                 {csr: stated(false, "server auth", "client auth"), usages: []string{"server auth"}, want: "asks for the usages"},
		"the CSR asks for other key usages":     {csr: stated(false, "signing"), usages: []string{"crl sign"}, want: "asks for the usages"},
		"a usage nobody knows":                  {csr: silent, usages: []string{"b"}, want: "spec.usages[0]"},
		"basic constraints that cannot be read": {csr: csrWithExtension(t, "a", oidBasicConstraints, []byte{4, 0}), want: "spec.request: the basic constraints extension is malformed"},
		"usages that cannot be read":            {csr: csrWithExtension(t, "a", oidKeyUsage, []byte{4, 0}), want: "spec.request: the key usage extension is malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckCSR(test.csr, test.isCA, test.usages)
			_, templateErr := Template{IsCA: test.isCA, Usages: test.usages}.Certificate(test.csr)
			if test.want == "" {
				if err != nil || templateErr != nil {
					t.Errorf("CheckCSR: %v; Certificate: %v", err, templateErr)
				}
				return
			}
			wantError(t, err, test.want)
			wantError(t, templateErr, test.want)
		})
	}
	for name, csr := range map[string]*x509.CertificateRequest{
		"names that cannot be read":       csrWithRawExtension(t, oidSubjectAltName, []byte{0x30, 6, 0x87, 4, 192, 0, 2, 1}, []byte{4, 0}),
		"constraints that cannot be read": csrWithExtension(t, "a", oidNameConstraints, []byte{0x30, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Template{}.Certificate(csr)
			wantError(t, err, "spec.request: ", "malformed")
		})
	}
}

// csrWithRawExtension returns a CSR that was parsed with one value of an extension and has
// another, which crypto/x509 would not have let pass.
func csrWithRawExtension(t *testing.T, id asn1.ObjectIdentifier, parsed, value []byte) *x509.CertificateRequest {
	t.Helper()
	csr := csrWithExtension(t, "a", id, parsed)
	findExtension(csr.Extensions, id).Value = value
	return csr
}

func TestSerialNumbersArePositiveAndOf128Bits(t *testing.T) {
	zerosFirst := io.MultiReader(bytes.NewReader(make([]byte, 16)), bytes.NewReader(bytes.Repeat([]byte{0xff}, 16)))
	got, err := serialNumber(zerosFirst)
	if err != nil {
		t.Fatal(err)
	}
	want := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1))
	if got.Cmp(want) != 0 {
		t.Errorf("got %x, want %x", got, want)
	}
	root := newRoot(t, "root", ecKey())
	one, two := root.sign(t, Request{CommonName: "a"}, edKey()), root.sign(t, Request{CommonName: "a"}, edKey())
	if one.SerialNumber.Cmp(two.SerialNumber) == 0 {
		t.Error("two certificates have one serial number")
	}
}

func TestSignRefuses(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	tmpl, err := Template{
		NotBefore: testStart,
		NotAfter:  testEnd,
	}.Certificate(
		mustCSR(t, Request{CommonName: "a"}, edKey()),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		rand   io.Reader
		signer crypto.Signer
		pub    crypto.PublicKey
		want   string
	}{
		"a key that is not the CA's":              {rand.Reader, otherKey(), edKey().Public(), "sign certificate: "},
		"a key that cannot sign certificates":     {rand.Reader, foreignSigner{}, edKey().Public(), "cannot sign certificates"},
		"a public key that cannot be written":     {rand.Reader, ecKey(), "key", "sign certificate: "},
		"to go on without randomness":             {iotest.ErrReader(errors.New("no entropy")), ecKey(), edKey().Public(), "read random serial number: no entropy"},
		"a signer that returns a wrong signature": {rand.Reader, wrongSigner{ecKey()}, edKey().Public(), "sign certificate: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Sign(test.rand, tmpl, root.cert, test.pub, test.signer)
			wantError(t, err, test.want)
		})
	}
}

// wrongSigner is a broken hardware module: it signs something else.
type wrongSigner struct{ crypto.Signer }

func (s wrongSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(rand, bytes.Repeat([]byte{1}, len(digest)), opts)
}

func TestTemporaryCertificate(t *testing.T) {
	r := fullRequestForLeaf()
	cert, err := TemporaryCertificate(rand.Reader, r, ecKey(), testStart, testEnd)
	if err != nil {
		t.Fatal(err)
	}
	if !SamePublicKey(cert.PublicKey, ecKey().Public()) {
		t.Error("it is for another key")
	}
	if got := r.CertificateDifferences(cert); got != nil {
		t.Errorf("it differs from the request in %v", got)
	}
	if cert.Issuer.CommonName != "cert-manager.local" || SignedBy(cert, cert) {
		t.Errorf("its issuer is %s", cert.Issuer)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || !cert.NotAfter.Equal(testEnd) {
		t.Errorf("its usages are %v and it ends %s", cert.ExtKeyUsage, cert.NotAfter)
	}
	_, err = TemporaryCertificate(rand.Reader, Request{}, ecKey(), testStart, testEnd)
	wantError(t, err, "make temporary certificate: ", "it names nothing")
}
