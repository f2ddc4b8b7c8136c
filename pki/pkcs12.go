package pki

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"
)

// PKCS12Profile is a set of algorithms for writing a PKCS #12 file. Empty means [LegacyRC2].
type PKCS12Profile string

// The profiles of spec.keystores.pkcs12.profile. The first two are too weak to protect the file
// against attacks.
const (
	// LegacyRC2 encrypts certificates with RC2 of 40 bits and the key with 3DES. Every old
	// Java and Windows reads it, OpenSSL 3 only with -legacy.
	LegacyRC2 PKCS12Profile = "LegacyRC2"
	// LegacyDES encrypts all with 3DES. Nearly everything reads it.
	LegacyDES PKCS12Profile = "LegacyDES"
	// Modern2023 encrypts with AES-256-CBC and has a MAC of HMAC-SHA-256. Java 12, OpenSSL 1.1.1 and
	// Windows Server 2019 are the first versions that read it.
	Modern2023 PKCS12Profile = "Modern2023"
	// Modern2026 is Modern2023 with a MAC of PBMAC1 (RFC 9579). OpenSSL 3.4 and Java 26 are the first
	// versions that read it.
	Modern2026 PKCS12Profile = "Modern2026"
)

func (p PKCS12Profile) encoder() (*pkcs12.Encoder, error) {
	switch p {
	case "", LegacyRC2:
		return pkcs12.LegacyRC2, nil
	case LegacyDES:
		return pkcs12.LegacyDES, nil
	case Modern2023:
		return pkcs12.Modern2023, nil
	case Modern2026:
		return pkcs12.Modern2026, nil
	}
	return nil, fmt.Errorf(
		"spec.keystores.pkcs12.profile: %q is not known, choose LegacyRC2, LegacyDES, Modern2023 or Modern2026",
		p,
	)
}

// EncodePKCS12 writes a PKCS #12 file with key, its chain, leaf first, and after it cas. It fails
// for a password with characters above U+FFFF, which the format cannot represent.
func EncodePKCS12(
	profile PKCS12Profile,
	password string,
	key crypto.Signer,
	chain, cas []*x509.Certificate,
) ([]byte, error) {
	data, err := encodePKCS12(profile, password, key, chain, cas)
	if err != nil {
		return nil, fmt.Errorf("encode PKCS #12 keystore: %w", err)
	}
	return data, nil
}

func encodePKCS12(
	profile PKCS12Profile,
	password string,
	key crypto.Signer,
	chain, cas []*x509.Certificate,
) ([]byte, error) {
	encoder, err := profile.encoder()
	if err != nil {
		return nil, err
	}
	if err := checkPKCS12Password(password); err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errNoChain
	}
	others := make([]*x509.Certificate, 0, len(chain)-1+len(cas))
	others = append(append(others, chain[1:]...), cas...)
	return encoder.Encode(key, chain[0], others, password)
}

// EncodePKCS12Truststore writes a PKCS #12 file that Java accepts as a truststore of cas.
func EncodePKCS12Truststore(profile PKCS12Profile, password string, cas []*x509.Certificate) ([]byte, error) {
	data, err := encodePKCS12Truststore(profile, password, cas)
	if err != nil {
		return nil, fmt.Errorf("encode PKCS #12 truststore: %w", err)
	}
	return data, nil
}

func encodePKCS12Truststore(profile PKCS12Profile, password string, cas []*x509.Certificate) ([]byte, error) {
	encoder, err := profile.encoder()
	if err != nil {
		return nil, err
	}
	if err := checkPKCS12Password(password); err != nil {
		return nil, err
	}
	return encoder.EncodeTrustStoreEntries(trustEntries(cas), password)
}

// trustEntries names each certificate by its subject. If that name is already used, empty or cannot
// be encoded, it uses the fingerprint. Java reads two entries of the same name as one, and during
// the replacement of a CA the old and the new often have the same subject.
func trustEntries(cas []*x509.Certificate) []pkcs12.TrustStoreEntry {
	entries := make([]pkcs12.TrustStoreEntry, len(cas))
	taken := make(map[string]bool, len(cas))
	for i, ca := range cas {
		name := ca.Subject.String()
		if name == "" || taken[name] || !encodesInUCS2(name) {
			name = Fingerprint(ca)
		}
		taken[name] = true
		entries[i] = pkcs12.TrustStoreEntry{Cert: ca, FriendlyName: name}
	}
	return entries
}

// PasswordError means that programs could not open a keystore with the password. Its text never
// contains the password.
type PasswordError struct{ text string }

func (e *PasswordError) Error() string { return "the password " + e.text }

// JavaTakesPKCS12Password reports whether Java opens PKCS #12 with the password: Java accepts only
// printable ASCII there (com.sun.crypto.provider.PBEKey). For JKS it accepts all characters.
func JavaTakesPKCS12Password(password string) bool {
	return !strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' })
}

func checkPKCS12Password(password string) error {
	if !utf8.ValidString(password) || !encodesInUCS2(password) || strings.Contains(password, "\x00") {
		return &PasswordError{"has characters that PKCS #12 cannot carry: use printable ASCII"}
	}
	return nil
}

func encodesInUCS2(s string) bool {
	for _, r := range s {
		if utf16.RuneLen(r) != 1 {
			return false
		}
	}
	return true
}

// CheckPKCS12 says why data is not a PKCS #12 file that password opens and that holds leaf as its
// first certificate and its private key. It returns nil if data is such a file. It supports only
// files with the structure that go-pkcs12, and therefore cert-manager, writes.
func CheckPKCS12(data []byte, password string, leaf *x509.Certificate) error {
	if err := checkPKCS12(data, password, leaf); err != nil {
		return fmt.Errorf("check PKCS #12 keystore: %w", err)
	}
	return nil
}

func checkPKCS12(data []byte, password string, leaf *x509.Certificate) error {
	p, err := scanPKCS12(data)
	if err != nil {
		return err
	}
	if p.key == nil {
		return errors.New("it has no private key")
	}
	if err := p.checkMAC(data, password); err != nil {
		return err
	}
	safe, err := p.keyFirst(password)
	if err != nil {
		return err
	}
	key, cert, _, err := pkcs12.DecodeChain(safe, password)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if !bytes.Equal(cert.Raw, leaf.Raw) {
		return errOtherLeaf
	}
	return checkKeyOf(key, leaf)
}

// CheckPKCS12Truststore says why data is not a PKCS #12 file that password opens and that holds
// cas, in this order, as trusted certificates.
func CheckPKCS12Truststore(data []byte, password string, cas []*x509.Certificate) error {
	if err := checkPKCS12Truststore(data, password, cas); err != nil {
		return fmt.Errorf("check PKCS #12 truststore: %w", err)
	}
	return nil
}

func checkPKCS12Truststore(data []byte, password string, cas []*x509.Certificate) error {
	p, err := scanPKCS12(data)
	if err != nil {
		return err
	}
	if p.key != nil {
		return errors.New("it has a private key")
	}
	certs, err := pkcs12.DecodeTrustStore(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return errNoPassword
	case err != nil:
		return fmt.Errorf("decode: %w", err)
	case len(certs) != len(cas):
		return errOtherTrust
	}
	for i := range certs {
		if !bytes.Equal(certs[i].Raw, cas[i].Raw) {
			return errOtherTrust
		}
	}
	return nil
}

// PKCS12ProfileOf returns the profile that data, a keystore or a truststore, was written with. It
// needs no password.
func PKCS12ProfileOf(data []byte) (PKCS12Profile, error) {
	p, err := scanPKCS12(data)
	if err != nil {
		return "", fmt.Errorf("read PKCS #12 profile: %w", err)
	}
	for _, known := range []struct {
		profile         PKCS12Profile
		mac, certs, key asn1.ObjectIdentifier
	}{
		{LegacyRC2, oidSHA1, oidPBEWithSHAAnd40BitRC2, oidPBEWithSHAAnd3DES},
		{LegacyDES, oidSHA1, oidPBEWithSHAAnd3DES, oidPBEWithSHAAnd3DES},
		{Modern2023, oidSHA256, oidPBES2, oidPBES2},
		{Modern2026, oidPBMAC1, oidPBES2, oidPBES2},
	} {
		if p.mac.Equal(known.mac) && p.encryption.Equal(known.certs) && (p.key == nil || p.keyEncryption.Equal(known.key)) {
			return known.profile, nil
		}
	}
	return "", errors.New("read PKCS #12 profile: its algorithms are not those of any profile")
}

// The OIDs of PKCS #12 files (RFC 7292, RFC 8018, RFC 9579) with algorithms of the profiles.
var (
	oidData                  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidShroudedKeyBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBEWithSHAAnd3DES     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	oidPBEWithSHAAnd40BitRC2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 6}
	oidPBES2                 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2                = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidPBMAC1                = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidHMACWithSHA256        = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidSHA1                  = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256                = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// maxIterations limits the work that a file can cause when it is read. The profiles have 2048 at
// most.
const maxIterations = 10000

// The structures of RFC 7292 section 4 that can be read without the password.
type (
	pfx struct {
		Version  int
		AuthSafe contentInfo
		MacData  macData
	}
	contentInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue `asn1:"tag:0,explicit"`
	}
	macData struct {
		Mac        digestInfo
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	encryptedData struct {
		Version int
		Info    struct {
			ContentType asn1.ObjectIdentifier
			Algorithm   pkix.AlgorithmIdentifier
			Content     []byte `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"set,optional"`
	}
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbeParams struct {
		Salt       []byte
		Iterations int
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier
	}
	pbes2Params struct {
		KDF        pkix.AlgorithmIdentifier
		Encryption pkix.AlgorithmIdentifier
	}
	pbmac1Params struct {
		KDF pkix.AlgorithmIdentifier
		MAC pkix.AlgorithmIdentifier
	}
)

// scannedPKCS12 is a file whose unencrypted parts match one of the profiles.
type scannedPKCS12 struct {
	mac, encryption, keyEncryption asn1.ObjectIdentifier
	certs                          contentInfo  // encrypted
	key                            *contentInfo // unencrypted, has one encrypted key; nil in a truststore
}

// scanPKCS12 reads the unencrypted parts of a file, and reports whether decoding it takes
// reasonable time: with a large iteration count, a file could keep a core busy for years.
func scanPKCS12(data []byte) (*scannedPKCS12, error) {
	if err := checkSize(data, maxKeystoreSize); err != nil {
		return nil, err
	}
	var file pfx
	if unmarshalAll(data, &file) != nil || file.Version != 3 || !file.AuthSafe.ContentType.Equal(oidData) {
		return nil, errors.New("it is not a PKCS #12 file with a password")
	}
	p := &scannedPKCS12{mac: file.MacData.Mac.Algorithm.Algorithm}
	if err := scanMAC(file.MacData); err != nil {
		return nil, err
	}
	var content []byte
	var parts []contentInfo
	if unmarshalAll(file.AuthSafe.Content.Bytes, &content) != nil || unmarshalAll(content, &parts) != nil {
		return nil, errMalformed
	}
	switch len(parts) {
	case 2:
		p.certs, p.key = parts[0], &parts[1]
	case 1:
		p.certs = parts[0]
	default:
		return nil, fmt.Errorf("it has %d parts, where a keystore has two and a truststore one", len(parts))
	}
	var encrypted encryptedData
	if !p.certs.ContentType.Equal(oidEncryptedData) || unmarshalAll(p.certs.Content.Bytes, &encrypted) != nil {
		return nil, errors.New("its certificates are not encrypted with the password")
	}
	p.encryption = encrypted.Info.Algorithm.Algorithm
	if err := scanEncryption(encrypted.Info.Algorithm); err != nil {
		return nil, err
	}
	if p.key == nil {
		return p, nil
	}
	var bags []safeBag
	var key encryptedKey
	if !p.key.ContentType.Equal(oidData) || unmarshalAll(p.key.Content.Bytes, &content) != nil ||
		unmarshalAll(content, &bags) != nil ||
		len(bags) != 1 ||
		!bags[0].ID.Equal(oidShroudedKeyBag) ||
		unmarshalAll(bags[0].Value.Bytes, &key) != nil {
		return nil, errors.New("its second part is not one private key, encrypted with the password")
	}
	p.keyEncryption = key.Algorithm.Algorithm
	return p, scanEncryption(key.Algorithm)
}

func unmarshalAll(der []byte, value any) error {
	rest, err := asn1.Unmarshal(der, value)
	if err == nil && len(rest) != 0 {
		err = errMalformed
	}
	return err
}

func scanMAC(mac macData) error {
	algorithm := mac.Mac.Algorithm
	switch {
	case algorithm.Algorithm.Equal(oidSHA1), algorithm.Algorithm.Equal(oidSHA256):
		return checkIterations(mac.Iterations)
	case algorithm.Algorithm.Equal(oidPBMAC1):
		var params pbmac1Params
		if unmarshalAll(algorithm.Parameters.FullBytes, &params) != nil || !params.MAC.Algorithm.Equal(oidHMACWithSHA256) {
			return errors.New("the algorithm of its MAC is not that of any profile")
		}
		return scanPBKDF2(params.KDF)
	}
	return errors.New("the algorithm of its MAC is not that of any profile")
}

func scanEncryption(algorithm pkix.AlgorithmIdentifier) error {
	switch {
	case algorithm.Algorithm.Equal(oidPBEWithSHAAnd3DES), algorithm.Algorithm.Equal(oidPBEWithSHAAnd40BitRC2):
		var params pbeParams
		if unmarshalAll(algorithm.Parameters.FullBytes, &params) != nil {
			return errMalformed
		}
		return checkIterations(params.Iterations)
	case algorithm.Algorithm.Equal(oidPBES2):
		var params pbes2Params
		if unmarshalAll(algorithm.Parameters.FullBytes, &params) != nil {
			return errMalformed
		}
		return scanPBKDF2(params.KDF)
	}
	return errors.New("its encryption is not that of any profile")
}

func scanPBKDF2(kdf pkix.AlgorithmIdentifier) error {
	var params pbkdf2Params
	if !kdf.Algorithm.Equal(oidPBKDF2) || unmarshalAll(kdf.Parameters.FullBytes, &params) != nil ||
		!params.PRF.Algorithm.Equal(oidHMACWithSHA256) {
		return errors.New("its key derivation is not that of any profile")
	}
	return checkIterations(params.Iterations)
}

func checkIterations(n int) error {
	if n < 1 || n > maxIterations {
		return fmt.Errorf("it asks for %d iterations, accepted are 1 to %d", n, maxIterations)
	}
	return nil
}

// checkMAC says whether data, a keystore, was written with password and not changed since.
//
// The library first verifies the MAC, and then refuses a file with two parts as a truststore. That
// error therefore shows that the MAC is right and that nothing was decrypted.
func (p *scannedPKCS12) checkMAC(data []byte, password string) error {
	_, err := pkcs12.DecodeTrustStore(data, password)
	var twoParts pkcs12.NotImplementedError
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return errNoPassword
	case errors.As(err, &twoParts):
		return nil
	case err != nil:
		return fmt.Errorf("verify its MAC: %w", err)
	}
	return errMalformed
}

// keyFirst returns the file with its parts in the opposite order and a new MAC.
//
// The encrypted certificates can include another private key, with any number of iterations. The
// library refuses a file with a second private key, but only after it decrypts the first one. In
// this order, the first key is the one whose iterations scanPKCS12 checked.
func (p *scannedPKCS12) keyFirst(password string) ([]byte, error) {
	content, err := asn1.Marshal([]contentInfo{*p.key, p.certs})
	if err != nil {
		return nil, err
	}
	mac, err := newMAC(content, password)
	if err != nil {
		return nil, err
	}
	octets, err := asn1.Marshal(content)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(pfx{
		Version: 3,
		AuthSafe: contentInfo{
			ContentType: oidData,
			Content:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets},
		},
		MacData: *mac,
	})
}

// newMAC creates a MAC that is cheap to verify, of the type PBMAC1, which needs no code of our own.
// It need not be secure, because the file never leaves the process.
func newMAC(content []byte, password string) (*macData, error) {
	const iterations, keyLength = 1, sha256.Size
	salt := make([]byte, 8)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, keyLength)
	if err != nil {
		return nil, err
	}
	hash := hmac.New(sha256.New, key)
	hash.Write(content)

	prf := pkix.AlgorithmIdentifier{Algorithm: oidHMACWithSHA256}
	kdf, err := asn1.Marshal(pbkdf2Params{Salt: salt, Iterations: iterations, KeyLength: keyLength, PRF: prf})
	if err != nil {
		return nil, err
	}
	params, err := asn1.Marshal(pbmac1Params{
		KDF: pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: kdf}},
		MAC: prf,
	})
	if err != nil {
		return nil, err
	}
	return &macData{
		Mac: digestInfo{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: asn1.RawValue{FullBytes: params}},
			Digest:    hash.Sum(nil),
		},
		Iterations: 1,
	}, nil
}
