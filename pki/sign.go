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

// Template is what a signer adds to what a CSR asks for.
type Template struct {
	NotBefore, NotAfter time.Time

	// IsCA and Usages decide, not the CSR. A CSR that states something else is refused.
	IsCA   bool
	Usages []string // words as in [Request.Usages]

	CRLDistributionPoints  []string // URLs
	OCSPServers            []string // URLs
	IssuingCertificateURLs []string
}

// CheckCSR says whether csr agrees with isCA and usages, the fields of the object that it came
// in. A CSR need not state either, but what it states must be the same. It fails also for
// usages that are not known and extensions that cannot be read. No later attempt can succeed.
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

// Certificate returns what is to be signed for csr: its subject exactly as it stands there, its
// alternative names and name constraints in canonical form, each once, and what t says. Other
// extensions are left out. It fails like [CheckCSR]; then no later attempt can succeed.
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
		// The names are encoded here, since Go has no fields for some kinds of them.
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

// Sign makes a certificate of tmpl for the key pub and signs it with signer, whose public key
// must be that of parent. To sign with its own key, pass tmpl as parent, too.
//
// The serial number is 128 random bits, the signature algorithm follows from signer's key, and a CA
// gets a subject key identifier of the method that the standard library uses (RFC 7093), and so
// does a certificate with the subject of its CA. tmpl is not changed. The signature is verified
// before it is returned.
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
			// Of two equal names OpenSSL takes the certificate for self-signed, unless its key has another
			// identifier.
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

// keyID is a subject key identifier, made as RFC 7093 section 2 says under 4.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}

// serialNumber returns a positive number of up to 128 bits. RFC 5280 section 4.1.2.2 allows
// 20 octets, the CA/Browser Forum asks for 64 random bits.
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

// temporaryIssuer is the common name of the issuer of temporary certificates, by which programs
// that came with cert-manager tell them.
const temporaryIssuer = "cert-manager.local"

// TemporaryCertificate returns a certificate for key with all that r asks for, to be used until
// an issuer signs one. It is signed with a key that is thrown away at once, so that nobody can
// be made to trust it.
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

// certificateFor returns the template for what r asks for.
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
