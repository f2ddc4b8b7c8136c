package pki

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math"
	"slices"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

// storeParts are what the keystores of a test are made of.
type storeParts struct {
	key   crypto.Signer
	chain []*x509.Certificate
	cas   []*x509.Certificate
	other *x509.Certificate // another leaf for the same key
}

func newStoreParts(t testing.TB, key crypto.Signer) storeParts {
	t.Helper()
	root := newRoot(t, "root", ecKey())
	middle := root.intermediate(t, "intermediate", otherKey())
	return storeParts{
		key:   key,
		chain: []*x509.Certificate{middle.sign(t, Request{CommonName: "leaf"}, key), middle.cert},
		// While a CA is replaced, the old and the new one often have the same name.
		cas:   []*x509.Certificate{root.cert, newRoot(t, "root", otherKey()).cert},
		other: middle.sign(t, Request{CommonName: "leaf"}, key),
	}
}

var profiles = []PKCS12Profile{"", LegacyRC2, LegacyDES, Modern2023, Modern2026}

func TestPKCS12ComesBack(t *testing.T) {
	for _, profile := range profiles {
		for name, key := range map[string]crypto.Signer{"RSA": rsaKey(), "ECDSA": ecKey(), "Ed25519": edKey()} {
			t.Run(string(profile)+" "+name, func(t *testing.T) {
				parts := newStoreParts(t, key)
				data, err := EncodePKCS12(profile, "pässword", key, parts.chain, parts.cas)
				if err != nil {
					t.Fatal(err)
				}
				gotKey, leaf, others, err := pkcs12.DecodeChain(data, "pässword")
				if err != nil {
					t.Fatal(err)
				}
				if !SamePublicKey(gotKey.(crypto.Signer).Public(), key.Public()) {
					t.Error("it has another key")
				}
				if !leaf.Equal(parts.chain[0]) ||
					!slices.EqualFunc(others, append(parts.chain[1:2:2], parts.cas...), (*x509.Certificate).Equal) {
					t.Errorf("it has %v and %v", leaf.Subject, subjects(others))
				}
				if err := CheckPKCS12(data, "pässword", leaf); err != nil {
					t.Error(err)
				}
				wantProfile(t, data, profile)
			})
		}
	}
}

func wantProfile(t *testing.T, data []byte, want PKCS12Profile) {
	t.Helper()
	if want == "" {
		want = LegacyRC2
	}
	if got, err := PKCS12ProfileOf(data); got != want || err != nil {
		t.Errorf("the profile is %q, %v, want %q", got, err, want)
	}
}

func TestPKCS12TruststoreComesBack(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	for _, profile := range profiles {
		t.Run(string(profile), func(t *testing.T) {
			data, err := EncodePKCS12Truststore(profile, "password", parts.cas)
			if err != nil {
				t.Fatal(err)
			}
			certs, err := pkcs12.DecodeTrustStore(data, "password")
			if err != nil || !slices.EqualFunc(certs, parts.cas, (*x509.Certificate).Equal) {
				t.Errorf("it has %v, %v", subjects(certs), err)
			}
			if err := CheckPKCS12Truststore(data, "password", parts.cas); err != nil {
				t.Error(err)
			}
			wantProfile(t, data, profile)
		})
	}
}

func TestPKCS12TruststoreHasAnAliasOfItsOwnForEachCA(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	unnamed := *parts.cas[0]
	unnamed.Subject = pkix.Name{}
	emoji := *parts.cas[0]
	emoji.Subject = pkix.Name{CommonName: "😀"}
	cas := []*x509.Certificate{parts.cas[0], parts.cas[1], &unnamed, &emoji}
	want := []string{"CN=root", Fingerprint(cas[1]), Fingerprint(&unnamed), Fingerprint(&emoji)}
	for i, entry := range trustEntries(cas) {
		if entry.FriendlyName != want[i] {
			t.Errorf("certificate %d has the alias %q, want %q", i, entry.FriendlyName, want[i])
		}
	}
	if _, err := EncodePKCS12Truststore(Modern2023, "password", cas); err != nil {
		t.Error(err)
	}
}

func TestEncodePKCS12Refuses(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	_, err := EncodePKCS12("Modern", "password", parts.key, parts.chain, nil)
	wantError(t, err, "encode PKCS #12 keystore: ", `spec.keystores.pkcs12.profile: "Modern" is not known`)
	_, err = EncodePKCS12("", "password", parts.key, nil, parts.cas)
	wantError(t, err, "there is no certificate for the key")
	_, err = EncodePKCS12("", "pass😀word", parts.key, parts.chain, nil)
	wantError(t, err, "the password has characters that PKCS #12 cannot carry")
	_, err = EncodePKCS12("", "\xff", parts.key, parts.chain, nil)
	wantError(t, err, "the password has characters that PKCS #12 cannot carry")
	_, err = EncodePKCS12("", "password", foreignSigner{}, parts.chain, nil)
	wantError(t, err, "encode PKCS #12 keystore: ")
	_, err = EncodePKCS12Truststore("Modern", "password", parts.cas)
	wantError(t, err, "encode PKCS #12 truststore: ", "is not known")
	_, err = EncodePKCS12Truststore("", "pass😀word", parts.cas)
	wantError(t, err, "the password has characters that PKCS #12 cannot carry")
}

func TestCheckPKCS12(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	stranger := newStoreParts(t, edKey())
	encode := func(profile PKCS12Profile, key crypto.Signer, chain []*x509.Certificate) []byte {
		t.Helper()
		data, err := EncodePKCS12(profile, "password", key, chain, nil)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	truststore, err := EncodePKCS12Truststore(Modern2023, "password", parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	passwordless, err := pkcs12.Passwordless.Encode(parts.key, parts.chain[0], nil, "")
	if err != nil {
		t.Fatal(err)
	}
	slow, err := pkcs12.Modern2023.WithIterations(maxIterations+1).Encode(parts.key, parts.chain[0], nil, "password")
	if err != nil {
		t.Fatal(err)
	}
	for _, profile := range profiles[1:] {
		valid := encode(profile, parts.key, parts.chain)
		// Somewhere inside of the ciphertext of the certificates.
		changed := bytes.Clone(valid)
		changed[len(changed)/4] ^= 1
		for name, test := range map[string]struct {
			data     []byte
			password string
			leaf     *x509.Certificate
			want     string
		}{
			"another password":       {valid, "passwort", parts.chain[0], "the password does not open it"},
			"no password":            {valid, "", parts.chain[0], "the password does not open it"},
			"another leaf":           {valid, "password", parts.other, "it holds another certificate"},
			"a key of somebody else": {encode(profile, stranger.key, parts.chain), "password", parts.chain[0], "its private key does not belong to the certificate"},
			"a bit changed":          {changed, "password", parts.chain[0], "the password does not open it"},
			"cut off":                {valid[:len(valid)-1], "password", parts.chain[0], "it is not a PKCS #12 file"},
			"something after it":     {append(bytes.Clone(valid), 0), "password", parts.chain[0], "it is not a PKCS #12 file"},
		} {
			t.Run(string(profile)+" "+name, func(t *testing.T) {
				wantError(t, CheckPKCS12(test.data, test.password, test.leaf), "check PKCS #12 keystore: ", test.want)
			})
		}
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                        {nil, "it is not a PKCS #12 file"},
		"a truststore":                   {truststore, "it has no private key"},
		"without a password":             {passwordless, "it is not a PKCS #12 file with a password"},
		"more iterations than a profile": {slow, "it asks for 10001 iterations, accepted are 1 to 10000"},
		"more than a Secret can hold":    {make([]byte, maxKeystoreSize+1), "more than the limit of 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, CheckPKCS12(test.data, "password", parts.chain[0]), test.want)
		})
	}
}

func TestCheckPKCS12Truststore(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	valid, err := EncodePKCS12Truststore(Modern2026, "password", parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	keystore, err := EncodePKCS12(Modern2026, "password", parts.key, parts.chain, parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	reversed := slices.Clone(parts.cas)
	slices.Reverse(reversed)
	for name, test := range map[string]struct {
		data     []byte
		password string
		cas      []*x509.Certificate
		want     string
	}{
		"another password": {valid, "passwort", parts.cas, "the password does not open it"},
		"one is missing": {valid, "password", append(slices.Clone(parts.cas), parts.other), "it holds other trusted " +
			"certificates"},
		"one is too many":  {valid, "password", parts.cas[:1], "it holds other trusted certificates"},
		"in another order": {valid, "password", reversed, "it holds other trusted certificates"},
		"a keystore":       {keystore, "password", parts.cas, "it has a private key"},
		"nothing":          {nil, "password", parts.cas, "it is not a PKCS #12 file"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, CheckPKCS12Truststore(test.data, test.password, test.cas), "check PKCS #12 truststore: ", test.want)
		})
	}
}

func TestPKCS12ProfileOfOtherAlgorithms(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	data, err := EncodePKCS12(LegacyDES, "password", parts.key, parts.chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	// 3DES for the certificates becomes RC2, as it would be with a key in RC2, too.
	des, rc2 := []byte{42, 134, 72, 134, 247, 13, 1, 12, 1, 3}, []byte{42, 134, 72, 134, 247, 13, 1, 12, 1, 6}
	_, err = PKCS12ProfileOf(bytes.ReplaceAll(data, des, rc2))
	wantError(t, err, "read PKCS #12 profile: its algorithms are not those of any profile")
	_, err = PKCS12ProfileOf(nil)
	wantError(t, err, "read PKCS #12 profile: it is not a PKCS #12 file")
}

// A second private key among the encrypted certificates can have any number of iterations, and is
// invisible until they are decrypted. The test would not end if the key was decrypted.
func TestCheckPKCS12DoesNotDecryptAHiddenKey(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	valid, err := EncodePKCS12(Modern2023, "password", parts.key, parts.chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	var file pfx
	var content []byte
	var safe []contentInfo
	mustUnmarshal(t, valid, &file)
	mustUnmarshal(t, file.AuthSafe.Content.Bytes, &content)
	mustUnmarshal(t, content, &safe)

	params := mustMarshal(
		t,
		pbkdf2Params{
			Salt:       make([]byte, 8),
			Iterations: math.MaxInt64,
			PRF:        pkix.AlgorithmIdentifier{Algorithm: oidHMACWithSHA256},
		},
	)
	iv := make([]byte, aes.BlockSize)
	pbes2 := mustMarshal(t, pbes2Params{
		KDF: pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: params}},
		Encryption: pkix.AlgorithmIdentifier{
			Algorithm:  oidAES256CBC,
			Parameters: asn1.RawValue{FullBytes: mustMarshal(t, iv)},
		},
	})
	hidden := mustMarshal(t, encryptedKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: asn1.RawValue{FullBytes: pbes2}},
		Data:      make([]byte, aes.BlockSize),
	})
	bags := mustMarshal(t, []struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}{{oidShroudedKeyBag, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: hidden}}})

	// Encrypt the bags as the profile does, in place of the certificates.
	var encrypted encryptedData
	mustUnmarshal(t, safe[0].Content.Bytes, &encrypted)
	encrypted.Info.Content = encryptAES(t, encrypted.Info.Algorithm, "password", bags)
	safe[0] = contentInfo{
		ContentType: oidEncryptedData,
		Content:     asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: mustMarshal(t, encrypted)},
	}
	content = mustMarshal(t, safe)
	mac, err := newMAC(content, "password")
	if err != nil {
		t.Fatal(err)
	}
	file.AuthSafe.Content = asn1.RawValue{
		Class:      asn1.ClassContextSpecific,
		IsCompound: true,
		Bytes:      mustMarshal(t, content),
	}
	file.MacData = *mac

	wantError(t, CheckPKCS12(mustMarshal(t, file), "password", parts.chain[0]), "exactly one key bag")
}

var oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}

func encryptAES(t *testing.T, algorithm pkix.AlgorithmIdentifier, password string, plain []byte) []byte {
	t.Helper()
	var params pbes2Params
	var kdf pbkdf2Params
	mustUnmarshal(t, algorithm.Parameters.FullBytes, &params)
	mustUnmarshal(t, params.KDF.Parameters.FullBytes, &kdf)
	key, err := pbkdf2.Key(sha256.New, password, kdf.Salt, kdf.Iterations, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	padding := aes.BlockSize - len(plain)%aes.BlockSize
	padded := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, params.Encryption.Parameters.Bytes).CryptBlocks(padded, padded)
	return padded
}

func mustMarshal(t *testing.T, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func mustUnmarshal(t *testing.T, der []byte, value any) {
	t.Helper()
	if err := unmarshalAll(der, value); err != nil {
		t.Fatal(err)
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	const secret = "s3cr3t-password"
	parts := newStoreParts(t, ecKey())
	jks, err := EncodeJKS(JKSOptions{Password: "x"}, parts.key, parts.chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	p12, err := EncodePKCS12("", "x", parts.key, parts.chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, encodeErr := EncodePKCS12("", secret+"😀", parts.key, parts.chain, nil)
	for _, err := range []error{
		CheckJKS(jks, JKSOptions{Password: secret}, parts.chain[0]), CheckPKCS12(p12, secret, parts.chain[0]),
		encodeErr,
	} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("the error is %v", err)
		}
	}
}

func FuzzCheckPKCS12(f *testing.F) {
	parts := newStoreParts(f, ecKey())
	for _, profile := range profiles[1:] {
		data, err := EncodePKCS12(profile, "password", parts.key, parts.chain[:1], nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		trust, err := EncodePKCS12Truststore(profile, "password", parts.cas[:1])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(trust)
	}
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		keyErr := CheckPKCS12(data, "password", parts.chain[0])
		trustErr := CheckPKCS12Truststore(data, "password", nil)
		if keyErr == nil && trustErr == nil {
			t.Fatal("a keystore with a key is an empty truststore")
		}
		if p, err := scanPKCS12(data); err == nil && p.key != nil {
			// A new MAC lets the library go on to what the old one does not cover any more.
			if safe, err := p.keyFirst("password"); err == nil {
				_, _, _, _ = pkcs12.DecodeChain(safe, "password")
			}
		}
	})
}
