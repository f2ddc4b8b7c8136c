package pki

import (
	"crypto/rand"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
)

func TestCanonicalNames(t *testing.T) {
	for _, test := range []struct {
		kind      string
		canonical func(string) (string, error)
		name      string
		want      string // empty: refused
	}{
		{"DNS", DNSName, "WWW.Example.COM", "www.example.com"},
		{"DNS", DNSName, "www.example.com.", "www.example.com"},
		{"DNS", DNSName, "*.Example.com", "*.example.com"},
		{"DNS", DNSName, "_sip._tcp.Example.com", "_sip._tcp.example.com"},
		{"DNS", DNSName, "localhost", "localhost"},
		{"DNS", DNSName, "r3---sn-a.example.com", "r3---sn-a.example.com"},
		{"DNS", DNSName, "Bücher.Example", "xn--bcher-kva.example"},
		{"DNS", DNSName, "bu\u0308cher.example", "xn--bcher-kva.example"}, // the umlaut as two characters
		{"DNS", DNSName, "XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"DNS", DNSName, "*.bücher.example", "*.xn--bcher-kva.example"},
		{"DNS", DNSName, "_a.bücher.example.", "_a.xn--bcher-kva.example"},
		{"DNS", DNSName, "straße.example", "xn--strae-oqa.example"}, // not strasse.example, which is another name
		{"DNS", DNSName, "例え。テスト", "xn--r8jz45g.xn--zckzah"},        // the dot of an input method
		{"DNS", DNSName, "ｗｗｗ.example.com", "www.example.com"},      // letters of an input method
		{"DNS", DNSName, "a\u00a0b.example", ""},                    // a space that does not break
		{"DNS", DNSName, "a\u0378.example", ""},
		{"DNS", DNSName, "ü。。example", ""},
		{"DNS", DNSName, "１０.0.0.1", ""}, // stands for an address

		{"IP", canonicalIP, "192.0.2.1", "192.0.2.1"},
		{"IP", canonicalIP, "::FFFF:192.0.2.1", "192.0.2.1"},
		{"IP", canonicalIP, "2001:DB8:0:0::1", "2001:db8::1"},
		{"IP", canonicalIP, "fe80::1%eth0", ""},
		{"IP", canonicalIP, "192.0.2.01", ""},

		{"URI", CanonicalURI, "HTTPS://User@WWW.Example.com.:8443/A%2fB?Q#F", "https://User@www.example.com:8443/A%2fB?Q#F"},
		{"URI", CanonicalURI, "spiffe://Cluster.Local/ns/App/sa/Web", "spiffe://cluster.local/ns/App/sa/Web"},
		{"URI", CanonicalURI, "https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"},
		{"URI", CanonicalURI, "https://[2001:DB8::0001]:8443/", "https://[2001:db8::1]:8443/"},
		{"URI", CanonicalURI, "https://[fe80::1%25eth0]/", "https://[fe80::1%25eth0]/"},
		{"URI", CanonicalURI, "https://example.com:/", "https://example.com/"},
		{"URI", CanonicalURI, "URN:uuid:F81D4FAE", "urn:uuid:F81D4FAE"},
		{"URI", CanonicalURI, "https://a\u0378.example/", ""},
		{"URI", CanonicalURI, "https://example.com/?ä", ""},
		{"URI", CanonicalURI, "", ""},

		{"email", CanonicalEmail, "Jane.Doe+tag@Example.COM", "Jane.Doe+tag@example.com"},
		{"email", CanonicalEmail, "jane@bücher.example", "jane@xn--bcher-kva.example"},
		{"email", CanonicalEmail, "jane@[192.0.2.1]", "jane@[192.0.2.1]"},
		{"email", CanonicalEmail, "jürgen@example.com", ""},
	} {
		got, err := test.canonical(test.name)
		if got != test.want && test.want != "" || (err == nil) != (test.want != "") {
			t.Errorf("the %s name %q became %q with error %v, want %q", test.kind, test.name, got, err, test.want)
		}
		if err != nil {
			continue
		}
		if again, err := test.canonical(got); again != got || err != nil {
			t.Errorf("the canonical form %q became %q with error %v", got, again, err)
		}
	}
}

func TestWhatCanBeNoDNSName(t *testing.T) {
	for name, want := range map[string]error{
		"https://www.example.com/": errNotAlone, "www.example.com/path": errNotAlone, "10.0.0.0/8": errNotAlone,
		"a b": errSpace, "a.example.com\tb": errSpace, "a\n": errSpace, "a\u00a0b": errSpace,
		"www.example.com:443": errPort, "2001:db8::1": errPort, "[::1]": errPort, "10.0.0.1:80": errPort,
		"10.0.0.1": errAddress, "10.0.0.1.": errAddress,
		"": errEmptyLabel, ".": errEmptyLabel, ".example.com": errEmptyLabel, "a..b": errEmptyLabel, "a..": errEmptyLabel,
		"www.example.com": nil, "www.example.com.": nil, "_dmarc.example.com": nil, "localhost": nil, "*": nil,
		"*.example.com": nil, "a.*.example.com": nil, "-a-.example": nil, "1.2.3": nil, "bücher.example": nil,
	} {
		if got := CheckDNSName(name); got != want { //nolint:errorlint // it is returned as it is
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

// TestEachNameIsEncodedOnce reads the names with other parsers.
func TestEachNameIsEncodedOnce(t *testing.T) {
	csr := mustCSR(t, Request{
		CommonName: "DUP.example.com",
		DNSNames: []string{"dup.example.com", "DUP.example.com", "dup.example.com", "dup.example.com.",
			"bücher.example", "xn--bcher-kva.example"},
		IPAddresses:    []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:DB8:0::1"},
		URIs:           []string{"https://example.com/A", "HTTPS://EXAMPLE.com/A", "https://example.com/a"},
		EmailAddresses: []string{"jane@example.com", "jane@EXAMPLE.com", "Jane@example.com"},
		OtherNames:     []OtherName{{"1.2.3", "a"}, {"1.2.03", "a"}, {"1.2.3", "b"}},
	}, ecKey())
	var ips, uris []string
	for _, ip := range csr.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, uri := range csr.URIs {
		uris = append(uris, uri.String())
	}
	for _, list := range [][2][]string{
		{csr.DNSNames, {"dup.example.com", "xn--bcher-kva.example"}},
		{ips, {"192.0.2.1", "2001:db8::1"}},
		{uris, {"https://example.com/A", "https://example.com/a"}},
		{csr.EmailAddresses, {"jane@example.com", "Jane@example.com"}},
		{{csr.Subject.CommonName}, {"dup.example.com"}},
	} {
		if !slices.Equal(list[0], list[1]) {
			t.Errorf("the CSR has %q, want %q", list[0], list[1])
		}
	}
	names, err := parseAltNames(findExtension(csr.Extensions, oidSubjectAltName).Value)
	if err != nil || len(names.others) != 2 {
		t.Errorf("the CSR has %v with error %v", names.others, err)
	}
}

func TestASpellingIsNoDifference(t *testing.T) {
	plain := Request{
		CommonName: "www.example.com", DNSNames: []string{"www.example.com", "xn--bcher-kva.example"},
		IPAddresses: []string{"192.0.2.1"},
		URIs:        []string{"https://example.com/"}, EmailAddresses: []string{"jane@example.com"},
	}
	spelled := Request{
		CommonName: "WWW.example.com.", DNSNames: []string{"bücher.example", "WWW.example.com", "www.example.com."},
		IPAddresses: []string{"::ffff:192.0.2.1"},
		URIs:        []string{"HTTPS://EXAMPLE.com/"}, EmailAddresses: []string{"jane@EXAMPLE.com", "jane@example.com"},
	}
	root := newRoot(t, "root", ecKey())
	for name, pair := range map[string][2]Request{"spelled otherwise": {plain, spelled},
		"spelled plainly": {spelled, plain}} {
		if got := pair[1].CSRDifferences(mustCSR(t, pair[0], ecKey())); got != nil {
			t.Errorf("%s: the CSR differs in %v", name, got)
		}
		if got := pair[1].CertificateDifferences(root.sign(t, pair[0], edKey())); got != nil {
			t.Errorf("%s: the certificate differs in %v", name, got)
		}
	}
	// What stands in a certificate that others made, letter by letter.
	raw := &x509.CertificateRequest{DNSNames: []string{"WWW.example.com", "www.example.com"}}
	der, err := x509.CreateCertificateRequest(rand.Reader, raw, ecKey())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if got := (Request{DNSNames: []string{"www.example.com"}}).CSRDifferences(csr); got != nil {
		t.Errorf("a CSR that names it twice differs in %v", got)
	}
	if got := (Request{CommonName: "Jane"}).CSRDifferences(mustCSR(t, Request{CommonName: "jane"},
		ecKey())); !slices.Equal(got, []string{"spec.commonName"}) {
		t.Errorf("a common name that is no DNS name of the certificate differs in %v", got)
	}
}

func TestNamesThatAWildcardCovers(t *testing.T) {
	all := []string{"*.example.com", "WWW.example.com", "example.com", "a.b.example.com", "*.b.example.com",
		"www.example.com."}
	if got, want := WithoutCovered(all), []string{"*.example.com", "example.com", "*.b.example.com"}; !slices.Equal(got,
		want) {
		t.Errorf("%q are left, want %q", got, want)
	}
	both := Request{CommonName: "www.example.com", DNSNames: []string{"*.example.com", "www.example.com"}}
	acme := both
	acme.LeaveOutCovered = true
	csr := mustCSR(t, acme, ecKey())
	if !slices.Equal(csr.DNSNames, []string{"*.example.com"}) || csr.Subject.CommonName != "*.example.com" {
		t.Errorf("the CSR is for %q, with common name %q", csr.DNSNames, csr.Subject.CommonName)
	}
	root := newRoot(t, "root", ecKey())
	for name, has := range map[string]Request{"all of them": both, "those that are left": acme} {
		if got := acme.CSRDifferences(mustCSR(t, has, ecKey())); got != nil {
			t.Errorf("a CSR with %s differs in %v", name, got)
		}
		if got := acme.CertificateDifferences(root.sign(t, has, edKey())); got != nil {
			t.Errorf("a certificate with %s differs in %v", name, got)
		}
	}
	if got := both.CSRDifferences(csr); !slices.Equal(got, []string{"spec.dnsNames", "spec.commonName"}) {
		t.Errorf("of a CA that certifies both it differs in %v", got)
	}
	other := acme
	other.DNSNames = []string{"*.example.com", "www.example.org"}
	if got := other.CSRDifferences(csr); !slices.Contains(got, "spec.dnsNames") {
		t.Errorf("a name of another domain is taken for covered: %v", got)
	}
}

func FuzzDNSName(f *testing.F) {
	for _, name := range []string{"WWW.Example.com.", "*.bücher.example", "例え。テスト", "a\u200b", "xn--a.ü", "１０.0.0.1"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		form, err := DNSName(name)
		if err != nil {
			return
		}
		if !isASCII(form) || form != strings.ToLower(form) {
			t.Errorf("%q became %q", name, form)
		}
		if again, err := DNSName(form); err != nil || again != form && CheckDNSName(name) == nil {
			t.Errorf("%q became %q, and that %q with error %v", name, form, again, err)
		}
	})
}
