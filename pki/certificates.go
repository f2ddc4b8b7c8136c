package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// DecodeCertificatePEM reads the first certificate in data and ignores what follows it. The
// certificate may take [MaxCertificateSize] bytes and data, which may be a chain,
// [MaxChainSize].
func DecodeCertificatePEM(data []byte) (*x509.Certificate, error) {
	return Limits{}.DecodeCertificatePEM(data)
}

// DecodeCertificatePEM is like the package function, with the limits l.Certificate and l.Chain.
func (l Limits) DecodeCertificatePEM(data []byte) (*x509.Certificate, error) {
	cert, err := l.decodeCertificatePEM(data)
	if err != nil {
		return nil, fmt.Errorf("decode certificate: %w", err)
	}
	return cert, nil
}

func (l Limits) decodeCertificatePEM(data []byte) (*x509.Certificate, error) {
	if err := checkSize(data, max(l.certificate(), l.chain())); err != nil {
		return nil, err
	}
	block, size, err := firstPEM(data)
	if err != nil {
		return nil, err
	}
	if err := checkSize(data[:size], l.certificate()); err != nil {
		return nil, err
	}
	return parseCertificateBlock(block)
}

// DecodeChainPEM reads all certificates in data, at least one, in their order in data. Input of
// more than [MaxChainSize] bytes is refused.
func DecodeChainPEM(data []byte) ([]*x509.Certificate, error) { return Limits{}.DecodeChainPEM(data) }

// DecodeChainPEM is like the package function, with the limit l.Chain.
func (l Limits) DecodeChainPEM(data []byte) ([]*x509.Certificate, error) {
	certs, err := decodeCertificates(data, l.chain())
	if err != nil {
		return nil, fmt.Errorf("decode certificate chain: %w", err)
	}
	return certs, nil
}

// DecodeBundlePEM is [DecodeChainPEM] for a set of trusted certificates, of up to
// [MaxBundleSize] bytes.
func DecodeBundlePEM(data []byte) ([]*x509.Certificate, error) { return Limits{}.DecodeBundlePEM(data) }

// DecodeBundlePEM is like the package function, with the limit l.Bundle.
func (l Limits) DecodeBundlePEM(data []byte) ([]*x509.Certificate, error) {
	certs, err := decodeCertificates(data, l.bundle())
	if err != nil {
		return nil, fmt.Errorf("decode certificate bundle: %w", err)
	}
	return certs, nil
}

func decodeCertificates(data []byte, limit int) ([]*x509.Certificate, error) {
	if err := checkSize(data, limit); err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for r := newPEMReader(data); ; {
		block, err := r.next()
		switch {
		case err != nil:
			return nil, err
		case block == nil && certs == nil:
			return nil, notPEM(data)
		case block == nil:
			return certs, nil
		}
		cert, err := parseCertificateBlock(block)
		if err != nil {
			return nil, r.errorf("%w", err)
		}
		certs = append(certs, cert)
	}
}

// ReadableCertificates returns the certificates in data that can be parsed, for callers that
// rewrite a damaged bundle and keep its valid part. It returns none for input of more than l.Bundle
// bytes.
func (l Limits) ReadableCertificates(data []byte) []*x509.Certificate {
	if checkSize(data, l.bundle()) != nil {
		return nil
	}
	var certs []*x509.Certificate
	for r := newPEMReader(data); len(r.rest) > 0; {
		block, err := r.next()
		if err != nil || block == nil {
			continue
		}
		if cert, err := parseCertificateBlock(block); err == nil {
			certs = append(certs, cert)
		}
	}
	return certs
}

func parseCertificateBlock(block *pem.Block) (*x509.Certificate, error) {
	if block.Type != labelCertificate && block.Type != labelX509 {
		return nil, fmt.Errorf("it is a %s, not a certificate", quoteLabel(block.Type))
	}
	return x509.ParseCertificate(block.Bytes)
}

// EncodeCertificatePEM writes certs one after another, in the given order.
func EncodeCertificatePEM(certs ...*x509.Certificate) []byte {
	size := 0
	for _, cert := range certs {
		size += pemSize(labelCertificate, len(cert.Raw))
	}
	var buf bytes.Buffer
	buf.Grow(size)
	for _, cert := range certs {
		// Encoding a block without headers into memory cannot fail.
		_ = pem.Encode(&buf, &pem.Block{Type: labelCertificate, Bytes: cert.Raw})
	}
	return buf.Bytes()
}

// pemSize is the size of a PEM block with n bytes of content: base64 in lines of 64 and the two
// labels.
func pemSize(label string, n int) int {
	base64 := (n + 2) / 3 * 4
	return base64 + (base64+63)/64 + 2*len(label) + len("-----BEGIN -----\n-----END -----\n")
}

// DecodeCSRPEM reads the first certificate request in data and verifies its signature with its own
// public key. Input of more than [MaxCertificateSize] bytes is refused.
func DecodeCSRPEM(data []byte) (*x509.CertificateRequest, error) { return Limits{}.DecodeCSRPEM(data) }

// DecodeCSRPEM is like the package function, with the limit l.Certificate.
func (l Limits) DecodeCSRPEM(data []byte) (*x509.CertificateRequest, error) {
	csr, err := l.decodeCSRPEM(data)
	if err != nil {
		return nil, fmt.Errorf("decode certificate request: %w", err)
	}
	return csr, nil
}

func (l Limits) decodeCSRPEM(data []byte) (*x509.CertificateRequest, error) {
	if err := checkSize(data, l.certificate()); err != nil {
		return nil, err
	}
	block, _, err := firstPEM(data)
	if err != nil {
		return nil, err
	}
	if block.Type != labelCSR && block.Type != labelNewCSR {
		return nil, fmt.Errorf("the PEM block is a %s, not a certificate request", quoteLabel(block.Type))
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := checkKeySize(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check its signature: %w", err)
	}
	return csr, nil
}

// EncodeCSRPEM writes a request in DER as one PEM block.
func EncodeCSRPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: labelCSR, Bytes: der})
}

// checkKeySize refuses keys that would make the verification of a signature unreasonably slow.
func checkKeySize(pub crypto.PublicKey) error {
	if pub, ok := pub.(*rsa.PublicKey); ok && pub.N.BitLen() > maxRSAVerifySize {
		return fmt.Errorf("its RSA key has %d bits, more than the limit of %d", pub.N.BitLen(), maxRSAVerifySize)
	}
	return nil
}

// Fingerprint is the SHA-256 of the certificate's DER, in 64 lower-case hexadecimal digits.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// SignedBy reports whether leaf was signed with ca's key and names ca as its issuer, and ca may
// sign certificates. It ignores validity periods. It verifies the signature last, because the other
// checks are cheaper.
func SignedBy(leaf, ca *x509.Certificate) bool { return checkSignedBy(leaf, ca) == nil }

var errNotIssuer = errors.New("names another issuer")

func checkSignedBy(leaf, ca *x509.Certificate) error {
	if !bytes.Equal(leaf.RawIssuer, ca.RawSubject) {
		return errNotIssuer
	}
	if len(leaf.AuthorityKeyId) > 0 && len(ca.SubjectKeyId) > 0 && !bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId) {
		return errNotIssuer
	}
	if err := checkKeySize(ca.PublicKey); err != nil {
		return err
	}
	return leaf.CheckSignatureFrom(ca)
}

// isRoot reports whether cert is a CA that signed itself. Trust in a root does not depend on its
// signature, so an insecure algorithm (SHA-1) is accepted there.
func isRoot(cert *x509.Certificate) bool {
	err := checkSignedBy(cert, cert)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure)
}
