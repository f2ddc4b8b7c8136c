package pki

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
)

func TestJKSComesBack(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey(), "ECDSA": ecKey(), "Ed25519": edKey()} {
		for _, alias := range []string{"", "Server", "ca", "CA-1"} {
			t.Run(name+" "+alias, func(t *testing.T) {
				checkJKSRoundTrip(t, key, alias)
			})
		}
	}
}

// checkJKSRoundTrip expects that a keystore has the key and the certificates that it was made of.
func checkJKSRoundTrip(t *testing.T, key crypto.Signer, alias string) {
	parts := newStoreParts(t, key)
	o := JKSOptions{Password: "password", Alias: alias}
	data, err := EncodeJKS(o, key, parts.chain, parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	store := keystore.New()
	if err := store.Load(bytes.NewReader(data), []byte(o.Password)); err != nil {
		t.Fatal(err)
	}
	if n := len(store.Aliases()); n != 3 {
		t.Errorf("it has %v, not a key and two trusted certificates", store.Aliases())
	}
	if alias == "" {
		alias = "certificate"
	}
	entry, err := store.GetPrivateKeyEntry(alias, []byte(o.Password))
	if err != nil {
		t.Fatal(err)
	}
	got, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil || !SamePublicKey(got.(crypto.Signer).Public(), key.Public()) {
		t.Errorf("it has another key: %v", err)
	}
	if len(entry.CertificateChain) != 2 || !entry.CreationTime.Equal(testStart) {
		t.Errorf("its chain has %d certificates, its time is %s", len(entry.CertificateChain), entry.CreationTime)
	}
	if err := CheckJKS(data, o, parts.chain[0]); err != nil {
		t.Error(err)
	}
}

func TestCheckJKS(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	stranger := newStoreParts(t, edKey())
	o := JKSOptions{Password: "password", Alias: "server"}
	encode := func(key crypto.Signer, chain []*x509.Certificate) []byte {
		t.Helper()
		data, err := EncodeJKS(o, key, chain, parts.cas)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	valid := encode(parts.key, parts.chain)
	changed := bytes.Clone(valid)
	changed[len(changed)/2] ^= 1
	keyFirst := encode(parts.key, parts.chain[:1])
	// The length of the encrypted key comes after magic, version, count, tag, alias and time.
	// Aliases are sorted, so the two trusted certificates come before.
	at := bytes.LastIndex(keyFirst, []byte("server")) + len("server") + 8
	withLength := func(n uint32) []byte {
		data := bytes.Clone(keyFirst)
		binary.BigEndian.PutUint32(data[at:], n)
		return data
	}
	withCount := func(n uint32) []byte {
		data := bytes.Clone(keyFirst)
		length := binary.BigEndian.Uint32(data[at:])
		binary.BigEndian.PutUint32(data[at+4+int(length):], n)
		return data
	}
	short := slices.Concat(
		keyFirst[:at],
		[]byte{0, 0, 0, 9, 0x30, 7, 0x30, 3, 6, 1, 42, 4, 0},
		keyFirst[len(keyFirst)-24:],
	)

	for name, test := range map[string]struct {
		data []byte
		o    JKSOptions
		leaf *x509.Certificate
		want string
	}{
		"the same":                  {valid, o, parts.chain[0], ""},
		"the alias in another case": {valid, JKSOptions{"password", "SERVER"}, parts.chain[0], ""},
		"another password": {valid, JKSOptions{"passwort", "server"}, parts.chain[0], "the password does " +
			"not open it"},
		"another alias":     {valid, JKSOptions{"password", "client"}, parts.chain[0], `it has no private key under the alias "client"`},
		"the alias of a CA": {valid, JKSOptions{"password", "ca"}, parts.chain[0], `it has no private key under the alias "ca"`},
		"another leaf":      {valid, o, parts.other, "it holds another certificate"},
		"a key of somebody else": {encode(stranger.key, parts.chain), o, parts.chain[0], "its private key does " +
			"not belong to the certificate"},
		"a bit changed":                 {changed, o, parts.chain[0], "check JKS keystore: "},
		"cut off":                       {valid[:len(valid)-1], o, parts.chain[0], "it is malformed"},
		"something after it":            {append(bytes.Clone(valid), 0), o, parts.chain[0], "it is malformed"},
		"nothing":                       {nil, o, parts.chain[0], "it is not a JKS keystore"},
		"a version of the future":       {[]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 3}, o, parts.chain[0], "the unknown version 3"},
		"a key of 4 GiB":                {withLength(math.MaxUint32), o, parts.chain[0], "it is malformed"},
		"four billion certificates":     {withCount(math.MaxUint32), o, parts.chain[0], "it is malformed"},
		"a key shorter than its digest": {short, o, parts.chain[0], "it is malformed"},
		"more than a Secret can hold": {make([]byte, maxKeystoreSize+1), o, parts.chain[0], "more than the limit of " +
			"1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckJKS(test.data, test.o, test.leaf)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "check JKS keystore: ", test.want)
		})
	}
	for name, test := range map[string]struct {
		key   crypto.Signer
		chain []*x509.Certificate
		want  string
	}{
		"no chain":                   {parts.key, nil, "there is no certificate for the key"},
		"a key that has no encoding": {foreignSigner{}, parts.chain, "encode JKS keystore: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := EncodeJKS(o, test.key, test.chain, nil)
			wantError(t, err, test.want)
		})
	}
}

func TestJKSTruststore(t *testing.T) {
	parts := newStoreParts(t, ecKey())
	o := JKSOptions{Password: "password", Alias: "ca"} // of the key, so it does not matter
	valid, err := EncodeJKSTruststore(o, parts.cas)
	if err != nil {
		t.Fatal(err)
	}
	withKey, err := EncodeJKS(o, parts.key, parts.chain, parts.cas[:1])
	if err != nil {
		t.Fatal(err)
	}
	store := keystore.New()
	if err := store.Load(bytes.NewReader(valid), []byte("password")); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(store.Aliases())); !slices.Equal(got, []string{"ca", "ca-1"}) {
		t.Errorf("the aliases are %v", got)
	}
	for name, test := range map[string]struct {
		data     []byte
		password string
		cas      []*x509.Certificate
		want     string
	}{
		"the same":         {valid, "password", parts.cas, ""},
		"another password": {valid, "passwort", parts.cas, "the password does not open it"},
		"one is missing": {valid, "password", append(slices.Clone(parts.cas), parts.other), "it holds other trusted " +
			"certificates"},
		"one is too many": {valid, "password", parts.cas[:1], "it holds other trusted certificates"},
		"another one": {valid, "password", []*x509.Certificate{parts.cas[0], parts.other}, "it holds other trusted " +
			"certificates"},
		"a keystore": {withKey, "password", parts.cas, "it holds other trusted certificates"},
		"nothing":    {nil, "password", parts.cas, "it is not a JKS keystore"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckJKSTruststore(test.data, JKSOptions{Password: test.password}, test.cas)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "check JKS truststore: ", test.want)
		})
	}
}

func FuzzCheckJKS(f *testing.F) {
	parts := newStoreParts(f, ecKey())
	data, err := EncodeJKS(JKSOptions{Password: "password"}, parts.key, parts.chain, parts.cas)
	if err != nil {
		f.Fatal(err)
	}
	if !bytes.Equal(withJKSDigest(data, "password"), data) {
		f.Fatal("withJKSDigest does not make the digest of the format")
	}
	f.Add(data)
	trust, err := EncodeJKSTruststore(JKSOptions{Password: "password"}, parts.cas)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(trust)
	f.Add([]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		o := JKSOptions{Password: "password"}
		if _, err := readJKS(data); err == nil {
			// The entries are parsed only if the digest at the end is correct.
			data = withJKSDigest(data, o.Password)
		}
		if CheckJKS(data, o, parts.chain[0]) == nil && CheckJKSTruststore(data, o, nil) == nil {
			t.Fatal("a keystore with a key is an empty truststore")
		}
	})
}

// withJKSDigest replaces the digest at the end by the one that fits: SHA-1 over the password in
// UTF-16, a phrase, and the content.
func withJKSDigest(data []byte, password string) []byte {
	content := data[:len(data)-jksDigestSize]
	hash := sha1.New()
	for _, c := range []byte(password) {
		hash.Write([]byte{0, c})
	}
	hash.Write([]byte("Mighty Aphrodite"))
	hash.Write(content)
	return hash.Sum(bytes.Clone(content))
}
