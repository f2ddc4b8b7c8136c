package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"reflect"
	"strings"
	"testing"
)

func TestParseLiteralSubject(t *testing.T) {
	type rdn = pkix.RelativeDistinguishedNameSET
	cn := func(value string) pkix.RDNSequence { return pkix.RDNSequence{rdn{{Type: oidCommonName, Value: value}}} }
	o, ou := asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 11}
	dc := asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}

	for name, test := range map[string]struct {
		in   string
		want pkix.RDNSequence
		err  string
	}{
		"one attribute": {in: "CN=foo", want: cn("foo")},
		"the last part comes first in a certificate": {in: "CN=foo,OU=bar,O=baz", want: pkix.RDNSequence{
			rdn{{Type: o, Value: "baz"}}, rdn{{Type: ou, Value: "bar"}}, rdn{{Type: oidCommonName, Value: "foo"}},
		}},
		"several attributes in one part": {in: "CN=foo+OU=bar,O=baz", want: pkix.RDNSequence{
			rdn{{Type: o, Value: "baz"}}, rdn{{Type: oidCommonName, Value: "foo"}, {Type: ou, Value: "bar"}},
		}},
		"domain components":                             {in: "DC=example,DC=com", want: pkix.RDNSequence{rdn{{Type: dc, Value: "com"}}, rdn{{Type: dc, Value: "example"}}}},
		"a semicolon separates, too":                    {in: "OU=bar;O=baz", want: pkix.RDNSequence{rdn{{Type: o, Value: "baz"}}, rdn{{Type: ou, Value: "bar"}}}},
		"names of attributes in any case":               {in: "cn=foo", want: cn("foo")},
		"an OID in digits":                              {in: "2.5.4.3=foo", want: cn("foo")},
		"an OID with a zero before a digit":             {in: "2.05.4.3=foo", want: cn("foo")},
		"spaces around all":                             {in: "  CN  =  foo bar  ", want: cn("foo bar")},
		"escaped spaces at both ends":                   {in: `CN=\ foo\ `, want: cn(" foo ")},
		"a space after an escaped backslash is dropped": {in: `CN=foo\\ `, want: cn(`foo\`)},
		"escaped separators":                            {in: `CN=a\,b\+c\;d\"e\<f\>g\\h`, want: cn(`a,b+c;d"e<f>g\h`)},
		"hexadecimal escapes":                           {in: `CN=\4c\75\C4\8D\69\C4\87`, want: cn("Lučić")},
		"characters beyond ASCII":                       {in: "CN=Lučić", want: cn("Lučić")},
		"an equals sign in a value":                     {in: "CN=a=b", want: cn("a=b")},
		"a number sign that is not the first":           {in: "CN=a#b", want: cn("a#b")},
		"an escaped number sign":                        {in: `CN=\#b`, want: cn("#b")},
		"the DER of a string":                           {in: "2.5.4.3=#0c03666f6f", want: cn("foo")},
		"a value that is empty":                         {in: "CN=", want: cn("")},
		"nothing":                                       {in: " \t ", want: pkix.RDNSequence{}},

		"an attribute nobody knows":           {in: "FOO=bar", err: `spec.literalSubject: attribute "FOO" is not known`},
		"an OID that is none":                 {in: "3.1=bar", err: `attribute "3.1" is not known`},
		"an OID with an arc that is too long": {in: "1.3.4294967296=bar", err: "is not known"},
		"an OID of one number":                {in: "2=bar", err: "is not known"},
		"no equals sign":                      {in: "CN=foo,bar", err: `"bar" is not of the form attribute=value`},
		"no attribute":                        {in: "=foo", err: `"=foo" is not of the form attribute=value`},
		"a separator at the end":              {in: "CN=foo,", err: `"" is not of the form attribute=value`},
		"a backslash at the end":              {in: `CN=foo\`, err: "the value of CN: a backslash must be followed by"},
		"a backslash before a letter":         {in: `CN=\xyz`, err: "a backslash must be followed by"},
		"a backslash before half a byte":      {in: `CN=\4`, err: "a backslash must be followed by"},
		"bytes that are not UTF-8":            {in: `CN=\ff`, err: "it is not valid UTF-8"},
		"a number sign before a word":         {in: "CN=#foo", err: "a # must be followed by hexadecimal digits"},
		"the DER of what is not a string":     {in: "CN=#020101", err: "must be the DER encoding of a string"},
		"DER with something after it":         {in: "CN=#0c03666f6f00", err: "must be the DER encoding of a string"},
		"more than the limit":                 {in: "CN=" + strings.Repeat("a", maxLiteralSubjectSize), err: "8195 bytes are more than the limit of 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLiteralSubject(test.in)
			if test.err != "" {
				wantError(t, err, "spec.literalSubject: ", test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWhatGoWritesForASubjectCanBeRead(t *testing.T) {
	want := pkix.Name{
		CommonName:         `quoted "name", with + and \`,
		SerialNumber:       "#1",
		Country:            []string{"CH"},
		Organization:       []string{" Example "},
		OrganizationalUnit: []string{"a;b"},
		Locality:           []string{"Zürich"},
		Province:           []string{"ZH"},
		StreetAddress:      []string{"Weg 1"},
		PostalCode:         []string{"8000"},
	}
	rdns, err := ParseLiteralSubject(want.String())
	if err != nil {
		t.Fatal(err)
	}
	var got pkix.Name
	got.FillFromRDNSequence(&rdns)
	got.Names = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s became %+v", want, got)
	}
}

func FuzzParseLiteralSubject(f *testing.F) {
	for _, seed := range []string{
		"", "CN=foo", "CN=foo+OU=bar,O=baz", `CN=\ a\ `, `CN=\4c\75`, "2.5.4.3=#0c03666f6f", "CN=#", "1.2.840.113549.1.9.1=a@b", "=", `\`, ",;+", `CN=\`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rdns, err := ParseLiteralSubject(s)
		if err != nil {
			return
		}
		der, err := asn1.Marshal(rdns)
		if err != nil {
			t.Fatalf("what was read cannot be encoded: %v", err)
		}
		var again pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &again); err != nil || len(rest) != 0 {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		if len(again) != len(rdns) {
			t.Fatalf("%d parts became %d", len(rdns), len(again))
		}
	})
}
