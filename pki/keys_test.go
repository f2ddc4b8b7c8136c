package pki

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

func TestKeySpecValidate(t *testing.T) {
	for name, test := range map[string]struct {
		spec KeySpec
		want string // "" means valid
	}{
		"the zero value is RSA with 2048 bits": {spec: KeySpec{}},
		"RSA may have 8192 bits":               {spec: KeySpec{Algorithm: RSA, Size: 8192}},
		"RSA below 2048 bits is refused":       {spec: KeySpec{Algorithm: RSA, Size: 1024}, want: "spec.privateKey.size: 1024 is not possible for RSA, choose 2048 to 8192"},
		"RSA above 8192 bits is refused":       {spec: KeySpec{Size: 16384}, want: "spec.privateKey.size"},
		"a negative size is refused":           {spec: KeySpec{Size: -1}, want: "spec.privateKey.size"},
		"ECDSA without a size is P-256":        {spec: KeySpec{Algorithm: ECDSA}},
		"ECDSA may have 521 bits":              {spec: KeySpec{Algorithm: ECDSA, Size: 521}},
		"ECDSA with another size is refused": {spec: KeySpec{Algorithm: ECDSA, Size: 512}, want: "choose 256, 384 " +
			"or 521"},
		"Ed25519 does not look at the size":      {spec: KeySpec{Algorithm: Ed25519, Size: 7}},
		"an algorithm nobody knows is refused":   {spec: KeySpec{Algorithm: "DSA"}, want: `spec.privateKey.algorithm: "DSA"`},
		"algorithms are written with their case": {spec: KeySpec{Algorithm: "rsa"}, want: "spec.privateKey.algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.spec.Validate()
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, test.want)
			if _, err := test.spec.Generate(rand.Reader); err == nil {
				t.Error("a key was generated all the same")
			}
		})
	}
}

func TestGenerateMakesWhatTheSpecAsksFor(t *testing.T) {
	for _, spec := range []KeySpec{
		{}, {Algorithm: RSA, Size: 3072}, {Algorithm: ECDSA}, {Algorithm: ECDSA, Size: 384},
		{Algorithm: ECDSA, Size: 521}, {Algorithm: Ed25519},
	} {
		key, err := spec.Generate(rand.Reader)
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		if got := spec.Differences(key.Public()); got != nil {
			t.Errorf("%+v: the key differs in %v", spec, got)
		}
	}
}

func TestKeySpecDifferences(t *testing.T) {
	for name, test := range map[string]struct {
		spec KeySpec
		pub  crypto.PublicKey
		want []string
	}{
		"an RSA key satisfies the zero value":  {spec: KeySpec{}, pub: rsaKey().Public()},
		"another size of RSA":                  {spec: KeySpec{Size: 4096}, pub: rsaKey().Public(), want: []string{"spec.privateKey.size"}},
		"another curve":                        {spec: KeySpec{Algorithm: ECDSA}, pub: otherKey().Public(), want: []string{"spec.privateKey.size"}},
		"another algorithm is one difference":  {spec: KeySpec{Size: 4096}, pub: ecKey().Public(), want: []string{"spec.privateKey.algorithm"}},
		"Ed25519 with any size":                {spec: KeySpec{Algorithm: Ed25519, Size: 256}, pub: edKey().Public()},
		"a key of a kind that cannot be named": {spec: KeySpec{}, pub: "no key", want: []string{"spec.privateKey.algorithm"}},
		"no key at all":                        {spec: KeySpec{Algorithm: ECDSA}, pub: nil, want: []string{"spec.privateKey.algorithm"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.spec.Differences(test.pub); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestKeysComeBackFromPEM(t *testing.T) {
	for name, test := range map[string]struct {
		key   crypto.Signer
		enc   KeyEncoding
		label string
	}{
		"RSA by default is PKCS #1":      {rsaKey(), "", "RSA PRIVATE KEY"},
		"RSA as PKCS #1":                 {rsaKey(), PKCS1, "RSA PRIVATE KEY"},
		"RSA as PKCS #8":                 {rsaKey(), PKCS8, "PRIVATE KEY"},
		"ECDSA as PKCS #1 is SEC 1":      {ecKey(), PKCS1, "EC PRIVATE KEY"},
		"ECDSA as PKCS #8":               {ecKey(), PKCS8, "PRIVATE KEY"},
		"Ed25519 is PKCS #8 in any case": {edKey(), PKCS1, "PRIVATE KEY"},
		"Ed25519 as PKCS #8":             {edKey(), PKCS8, "PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := EncodeKeyPEM(test.key, test.enc)
			if err != nil {
				t.Fatal(err)
			}
			block, rest := pem.Decode(data)
			if block == nil || block.Type != test.label || len(rest) != 0 {
				t.Fatalf("got the block %v and %d bytes more, want one %s", block, len(rest), test.label)
			}
			if der := EncodeKeyDER(test.key, test.enc); !slices.Equal(der, block.Bytes) {
				t.Error("EncodeKeyDER is not what is in the PEM block")
			}
			key, err := DecodeKeyPEM(data)
			if err != nil {
				t.Fatal(err)
			}
			if !SamePublicKey(key.Public(), test.key.Public()) {
				t.Error("another key came back")
			}
		})
	}
}

func TestEncodeKeyPEMRefusesWhatNoReaderAccepts(t *testing.T) {
	_, err := EncodeKeyPEM(rsaKey(), "PKCS12")
	wantError(t, err, `spec.privateKey.encoding: "PKCS12"`)
	_, err = EncodeKeyPEM(foreignSigner{}, PKCS8)
	wantError(t, err, "foreignSigner")
	if der := EncodeKeyDER(foreignSigner{}, PKCS8); der != nil {
		t.Errorf("EncodeKeyDER returned %d bytes", len(der))
	}
}

// foreignSigner stands for a key that lives outside of the process.
type foreignSigner struct{ crypto.Signer }

func (foreignSigner) Public() crypto.PublicKey { return nil }

func TestDecodeKeyPEM(t *testing.T) {
	ecPEM, err := EncodeKeyPEM(ecKey(), PKCS1)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519DER, err := x509.MarshalPKCS8PrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	block := func(label string, headers map[string]string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Headers: headers, Bytes: der}))
	}
	encrypted := map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}

	for name, test := range map[string]struct {
		data string
		want string // "" means that the key is ecKey
	}{
		"text around the block is ignored":      {data: "my key:\n" + string(ecPEM) + "end\n"},
		"the parameters of OpenSSL are skipped": {data: block("EC PARAMETERS", nil, []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + string(ecPEM)},
		"nothing":                               {data: "", want: "no PEM block found"},
		"only parameters": {
			data: block("EC PARAMETERS", nil, []byte{6}), want: "parameters of a key, and no key"},
		"a certificate": {
			data: block("CERTIFICATE", nil, []byte{1}), want: `a "CERTIFICATE", not a private key`},
		"a label as long as the input is cut": {data: block(strings.Repeat("X", 5000), nil, []byte{1}), want: `XXX..."`},
		"an encrypted PKCS #8 key": {
			data: block("ENCRYPTED PRIVATE KEY", nil, []byte{1}), want: "store it without a passphrase"},
		"an encrypted PKCS #1 key": {
			data: block("RSA PRIVATE KEY", encrypted, []byte{1}), want: "store it without a passphrase"},
		"an encrypted SEC 1 key": {
			data: block("EC PRIVATE KEY", encrypted, []byte{1}), want: "store it without a passphrase"},
		"bytes that are no PKCS #8 key": {data: block("PRIVATE KEY", nil, []byte{1}), want: "decode private key"},
		"bytes that are no PKCS #1 key": {data: block("RSA PRIVATE KEY", nil, []byte{1}), want: "decode private key"},
		"bytes that are no SEC 1 key":   {data: block("EC PRIVATE KEY", nil, []byte{1}), want: "decode private key"},
		"a key that cannot sign":        {data: block("PRIVATE KEY", nil, x25519DER), want: "cannot sign"},
		"one byte more than the limit": {
			data: string(ecPEM) + strings.Repeat("\n", MaxPrivateKeySize+1-len(ecPEM)),
			want: "13001 bytes are more than the limit of 13000"},
		"as many bytes as the limit": {data: string(ecPEM) + strings.Repeat("\n", MaxPrivateKeySize-len(ecPEM))},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := DecodeKeyPEM([]byte(test.data))
			if test.want != "" {
				wantError(t, err, test.want)
				if key != nil {
					t.Error("a key came back with the error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !SamePublicKey(key.Public(), ecKey().Public()) {
				t.Error("another key came back")
			}
		})
	}

	t.Run("a limit of one's own", func(t *testing.T) {
		_, err := Limits{PrivateKey: 10}.DecodeKeyPEM(ecPEM)
		wantError(t, err, "limit of 10")
	})
}

func TestSamePublicKey(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ecKey().Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ecCopy, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		a, b crypto.PublicKey
		want bool
	}{
		"an RSA key and itself":     {rsaKey().Public(), rsaKey().Public(), true},
		"an ECDSA key and a copy":   {ecKey().Public(), ecCopy, true},
		"an Ed25519 key and a copy": {edKey().Public(), slices.Clone(edKey().Public().(ed25519.PublicKey)), true},
		"two keys of one curve":     {ecKey().Public(), p256.Public(), false},
		"keys of different kinds":   {ecKey().Public(), rsaKey().Public(), false},
		"a key and nil":             {rsaKey().Public(), nil, false},
		"nil and a key":             {nil, rsaKey().Public(), false},
		"nil and nil":               {nil, nil, false},
		"what is no key":            {"key", "key", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SamePublicKey(test.a, test.b); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

func FuzzDecodeKeyPEM(f *testing.F) {
	for _, key := range []crypto.Signer{rsaKey(), ecKey(), edKey()} {
		for _, enc := range []KeyEncoding{PKCS1, PKCS8} {
			data, err := EncodeKeyPEM(key, enc)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(strings.Repeat("-----BEGIN ", 1000)))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\nBg==\n-----END EC PARAMETERS-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := DecodeKeyPEM(data)
		if (key == nil) == (err == nil) {
			t.Fatalf("key %v and error %v", key, err)
		}
		if err != nil {
			return
		}
		encoded, err := EncodeKeyPEM(key, PKCS8)
		if err != nil {
			t.Fatalf("a key that was read cannot be written: %v", err)
		}
		again, err := DecodeKeyPEM(encoded)
		if err != nil || !SamePublicKey(key.Public(), again.Public()) {
			t.Fatalf("the key did not come back: %v", err)
		}
	})
}
