package pki

import (
	"crypto/x509"
	"slices"
	"testing"
)

func TestEveryUsageComesBack(t *testing.T) {
	synonyms := map[string]string{"signing": "digital signature", "s/mime": "email protection"}
	if len(usages) != 23 {
		t.Errorf("there are %d words, not 23", len(usages))
	}
	for _, u := range usages {
		ku, eku, err := ParseUsages([]string{u.word})
		if err != nil {
			t.Errorf("%s: %v", u.word, err)
			continue
		}
		want := u.word
		if synonyms[want] != "" {
			want = synonyms[want]
		}
		if got := FormatUsages(ku, eku); !slices.Equal(got, []string{want}) {
			t.Errorf("%s became %v", u.word, got)
		}

		// And through a request.
		csr := mustCSR(t, Request{CommonName: "a", Usages: []string{u.word}, EncodeUsages: true}, ecKey())
		got, err := requestedUsages(csr)
		if err != nil || !got.present || got.bits != ku || !slices.Equal(got.purposes, eku) {
			t.Errorf("%s came out of a CSR as %+v, %v", u.word, got, err)
		}
	}
}

func TestParseUsages(t *testing.T) {
	for name, test := range map[string]struct {
		words []string
		isCA  bool
		ku    x509.KeyUsage
		eku   []x509.ExtKeyUsage
		err   string
	}{
		"none mean the default":            {ku: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment},
		"a CA signs certificates, too":     {isCA: true, ku: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign},
		"extended usages keep their order": {words: []string{"server auth", "client auth", "any"}, eku: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny}},
		"two words for one usage are one":  {words: []string{"s/mime", "signing", "digital signature", "email protection"}, ku: x509.KeyUsageDigitalSignature, eku: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}},
		"a word nobody knows":              {words: []string{"signing", "server"}, err: `spec.usages[1]: "server" is not a known usage`},
		"words are in lower case":          {words: []string{"Server Auth"}, err: `spec.usages[0]: "Server Auth"`},
	} {
		t.Run(name, func(t *testing.T) {
			ku, eku, err := KeyUsages(test.words, test.isCA)
			if test.err != "" {
				wantError(t, err, test.err)
				return
			}
			if err != nil || ku != test.ku || !slices.Equal(eku, test.eku) {
				t.Errorf("got %v, %v, %v, want %v, %v", ku, eku, err, test.ku, test.eku)
			}
		})
	}
}

func TestFormatUsagesWritesTheOIDOfAPurposeWithoutAWord(t *testing.T) {
	got := FormatUsages(
		x509.KeyUsageCRLSign|x509.KeyUsageDecipherOnly,
		[]x509.ExtKeyUsage{x509.ExtKeyUsageMicrosoftKernelCodeSigning},
	)
	if want := []string{"crl sign", "decipher only", "1.3.6.1.4.1.311.61.1.1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUsagesOfACSRWithoutThem(t *testing.T) {
	got, err := requestedUsages(mustCSR(t, Request{CommonName: "a"}, ecKey()))
	if got.present || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}
