package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fullRequest states everything that a request can.
func fullRequest() Request {
	return Request{
		CommonName: "full",
		Subject: Subject{
			Organizations: []string{
				"o1",
				"o2",
			},
			Countries:           []string{"CH"},
			OrganizationalUnits: []string{"ou"},
			Localities:          []string{"l"},
			Provinces:           []string{"st"},
			StreetAddresses:     []string{"street"},
			PostalCodes:         []string{"8000"},
			SerialNumber:        "1",
		},
		DNSNames:               []string{"b.example.com", "*.a.example.com"},
		IPAddresses:            []string{"2001:db8::1", "192.0.2.1"},
		URIs:                   []string{"spiffe://example.com/a", "urn:b"},
		EmailAddresses:         []string{"a@example.com"},
		OtherNames:             []OtherName{{"1.3.6.1.4.1.311.20.2.3", "upn@example.com"}, {"1.2.3", "Größe"}},
		IsCA:                   true,
		Usages:                 []string{"digital signature", "cert sign", "decipher only", "server auth", "client auth"},
		EncodeUsages:           true,
		EncodeBasicConstraints: true,
		NameConstraints: &NameConstraints{
			Critical:            true,
			PermittedDNSDomains: []string{"example.com"}, ExcludedDNSDomains: []string{"internal.example.com"},
			PermittedIPRanges: []string{"10.0.0.0/8", "2001:db8::/32"}, ExcludedIPRanges: []string{"10.1.0.0/16"},
			PermittedEmailAddresses: []string{"example.com"}, ExcludedEmailAddresses: []string{"a@example.com"},
			PermittedURIDomains: []string{"example.com"}, ExcludedURIDomains: []string{".internal.example.com"},
		},
		SignatureAlgorithm: "ECDSAWithSHA256",
	}
}

// requestFromCSR is the inverse of Request.CSR, of what the package reads of CSRs. It fails for
// what a Request cannot state. Of the subject it has the attributes that Subject has.
func requestFromCSR(csr *x509.CertificateRequest) (Request, error) {
	r := Request{
		CommonName: csr.Subject.CommonName,
		Subject: Subject{
			Organizations:       csr.Subject.Organization,
			Countries:           csr.Subject.Country,
			OrganizationalUnits: csr.Subject.OrganizationalUnit,
			Localities:          csr.Subject.Locality,
			Provinces:           csr.Subject.Province,
			StreetAddresses:     csr.Subject.StreetAddress,
			PostalCodes:         csr.Subject.PostalCode,
			SerialNumber:        csr.Subject.SerialNumber,
		},
	}
	if ext := findExtension(csr.Extensions, oidSubjectAltName); ext != nil {
		names, err := parseAltNames(ext.Value)
		if err != nil {
			return Request{}, err
		}
		if names.foreign > 0 {
			return Request{}, errors.New(
				"it has a subject alternative name that is none of DNS name, IP address, URI, email address and other name " +
					"with a UTF-8 value",
			)
		}
		r.DNSNames, r.URIs, r.EmailAddresses, r.OtherNames = names.dns, names.uris, names.emails, names.others
		for _, ip := range names.ips {
			r.IPAddresses = append(r.IPAddresses, ip.String())
		}
	}
	requested, err := requestedUsages(csr)
	if err != nil {
		return Request{}, err
	}
	if len(requested.unknown) > 0 {
		return Request{}, fmt.Errorf(
			"it asks for the extended key usage %s, for which there is no word",
			requested.unknown[0],
		)
	}
	if requested.present {
		r.EncodeUsages = true
		r.Usages = FormatUsages(requested.bits, requested.purposes)
		if len(r.Usages) == 0 {
			return Request{}, errors.New("its usage extensions are empty")
		}
		if _, _, err := ParseUsages(r.Usages); err != nil {
			return Request{}, err
		}
	}
	if ext := findExtension(csr.Extensions, oidBasicConstraints); ext != nil {
		constraints, err := parseBasicConstraints(ext.Value)
		if err != nil {
			return Request{}, err
		}
		r.EncodeBasicConstraints, r.IsCA = true, constraints.IsCA
	}
	if ext := findExtension(csr.Extensions, oidNameConstraints); ext != nil {
		if r.NameConstraints, err = parseNameConstraints(ext); err != nil {
			return Request{}, err
		}
	}
	for _, known := range signatureAlgorithms {
		if known.algorithm == csr.SignatureAlgorithm {
			r.SignatureAlgorithm = known.word
		}
	}
	return r, nil
}

func TestARequestComesBackFromItsCSR(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"with everything":             func(*Request) {},
		"without usages":              func(r *Request) { r.EncodeUsages, r.Usages = false, nil },
		"without basic constraints":   func(r *Request) { r.EncodeBasicConstraints, r.IsCA = false, false },
		"not a CA":                    func(r *Request) { r.IsCA = false; r.Usages = []string{"client auth"} },
		"without name constraints":    func(r *Request) { r.NameConstraints = nil },
		"with what is excluded alone": func(r *Request) { r.NameConstraints = &NameConstraints{ExcludedDNSDomains: []string{"a"}} },
		"without a subject":           func(r *Request) { r.CommonName, r.Subject = "", Subject{} },
		"without alternative names": func(r *Request) {
			r.DNSNames, r.IPAddresses, r.URIs, r.EmailAddresses, r.OtherNames = nil, nil, nil, nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := fullRequest()
			change(&want)
			csr := mustCSR(t, want, ecKey())
			got, err := requestFromCSR(csr)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if fields := want.CSRDifferences(csr); fields != nil {
				t.Errorf("the CSR differs in %v from what it was made of", fields)
			}
		})
	}
}

func TestCSR(t *testing.T) {
	t.Run("the names are critical if there is no subject, RFC 5280 section 4.2.1.6", func(t *testing.T) {
		for _, test := range []struct {
			r    Request
			want bool
		}{
			{Request{DNSNames: []string{"a"}}, true},
			{Request{DNSNames: []string{"a"}, CommonName: "a"}, false},
			{Request{DNSNames: []string{"a"}, Subject: Subject{Countries: []string{"CH"}}}, false},
			{Request{DNSNames: []string{"a"}, LiteralSubject: "O=a"}, false},
		} {
			if ext := findExtension(
				mustCSR(t, test.r, ecKey()).Extensions,
				oidSubjectAltName,
			); ext == nil ||
				ext.Critical != test.want {
				t.Errorf("%+v: got %+v, want critical %t", test.r, ext, test.want)
			}
		}
	})
	t.Run("an IPv4 address in IPv6 form is written in 4 bytes", func(t *testing.T) {
		csr := mustCSR(t, Request{IPAddresses: []string{"::ffff:192.0.2.1"}}, ecKey())
		if ext := findExtension(
			csr.Extensions,
			oidSubjectAltName,
		); !bytes.Equal(
			ext.Value,
			[]byte{0x30, 6, 0x87, 4, 192, 0, 2, 1},
		) {
			t.Errorf("got %x", ext.Value)
		}
	})
	t.Run("usages and basic constraints are left out if not asked for", func(t *testing.T) {
		csr := mustCSR(t, Request{CommonName: "a", IsCA: true, Usages: []string{"server auth"}}, ecKey())
		if len(csr.Extensions) != 0 {
			t.Errorf("got %v", csr.Extensions)
		}
	})
	t.Run("the literal subject takes the place of the other", func(t *testing.T) {
		csr := mustCSR(
			t,
			Request{CommonName: "a", Subject: Subject{Countries: []string{"CH"}}, LiteralSubject: "CN=b,DC=example"},
			ecKey(),
		)
		if got, want := csr.Subject.String(), "CN=b,0.9.2342.19200300.100.1.25=#13076578616d706c65"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})

	type signature struct {
		spec KeySpec
		word string
		want x509.SignatureAlgorithm
	}
	for name, test := range map[string]signature{
		"RSA with 2048 bits signs with SHA-256": {KeySpec{}, "", x509.SHA256WithRSA},
		"RSA with 3072 bits signs with SHA-384": {KeySpec{Size: 3072}, "", x509.SHA384WithRSA},
		"RSA with 4096 bits signs with SHA-512": {KeySpec{Size: 4096}, "", x509.SHA512WithRSA},
		"RSA signs with what is asked for":      {KeySpec{}, "SHA384WithRSA", x509.SHA384WithRSA},
		"P-256 signs with SHA-256":              {KeySpec{Algorithm: ECDSA}, "", x509.ECDSAWithSHA256},
		"P-384 signs with SHA-384":              {KeySpec{Algorithm: ECDSA, Size: 384}, "", x509.ECDSAWithSHA384},
		"P-521 signs with SHA-512":              {KeySpec{Algorithm: ECDSA, Size: 521}, "", x509.ECDSAWithSHA512},
		"P-256 signs with what is asked for":    {KeySpec{Algorithm: ECDSA}, "ECDSAWithSHA512", x509.ECDSAWithSHA512},
		"Ed25519 signs with itself":             {KeySpec{Algorithm: Ed25519}, "", x509.PureEd25519},
	} {
		t.Run(name, func(t *testing.T) {
			csr := mustCSR(t, Request{CommonName: "a", SignatureAlgorithm: test.word}, mustGenerate(test.spec))
			if csr.SignatureAlgorithm != test.want {
				t.Errorf("got %v, want %v", csr.SignatureAlgorithm, test.want)
			}
		})
	}
}

func TestCSRRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		r    Request
		key  crypto.Signer
		want string
	}{
		"what names nothing": {
			Request{Subject: Subject{Countries: []string{"CH"}}}, ecKey(), "spec: it names nothing"},
		"a literal subject without a CN":        {Request{LiteralSubject: "O=a"}, ecKey(), "spec: it names nothing"},
		"a literal subject that cannot be read": {Request{LiteralSubject: "CN"}, ecKey(), "spec.literalSubject: "},
		"a subject that is not UTF-8":           {Request{CommonName: "\xff"}, ecKey(), "encode subject"},
		"an empty DNS name": {
			Request{DNSNames: []string{"a", ""}}, ecKey(), "spec.dnsNames[1]: it is empty"},
		"a DNS name that no domain has": {
			Request{DNSNames: []string{"a\u0378.example"}}, ecKey(), "has characters that no domain name has"},
		"an email address beyond ASCII": {Request{EmailAddresses: []string{"ü@example.com"}}, ecKey(), "spec.emailAddresses[0]"},
		"an IP address that is none":    {Request{IPAddresses: []string{"192.0.2.1", "192.0.2"}}, ecKey(), `spec.ipAddresses[1]: "192.0.2" is not an IP address`},
		"an IP address with a zone":     {Request{IPAddresses: []string{"fe80::1%eth0"}}, ecKey(), "spec.ipAddresses[0]"},
		"a URI that is none":            {Request{URIs: []string{"http://a b"}}, ecKey(), "spec.uris[0]"},
		"a URI with a host that x509 refuses": {Request{URIs: []string{"https://a..b/"}}, ecKey(), "make certificate " +
			"request"},
		"an OID that is none":                    {Request{OtherNames: []OtherName{{"upn", "a"}}}, ecKey(), `spec.otherNames[0].oid: "upn" is not an OID`},
		"an OID that is too long":                {Request{OtherNames: []OtherName{{"1.2" + strings.Repeat(".1", 200), "a"}}}, ecKey(), "spec.otherNames[0].oid"},
		"another name without a value":           {Request{OtherNames: []OtherName{{"1.2.3", ""}}}, ecKey(), "spec.otherNames[0].utf8Value: it is empty"},
		"another name that is not UTF-8":         {Request{OtherNames: []OtherName{{"1.2.3", "\xff"}}}, ecKey(), "spec.otherNames[0].utf8Value: it is not valid UTF-8"},
		"a usage nobody knows":                   {Request{CommonName: "a", Usages: []string{"b"}, EncodeUsages: true}, ecKey(), "spec.usages[0]"},
		"a usage nobody knows, even if left out": {Request{CommonName: "a", Usages: []string{"b"}}, ecKey(), "spec.usages[0]"},
		"a range that is none":                   {Request{CommonName: "a", NameConstraints: &NameConstraints{PermittedIPRanges: []string{"10.0.0.0"}}}, ecKey(), `spec.nameConstraints.permitted.ipRanges[0]: "10.0.0.0" is not a range`},
		"a constraint that no domain has": {
			Request{CommonName: "a", NameConstraints: &NameConstraints{ExcludedURIDomains: []string{"\u0378"}}}, ecKey(),
			"spec.nameConstraints.excluded.uriDomains[0]"},
		"a signature that does not fit the key": {
			Request{CommonName: "a", SignatureAlgorithm: "SHA256WithRSA"}, ecKey(),
			"spec.signatureAlgorithm: SHA256WithRSA needs a private key of the algorithm RSA, not ECDSA"},
		"a signature of an unknown kind": {
			Request{CommonName: "a", SignatureAlgorithm: "SHA1WithRSA"}, rsaKey(),
			`spec.signatureAlgorithm: "SHA1WithRSA" is not known`},
		"a key that does not sign certificates": {Request{CommonName: "a"}, foreignSigner{}, "cannot sign certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.r.CSR(rand.Reader, test.key)
			wantError(t, err, "make certificate request: ", test.want)
		})
	}
}

func TestCSRDifferences(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Request) // of what is asked for, after the CSR was made
		want   []string
	}{
		"none": {func(*Request) {}, nil},
		"the order of names": {func(r *Request) {
			slices.Reverse(r.DNSNames)
			slices.Reverse(r.IPAddresses)
			slices.Reverse(r.URIs)
			slices.Reverse(r.OtherNames)
		}, nil},
		"the order of organizations":           {func(r *Request) { slices.Reverse(r.Subject.Organizations) }, nil},
		"the way an address is written":        {func(r *Request) { r.IPAddresses = []string{"::ffff:192.0.2.1", "2001:DB8:0::1"} }, nil},
		"the way a range is written":           {func(r *Request) { r.NameConstraints.PermittedIPRanges = []string{"10.9.9.9/8", "2001:db8:0::/32"} }, nil},
		"the way an OID is written":            {func(r *Request) { r.OtherNames[1].OID = "1.2.03" }, nil},
		"usages, which are compared elsewhere": {func(r *Request) { r.Usages, r.IsCA, r.EncodeUsages = nil, false, false }, nil},

		"an address":                       {func(r *Request) { r.IPAddresses[1] = "192.0.2.2" }, []string{"spec.ipAddresses"}},
		"an address that is none":          {func(r *Request) { r.IPAddresses[1] = "?" }, []string{"spec.ipAddresses"}},
		"a URI":                            {func(r *Request) { r.URIs = r.URIs[:1] }, []string{"spec.uris"}},
		"an email address":                 {func(r *Request) { r.EmailAddresses = nil }, []string{"spec.emailAddresses"}},
		"a DNS name":                       {func(r *Request) { r.DNSNames = append(r.DNSNames, "c") }, []string{"spec.dnsNames"}},
		"a DNS name twice":                 {func(r *Request) { r.DNSNames = append(r.DNSNames, r.DNSNames[0]) }, nil},
		"the case of a DNS name":           {func(r *Request) { r.DNSNames[0] = "B.example.com" }, nil},
		"another name":                     {func(r *Request) { r.OtherNames[1].UTF8Value = "x" }, []string{"spec.otherNames"}},
		"no other names":                   {func(r *Request) { r.OtherNames = nil }, []string{"spec.otherNames"}},
		"the common name":                  {func(r *Request) { r.CommonName = "x" }, []string{"spec.commonName"}},
		"the serial number":                {func(r *Request) { r.Subject.SerialNumber = "" }, []string{"spec.subject.serialNumber"}},
		"an organization":                  {func(r *Request) { r.Subject.Organizations = []string{"o1"} }, []string{"spec.subject.organizations"}},
		"a country":                        {func(r *Request) { r.Subject.Countries[0] = "x" }, []string{"spec.subject.countries"}},
		"a locality":                       {func(r *Request) { r.Subject.Localities[0] = "x" }, []string{"spec.subject.localities"}},
		"a unit":                           {func(r *Request) { r.Subject.OrganizationalUnits[0] = "x" }, []string{"spec.subject.organizationalUnits"}},
		"a postal code":                    {func(r *Request) { r.Subject.PostalCodes[0] = "x" }, []string{"spec.subject.postalCodes"}},
		"a province":                       {func(r *Request) { r.Subject.Provinces[0] = "x" }, []string{"spec.subject.provinces"}},
		"a street":                         {func(r *Request) { r.Subject.StreetAddresses[0] = "x" }, []string{"spec.subject.streetAddresses"}},
		"a literal subject":                {func(r *Request) { r.LiteralSubject = "CN=full" }, []string{"spec.literalSubject"}},
		"a literal subject that is none":   {func(r *Request) { r.LiteralSubject = "?" }, []string{"spec.literalSubject"}},
		"a constraint":                     {func(r *Request) { r.NameConstraints.ExcludedDNSDomains = nil }, []string{"spec.nameConstraints"}},
		"whether constraints are critical": {func(r *Request) { r.NameConstraints.Critical = false }, []string{"spec.nameConstraints"}},
		"no constraints":                   {func(r *Request) { r.NameConstraints = &NameConstraints{Critical: true} }, []string{"spec.nameConstraints"}},
		"several, in a fixed order":        {func(r *Request) { r.CommonName, r.DNSNames, r.URIs = "x", nil, nil }, []string{"spec.uris", "spec.dnsNames", "spec.commonName"}},
	} {
		t.Run(name, func(t *testing.T) {
			csr := mustCSR(t, fullRequest(), ecKey())
			want := fullRequest()
			test.change(&want)
			if got := want.CSRDifferences(csr); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}

	t.Run("a literal subject equal byte for byte", func(t *testing.T) {
		r := Request{LiteralSubject: "CN=a+OU=b,O=c"}
		if got := r.CSRDifferences(mustCSR(t, r, ecKey())); got != nil {
			t.Errorf("got %v", got)
		}
		r.LiteralSubject = "OU=b+CN=a,O=c" // a set in a certificate has one order
		if got := r.CSRDifferences(mustCSR(t, r, ecKey())); got != nil {
			t.Errorf("got %v", got)
		}
		if got := (Request{LiteralSubject: "CN=a,OU=b,O=c"}).CSRDifferences(
			mustCSR(t, r, ecKey()),
		); !slices.Equal(
			got,
			[]string{"spec.literalSubject"},
		) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("a literal subject that was written as fields", func(t *testing.T) {
		csr := mustCSR(t, Request{CommonName: "a", Subject: Subject{Organizations: []string{"b"}}}, ecKey())
		if got := (Request{LiteralSubject: "CN=a,O=b"}).CSRDifferences(csr); got != nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("a URI that net/url writes otherwise", func(t *testing.T) {
		r := Request{URIs: []string{"HTTPS://example.com/a b"}}
		if got := r.CSRDifferences(mustCSR(t, r, ecKey())); got != nil {
			t.Errorf("got %v", got)
		}
		if got := (Request{URIs: []string{"https://example.com/a%20b"}}).CSRDifferences(mustCSR(t, r, ecKey())); got != nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("names that a Request cannot state", func(t *testing.T) {
		csr := csrWithExtension(t, "a", oidSubjectAltName, []byte{0x30, 3, 0x88, 1, 42}) // registeredID 1.2
		if got := (Request{CommonName: "a"}).CSRDifferences(csr); !slices.Equal(got, []string{"spec.otherNames"}) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("constraints that cannot be read", func(t *testing.T) {
		csr := csrWithExtension(t, "a", oidNameConstraints, []byte{0x30, 0})
		if got := (Request{CommonName: "a"}).CSRDifferences(csr); !slices.Equal(got, []string{"spec.nameConstraints"}) {
			t.Errorf("got %v", got)
		}
	})
}

func csrWithExtension(
	t testing.TB,
	commonName string,
	id asn1.ObjectIdentifier,
	value []byte,
) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: commonName},
		ExtraExtensions: []pkix.Extension{{Id: id, Value: value}},
	}, ecKey())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestWhatARequestCannotStateIsNotReadFromACSR(t *testing.T) {
	for name, test := range map[string]struct {
		id    asn1.ObjectIdentifier
		value []byte
		want  string
	}{
		"a name of another kind": {oidSubjectAltName, []byte{0x30, 3, 0x88, 1, 42}, "a subject alternative name " +
			"that is none of"},
		"another name with a number": {oidSubjectAltName, []byte{0x30, 10, 0xa0, 8, 6, 1, 42, 0xa0, 3, 2, 1, 1}, "a subject alternative name that is none of"},
		"an extended usage nobody knows": {oidExtKeyUsage, []byte{0x30, 4, 6, 2, 42, 3}, "the extended key usage " +
			"1.2.3"},
		"an extended usage without a word": {oidExtKeyUsage, []byte{0x30, 12, 6, 10, 43, 6, 1, 4, 1, 130, 55, 61, 1, 1}, "1.3.6.1.4.1.311.61.1.1"},
		"no usage":                         {oidKeyUsage, []byte{3, 1, 0}, "its usage extensions are empty"},
		"usages that cannot be read":       {oidKeyUsage, []byte{4, 1, 0}, "the key usage extension is malformed"},
		"extended usages that cannot be read": {oidExtKeyUsage, []byte{4, 1, 0}, "the extended key usage extension is " +
			"malformed"},
		"basic constraints that cannot be read": {oidBasicConstraints, []byte{4, 1, 0}, "the basic constraints " +
			"extension is malformed"},
		"constraints without names": {oidNameConstraints, []byte{0x30, 0}, "the name constraints extension " +
			"is malformed"},
		"constraints of another kind":        {oidNameConstraints, []byte{0x30, 7, 0xa0, 5, 0x30, 3, 0x88, 1, 42}, "a name of kind 8"},
		"constraints with a minimum":         {oidNameConstraints, []byte{0x30, 10, 0xa0, 8, 0x30, 6, 0x82, 1, 'a', 0x80, 1, 1}, "the name constraints extension is malformed"},
		"a range with a mask that has holes": {oidNameConstraints, []byte{0x30, 14, 0xa0, 12, 0x30, 10, 0x87, 8, 10, 0, 0, 0, 255, 0, 255, 0}, "a range of IP addresses"},
		"a range of an odd length":           {oidNameConstraints, []byte{0x30, 15, 0xa0, 13, 0x30, 11, 0x87, 9, 10, 0, 0, 0, 255, 0, 0, 0, 0}, "a range of IP addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := requestFromCSR(csrWithExtension(t, "a", test.id, test.value))
			wantError(t, err, test.want)
		})
	}
}

func TestCertificateDifferences(t *testing.T) {
	uri, err := url.Parse("spiffe://example.com/a")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(t, "root", ecKey())
	for name, test := range map[string]struct {
		has, asked Request
		want       []string
	}{
		"the same":                                   {has: fullRequestForLeaf(), asked: fullRequestForLeaf()},
		"the rest of a subject does not matter":      {has: Request{CommonName: "a", Subject: Subject{Countries: []string{"CH"}}}, asked: Request{CommonName: "a"}},
		"the issuer made a DNS name the common name": {has: Request{CommonName: "a", DNSNames: []string{"a", "b"}}, asked: Request{DNSNames: []string{"a", "b"}}},
		"the issuer made the common name a DNS name": {has: Request{DNSNames: []string{"a", "b"}}, asked: Request{CommonName: "a", DNSNames: []string{"b"}}},
		"the issuer wrote names in lower case":       {has: Request{DNSNames: []string{"a.example.com"}}, asked: Request{DNSNames: []string{"A.example.COM"}}},
		"the common name of a literal subject":       {has: Request{CommonName: "a", DNSNames: []string{"b"}}, asked: Request{LiteralSubject: "CN=a,O=x", DNSNames: []string{"b"}}},
		"another common name":                        {has: Request{CommonName: "a"}, asked: Request{CommonName: "b"}, want: []string{"spec.commonName"}},
		"another common name in a literal subject":   {has: Request{CommonName: "a"}, asked: Request{LiteralSubject: "CN=b"}, want: []string{"spec.commonName"}},
		"no common name was asked for":               {has: Request{CommonName: "a", DNSNames: []string{"b"}}, asked: Request{DNSNames: []string{"b"}}, want: []string{"spec.commonName"}},
		"a DNS name is missing":                      {has: Request{DNSNames: []string{"a"}}, asked: Request{DNSNames: []string{"a", "b"}}, want: []string{"spec.dnsNames"}},
		"a DNS name is too many":                     {has: Request{DNSNames: []string{"a", "b"}}, asked: Request{DNSNames: []string{"a"}}, want: []string{"spec.dnsNames"}},
		"an address":                                 {has: Request{IPAddresses: []string{"192.0.2.1"}}, asked: Request{IPAddresses: []string{"192.0.2.2"}}, want: []string{"spec.ipAddresses"}},
		"a URI":                                      {has: Request{CommonName: "a", URIs: []string{uri.String()}}, asked: Request{CommonName: "a"}, want: []string{"spec.uris"}},
		"an email address":                           {has: Request{CommonName: "a"}, asked: Request{CommonName: "a", EmailAddresses: []string{"a@example.com"}}, want: []string{"spec.emailAddresses"}},
	} {
		t.Run(name, func(t *testing.T) {
			cert := root.sign(t, test.has, edKey())
			if got := test.asked.CertificateDifferences(cert); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func fullRequestForLeaf() Request {
	r := fullRequest()
	r.IsCA, r.NameConstraints, r.Usages, r.SignatureAlgorithm = false, nil, []string{"server auth"}, ""
	return r
}

// FuzzDecodeCSRPEM also processes requests with an invalid signature, because any changed byte
// invalidates it. It treats input without a PEM block as DER, because changes of base64 text rarely
// reach new code.
func FuzzDecodeCSRPEM(f *testing.F) {
	f.Add(EncodeCSRPEM(mustCSR(f, fullRequest(), ecKey()).Raw))
	f.Add(EncodeCSRPEM(mustCSR(f, fullRequestForLeaf(), edKey()).Raw))
	f.Add(EncodeCSRPEM(mustCSR(f, Request{DNSNames: []string{"a"}}, ecKey()).Raw))
	f.Add(EncodeCSRPEM(csrWithExtension(f, "a", oidSubjectAltName, []byte{0x30, 3, 0x88, 1, 42}).Raw))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add(mustCSR(f, fullRequest(), ecKey()).Raw)
	f.Add(mustCSR(f, fullRequestForLeaf(), edKey()).Raw)
	f.Add(csrWithExtension(f, "a", oidSubjectAltName, []byte{0x30, 3, 0x88, 1, 42}).Raw)
	root := newRoot(f, "root", ecKey())
	f.Fuzz(func(t *testing.T, data []byte) {
		block, _ := pem.Decode(data)
		if block == nil {
			if _, err := DecodeCSRPEM(data); err == nil {
				t.Fatal("a request came out of nothing")
			}
			block = &pem.Block{Bytes: data}
			data = EncodeCSRPEM(data)
		}
		if decoded, err := DecodeCSRPEM(data); err == nil && !bytes.Equal(decoded.Raw, block.Bytes) {
			t.Fatal("the request is not what is in the PEM block")
		}
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return
		}
		checkSigned(t, csr, root)
	})
}

// checkSigned expects of what is read from a CSR that it is the CSR, and that it can be signed.
func checkSigned(t *testing.T, csr *x509.CertificateRequest, root issuer) {
	r, err := requestFromCSR(csr)
	if err != nil {
		return
	}
	if fields := r.CSRDifferences(csr); fields != nil {
		t.Fatalf("the request differs from its CSR in %v", fields)
	}
	tmpl, err := Template{NotBefore: testStart, NotAfter: testEnd, IsCA: r.IsCA, Usages: r.Usages}.Certificate(csr)
	if err != nil {
		if r.IsCA && r.EncodeUsages {
			return // a CA always has the usage cert sign, which the CSR may lack
		}
		t.Fatalf("what was read cannot be signed: %v", err)
	}
	cert, err := Sign(rand.Reader, tmpl, root.cert, edKey().Public(), root.key)
	if err != nil {
		return // crypto/x509 is stricter with some names
	}
	if !bytes.Equal(cert.RawSubject, csr.RawSubject) {
		t.Fatal("the certificate has another subject than the CSR")
	}
	if fields := r.CertificateDifferences(cert); fields != nil {
		t.Fatalf("the certificate differs from the CSR in %v", fields)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("a", "CN=a", "example.com", "192.0.2.1", "spiffe://a/b", "a@b", "1.2.3", "v", "server auth", "10.0.0.0/8")
	f.Add("", "", "*.a", "::1", "urn:x", "", "2.999", "ü", "any", "::/0")
	f.Fuzz(func(t *testing.T, cn, literal, dns, ip, uri, email, oid, value, usage, cidr string) {
		r := Request{
			CommonName:      cn,
			LiteralSubject:  literal,
			DNSNames:        []string{dns},
			IPAddresses:     []string{ip},
			URIs:            []string{uri},
			EmailAddresses:  []string{email},
			OtherNames:      []OtherName{{oid, value}},
			Usages:          []string{usage},
			EncodeUsages:    true,
			NameConstraints: &NameConstraints{PermittedIPRanges: []string{cidr}, ExcludedDNSDomains: []string{dns}},
		}
		der, err := r.CSR(rand.Reader, ecKey())
		if err != nil {
			return
		}
		csr, err := DecodeCSRPEM(EncodeCSRPEM(der))
		if err != nil {
			if len(der) > MaxCertificateSize/2 {
				return
			}
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if fields := r.CSRDifferences(csr); fields != nil {
			t.Fatalf("the CSR differs in %v from what it was made of", fields)
		}
		if _, err := requestFromCSR(csr); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func TestCheckSaysWhatCSRWouldRefuse(t *testing.T) {
	for name, test := range map[string]struct {
		request Request
		key     KeySpec
		want    string
	}{
		"a name is enough":                         {request: Request{DNSNames: []string{"a.example"}}},
		"no name":                                  {request: Request{}, want: "it names nothing"},
		"a signature algorithm of another key":     {request: Request{CommonName: "a", SignatureAlgorithm: "ECDSAWithSHA256"}, want: "spec.signatureAlgorithm"},
		"a signature algorithm of the key":         {request: Request{CommonName: "a", SignatureAlgorithm: "ECDSAWithSHA256"}, key: KeySpec{Algorithm: ECDSA}},
		"a key size that there is not":             {request: Request{CommonName: "a"}, key: KeySpec{Algorithm: ECDSA, Size: 255}, want: "spec.privateKey.size"},
		"an other name whose OID cannot be read":   {request: Request{OtherNames: []OtherName{{OID: "1.x", UTF8Value: "a"}}}, want: "spec.otherNames[0]"},
		"a literal subject that cannot be read":    {request: Request{LiteralSubject: "CN"}, want: "spec.literalSubject"},
		"a usage that is not known, by its word":   {request: Request{CommonName: "a", Usages: []string{"flying"}}, want: "flying"},
		"an IP address that is none, by its field": {request: Request{IPAddresses: []string{"1.2.3"}}, want: "spec.ipAddresses[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.request.Check(test.key)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Check: %v, want %q", err, test.want)
			}
		})
	}
}
