package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
)

// DefaultJKSAlias is the alias of a private key for which none is given.
const DefaultJKSAlias = "certificate"

// maxKeystoreSize is what a Kubernetes Secret can hold, in bytes.
const maxKeystoreSize = 1 << 20

// JKSOptions are what a Java keystore is written and read with.
type JKSOptions struct {
	// Password protects the integrity of the store and the private key.
	Password string
	// Alias of the private key; empty means [DefaultJKSAlias]. Java keeps it in lower case.
	Alias string
}

func (o JKSOptions) alias() string {
	if o.Alias == "" {
		return DefaultJKSAlias
	}
	return o.Alias
}

// trustAliases returns the aliases of n trusted certificates: ca, ca-1, ca-2 and so on, as
// cert-manager names them. None is that of the private key, which it would replace.
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
// trusted certificates. The entries are as old as their certificates.
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
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: chain[0].NotBefore, PrivateKey: der}
	for _, cert := range chain {
		entry.CertificateChain = append(entry.CertificateChain, jksCertificate(cert))
	}
	store := keystore.New(keystore.WithOrderedAliases())
	if err := store.SetPrivateKeyEntry(o.alias(), entry, []byte(o.Password)); err != nil {
		return nil, err
	}
	return storeJKS(store, o, o.alias(), cas)
}

// EncodeJKSTruststore writes a Java keystore that has cas as trusted certificates and no key.
// o.Alias is not used.
func EncodeJKSTruststore(o JKSOptions, cas []*x509.Certificate) ([]byte, error) {
	data, err := storeJKS(keystore.New(keystore.WithOrderedAliases()), o, "", cas)
	if err != nil {
		return nil, fmt.Errorf("encode JKS truststore: %w", err)
	}
	return data, nil
}

func storeJKS(store keystore.KeyStore, o JKSOptions, keyAlias string, cas []*x509.Certificate) ([]byte, error) {
	for i, alias := range trustAliases(len(cas), keyAlias) {
		entry := keystore.TrustedCertificateEntry{CreationTime: cas[i].NotBefore, Certificate: jksCertificate(cas[i])}
		if err := store.SetTrustedCertificateEntry(alias, entry); err != nil {
			return nil, err
		}
	}
	var buf bytes.Buffer
	if err := store.Store(&buf, []byte(o.Password)); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// jksCertificate gives the type that cert-manager writes. Java reads "X509" like "X.509".
func jksCertificate(cert *x509.Certificate) keystore.Certificate {
	return keystore.Certificate{Type: "X509", Content: cert.Raw}
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

// CheckJKS says why data is not a Java keystore that o opens and that holds, under o.Alias, leaf and
// its private key. It is nil if it is one, whoever wrote it.
func CheckJKS(data []byte, o JKSOptions, leaf *x509.Certificate) error {
	if err := checkJKS(data, o, leaf); err != nil {
		return fmt.Errorf("check JKS keystore: %w", err)
	}
	return nil
}

func checkJKS(data []byte, o JKSOptions, leaf *x509.Certificate) error {
	store, err := loadJKS(data, o)
	if err != nil {
		return err
	}
	if !store.IsPrivateKeyEntry(o.alias()) {
		return fmt.Errorf("%w %q", errNoSuchAlias, o.alias())
	}
	entry, err := store.GetPrivateKeyEntry(o.alias(), []byte(o.Password))
	if err != nil {
		return errNoPassword
	}
	if len(entry.CertificateChain) == 0 || !bytes.Equal(entry.CertificateChain[0].Content, leaf.Raw) {
		return errOtherLeaf
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
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
	store, err := loadJKS(data, o)
	if err != nil {
		return err
	}
	if len(store.Aliases()) != len(cas) {
		return errOtherTrust
	}
	for i, alias := range trustAliases(len(cas), "") {
		entry, err := store.GetTrustedCertificateEntry(alias)
		if err != nil || !bytes.Equal(entry.Certificate.Content, cas[i].Raw) {
			return errOtherTrust
		}
	}
	return nil
}

func loadJKS(data []byte, o JKSOptions) (keystore.KeyStore, error) {
	if err := scanJKS(data); err != nil {
		return keystore.KeyStore{}, err
	}
	store := keystore.New()
	// After the scan all that is left to go wrong is the digest over password and content.
	if err := store.Load(bytes.NewReader(data), []byte(o.Password)); err != nil {
		return keystore.KeyStore{}, errNoPassword
	}
	return store, nil
}

// The numbers of the format: sun.security.provider.JavaKeyStore.
const (
	jksMagic      = 0xFEEDFEED
	jksVersion1   = 1
	jksVersion2   = 2
	jksPrivateKey = 1
	jksTrusted    = 2
	jksDigestSize = 20
	jksSaltSize   = 20
)

// scanJKS says whether every length in data lies within data. The library allocates what a
// length says, up to 4 GiB, before it reads; and it takes lengths of an encrypted key as given.
func scanJKS(data []byte) error {
	if err := checkSize(data, maxKeystoreSize); err != nil {
		return err
	}
	s := jksScanner{rest: data}
	if s.uint32() != jksMagic {
		return errors.New("it is not a JKS keystore")
	}
	version := s.uint32()
	if version != jksVersion1 && version != jksVersion2 {
		return fmt.Errorf("it is a JKS keystore of the unknown version %d", version)
	}
	for entries := s.uint32(); entries > 0 && !s.failed; entries-- {
		tag := s.uint32()
		s.skip(int(s.uint16())) // alias
		s.skip(8)               // time of creation
		switch tag {
		case jksPrivateKey:
			s.encryptedKey(s.bytes(s.uint32()))
			// A certificate takes four bytes at least, so that more cannot follow.
			n := s.uint32()
			s.failed = s.failed || uint64(n)*4 > uint64(len(s.rest))
			for ; n > 0 && !s.failed; n-- {
				s.certificate(version)
			}
		case jksTrusted:
			s.certificate(version)
		default:
			return errMalformed
		}
	}
	if s.failed || len(s.rest) != jksDigestSize {
		return errMalformed
	}
	return nil
}

// jksScanner reads lengths. After one that exceeds the input it has failed and returns zeros.
type jksScanner struct {
	rest   []byte
	failed bool
}

func (s *jksScanner) bytes(n uint32) []byte {
	if s.failed || uint64(n) > uint64(len(s.rest)) {
		s.failed = true
		return nil
	}
	value := s.rest[:n]
	s.rest = s.rest[n:]
	return value
}

func (s *jksScanner) skip(n int) { s.bytes(uint32(n)) }

func (s *jksScanner) uint16() uint16 {
	if value := s.bytes(2); value != nil {
		return binary.BigEndian.Uint16(value)
	}
	return 0
}

func (s *jksScanner) uint32() uint32 {
	if value := s.bytes(4); value != nil {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

func (s *jksScanner) certificate(version uint32) {
	if version == jksVersion2 {
		s.skip(int(s.uint16())) // type
	}
	s.bytes(s.uint32())
}

// encryptedKey checks that what is encrypted is at least the salt and the digest around the key.
func (s *jksScanner) encryptedKey(der []byte) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) != 0 || len(info.Data) < jksSaltSize+jksDigestSize {
		s.failed = true
	}
}
