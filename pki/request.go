package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Subject holds the attributes of a subject except its common name, as in spec.subject.
type Subject struct {
	Organizations       []string
	Countries           []string
	OrganizationalUnits []string
	Localities          []string
	Provinces           []string
	StreetAddresses     []string
	PostalCodes         []string
	SerialNumber        string
}

// OtherName is a subject alternative name whose type is an OID and whose value is a string, such as
// a user principal name (1.3.6.1.4.1.311.20.2.3).
type OtherName struct {
	OID       string // dotted digits
	UTF8Value string
}

// NameConstraints limit the names for which a CA may sign (RFC 5280 section 4.2.1.10).
type NameConstraints struct {
	Critical bool

	PermittedDNSDomains, ExcludedDNSDomains         []string
	PermittedIPRanges, ExcludedIPRanges             []string // in CIDR notation
	PermittedEmailAddresses, ExcludedEmailAddresses []string
	PermittedURIDomains, ExcludedURIDomains         []string
}

// Request describes the content of a certificate. Its fields are those of a Certificate's spec.
type Request struct {
	CommonName string
	Subject    Subject
	// LiteralSubject, if not empty, replaces CommonName and Subject. See [ParseLiteralSubject].
	LiteralSubject string

	DNSNames       []string
	IPAddresses    []string
	URIs           []string
	EmailAddresses []string
	OtherNames     []OtherName
	// LeaveOutCovered leaves out DNS names that a wildcard among them covers, see [Covers]. A CSR or
	// certificate that has them all is not considered different.
	LeaveOutCovered bool

	IsCA bool
	// Usages are words as in "server auth". If empty, they are "digital signature" and "key
	// encipherment".
	Usages []string
	// EncodeUsages writes Usages into a CSR. Some issuers refuse a CSR with them.
	EncodeUsages bool
	// EncodeBasicConstraints writes IsCA into a CSR.
	EncodeBasicConstraints bool
	NameConstraints        *NameConstraints

	// SignatureAlgorithm is the algorithm for the CSR's signature, such as SHA256WithRSA; empty means
	// one that fits the key.
	SignatureAlgorithm string
}

// CSR creates a PKCS #10 request in DER for the public key of key and signs it. It fails if a field
// of r cannot be encoded, if r has no name, or if key does not support r.SignatureAlgorithm.
func (r Request) CSR(rand io.Reader, key crypto.Signer) (der []byte, err error) {
	der, err = r.csr(rand, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

func (r Request) csr(rand io.Reader, key crypto.Signer) ([]byte, error) {
	algorithm, err := signatureAlgorithm(r.SignatureAlgorithm, key.Public())
	if err != nil {
		return nil, err
	}
	names, err := r.altNames()
	if err != nil {
		return nil, err
	}
	r.CommonName = r.writtenCommonName(names)
	subject, commonName, err := r.subjectDER()
	if err != nil {
		return nil, err
	}
	if commonName == "" && names.empty() {
		return nil, errors.New(
			"spec: it names nothing, set one of commonName, literalSubject with a CN, dnsNames, ipAddresses, uris, " +
				"emailAddresses or otherNames",
		)
	}
	extensions, err := r.extensions(names, emptySubject(subject))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand, &x509.CertificateRequest{
		RawSubject:         subject,
		SignatureAlgorithm: algorithm,
		ExtraExtensions:    extensions,
	}, key)
	if err != nil {
		return nil, err
	}
	// Issuers parse the CSR: detect an unacceptable name here, before it is sent.
	if _, err := x509.ParseCertificateRequest(der); err != nil {
		return nil, err
	}
	return der, nil
}

// writtenCommonName returns the common name in the spelling of the equal alternative name, because
// ACME servers compare the two. If a wildcard covers the common name and replaces it, the result is
// the wildcard.
func (r Request) writtenCommonName(names altNames) string {
	cn := ComparableDNSName(r.CommonName)
	if ip, err := parseIP(r.CommonName); err == nil && slices.Contains(names.ips, ip) {
		return ip.String()
	}
	if slices.Contains(names.dns, cn) {
		return cn
	}
	if _, parent, _ := strings.Cut(cn, "."); r.LeaveOutCovered && Covers(names.dns, cn) &&
		slices.Contains(DNSNames(r.DNSNames), cn) {
		return "*." + parent
	}
	return r.CommonName
}

func (r Request) extensions(names altNames, emptySubject bool) ([]pkix.Extension, error) {
	var extensions []pkix.Extension
	if !names.empty() {
		value, err := names.marshal()
		if err != nil {
			return nil, err
		}
		// RFC 5280 section 4.2.1.6: without a subject, only the alternative names identify the
		// certificate.
		extensions = append(extensions, pkix.Extension{Id: oidSubjectAltName, Critical: emptySubject, Value: value})
	}
	bits, purposes, err := KeyUsages(r.Usages, r.IsCA)
	if err != nil {
		return nil, err
	}
	if r.EncodeUsages && bits != 0 {
		value, err := marshalKeyUsage(bits)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, pkix.Extension{Id: oidKeyUsage, Critical: true, Value: value})
	}
	if r.EncodeUsages && len(purposes) > 0 {
		value, err := marshalExtKeyUsage(purposes)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, pkix.Extension{Id: oidExtKeyUsage, Value: value})
	}
	if r.EncodeBasicConstraints {
		value, err := asn1.Marshal(basicConstraints{IsCA: r.IsCA, MaxPathLen: -1})
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: value})
	}
	if !r.NameConstraints.empty() {
		value, err := r.NameConstraints.marshal()
		if err != nil {
			return nil, err
		}
		extensions = append(
			extensions,
			pkix.Extension{Id: oidNameConstraints, Critical: r.NameConstraints.Critical, Value: value},
		)
	}
	return extensions, nil
}

// signatureAlgorithms are the words of spec.signatureAlgorithm.
var signatureAlgorithms = [...]struct {
	word      string
	algorithm x509.SignatureAlgorithm
	key       KeyAlgorithm
}{
	{"SHA256WithRSA", x509.SHA256WithRSA, RSA},
	{"SHA384WithRSA", x509.SHA384WithRSA, RSA},
	{"SHA512WithRSA", x509.SHA512WithRSA, RSA},
	{"ECDSAWithSHA256", x509.ECDSAWithSHA256, ECDSA},
	{"ECDSAWithSHA384", x509.ECDSAWithSHA384, ECDSA},
	{"ECDSAWithSHA512", x509.ECDSAWithSHA512, ECDSA},
	{"PureEd25519", x509.PureEd25519, Ed25519},
}

// signatureAlgorithm returns the algorithm with the name word or, if word is empty, one whose hash
// is about as strong as the key.
func signatureAlgorithm(word string, pub crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	var key KeyAlgorithm
	var algorithm x509.SignatureAlgorithm
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		key, algorithm = RSA, x509.SHA256WithRSA
		switch n := pub.N.BitLen(); {
		case n < minRSASize:
			return 0, fmt.Errorf("an RSA key of %d bits is too short to sign with, use %d or more", n, minRSASize)
		case n >= 4096:
			algorithm = x509.SHA512WithRSA
		case n >= 3072:
			algorithm = x509.SHA384WithRSA
		}
	case *ecdsa.PublicKey:
		key, algorithm = ECDSA, x509.ECDSAWithSHA256
		switch n := pub.Curve.Params().BitSize; {
		case n < 256:
			return 0, fmt.Errorf("an ECDSA key of %d bits is too short to sign with, use 256 or more", n)
		case n >= 521:
			algorithm = x509.ECDSAWithSHA512
		case n >= 384:
			algorithm = x509.ECDSAWithSHA384
		}
	case ed25519.PublicKey:
		key, algorithm = Ed25519, x509.PureEd25519
	default:
		return 0, fmt.Errorf("keys of type %T cannot sign certificates, use RSA, ECDSA or Ed25519", pub)
	}
	if word == "" {
		return algorithm, nil
	}
	for _, known := range signatureAlgorithms {
		if known.word == word {
			if known.key != key {
				return 0, fmt.Errorf(
					"spec.signatureAlgorithm: %s needs a private key of the algorithm %s, not %s",
					word,
					known.key,
					key,
				)
			}
			return known.algorithm, nil
		}
	}
	return 0, fmt.Errorf("spec.signatureAlgorithm: %q is not known", word)
}

// Check returns the error that [Request.CSR] would return for a key of the spec, without such a
// key.
func (r Request) Check(spec KeySpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	algorithm := spec.Algorithm
	if algorithm == "" {
		algorithm = RSA
	}
	for _, known := range signatureAlgorithms {
		if known.word == r.SignatureAlgorithm && known.key != algorithm {
			return fmt.Errorf(
				"spec.signatureAlgorithm: %s needs spec.privateKey.algorithm %s, not %s",
				known.word,
				known.key,
				algorithm,
			)
		}
	}
	// The rest does not depend on the key. An Ed25519 key is fast to generate, and signs without
	// randomness.
	r.SignatureAlgorithm = ""
	_, err := r.csr(nil, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	return err
}

// CSRDifferences returns the fields of a Certificate's spec in which csr differs from r, nil if
// there are none. Names are compared by their canonical form, lists as sets.
//
// The private key, the usages and isCA are not compared: the key has [KeySpec.Differences], and a
// CSR need not have the others, which come with it in separate fields.
func (r Request) CSRDifferences(csr *x509.CertificateRequest) []string {
	var fields []string
	differ := func(field string, different bool) {
		if different {
			fields = append(fields, field)
		}
	}
	var names altNames
	if ext := findExtension(csr.Extensions, oidSubjectAltName); ext != nil {
		// An extension that cannot be parsed yields no names, which differs from any requested names.
		names, _ = parseAltNames(ext.Value)
	}
	dns := sameNames(DNSName, r.DNSNames, names.dns) || r.LeaveOutCovered && sameSet(WithoutCovered(r.DNSNames),
		DNSNames(names.dns))
	differ("spec.ipAddresses", !sameIPs(r.IPAddresses, names))
	differ("spec.uris", !sameNames(CanonicalURI, r.URIs, names.uris))
	differ("spec.emailAddresses", !sameNames(CanonicalEmail, r.EmailAddresses, names.emails))
	differ("spec.dnsNames", !dns)
	differ("spec.otherNames", names.foreign > 0 || !sameNames(itself, flatOtherNames(r.OtherNames),
		flatOtherNames(names.others)))
	fields = append(fields, r.subjectDifferences(csr)...)

	var constraints *NameConstraints
	var err error
	if ext := findExtension(csr.Extensions, oidNameConstraints); ext != nil {
		constraints, err = parseNameConstraints(ext)
	}
	differ("spec.nameConstraints", err != nil || !sameNameConstraints(r.NameConstraints, constraints))
	return fields
}

func (r Request) subjectDifferences(csr *x509.CertificateRequest) []string {
	names, spelled := r.comparableNames(), r
	spelled.CommonName = csr.Subject.CommonName
	if spelled.writtenCommonName(names) == r.writtenCommonName(names) {
		r = spelled
	}
	der, _, err := r.subjectDER()
	if err == nil && bytes.Equal(der, csr.RawSubject) {
		return nil
	}
	if r.LiteralSubject != "" {
		return []string{"spec.literalSubject"}
	}
	var fields []string
	for _, attribute := range []struct {
		field    string
		want, is []string
	}{
		{"spec.commonName", []string{r.CommonName}, []string{csr.Subject.CommonName}},
		{"spec.subject.serialNumber", []string{r.Subject.SerialNumber}, []string{csr.Subject.SerialNumber}},
		{"spec.subject.organizations", r.Subject.Organizations, csr.Subject.Organization},
		{"spec.subject.countries", r.Subject.Countries, csr.Subject.Country},
		{"spec.subject.localities", r.Subject.Localities, csr.Subject.Locality},
		{"spec.subject.organizationalUnits", r.Subject.OrganizationalUnits, csr.Subject.OrganizationalUnit},
		{"spec.subject.postalCodes", r.Subject.PostalCodes, csr.Subject.PostalCode},
		{"spec.subject.provinces", r.Subject.Provinces, csr.Subject.Province},
		{"spec.subject.streetAddresses", r.Subject.StreetAddresses, csr.Subject.StreetAddress},
	} {
		if !sameSet(attribute.want, attribute.is) {
			fields = append(fields, attribute.field)
		}
	}
	return fields
}

// CertificateDifferences is a less strict [Request.CSRDifferences] for a certificate without a
// known CSR. It compares only names, because issuers may change the rest of a subject. A common
// name may be among the DNS names instead, and the reverse, because issuers copy one to the other.
func (r Request) CertificateDifferences(cert *x509.Certificate) []string {
	var fields []string
	differ := func(field string, different bool) {
		if different {
			fields = append(fields, field)
		}
	}
	commonName := r.CommonName
	if r.LiteralSubject != "" {
		// A subject that cannot be parsed is in no certificate; the comparison then has no common name.
		_, commonName, _ = r.subjectDER()
	}
	want := r.nameSet(r.DNSNames, commonName)
	is := r.nameSet(cert.DNSNames, cert.Subject.CommonName)
	differ("spec.commonName", !want.holds(cert.Subject.CommonName) || !is.holds(commonName))
	differ("spec.dnsNames", !want.holds(cert.DNSNames...) || !is.holds(r.DNSNames...))

	var names altNames
	if ext := findExtension(cert.Extensions, oidSubjectAltName); ext != nil {
		names, _ = parseAltNames(ext.Value)
	}
	differ("spec.ipAddresses", !sameIPs(r.IPAddresses, names))
	differ("spec.uris", !sameNames(CanonicalURI, r.URIs, names.uris))
	differ("spec.emailAddresses", !sameNames(CanonicalEmail, r.EmailAddresses, names.emails))
	return fields
}

// comparableNames are the DNS names and addresses of r that have a canonical form.
func (r Request) comparableNames() (names altNames) {
	names.dns = DNSNames(r.DNSNames)
	if r.LeaveOutCovered {
		names.dns = WithoutCovered(r.DNSNames)
	}
	for _, s := range r.IPAddresses {
		if ip, err := parseIP(s); err == nil {
			names.ips = append(names.ips, ip)
		}
	}
	return names
}

// nameSet is a set of DNS names in canonical form. If covered is true, it also contains the names
// that a wildcard in it covers.
type nameSet struct {
	names   []string
	covered bool
}

func (r Request) nameSet(dnsNames []string, commonName string) nameSet {
	return nameSet{DNSNames(append(slices.Clone(dnsNames), commonName)), r.LeaveOutCovered}
}

// holds reports whether all of values are in the set. It ignores empty values.
func (n nameSet) holds(values ...string) bool {
	return !slices.ContainsFunc(DNSNames(values), func(name string) bool {
		return name != "" && !slices.Contains(n.names, name) && !(n.covered && Covers(n.names, name))
	})
}

// sameSet reports whether a and b hold the same strings equally often.
func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	if slices.Equal(a, b) {
		return true
	}
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func sameIPs(want []string, is altNames) bool {
	ips := make([]string, len(is.ips))
	for i, ip := range is.ips {
		ips[i] = ip.String()
	}
	return sameNames(canonicalIP, want, ips)
}

func flatOtherNames(others []OtherName) []string {
	flat := make([]string, len(others))
	for i, other := range others {
		flat[i] = flatOtherName(other)
	}
	return flat
}

// flatOtherName returns a name as one string. It is unambiguous, because an OID has no space.
func flatOtherName(other OtherName) string {
	id := other.OID
	if oid, err := parseOID(id); err == nil {
		id = oid.String()
	}
	return id + " " + other.UTF8Value
}

// itself is the canonical form of values that have only one spelling.
func itself(s string) (string, error) { return s, nil }

func sameNameConstraints(want, is *NameConstraints) bool {
	if want.empty() || is.empty() {
		return want.empty() && is.empty()
	}
	return want.Critical == is.Critical &&
		sameNames(constraintDomain, want.PermittedDNSDomains, is.PermittedDNSDomains) &&
		sameNames(constraintDomain, want.ExcludedDNSDomains, is.ExcludedDNSDomains) &&
		sameSet(normalCIDRs(want.PermittedIPRanges), normalCIDRs(is.PermittedIPRanges)) &&
		sameSet(normalCIDRs(want.ExcludedIPRanges), normalCIDRs(is.ExcludedIPRanges)) &&
		sameNames(constraintEmail, want.PermittedEmailAddresses, is.PermittedEmailAddresses) &&
		sameNames(constraintEmail, want.ExcludedEmailAddresses, is.ExcludedEmailAddresses) &&
		sameNames(constraintDomain, want.PermittedURIDomains, is.PermittedURIDomains) &&
		sameNames(constraintDomain, want.ExcludedURIDomains, is.ExcludedURIDomains)
}

func normalCIDRs(cidrs []string) []string {
	normal := slices.Clone(cidrs)
	for i, cidr := range cidrs {
		if ipnet, err := parseCIDR(cidr); err == nil {
			normal[i] = ipnet.String()
		}
	}
	return normal
}
