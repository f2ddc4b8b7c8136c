// Package pki_test holds package pki against cert-manager's own: whatever one of them writes the
// other has to read, and for the same Certificate both have to ask for the same.
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
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmutil "github.com/cert-manager/cert-manager/pkg/util"
	cmpki "github.com/cert-manager/cert-manager/pkg/util/pki"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/perennial-pki/perennial/pki"
)

var keys = sync.OnceValue(func() map[string]crypto.Signer {
	made := make(map[string]crypto.Signer)
	for name, spec := range keySpecs {
		key, err := spec.Generate(rand.Reader)
		if err != nil {
			panic(err)
		}
		made[name] = key
	}
	return made
})

var keySpecs = map[string]pki.KeySpec{
	"RSA":     {Algorithm: pki.RSA, Size: 2048},
	"RSA3072": {Algorithm: pki.RSA, Size: 3072},
	"P256":    {Algorithm: pki.ECDSA, Size: 256},
	"P384":    {Algorithm: pki.ECDSA, Size: 384},
	"P521":    {Algorithm: pki.ECDSA, Size: 521},
	"Ed25519": {Algorithm: pki.Ed25519},
}

// request is what the lifecycle makes of a Certificate.
func request(spec cmapi.CertificateSpec) pki.Request {
	r := pki.Request{
		CommonName:             spec.CommonName,
		LiteralSubject:         spec.LiteralSubject,
		DNSNames:               spec.DNSNames,
		IPAddresses:            spec.IPAddresses,
		URIs:                   spec.URIs,
		EmailAddresses:         spec.EmailAddresses,
		IsCA:                   spec.IsCA,
		EncodeUsages:           spec.EncodeUsagesInRequest == nil || *spec.EncodeUsagesInRequest,
		EncodeBasicConstraints: true,
		SignatureAlgorithm:     string(spec.SignatureAlgorithm),
	}
	if s := spec.Subject; s != nil {
		r.Subject = pki.Subject{
			Organizations:       s.Organizations,
			Countries:           s.Countries,
			OrganizationalUnits: s.OrganizationalUnits,
			Localities:          s.Localities,
			Provinces:           s.Provinces,
			StreetAddresses:     s.StreetAddresses,
			PostalCodes:         s.PostalCodes,
			SerialNumber:        s.SerialNumber,
		}
	}
	for _, usage := range spec.Usages {
		r.Usages = append(r.Usages, string(usage))
	}
	for _, other := range spec.OtherNames {
		r.OtherNames = append(r.OtherNames, pki.OtherName{OID: other.OID, UTF8Value: other.UTF8Value})
	}
	if c := spec.NameConstraints; c != nil {
		r.NameConstraints = &pki.NameConstraints{Critical: c.Critical}
		if p := c.Permitted; p != nil {
			r.NameConstraints.PermittedDNSDomains, r.NameConstraints.PermittedIPRanges = p.DNSDomains, p.IPRanges
			r.NameConstraints.PermittedEmailAddresses, r.NameConstraints.PermittedURIDomains = p.EmailAddresses, p.URIDomains
		}
		if e := c.Excluded; e != nil {
			r.NameConstraints.ExcludedDNSDomains, r.NameConstraints.ExcludedIPRanges = e.DNSDomains, e.IPRanges
			r.NameConstraints.ExcludedEmailAddresses, r.NameConstraints.ExcludedURIDomains = e.EmailAddresses, e.URIDomains
		}
	}
	return r
}

// theirCSR is the CSR that cert-manager makes with its feature gates on.
func theirCSR(spec cmapi.CertificateSpec, key crypto.Signer) (*x509.CertificateRequest, error) {
	spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: "RSA", Size: 2048}
	for name, known := range keySpecs {
		if pki.SamePublicKey(keys()[name].Public(), key.Public()) {
			spec.PrivateKey = &cmapi.CertificatePrivateKey{
				Algorithm: cmapi.PrivateKeyAlgorithm(known.Algorithm),
				Size:      known.Size,
			}
		}
	}
	tmpl, err := cmpki.GenerateCSR(&cmapi.Certificate{Spec: spec}, cmpki.WithEncodeBasicConstraintsInRequest(true),
		cmpki.WithNameConstraints(true), cmpki.WithOtherNames(true), cmpki.WithUseLiteralSubject(true))
	if err != nil {
		return nil, err
	}
	der, err := cmpki.EncodeCSR(tmpl, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

func ourCSR(spec cmapi.CertificateSpec, key crypto.Signer) (*x509.CertificateRequest, error) {
	der, err := request(spec).CSR(rand.Reader, key)
	if err != nil {
		return nil, err
	}
	return pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
}

// full has all fields, in an order that is not sorted.
func full() cmapi.CertificateSpec {
	return cmapi.CertificateSpec{
		CommonName: "full",
		Subject: &cmapi.X509Subject{
			Organizations: []string{
				"z",
				"a",
			},
			Countries:           []string{"CH", "AT"},
			OrganizationalUnits: []string{"ou"},
			Localities:          []string{"Zürich"},
			Provinces: []string{
				"ZH",
			},
			StreetAddresses: []string{"Weg 1, links"},
			PostalCodes:     []string{"8000"},
			SerialNumber:    "1",
		},
		DNSNames:       []string{"z.example.com", "*.a.example.com"},
		IPAddresses:    []string{"2001:db8::1", "192.0.2.1"},
		URIs:           []string{"spiffe://example.com/z", "urn:a"},
		EmailAddresses: []string{"z@example.com", "a@example.com"},
		OtherNames: []cmapi.OtherName{
			{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "upn@example.com"},
			{OID: "1.2.3", UTF8Value: "Größe"},
		},
		IsCA:   true,
		Usages: []cmapi.KeyUsage{"cert sign", "decipher only", "server auth", "client auth", "any"},
		NameConstraints: &cmapi.NameConstraints{
			Critical: true,
			Permitted: &cmapi.NameConstraintItem{
				DNSDomains:     []string{"z.com", "a.com"},
				IPRanges:       []string{"10.1.2.3/8", "2001:db8::/32"},
				EmailAddresses: []string{"a@z.com"},
				URIDomains:     []string{".z.com"},
			},
			Excluded: &cmapi.NameConstraintItem{
				DNSDomains:     []string{"b.com"},
				IPRanges:       []string{"192.0.2.0/24"},
				EmailAddresses: []string{"b.com"},
				URIDomains:     []string{"b.com"},
			},
		},
	}
}

// specs are Certificates that cert-manager accepts.
func specs() map[string]cmapi.CertificateSpec {
	no := false
	changed := func(change func(*cmapi.CertificateSpec)) cmapi.CertificateSpec {
		spec := full()
		change(&spec)
		return spec
	}
	return map[string]cmapi.CertificateSpec{
		"everything":                 full(),
		"a common name":              {CommonName: "a"},
		"a DNS name, and no subject": {DNSNames: []string{"example.com"}},
		"a URI":                      {URIs: []string{"spiffe://example.com/ns/a/sa/b"}},
		"an email address":           {EmailAddresses: []string{"a@example.com"}},
		"an address in IPv4 in IPv6": {IPAddresses: []string{"::ffff:192.0.2.1"}},
		"another name":               {OtherNames: []cmapi.OtherName{{OID: "1.2.3", UTF8Value: "a"}}},
		"a subject without a common name": {
			DNSNames: []string{"a"},
			Subject:  &cmapi.X509Subject{Organizations: []string{"a"}},
		},
		"a literal subject": {
			LiteralSubject: `CN=a\, b+UID=c,OU=d,O=Größe,DC=example,DC=com,2.5.4.42=x,SERIALNUMBER=1,STREET=s,L=l,ST=t,C=CH`,
		},
		"a literal subject and names": {LiteralSubject: "O=a", DNSNames: []string{"b"}},
		"no usages in the request":    changed(func(s *cmapi.CertificateSpec) { s.EncodeUsagesInRequest = &no }),
		"the default usages":          changed(func(s *cmapi.CertificateSpec) { s.Usages = nil }),
		"no CA": changed(
			func(s *cmapi.CertificateSpec) { s.IsCA = false; s.Usages = []cmapi.KeyUsage{"client auth"} },
		),
		"constraints that are not critical": changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Critical = false }),
		"permitted names only":              changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Excluded = nil }),
		"excluded names only":               changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Permitted = nil }),
		"empty constraints": changed(
			func(s *cmapi.CertificateSpec) { s.NameConstraints = &cmapi.NameConstraints{Critical: true} },
		),
		"each usage": changed(func(s *cmapi.CertificateSpec) {
			s.Usages = []cmapi.KeyUsage{
				cmapi.UsageSigning,
				cmapi.UsageDigitalSignature,
				cmapi.UsageContentCommitment,
				cmapi.UsageKeyEncipherment,
				cmapi.UsageKeyAgreement,
				cmapi.UsageDataEncipherment,
				cmapi.UsageCertSign,
				cmapi.UsageCRLSign,
				cmapi.UsageEncipherOnly,
				cmapi.UsageDecipherOnly,
				cmapi.UsageAny,
				cmapi.UsageServerAuth,
				cmapi.UsageClientAuth,
				cmapi.UsageCodeSigning,
				cmapi.UsageEmailProtection,
				cmapi.UsageIPsecEndSystem,
				cmapi.UsageIPsecTunnel,
				cmapi.UsageIPsecUser,
				cmapi.UsageTimestamping,
				cmapi.UsageOCSPSigning,
				cmapi.UsageMicrosoftSGC,
				cmapi.UsageNetscapeSGC,
			}
		}),
		"s/mime": {CommonName: "a", Usages: []cmapi.KeyUsage{cmapi.UsageSMIME}},
	}
}

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
			// cert-manager does not look at name constraints, nor at other names that nobody asks for.
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
		})
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
	sign := func(name string, isCA bool, key crypto.Signer, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
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
		chain, top, err := pki.OrderChain(certs)
		theirs, theirErr := cmpki.ParseSingleCertificateChain(certs)
		if (err == nil) != (theirErr == nil) {
			t.Errorf("%05b: we say %v, cert-manager %v", picked, err, theirErr)
			continue
		}
		if err != nil {
			continue
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

// cert-manager does not let anybody call what writes its keystores. They are written here as it
// does, with the same libraries.
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

		for profile, encoder := range map[pki.PKCS12Profile]*pkcs12.Encoder{
			pki.LegacyRC2: pkcs12.LegacyRC2, pki.LegacyDES: pkcs12.LegacyDES, pki.Modern2023: pkcs12.Modern2023, pki.Modern2026: pkcs12.Modern2026,
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

		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		store, trust := keystore.New(), keystore.New()
		entry := keystore.Certificate{Type: "X509", Content: cert.Raw}
		if err := store.SetPrivateKeyEntry(
			"Alias",
			keystore.PrivateKeyEntry{CreationTime: start, PrivateKey: der, CertificateChain: []keystore.Certificate{entry}},
			[]byte("password"),
		); err != nil {
			t.Fatal(err)
		}
		for _, s := range []keystore.KeyStore{store, trust} {
			if err := s.SetTrustedCertificateEntry(
				"ca",
				keystore.TrustedCertificateEntry{CreationTime: start, Certificate: entry},
			); err != nil {
				t.Fatal(err)
			}
		}
		var storeData, trustData bytes.Buffer
		if err := store.Store(&storeData, []byte("password")); err != nil {
			t.Fatal(err)
		}
		if err := trust.Store(&trustData, []byte("password")); err != nil {
			t.Fatal(err)
		}
		o := pki.JKSOptions{Password: "password", Alias: "Alias"}
		if err := pki.CheckJKS(storeData.Bytes(), o, cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := pki.CheckJKSTruststore(trustData.Bytes(), o, cas); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLiteralSubject: what cert-manager reads and can encode, we read alike. Not compared are what
// is not UTF-8, which JSON cannot carry; #hex, in which cert-manager reads what is not a string,
// too; a space after an escaped backslash, which it keeps; and types that are empty or escaped,
// which are no types.
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
				return // nobody could have read it
			}
			t.Fatalf("we do not read %q: %v", s, err)
		}
		if got, err := asn1.Marshal(ours); err != nil || !bytes.Equal(got, der) {
			t.Fatalf("of %q we make %x, cert-manager %x: %v", s, got, der, err)
		}
	})
}

// FuzzCSR: for names that both accept, both ask for the same.
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
