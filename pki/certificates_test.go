package pki

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func TestDecodeCertificates(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	leaf := root.sign(t, Request{CommonName: "leaf"}, edKey())
	leafPEM, rootPEM := string(EncodeCertificatePEM(leaf)), string(EncodeCertificatePEM(root.cert))
	both := leafPEM + rootPEM
	keyPEM, err := EncodeKeyPEM(ecKey(), PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	pad := func(s string, size int) string { return s + strings.Repeat("\n", size-len(s)) }
	garbage := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2, 3}}))

	one := func(data []byte) ([]*x509.Certificate, error) {
		cert, err := DecodeCertificatePEM(data)
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{cert}, nil
	}
	for name, test := range map[string]struct {
		decode func([]byte) ([]*x509.Certificate, error)
		data   string
		want   []*x509.Certificate
		err    string
	}{
		"one certificate":             {decode: one, data: leafPEM, want: []*x509.Certificate{leaf}},
		"the first of a chain":        {decode: one, data: both, want: []*x509.Certificate{leaf}},
		"the first, whatever follows": {decode: one, data: leafPEM + garbage, want: []*x509.Certificate{leaf}},
		"the first of a chain of the size limit": {
			decode: one, data: pad(both, MaxChainSize), want: []*x509.Certificate{leaf}},
		"one in a longer chain is refused": {
			decode: one, data: pad(both, MaxChainSize+1),
			err: "decode certificate: 95001 bytes are more than the limit of 95000"},
		"one that begins beyond its own limit": {
			decode: one, data: strings.Repeat("\n", MaxCertificateSize) + leafPEM, err: "more than the limit of 36500"},
		"one, but a key comes first": {
			decode: one, data: string(keyPEM) + leafPEM, err: `a "PRIVATE KEY", not a certificate`},
		"one, but there is none": {decode: one, data: "certificate", err: "no PEM block found"},
		"a chain":                {decode: DecodeChainPEM, data: both, want: []*x509.Certificate{leaf, root.cert}},
		"a chain with text between": {
			decode: DecodeChainPEM, data: "leaf\n" + leafPEM + "root\n" + rootPEM + "end", want: []*x509.Certificate{
				leaf, root.cert}},
		"the old label of OpenSSL": {
			decode: DecodeChainPEM, data: strings.ReplaceAll(leafPEM, "CERTIFICATE", "X509 CERTIFICATE"),
			want: []*x509.Certificate{leaf}},
		"a chain of the size limit": {
			decode: DecodeChainPEM, data: pad(both, MaxChainSize), want: []*x509.Certificate{leaf, root.cert}},
		"a chain beyond the size limit": {
			decode: DecodeChainPEM, data: pad(both, MaxChainSize+1),
			err: "decode certificate chain: 95001 bytes are more than the limit of 95000"},
		"a chain with a broken second certificate": {
			decode: DecodeChainPEM, data: leafPEM + garbage, err: "PEM block 2 (line "},
		"a chain with a key": {
			decode: DecodeChainPEM, data: leafPEM + string(keyPEM), err: `it is a "PRIVATE KEY", not a certificate`},
		"an empty chain": {decode: DecodeChainPEM, data: "", err: "no PEM block found"},
		"a bundle may be longer than a chain": {
			decode: DecodeBundlePEM, data: pad(both, MaxBundleSize), want: []*x509.Certificate{leaf, root.cert}},
		"a bundle beyond the size limit": {
			decode: DecodeBundlePEM, data: pad(both, MaxBundleSize+1),
			err: "decode certificate bundle: 330001 bytes are more than the limit of 330000"},
		"many beginnings of blocks, and no end": {
			decode: DecodeBundlePEM, data: strings.Repeat("-----BEGIN CERTIFICATE-----\n", MaxBundleSize/28),
			err: "it is cut off"},
		"a limit of one's own for a certificate": {decode: func(b []byte) ([]*x509.Certificate, error) {
			_, err := Limits{Certificate: 10}.DecodeCertificatePEM(b)
			return nil, err
		}, data: leafPEM, err: "limit of 10"},
		"a limit of one's own for a chain":             {decode: Limits{Chain: 10}.DecodeChainPEM, data: both, err: "limit of 10"},
		"a limit of one's own for a bundle":            {decode: Limits{Bundle: 10}.DecodeBundlePEM, data: both, err: "limit of 10"},
		"a limit of one's own leaves the others as is": {decode: Limits{Bundle: 10}.DecodeChainPEM, data: both, want: []*x509.Certificate{leaf, root.cert}},
	} {
		t.Run(name, func(t *testing.T) {
			certs, err := test.decode([]byte(test.data))
			if test.err != "" {
				wantError(t, err, test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(certs, test.want, (*x509.Certificate).Equal) {
				t.Errorf("got %d certificates, want %d others", len(certs), len(test.want))
			}
		})
	}
}

func TestEncodeCertificatePEMIsWhatThePEMPackageWrites(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	var want []byte
	for range 3 {
		want = append(want, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})...)
	}
	got := EncodeCertificatePEM(root.cert, root.cert, root.cert)
	if !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := 3 * pemSize(labelCertificate, len(root.cert.Raw)); n != len(got) {
		t.Errorf("the size was expected to be %d, it is %d", n, len(got))
	}
	if got := EncodeCertificatePEM(); len(got) != 0 {
		t.Errorf("no certificates gave %q", got)
	}
}

func TestDecodeCSRPEM(t *testing.T) {
	csr := mustCSR(t, Request{CommonName: "a"}, ecKey())
	valid := EncodeCSRPEM(csr.Raw)

	tampered := bytes.Clone(csr.Raw)
	at := bytes.Index(tampered, []byte{0x0c, 0x01, 'a'}) // the common name as UTF8String
	if at < 0 {
		at = bytes.Index(tampered, []byte{0x13, 0x01, 'a'}) // or as PrintableString
	}
	tampered[at+2] = 'b'

	for name, test := range map[string]struct{ data, err string }{
		"a request":                            {string(valid), ""},
		"the label of old tools":               {strings.ReplaceAll(string(valid), "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), ""},
		"one that was changed after signing":   {string(EncodeCSRPEM(tampered)), "check its signature"},
		"one whose key takes minutes to check": {string(EncodeCSRPEM(csrWithRSAKey(t, maxRSAVerifySize+8))), "its RSA key has 16392 bits, more than the limit of 16384"},
		"a certificate":                        {strings.ReplaceAll(string(valid), "CERTIFICATE REQUEST", "CERTIFICATE"), `a "CERTIFICATE", not a certificate request`},
		"bytes that are no request":            {string(EncodeCSRPEM([]byte{1})), "decode certificate request"},
		"nothing":                              {"", "no PEM block found"},
		"as long as the limit":                 {string(valid) + strings.Repeat("\n", MaxCertificateSize-len(valid)), ""},
		"longer than the limit":                {string(valid) + strings.Repeat("\n", MaxCertificateSize+1-len(valid)), "36501 bytes are more than the limit of 36500"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeCSRPEM([]byte(test.data))
			if test.err != "" {
				wantError(t, err, test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Raw, csr.Raw) {
				t.Error("another request came back")
			}
		})
	}
	t.Run("a limit of one's own", func(t *testing.T) {
		_, err := Limits{Certificate: 10}.DecodeCSRPEM(valid)
		wantError(t, err, "limit of 10")
	})
}

// csrWithRSAKey returns a request whose RSA modulus has the given number of bits. Its signature
// is not valid.
func csrWithRSAKey(t *testing.T, bits uint) []byte {
	t.Helper()
	modulus := new(big.Int).Lsh(big.NewInt(1), bits-1)
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	algorithm := mustCSR(t, Request{CommonName: "a"}, rsaKey()).SignatureAlgorithm
	if algorithm != x509.SHA256WithRSA {
		t.Fatal(algorithm)
	}
	type sequence []asn1.RawValue
	der, err := asn1.Marshal(struct {
		Info struct {
			Version    int
			Subject    sequence
			Key        asn1.RawValue
			Attributes asn1.RawValue
		}
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue
		}
		Signature asn1.BitString
	}{
		Info: struct {
			Version    int
			Subject    sequence
			Key        asn1.RawValue
			Attributes asn1.RawValue
		}{0, sequence{}, asn1.RawValue{FullBytes: spki}, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true}},
		Algorithm: struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue
		}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, asn1.NullRawValue},
		Signature: asn1.BitString{Bytes: make([]byte, bits/8), BitLength: int(bits)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestFingerprintIsTheSHA256OfTheDER(t *testing.T) {
	// The SHA-256 of no bytes, FIPS 180-4.
	const want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := Fingerprint(&x509.Certificate{}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSignedBy(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	sameName := newRoot(t, "root", otherKey())
	sameKey := newRoot(t, "another root", ecKey())
	leaf := root.sign(t, Request{CommonName: "leaf"}, edKey())
	notCA := root.sign(t, Request{CommonName: "root"}, ecKey()) // root's name and key

	withoutIDs := *sameName.cert
	withoutIDs.SubjectKeyId = nil
	noKeyID := *notCA
	noKeyID.SubjectKeyId = nil
	longKey := *root.cert
	longKey.PublicKey = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), maxRSAVerifySize), E: 65537}

	for name, test := range map[string]struct {
		leaf, ca *x509.Certificate
		want     bool
	}{
		"its issuer":                                 {leaf, root.cert, true},
		"a root and itself":                          {root.cert, root.cert, true},
		"a CA of the same name with another key":     {leaf, sameName.cert, false},
		"the same without key identifiers":           {leaf, &withoutIDs, false},
		"a CA of another name with the same key":     {leaf, sameKey.cert, false},
		"name and key of the issuer, but not a CA":   {leaf, &noKeyID, false},
		"the issuer and its leaf, the wrong way":     {root.cert, leaf, false},
		"a CA whose key takes minutes to check with": {leaf, &longKey, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SignedBy(test.leaf, test.ca); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

func FuzzDecodeChainPEM(f *testing.F) {
	root := newRoot(f, "root", ecKey())
	leaf := root.sign(f, Request{CommonName: "leaf", DNSNames: []string{"example.com"}}, edKey())
	f.Add(EncodeCertificatePEM(leaf, root.cert))
	f.Add(EncodeCertificatePEM(root.cert))
	f.Add(root.cert.Raw)
	f.Add(leaf.Raw)
	f.Add([]byte(strings.Repeat("-----BEGIN CERTIFICATE-----\n", 100)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	// Input without a PEM block is taken for what would be in it.
	f.Fuzz(func(t *testing.T, data []byte) {
		if block, _ := pem.Decode(data); block == nil {
			data = EncodeCertificatePEM(&x509.Certificate{Raw: data})
		}
		certs, err := DecodeChainPEM(data)
		if (len(certs) == 0) == (err == nil) {
			t.Fatalf("%d certificates and error %v", len(certs), err)
		}
		if err != nil {
			return
		}
		first, err := DecodeCertificatePEM(data)
		if err == nil && !first.Equal(certs[0]) {
			t.Fatal("the first certificate is not the first of the chain")
		}
		again, err := DecodeBundlePEM(EncodeCertificatePEM(certs...))
		if err != nil || !slices.EqualFunc(again, certs, (*x509.Certificate).Equal) {
			t.Fatalf("the chain did not come back: %v", err)
		}
	})
}
