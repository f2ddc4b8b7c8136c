package pki

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLiteralSubjectSize is the maximum size of the text of a distinguished name, in bytes.
const maxLiteralSubjectSize = 8192

// ParseLiteralSubject reads a distinguished name in the form of RFC 4514, as in "CN=server,OU=web\,
// external,O=Example". RFC 4514 writes the most specific part first; the returned sequence begins
// with the most general one, as in a certificate.
//
// Attribute types are the short names of RFC 4514 section 3, SERIALNUMBER and POSTALCODE, in any
// case, or a dotted OID. Values are strings; the #hex form is accepted for values that are strings.
// As cert-manager does, a semicolon separates like a comma, unescaped spaces around types and
// values are dropped, and characters need an escape only where they are ambiguous. Text of more
// than 8 KiB is refused. Errors name spec.literalSubject.
func ParseLiteralSubject(s string) (pkix.RDNSequence, error) {
	rdns, err := parseDN(s)
	if err != nil {
		return nil, fmt.Errorf("spec.literalSubject: %w", err)
	}
	return rdns, nil
}

func parseDN(s string) (pkix.RDNSequence, error) {
	if len(s) > maxLiteralSubjectSize {
		return nil, fmt.Errorf("%d bytes are more than the limit of %d", len(s), maxLiteralSubjectSize)
	}
	rdns := pkix.RDNSequence{}
	if strings.TrimSpace(s) == "" {
		return rdns, nil
	}
	rdn := pkix.RelativeDistinguishedNameSET{}
	for more := true; more; {
		var part string
		var separator byte
		part, separator, s = cutUnescaped(s, ",;+")
		more = separator != 0

		name, value, ok := cutType(part)
		if !ok {
			return nil, fmt.Errorf("%q is not of the form attribute=value", strings.Trim(part, " "))
		}
		oid, err := attributeType(strings.Trim(name, " "))
		if err != nil {
			return nil, err
		}
		text, err := attributeValue(value)
		if err != nil {
			return nil, fmt.Errorf("the value of %s: %w", strings.Trim(name, " "), err)
		}
		rdn = append(rdn, pkix.AttributeTypeAndValue{Type: oid, Value: text})
		if separator != '+' {
			rdns = append(rdns, rdn)
			rdn = pkix.RelativeDistinguishedNameSET{}
		}
	}
	slices.Reverse(rdns)
	return rdns, nil
}

func cutType(part string) (name, value string, ok bool) {
	name, separator, value := cutUnescaped(part, "=")
	return name, value, separator != 0 && strings.Trim(name, " ") != ""
}

// cutUnescaped cuts s at the first byte that is in separators and has no backslash before it.
// Without one, separator is 0 and before is all of s.
func cutUnescaped(s, separators string) (before string, separator byte, after string) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.IndexByte(separators, s[i]) >= 0:
			return s[:i], s[i], s[i+1:]
		}
	}
	return s, 0, ""
}

// attributeType returns the OID of an attribute type by its short name (RFC 4514 section 3,
// RFC 4519) or its digits.
func attributeType(name string) (asn1.ObjectIdentifier, error) {
	switch strings.ToUpper(name) {
	case "CN":
		return oidCommonName, nil
	case "SERIALNUMBER":
		return asn1.ObjectIdentifier{2, 5, 4, 5}, nil
	case "C":
		return asn1.ObjectIdentifier{2, 5, 4, 6}, nil
	case "L":
		return asn1.ObjectIdentifier{2, 5, 4, 7}, nil
	case "ST":
		return asn1.ObjectIdentifier{2, 5, 4, 8}, nil
	case "STREET":
		return asn1.ObjectIdentifier{2, 5, 4, 9}, nil
	case "O":
		return asn1.ObjectIdentifier{2, 5, 4, 10}, nil
	case "OU":
		return asn1.ObjectIdentifier{2, 5, 4, 11}, nil
	case "POSTALCODE":
		return asn1.ObjectIdentifier{2, 5, 4, 17}, nil
	case "UID":
		return asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, nil
	case "DC":
		return asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, nil
	}
	oid, err := parseOID(name)
	if err != nil {
		return nil, fmt.Errorf(
			"attribute %q is not known, write its OID in digits or one of CN, C, L, ST, STREET, O, OU, DC, UID, "+
				"SERIALNUMBER, POSTALCODE",
			name,
		)
	}
	return oid, nil
}

// attributeValue decodes the escapes of RFC 4514 section 2.4 in the text between two separators.
func attributeValue(s string) (string, error) {
	s = strings.TrimLeft(s, " ")
	if digits, ok := strings.CutPrefix(s, "#"); ok {
		return hexValue(strings.TrimRight(digits, " "))
	}
	value := make([]byte, 0, len(s))
	end := 0 // of what stays when trailing spaces are dropped
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			value = append(value, s[i])
			if s[i] != ' ' {
				end = len(value)
			}
			continue
		case i+1 < len(s) && strings.IndexByte(` "#+,;<=>\`, s[i+1]) >= 0:
			value = append(value, s[i+1])
			i++
		default:
			var octet [1]byte
			if i+2 >= len(s) {
				return "", errors.New(`a backslash must be followed by a special character or two hexadecimal digits`)
			}
			if _, err := hex.Decode(octet[:], []byte(s[i+1:i+3])); err != nil {
				return "", errors.New(`a backslash must be followed by a special character or two hexadecimal digits`)
			}
			value = append(value, octet[0])
			i += 2
		}
		end = len(value)
	}
	value = value[:end]
	if !utf8.Valid(value) {
		return "", errors.New("it is not valid UTF-8")
	}
	return string(value), nil
}

// hexValue reads a value of the form #hex: the DER of a string.
func hexValue(digits string) (string, error) {
	der, err := hex.DecodeString(digits)
	if err != nil {
		return "", errors.New("a # must be followed by hexadecimal digits, or be escaped as \\#")
	}
	var value string
	if rest, err := asn1.Unmarshal(der, &value); err != nil || len(rest) != 0 {
		return "", errors.New("the digits after # must be the DER encoding of a string")
	}
	if !utf8.ValidString(value) {
		return "", errors.New("it is not valid UTF-8")
	}
	return value, nil
}

// parseOID reads an OID in dotted digits. Arcs are limited to 31 bits, because crypto/x509 cannot
// parse larger ones.
func parseOID(s string) (asn1.ObjectIdentifier, error) {
	const maxOIDSize = 256
	if len(s) > maxOIDSize {
		return nil, fmt.Errorf("an OID of %d characters is longer than the limit of %d", len(s), maxOIDSize)
	}
	parts := strings.Split(s, ".")
	oid := make(asn1.ObjectIdentifier, len(parts))
	for i, part := range parts {
		arc, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not an OID, write digits with dots between, as in 1.3.6.1.4.1.311.20.2.3", s)
		}
		oid[i] = int(arc)
	}
	// X.660: three roots, of which the first two have 40 children at most. The first two arcs
	// are encoded as one number.
	if len(oid) < 2 || oid[0] > 2 || oid[0] < 2 && oid[1] >= 40 || oid[1] > math.MaxInt32-80 {
		return nil, fmt.Errorf("%q is not an OID, the first numbers must be 0.0 to 0.39, 1.0 to 1.39, or begin with 2", s)
	}
	return oid, nil
}

// subjectDER returns the encoded subject and its common name.
func (r Request) subjectDER() (der []byte, commonName string, err error) {
	rdns := r.Subject.name(r.CommonName).ToRDNSequence()
	if r.LiteralSubject != "" {
		if rdns, err = ParseLiteralSubject(r.LiteralSubject); err != nil {
			return nil, "", err
		}
	}
	if der, err = asn1.Marshal(rdns); err != nil {
		return nil, "", fmt.Errorf("encode subject: %w", err)
	}
	return der, commonNameOf(rdns), nil
}

func (s Subject) name(commonName string) pkix.Name {
	return pkix.Name{
		Country:            s.Countries,
		Organization:       s.Organizations,
		OrganizationalUnit: s.OrganizationalUnits,
		Locality:           s.Localities,
		Province:           s.Provinces,
		StreetAddress:      s.StreetAddresses,
		PostalCode:         s.PostalCodes,
		SerialNumber:       s.SerialNumber,
		CommonName:         commonName,
	}
}

// commonNameOf returns the first common name, or "".
func commonNameOf(rdns pkix.RDNSequence) string {
	for _, rdn := range rdns {
		for _, attribute := range rdn {
			if value, ok := attribute.Value.(string); ok && attribute.Type.Equal(oidCommonName) {
				return value
			}
		}
	}
	return ""
}

// emptySubject reports whether a subject in DER has no attributes.
func emptySubject(der []byte) bool { return bytes.Equal(der, []byte{0x30, 0x00}) }
