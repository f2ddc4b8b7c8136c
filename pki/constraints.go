package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// judgeNameConstraints uses the standard library for the comparison. The library compares only
// alternative names. For the other names that OpenSSL compares, this function adds them to the
// alternative names, or compares them itself.
func (p certPath) judgeNameConstraints() error {
	if !slices.ContainsFunc(p.certs[1:], hasNameConstraints) {
		return nil
	}
	now := time.Now()
	// Judge checks the rest itself, by slightly different rules.
	plain := func(c *x509.Certificate) *x509.Certificate {
		copied := *c
		copied.NotBefore, copied.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		copied.MaxPathLen, copied.UnhandledCriticalExtensions = -1, nil
		return &copied
	}
	last := len(p.certs) - 1
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(plain(p.certs[last]))
	for _, c := range p.certs[1:last] {
		intermediates.AddCert(plain(c))
	}
	leaf := plain(p.certs[0])
	addSubjectNames(leaf)
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Detail != "":
		return defectf(NamesNotPermitted, "the name constraints of a CA above it forbid a name: %s", invalid.Detail)
	case err != nil:
		return defectf(NamesNotPermitted, "the name constraints of a CA above it cannot be satisfied: %w", err)
	}
	for i, c := range p.certs[1:] {
		for n, below := range p.certs[:i+1] {
			selfIssued := n > 0 && bytes.Equal(below.RawSubject, below.RawIssuer)
			if selfIssued {
				continue
			}
			if err := judgeDirectoryName(below, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func hasNameConstraints(c *x509.Certificate) bool {
	return findExtension(c.Extensions, oidNameConstraints) != nil
}

var oidEmailAddress = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// addSubjectNames adds the names in the subject of c that clients treat as alternative names: email
// addresses and, if there is no other DNS name, a common name that looks like one.
func addSubjectNames(c *x509.Certificate) {
	if name := c.Subject.CommonName; len(c.DNSNames) == 0 && likeDNSName(name) {
		c.DNSNames = []string{name}
	}
	emails := slices.Clone(c.EmailAddresses)
	for _, attribute := range c.Subject.Names {
		if email, ok := attribute.Value.(string); ok && attribute.Type.Equal(oidEmailAddress) {
			emails = append(emails, email)
		}
	}
	c.EmailAddresses = emails
	if findExtension(c.Extensions, oidSubjectAltName) == nil && len(c.DNSNames)+len(c.EmailAddresses) > 0 {
		c.Extensions = append(slices.Clone(c.Extensions), pkix.Extension{Id: oidSubjectAltName})
	}
}

// likeDNSName reports whether OpenSSL treats a common name as a DNS name.
func likeDNSName(s string) bool {
	dot := strings.IndexByte(s, '.')
	return dot > 0 && dot < len(s)-1 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' ||
			r == '*')
	})
}

// judgeDirectoryName compares the subject of c with the directory names in the constraints of ca,
// which the standard library ignores.
func judgeDirectoryName(c, ca *x509.Certificate) error {
	ext := findExtension(ca.Extensions, oidNameConstraints)
	if ext == nil || emptySubject(c.RawSubject) {
		return nil
	}
	var subtrees generalSubtrees
	if rest, err := asn1.Unmarshal(ext.Value, &subtrees); err != nil || len(rest) != 0 {
		return defectf(NamesNotPermitted, "the CA %s: %w", describe(ca), errMalformedConstraints)
	}
	permitted, excluded := directoryNames(subtrees.Permitted), directoryNames(subtrees.Excluded)
	if len(permitted)+len(excluded) == 0 {
		return nil
	}
	var subject pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &subject); err != nil {
		return defectf(NamesNotPermitted, "its subject cannot be read: %w", err)
	}
	within := func(base pkix.RDNSequence) bool {
		return len(base) <= len(subject) && slices.EqualFunc(base, subject[:len(base)], sameRDN)
	}
	if len(permitted) > 0 && !slices.ContainsFunc(permitted, within) || slices.ContainsFunc(excluded, within) {
		return defectf(NamesNotPermitted, "the name constraints of the CA %s forbid the subject %s", describe(ca),
			describe(c))
	}
	return nil
}

const tagDirectory = 4

func directoryNames(subtrees []asn1.RawValue) (names []pkix.RDNSequence) {
	for _, subtree := range subtrees {
		var base asn1.RawValue
		if _, err := asn1.Unmarshal(subtree.Bytes, &base); err != nil || base.Class != asn1.ClassContextSpecific ||
			base.Tag != tagDirectory {
			continue
		}
		var name pkix.RDNSequence
		if _, err := asn1.Unmarshal(base.Bytes, &name); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// sameRDN compares by the rules of RFC 5280 section 7.1, except that non-ASCII characters must be
// equal.
func sameRDN(a, b pkix.RelativeDistinguishedNameSET) bool {
	return slices.EqualFunc(a, b, func(a, b pkix.AttributeTypeAndValue) bool {
		value := func(v any) string { return strings.ToLower(strings.Join(strings.Fields(fmt.Sprint(v)), " ")) }
		return a.Type.Equal(b.Type) && value(a.Value) == value(b.Value)
	})
}
