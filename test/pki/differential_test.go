// Package pki_test compares package pki with cert-manager's code: each must read what the other
// writes, and both must create the same request for the same Certificate.
package pki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmutil "github.com/cert-manager/cert-manager/pkg/util"
	cmpki "github.com/cert-manager/cert-manager/pkg/util/pki"

	"github.com/perennial-pki/perennial/pki"
)

func TestBothMakeTheSameCSR(t *testing.T) {
	for name, spec := range specs() {
		for keyName, key := range keys() {
			t.Run(name+" "+keyName, func(t *testing.T) {
				theirs, err := theirCSR(spec, key)
				if err != nil {
					t.Fatalf("cert-manager: %v", err)
				}
				ours, err := ourCSR(spec, key)
				if err != nil {
					t.Fatal(err)
				}
				sameCSR(t, ours, theirs)
				if fields := request(spec).CSRDifferences(theirs); fields != nil {
					t.Errorf("cert-manager's CSR differs in %v for us", fields)
				}
				if fields := theirDifferences(t, ours, spec); fields != nil {
					t.Errorf("our CSR differs in %v for cert-manager", fields)
				}
			})
		}
	}
}

func sameCSR(t *testing.T, ours, theirs *x509.CertificateRequest) {
	t.Helper()
	if !bytes.Equal(ours.RawSubject, theirs.RawSubject) {
		t.Errorf("our subject is %x, theirs %x", ours.RawSubject, theirs.RawSubject)
	}
	if !reflect.DeepEqual(ours.Extensions, theirs.Extensions) {
		t.Errorf("our extensions are\n%v\ntheirs\n%v", ours.Extensions, theirs.Extensions)
	}
	if ours.SignatureAlgorithm != theirs.SignatureAlgorithm {
		t.Errorf("our signature is %v, theirs %v", ours.SignatureAlgorithm, theirs.SignatureAlgorithm)
	}
	if !bytes.Equal(ours.RawSubjectPublicKeyInfo, theirs.RawSubjectPublicKeyInfo) {
		t.Error("the public keys differ")
	}
}

func theirDifferences(t *testing.T, csr *x509.CertificateRequest, spec cmapi.CertificateSpec) []string {
	t.Helper()
	fields, err := cmpki.RequestMatchesSpec(&cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{
		Request: pki.EncodeCSRPEM(
			csr.Raw,
		),
		IsCA:      spec.IsCA,
		Usages:    spec.Usages,
		Duration:  spec.Duration,
		IssuerRef: spec.IssuerRef,
	}}, spec)
	if err != nil {
		t.Fatalf("cert-manager: %v", err)
	}
	return fields
}

func TestBothFindTheSameDifferencesInACSR(t *testing.T) {
	all := specs()
	for have, spec := range all {
		csr, err := theirCSR(spec, keys()["P256"])
		if err != nil {
			t.Fatal(err)
		}
		for want, asked := range all {
			ours := request(asked).CSRDifferences(csr)
			theirs := theirDifferences(t, csr, asked)
			for i, field := range theirs {
				if field == "spec.subject.postCodes" { // there is no such field
					theirs[i] = "spec.subject.postalCodes"
				}
			}
			// cert-manager ignores name constraints, and otherNames that were not requested.
			ours = slices.DeleteFunc(ours, func(field string) bool {
				return field == "spec.nameConstraints" || field == "spec.otherNames" && asked.OtherNames == nil
			})
			if !slices.Equal(ours, theirs) {
				t.Errorf("from %q to %q: we find %v, cert-manager %v", have, want, ours, theirs)
			}
		}
	}
}

func TestBothFindTheSameDifferencesInACertificate(t *testing.T) {
	all := specs()
	for have, spec := range all {
		csr, err := theirCSR(spec, keys()["P256"])
		if err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{
			Subject:        csr.Subject,
			DNSNames:       csr.DNSNames,
			IPAddresses:    csr.IPAddresses,
			URIs:           csr.URIs,
			EmailAddresses: csr.EmailAddresses,
			Extensions:     csr.Extensions,
		}
		for want, asked := range all {
			if asked.LiteralSubject != "" {
				continue // of which cert-manager forgets the common name here
			}
			ours := request(asked).CertificateDifferences(cert)
			//lint:ignore SA1019 cert-manager itself still decides by it
			if theirs := cmpki.FuzzyX509AltNamesMatchSpec(cert, asked); !slices.Equal(ours, theirs) {
				t.Errorf("from %q to %q: we find %v, cert-manager %v", have, want, ours, theirs)
			}
		}
	}
}

func TestBothSignTheSame(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	caKey := keys()["P256"]
	caCSR, err := ourCSR(cmapi.CertificateSpec{CommonName: "root", IsCA: true}, caKey)
	if err != nil {
		t.Fatal(err)
	}
	caTemplate, err := pki.Template{NotBefore: start, NotAfter: start.Add(time.Hour), IsCA: true}.Certificate(caCSR)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.SelfSign(rand.Reader, caTemplate, caKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, spec := range specs() {
		t.Run(name, func(t *testing.T) {
			compareSigned(t, spec, ca, caKey)
		})
	}
}

// compareSigned has cert-manager and us sign for a Certificate, and expects the same certificate.
func compareSigned(t *testing.T, spec cmapi.CertificateSpec, ca *x509.Certificate, caKey crypto.Signer) {
	t.Helper()
	key := keys()["Ed25519"]
	csr, err := ourCSR(spec, key)
	if err != nil {
		t.Fatal(err)
	}
	theirTemplate, err := cmpki.CertificateTemplateFromCertificateRequest(
		&cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{
			Request: pki.EncodeCSRPEM(csr.Raw), IsCA: spec.IsCA, Usages: spec.Usages,
		}},
	)
	if err != nil {
		t.Fatalf("cert-manager: %v", err)
	}
	_, theirs, err := cmpki.SignCertificate(theirTemplate, ca, key.Public(), caKey)
	if err != nil {
		t.Fatalf("cert-manager: %v", err)
	}
	r := request(spec)
	tmpl, err := pki.Template{
		NotBefore: theirs.NotBefore,
		NotAfter:  theirs.NotAfter,
		IsCA:      r.IsCA,
		Usages:    r.Usages,
	}.Certificate(
		csr,
	)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := pki.Sign(rand.Reader, tmpl, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.RawSubject, theirs.RawSubject) || !bytes.Equal(ours.RawIssuer, theirs.RawIssuer) ||
		ours.SignatureAlgorithm != theirs.SignatureAlgorithm {
		t.Errorf(
			"we sign %s of %s with %v, cert-manager %s of %s with %v",
			ours.Subject,
			ours.Issuer,
			ours.SignatureAlgorithm,
			theirs.Subject,
			theirs.Issuer,
			theirs.SignatureAlgorithm,
		)
	}
	if got, want := sorted(ours.Extensions), sorted(theirs.Extensions); !reflect.DeepEqual(got, want) {
		t.Errorf("our extensions are\n%v\ntheirs\n%v", got, want)
	}
}

func sorted(extensions []pkix.Extension) []pkix.Extension {
	return slices.SortedFunc(
		slices.Values(extensions),
		func(a, b pkix.Extension) int { return strings.Compare(a.Id.String(), b.Id.String()) },
	)
}

func TestBothWriteTheSameKeys(t *testing.T) {
	for name, key := range keys() {
		for _, enc := range []pki.KeyEncoding{"", pki.PKCS1, pki.PKCS8} {
			theirs, err := cmpki.EncodePrivateKey(key, cmapi.PrivateKeyEncoding(enc))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := pki.EncodeKeyPEM(key, enc)
			if err != nil || !bytes.Equal(ours, theirs) {
				t.Errorf("%s as %q differs: %v", name, enc, err)
			}
			block, _ := pem.Decode(theirs)
			if !bytes.Equal(pki.EncodeKeyDER(key, enc), block.Bytes) {
				t.Errorf("%s as %q: key.der differs", name, enc)
			}
			back, err := pki.DecodeKeyPEM(theirs)
			if err != nil || !pki.SamePublicKey(back.Public(), key.Public()) {
				t.Errorf("%s as %q cannot be read: %v", name, enc, err)
			}
			for specName, spec := range keySpecs {
				differs := cmpki.PrivateKeyMatchesSpec(
					back,
					cmapi.CertificateSpec{
						PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.PrivateKeyAlgorithm(spec.Algorithm), Size: spec.Size},
					},
				)
				if got := spec.Differences(key.Public()); !slices.Equal(got, differs) {
					t.Errorf("a key %s for the spec %s: we find %v, cert-manager %v", name, specName, got, differs)
				}
			}
		}
	}
}

func TestBothOrderAChainTheSame(t *testing.T) {
	start := time.Now()
	sign := func(
		name string, isCA bool, key crypto.Signer, parent *x509.Certificate, signer crypto.Signer,
	) *x509.Certificate {
		t.Helper()
		csr, err := ourCSR(cmapi.CertificateSpec{CommonName: name, IsCA: isCA}, key)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := pki.Template{NotBefore: start, NotAfter: start.Add(time.Hour), IsCA: isCA}.Certificate(csr)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent = tmpl
		}
		cert, err := pki.Sign(rand.Reader, tmpl, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	k := keys()
	root := sign("root", true, k["RSA"], nil, k["RSA"])
	upper := sign("upper", true, k["P384"], root, k["RSA"])
	lower := sign("lower", true, k["P256"], upper, k["P384"])
	leaf := sign("leaf", false, k["Ed25519"], lower, k["P256"])
	self := sign("self", false, k["Ed25519"], nil, k["Ed25519"])

	pool := []*x509.Certificate{root, upper, lower, leaf, self}
	for picked := range 1 << len(pool) {
		var certs []*x509.Certificate
		for i, cert := range pool {
			if picked&(1<<i) != 0 {
				certs = append(certs, cert)
			}
		}
		if certs == nil {
			continue // cert-manager panics
		}
		compareChains(t, picked, certs)
	}
}

// compareChains has cert-manager and us order certificates, and expects the same chain and CA.
func compareChains(t *testing.T, picked int, certs []*x509.Certificate) {
	t.Helper()
	chain, top, err := pki.OrderChain(certs)
	theirs, theirErr := cmpki.ParseSingleCertificateChain(certs)
	if (err == nil) != (theirErr == nil) {
		t.Errorf("%05b: we say %v, cert-manager %v", picked, err, theirErr)
		return
	}
	if err != nil {
		return
	}
	if !bytes.Equal(pki.EncodeCertificatePEM(chain...), theirs.ChainPEM) {
		t.Errorf("%05b: the chains differ", picked)
	}
	var ca []byte
	if top != nil {
		ca = pki.EncodeCertificatePEM(top)
	}
	if !bytes.Equal(ca, theirs.CAPEM) {
		t.Errorf("%05b: the CAs differ", picked)
	}
}

func TestBothWriteTheSameAnnotations(t *testing.T) {
	for _, values := range [][]string{nil, {""}, {"a"}, {"a", ""}, {`a "b", c`, " d", "e\nf", "g\r\nh"}} {
		theirs, theirErr := cmutil.JoinWithEscapeCSV(values)
		ours, err := pki.JoinCSV(values)
		if ours != theirs || err != nil || theirErr != nil {
			t.Errorf("%q: we write %q, %v, cert-manager %q, %v", values, ours, err, theirs, theirErr)
		}
	}
	for _, line := range []string{"", "a", "a,b", `"a,b",c`, "a\nb", `"`, " a", ","} {
		theirs, theirErr := cmutil.SplitWithEscapeCSV(line)
		ours, err := pki.SplitCSV(line)
		if !slices.Equal(ours, theirs) || (err == nil) != (theirErr == nil) {
			t.Errorf("%q: we read %q, %v, cert-manager %q, %v", line, ours, err, theirs, theirErr)
		}
	}
}

// FuzzLiteralSubject: input that cert-manager can read and encode gives the same result here. Not
// compared: input that is not UTF-8, which JSON cannot represent; #hex, where cert-manager also
// accepts values that are not strings; a space after an escaped backslash, which it keeps; and
// empty or escaped types, which are invalid.
func FuzzLiteralSubject(f *testing.F) {
	for _, seed := range []string{"CN=foo", "CN=foo+OU=bar,O=baz", `CN=\ a\ ,O=b\,c`, "2.5.4.3=#0c03666f6f", "DC=a;DC=b", "CN=", " ", `CN=\4c\75`, "CN=a=b", `CN="a"`} {
		f.Add(seed)
	}
	oddType := regexp.MustCompile(`(^|[,;+])([^=]*\\[^=]*| *)=`)
	f.Fuzz(func(t *testing.T, s string) {
		theirs, theirErr := cmpki.UnmarshalSubjectStringToRDNSequence(s)
		if theirErr != nil || len(s) > 8192 || !utf8.ValidString(s) || strings.Contains(s, "#") ||
			strings.Contains(s, `\\ `) ||
			oddType.MatchString(s) {
			return
		}
		der, theirErr := asn1.Marshal(theirs)
		if theirErr != nil {
			return
		}
		ours, err := pki.ParseLiteralSubject(s)
		if err != nil {
			var back pkix.RDNSequence
			if _, backErr := asn1.Unmarshal(der, &back); backErr != nil {
				return // no program could have read it
			}
			t.Fatalf("we do not read %q: %v", s, err)
		}
		if got, err := asn1.Marshal(ours); err != nil || !bytes.Equal(got, der) {
			t.Fatalf("of %q we make %x, cert-manager %x: %v", s, got, der, err)
		}
	})
}

// FuzzCSR: for names that both accept, both create the same request.
func FuzzCSR(f *testing.F) {
	f.Add("a", "example.com", "192.0.2.1", "spiffe://a/b", "a@example.com", "1.2.3", "x", "10.0.0.0/8", "org")
	f.Add("", "*.a", "::ffff:10.0.0.1", "urn:a", "", "2.5.29.17", "Größe", "2001:db8::1/32", "Zürich")
	f.Fuzz(func(t *testing.T, cn, dns, ip, uri, email, oid, value, cidr, org string) {
		spec := cmapi.CertificateSpec{
			CommonName:     cn,
			Subject:        &cmapi.X509Subject{Organizations: []string{org, cn}, SerialNumber: value},
			DNSNames:       []string{dns},
			IPAddresses:    []string{ip},
			URIs:           []string{uri},
			EmailAddresses: []string{email},
			OtherNames:     []cmapi.OtherName{{OID: oid, UTF8Value: value}},
			NameConstraints: &cmapi.NameConstraints{
				Permitted: &cmapi.NameConstraintItem{IPRanges: []string{cidr}, DNSDomains: []string{dns}},
			},
		}
		ours, err := ourCSR(spec, keys()["P256"])
		if err != nil {
			return
		}
		theirs, err := theirCSR(spec, keys()["P256"])
		if err != nil {
			t.Fatalf("cert-manager does not accept %+v: %v", spec, err)
		}
		sameCSR(t, ours, theirs)
	})
}
