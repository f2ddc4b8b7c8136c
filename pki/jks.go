package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultJKSAlias is the default alias of a private key.
const DefaultJKSAlias = "certificate"

// maxKeystoreSize is the maximum size of a Kubernetes Secret, in bytes.
const maxKeystoreSize = 1 << 20

// JKSOptions are the settings for writing and reading a Java keystore.
type JKSOptions struct {
	// Password protects the integrity of the store and the private key.
	Password string
	// Alias of the private key; empty means [DefaultJKSAlias]. Java keeps it in lower case.
	Alias string
}

func (o JKSOptions) alias() string {
	return strings.ToLower(cmp.Or(o.Alias, DefaultJKSAlias))
}

// trustAliases returns the aliases of n trusted certificates: ca, ca-1, ca-2 and so on, as
// cert-manager names them. None is the alias of the private key, because it would replace that
// entry.
func trustAliases(n int, keyAlias string) []string {
	aliases := make([]string, n)
	for i := range aliases {
		aliases[i] = "ca"
		if i > 0 {
			aliases[i] = fmt.Sprintf("ca-%d", i)
		}
		if strings.EqualFold(aliases[i], keyAlias) {
			aliases[i] += "-trusted"
		}
	}
	return aliases
}

// EncodeJKS writes a Java keystore with key and its chain, leaf first, under o.Alias, and cas as
// trusted certificates. The creation time of an entry is that of its certificate.
func EncodeJKS(o JKSOptions, key crypto.Signer, chain, cas []*x509.Certificate) ([]byte, error) {
	data, err := encodeJKS(o, key, chain, cas)
	if err != nil {
		return nil, fmt.Errorf("encode JKS keystore: %w", err)
	}
	return data, nil
}

func encodeJKS(o JKSOptions, key crypto.Signer, chain, cas []*x509.Certificate) ([]byte, error) {
	if len(chain) == 0 {
		return nil, errNoChain
	}
	password, err := jksPassword(o.Password)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	entry := jksEntry{alias: o.alias(), made: chain[0].NotBefore}
	if entry.key, err = protectJKSKey(password, der); err != nil {
		return nil, err
	}
	for _, cert := range chain {
		entry.certs = append(entry.certs, cert.Raw)
	}
	return writeJKS(append(trustedJKS(o.alias(), cas), entry), password)
}

// EncodeJKSTruststore writes a Java keystore that has cas as trusted certificates and no key. It
// ignores o.Alias.
func EncodeJKSTruststore(o JKSOptions, cas []*x509.Certificate) ([]byte, error) {
	password, err := jksPassword(o.Password)
	if err == nil {
		var data []byte
		if data, err = writeJKS(trustedJKS("", cas), password); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("encode JKS truststore: %w", err)
}

func trustedJKS(keyAlias string, cas []*x509.Certificate) []jksEntry {
	var entries []jksEntry
	for i, alias := range trustAliases(len(cas), keyAlias) {
		entries = append(entries, jksEntry{alias: alias, made: cas[i].NotBefore, certs: [][]byte{cas[i].Raw}})
	}
	return entries
}

var (
	errNoChain     = errors.New("there is no certificate for the key")
	errOtherLeaf   = errors.New("it holds another certificate")
	errOtherKey    = errors.New("its private key does not belong to the certificate")
	errOtherTrust  = errors.New("it holds other trusted certificates")
	errNoPassword  = errors.New("the password does not open it")
	errMalformed   = errors.New("it is malformed")
	errNoSuchAlias = errors.New("it has no private key under the alias")
)

// CheckJKS says why data is not a Java keystore that o opens and that holds, under o.Alias, leaf
// and its private key. It returns nil if data is such a keystore, whichever program wrote it.
func CheckJKS(data []byte, o JKSOptions, leaf *x509.Certificate) error {
	if err := checkJKS(data, o, leaf); err != nil {
		return fmt.Errorf("check JKS keystore: %w", err)
	}
	return nil
}

func checkJKS(data []byte, o JKSOptions, leaf *x509.Certificate) error {
	entries, password, err := openJKS(data, o)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(entries, func(e jksEntry) bool { return e.alias == o.alias() && e.key != nil })
	if i < 0 {
		return fmt.Errorf("%w %q", errNoSuchAlias, o.alias())
	}
	der, err := unprotectJKSKey(password, entries[i].key)
	if err != nil {
		return err
	}
	if len(entries[i].certs) == 0 || !bytes.Equal(entries[i].certs[0], leaf.Raw) {
		return errOtherLeaf
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return errMalformed
	}
	return checkKeyOf(key, leaf)
}

func checkKeyOf(key any, leaf *x509.Certificate) error {
	signer, ok := key.(crypto.Signer)
	if !ok || !SamePublicKey(signer.Public(), leaf.PublicKey) {
		return errOtherKey
	}
	return nil
}

// CheckJKSTruststore says why data is not a Java keystore that o opens and whose trusted
// certificates are cas, in this order.
func CheckJKSTruststore(data []byte, o JKSOptions, cas []*x509.Certificate) error {
	if err := checkJKSTruststore(data, o, cas); err != nil {
		return fmt.Errorf("check JKS truststore: %w", err)
	}
	return nil
}

func checkJKSTruststore(data []byte, o JKSOptions, cas []*x509.Certificate) error {
	entries, _, err := openJKS(data, o)
	if err != nil {
		return err
	}
	if len(entries) != len(cas) {
		return errOtherTrust
	}
	for i, alias := range trustAliases(len(cas), "") {
		n := slices.IndexFunc(entries, func(e jksEntry) bool { return e.alias == alias && e.key == nil })
		if n < 0 || !bytes.Equal(entries[n].certs[0], cas[i].Raw) {
			return errOtherTrust
		}
	}
	return nil
}

// openJKS reads a keystore and checks its digest with the password.
func openJKS(data []byte, o JKSOptions) (entries []jksEntry, password []byte, err error) {
	if password, err = jksPassword(o.Password); err != nil {
		return nil, nil, err
	}
	if entries, err = readJKS(data); err != nil {
		return nil, nil, err
	}
	content, digest := data[:len(data)-jksDigestSize], data[len(data)-jksDigestSize:]
	if !bytes.Equal(jksDigest(password, content), digest) {
		return nil, nil, errNoPassword
	}
	return entries, password, nil
}
