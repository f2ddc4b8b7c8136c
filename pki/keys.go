package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// KeyAlgorithm is the algorithm of a private key. Empty means [RSA].
type KeyAlgorithm string

// The algorithms that [KeySpec.Generate] supports.
const (
	RSA     KeyAlgorithm = "RSA"
	ECDSA   KeyAlgorithm = "ECDSA"
	Ed25519 KeyAlgorithm = "Ed25519"
)

// The size limits of generated RSA keys, in bits.
const (
	minRSASize     = 2048
	maxRSASize     = 8192
	defaultRSASize = 2048
)

// maxRSAVerifySize is the largest RSA modulus, in bits, for the verification of signatures. The
// cost grows with the cube of the length: a modulus of the maximum size of a certificate would use
// a core for seconds.
const maxRSAVerifySize = 16384

// KeySpec describes the private key for a certificate. The zero value is RSA with 2048 bits.
type KeySpec struct {
	Algorithm KeyAlgorithm
	// Size is in bits: 2048 to 8192 for RSA (0 means 2048); 256, 384 or 521 for ECDSA (0 means 256).
	// Ignored for Ed25519, which has one size.
	Size int
}

func (s KeySpec) algorithm() KeyAlgorithm {
	if s.Algorithm == "" {
		return RSA
	}
	return s.Algorithm
}

func (s KeySpec) size() int {
	if s.Size != 0 {
		return s.Size
	}
	if s.algorithm() == ECDSA {
		return 256
	}
	return defaultRSASize
}

func (s KeySpec) curve() elliptic.Curve {
	switch s.size() {
	case 256:
		return elliptic.P256()
	case 384:
		return elliptic.P384()
	case 521:
		return elliptic.P521()
	}
	return nil
}

// Validate reports whether a key can be generated for the spec. The error names the invalid field
// of the Certificate and its allowed values.
func (s KeySpec) Validate() error {
	switch s.algorithm() {
	case RSA:
		if n := s.size(); n < minRSASize || n > maxRSASize {
			return fmt.Errorf("spec.privateKey.size: %d is not possible for RSA, choose %d to %d", n, minRSASize, maxRSASize)
		}
	case ECDSA:
		if s.curve() == nil {
			return fmt.Errorf("spec.privateKey.size: %d is not possible for ECDSA, choose 256, 384 or 521", s.Size)
		}
	case Ed25519:
	default:
		return fmt.Errorf("spec.privateKey.algorithm: %q is not known, choose RSA, ECDSA or Ed25519", s.Algorithm)
	}
	return nil
}

// Generate creates a new private key. It fails for a spec that [KeySpec.Validate] refuses.
//
// Generate passes rand to the standard library. Since Go 1.26, the library ignores it and uses the
// system's random source.
func (s KeySpec) Generate(rand io.Reader) (crypto.Signer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var key crypto.Signer
	var err error
	switch s.algorithm() {
	case ECDSA:
		key, err = ecdsa.GenerateKey(s.curve(), rand)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand)
	default:
		key, err = rsa.GenerateKey(rand, s.size())
	}
	if err != nil {
		return nil, fmt.Errorf("generate %s key: %w", s.algorithm(), err)
	}
	return key, nil
}

// Differences returns the fields of a Certificate's spec which pub does not satisfy:
// spec.privateKey.algorithm, or else spec.privateKey.size. It is nil if pub matches the spec.
func (s KeySpec) Differences(pub crypto.PublicKey) []string {
	var algorithm KeyAlgorithm
	var size int
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		algorithm, size = RSA, pub.N.BitLen()
	case *ecdsa.PublicKey:
		algorithm, size = ECDSA, pub.Curve.Params().BitSize
	case ed25519.PublicKey:
		algorithm = Ed25519
	}
	switch {
	case algorithm != s.algorithm():
		return []string{"spec.privateKey.algorithm"}
	case algorithm != Ed25519 && size != s.size():
		return []string{"spec.privateKey.size"}
	}
	return nil
}

// KeyEncoding is the encoding of a private key. Empty means [PKCS1].
type KeyEncoding string

// The encodings that [EncodeKeyPEM] supports.
const (
	// PKCS1 is RFC 8017 for RSA and SEC 1 (RFC 5915) for ECDSA. Ed25519 has no such form
	// and is written as PKCS #8.
	PKCS1 KeyEncoding = "PKCS1"
	// PKCS8 is RFC 5958 for every algorithm.
	PKCS8 KeyEncoding = "PKCS8"
)

// The labels of PEM blocks (RFC 7468, and RFC 5915 and the usage of OpenSSL for the older ones).
const (
	labelPKCS8        = "PRIVATE KEY"
	labelPKCS1        = "RSA PRIVATE KEY"
	labelSEC1         = "EC PRIVATE KEY"
	labelEncrypted    = "ENCRYPTED PRIVATE KEY"
	labelECParameters = "EC PARAMETERS"
	labelCertificate  = "CERTIFICATE"
	labelX509         = "X509 CERTIFICATE"
	labelCSR          = "CERTIFICATE REQUEST"
	labelNewCSR       = "NEW CERTIFICATE REQUEST"
)

// EncodeKeyPEM writes key as one PEM block. Keys are RSA, ECDSA or Ed25519 of the standard
// library; any other fails.
func EncodeKeyPEM(key crypto.Signer, enc KeyEncoding) ([]byte, error) {
	label, der, err := marshalKey(key, enc)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}), nil
}

func marshalKey(key crypto.Signer, enc KeyEncoding) (label string, der []byte, err error) {
	switch enc {
	case "", PKCS1, PKCS8:
	default:
		return "", nil, fmt.Errorf("spec.privateKey.encoding: %q is not known, choose PKCS1 or PKCS8", enc)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if enc != PKCS8 {
			return labelPKCS1, x509.MarshalPKCS1PrivateKey(key), nil
		}
	case *ecdsa.PrivateKey:
		if enc != PKCS8 {
			der, err = x509.MarshalECPrivateKey(key)
			return labelSEC1, der, err
		}
	case ed25519.PrivateKey:
	default:
		return "", nil, fmt.Errorf("keys of type %T cannot be written", key)
	}
	der, err = x509.MarshalPKCS8PrivateKey(key)
	return labelPKCS8, der, err
}

// DecodeKeyPEM reads the first private key in data: PKCS #8, PKCS #1 or SEC 1, not encrypted.
// Input of more than [MaxPrivateKeySize] bytes is refused. Errors never hold any part of data.
func DecodeKeyPEM(data []byte) (crypto.Signer, error) { return Limits{}.DecodeKeyPEM(data) }

// DecodeKeyPEM is like the package function, with the limit l.PrivateKey.
func (l Limits) DecodeKeyPEM(data []byte) (crypto.Signer, error) {
	key, err := l.decodeKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("decode private key: %w", err)
	}
	return key, nil
}

func (l Limits) decodeKeyPEM(data []byte) (crypto.Signer, error) {
	if err := checkSize(data, l.privateKey()); err != nil {
		return nil, err
	}
	r := newPEMReader(data)
	block, err := r.next()
	// `openssl ecparam -genkey` writes the curve in a separate block before the key.
	for err == nil && block != nil && block.Type == labelECParameters {
		block, err = r.next()
	}
	switch {
	case err != nil:
		return nil, err
	case block == nil && r.block > 0:
		return nil, errors.New("it has the parameters of a key, and no key")
	case block == nil:
		return nil, notPEM(data)
	}
	switch block.Type {
	case labelPKCS8:
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			return key, nil
		case ed25519.PrivateKey:
			return key, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign, use RSA, ECDSA or Ed25519", key)
	case labelPKCS1:
		if block.Headers["DEK-Info"] != "" {
			return nil, errKeyEncrypted
		}
		return parsed(x509.ParsePKCS1PrivateKey(block.Bytes))
	case labelSEC1:
		if block.Headers["DEK-Info"] != "" {
			return nil, errKeyEncrypted
		}
		return parsed(x509.ParseECPrivateKey(block.Bytes))
	case labelEncrypted:
		return nil, errKeyEncrypted
	}
	return nil, fmt.Errorf("the PEM block is a %s, not a private key", quoteLabel(block.Type))
}

// parsed prevents that the nil pointer of a failed parse becomes a non-nil interface.
func parsed[K crypto.Signer](key K, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, err
	}
	return key, nil
}

var errKeyEncrypted = errors.New("the key is encrypted, store it without a passphrase")

func checkSize(data []byte, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%d bytes are more than the limit of %d", len(data), limit)
	}
	return nil
}

// quoteLabel quotes the label of a PEM block, which may be as long as the input.
func quoteLabel(label string) string {
	const most = 40
	if len(label) > most {
		label = label[:most] + "..."
	}
	return fmt.Sprintf("%q", label)
}

// SamePublicKey reports whether a and b are the same public key. Keys that cannot be compared, and
// nil, are never the same.
func SamePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && key.Equal(b)
}
