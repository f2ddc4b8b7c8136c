package pki

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
)

// Template holds the fields that a signer adds to those of a CSR.
type Template struct {
	NotBefore, NotAfter time.Time

	// IsCA and Usages override the CSR. A CSR with different values is refused.
	IsCA   bool
	Usages []string // words as in [Request.Usages]

	CRLDistributionPoints  []string // URLs
	OCSPServers            []string // URLs
	IssuingCertificateURLs []string
}

// CheckCSR reports whether csr agrees with isCA and usages, the fields of the object that holds it.
// A CSR need not have either, but those that it has must agree. It also fails for unknown usages
// and invalid extensions. A retry cannot succeed.
func CheckCSR(csr *x509.CertificateRequest, isCA bool, usages []string) error {
	bits, purposes, err := KeyUsages(usages, isCA)
	if err != nil {
		return err
	}
	if ext := findExtension(csr.Extensions, oidBasicConstraints); ext != nil {
		constraints, err := parseBasicConstraints(ext.Value)
		if err != nil {
			return fmt.Errorf("spec.request: %w", err)
		}
		if constraints.IsCA != isCA {
			return fmt.Errorf("spec.request: the CSR says CA %t, but spec.isCA is %t", constraints.IsCA, isCA)
		}
	}
	requested, err := requestedUsages(csr)
	if err != nil {
		return fmt.Errorf("spec.request: %w", err)
	}
	if requested.present && (requested.bits != bits || !samePurposes(requested.purposes, purposes)) {
		return fmt.Errorf(
			"spec.request: the CSR asks for the usages [%s], but spec.usages and spec.isCA stand for [%s]",
			strings.Join(
				FormatUsages(requested.bits, requested.purposes),
				", ",
			),
			strings.Join(FormatUsages(bits, purposes), ", "),
		)
	}
	return nil
}

func samePurposes(a, b []x509.ExtKeyUsage) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// Certificate returns the certificate to sign for csr: the subject exactly as in csr, its
// alternative names and name constraints in canonical form, each once, and the fields of t. It
// leaves out other extensions. It fails like [CheckCSR]; a retry then cannot succeed.
func (t Template) Certificate(csr *x509.CertificateRequest) (*x509.Certificate, error) {
	if err := CheckCSR(csr, t.IsCA, t.Usages); err != nil {
		return nil, err
	}
	bits, purposes, err := KeyUsages(t.Usages, t.IsCA)
	if err != nil {
		return nil, err
	}
	requested, err := requestedUsages(csr)
	if err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	cert := &x509.Certificate{
		PublicKey:             csr.PublicKey,
		PublicKeyAlgorithm:    csr.PublicKeyAlgorithm,
		Subject:               csr.Subject,
		RawSubject:            csr.RawSubject,
		NotBefore:             t.NotBefore,
		NotAfter:              t.NotAfter,
		BasicConstraintsValid: true,
		IsCA:                  t.IsCA,
		KeyUsage:              bits,
		ExtKeyUsage:           purposes,
		UnknownExtKeyUsage:    requested.unknown,
		CRLDistributionPoints: t.CRLDistributionPoints,
		OCSPServer:            t.OCSPServers,
		IssuingCertificateURL: t.IssuingCertificateURLs,
	}
	if ext := findExtension(csr.Extensions, oidSubjectAltName); ext != nil {
		// Encode the names here, because x509.Certificate has no fields for some types of names.
		names, err := canonicalAltNames(ext.Value)
		if err != nil {
			return nil, fmt.Errorf("spec.request: %w", err)
		}
		if names != nil {
			cert.ExtraExtensions = append(cert.ExtraExtensions, pkix.Extension{
				Id: oidSubjectAltName, Critical: emptySubject(csr.RawSubject), Value: names})
		}
	}
	if ext := findExtension(csr.Extensions, oidNameConstraints); ext != nil {
		constraints, err := parseNameConstraints(ext)
		if err != nil {
			return nil, fmt.Errorf("spec.request: %w", err)
		}
		if err := constraints.apply(cert); err != nil {
			return nil, fmt.Errorf("spec.request: %w", err)
		}
	}
	return cert, nil
}

func (c *NameConstraints) apply(cert *x509.Certificate) (err error) {
	cert.PermittedDNSDomainsCritical = c.Critical
	cert.PermittedDNSDomains = distinct(constraintDomain, c.PermittedDNSDomains)
	cert.ExcludedDNSDomains = distinct(constraintDomain, c.ExcludedDNSDomains)
	cert.PermittedEmailAddresses = distinct(constraintEmail, c.PermittedEmailAddresses)
	cert.ExcludedEmailAddresses = distinct(constraintEmail, c.ExcludedEmailAddresses)
	cert.PermittedURIDomains = distinct(constraintDomain, c.PermittedURIDomains)
	cert.ExcludedURIDomains = distinct(constraintDomain, c.ExcludedURIDomains)
	if cert.PermittedIPRanges, err = parseCIDRs(c.PermittedIPRanges); err != nil {
		return err
	}
	cert.ExcludedIPRanges, err = parseCIDRs(c.ExcludedIPRanges)
	return err
}

func parseCIDRs(cidrs []string) ([]*net.IPNet, error) {
	var ranges []*net.IPNet
	for _, cidr := range cidrs {
		ipnet, err := parseCIDR(cidr)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, ipnet)
	}
	return ranges, nil
}

// Sign creates a certificate from tmpl for the key pub and signs it with signer, whose public key
// must be that of parent. For a self-signed certificate, pass tmpl as parent.
//
// The serial number is 128 random bits, the signature algorithm follows from signer's key, and a CA
// gets a subject key identifier by the method of the standard library (RFC 7093), as does a
// certificate with the subject of its CA. Sign does not change tmpl. It verifies the signature
// before it returns.
func Sign(
	rand io.Reader,
	tmpl, parent *x509.Certificate,
	pub crypto.PublicKey,
	signer crypto.Signer,
) (*x509.Certificate, error) {
	cert, err := sign(rand, tmpl, parent, pub, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return cert, nil
}

func sign(
	rand io.Reader,
	tmpl, parent *x509.Certificate,
	pub crypto.PublicKey,
	signer crypto.Signer,
) (*x509.Certificate, error) {
	algorithm, err := signatureAlgorithm("", signer.Public())
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber(rand)
	if err != nil {
		return nil, err
	}
	signed := *tmpl
	signed.SerialNumber = serial
	signed.SignatureAlgorithm = algorithm
	if tmpl == parent {
		parent = &signed
	} else {
		// The standard library leaves it out if subject and issuer have the same name.
		signed.AuthorityKeyId = parent.SubjectKeyId
		if len(signed.SubjectKeyId) == 0 && bytes.Equal(tmpl.RawSubject, parent.RawSubject) {
			// If both names are equal, OpenSSL treats the certificate as self-signed, unless its key has
			// another identifier.
			if signed.SubjectKeyId, err = keyID(pub); err != nil {
				return nil, err
			}
		}
	}
	// This verifies the signature with the public key of signer, and that it is parent's.
	der, err := x509.CreateCertificate(rand, &signed, parent, pub, signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !SamePublicKey(cert.PublicKey, pub) {
		return nil, errors.New("the certificate came out with another public key")
	}
	return cert, nil
}

// keyID returns a subject key identifier by method 4 of RFC 7093 section 2.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// serialNumber returns a positive number of up to 128 bits. RFC 5280 section 4.1.2.2 allows 20
// octets; the CA/Browser Forum requires 64 random bits.
func serialNumber(rand io.Reader) (*big.Int, error) {
	var octets [16]byte
	for {
		if _, err := io.ReadFull(rand, octets[:]); err != nil {
			return nil, fmt.Errorf("read random serial number: %w", err)
		}
		if serial := new(big.Int).SetBytes(octets[:]); serial.Sign() > 0 {
			return serial, nil
		}
	}
}

// SelfSign is [Sign] with the certificate's own key.
func SelfSign(rand io.Reader, tmpl *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	return Sign(rand, tmpl, tmpl, key.Public(), key)
}

// temporaryIssuer is the common name of the issuer of temporary certificates, by which
// cert-manager's programs recognize them.
const temporaryIssuer = "cert-manager.local"

// TemporaryCertificate returns a certificate for key with the content of r, for use until an issuer
// signs one. The signing key is discarded at once, so that no client can come to trust it.
func TemporaryCertificate(
	rand io.Reader,
	r Request,
	key crypto.Signer,
	notBefore, notAfter time.Time,
) (*x509.Certificate, error) {
	cert, err := temporaryCertificate(rand, r, key, notBefore, notAfter)
	if err != nil {
		return nil, fmt.Errorf("make temporary certificate: %w", err)
	}
	return cert, nil
}

func temporaryCertificate(
	rand io.Reader,
	r Request,
	key crypto.Signer,
	notBefore, notAfter time.Time,
) (*x509.Certificate, error) {
	caKey, err := KeySpec{Algorithm: ECDSA}.Generate(rand)
	if err != nil {
		return nil, err
	}
	caTemplate, err := certificateFor(rand, Request{CommonName: temporaryIssuer, IsCA: true}, caKey, notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	ca, err := SelfSign(rand, caTemplate, caKey)
	if err != nil {
		return nil, err
	}
	tmpl, err := certificateFor(rand, r, key, notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	return Sign(rand, tmpl, ca, key.Public(), caKey)
}

// certificateFor returns the template for r.
func certificateFor(
	rand io.Reader,
	r Request,
	key crypto.Signer,
	notBefore, notAfter time.Time,
) (*x509.Certificate, error) {
	der, err := r.CSR(rand, key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	return Template{NotBefore: notBefore, NotAfter: notAfter, IsCA: r.IsCA, Usages: r.Usages}.Certificate(csr)
}
