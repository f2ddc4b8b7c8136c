package pki

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"unicode/utf8"
)

// The OIDs of the extensions and the attribute that this package reads or writes itself
// (RFC 5280 sections 4.2.1 and 4.1.2.4).
var (
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

func findExtension(extensions []pkix.Extension, id asn1.ObjectIdentifier) *pkix.Extension {
	for i := range extensions {
		if extensions[i].Id.Equal(id) {
			return &extensions[i]
		}
	}
	return nil
}

// The tags of GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagOtherName = 0
	tagEmail     = 1
	tagDNS       = 2
	tagURI       = 6
	tagIP        = 7
)

// altNames are the subject alternative names that a [Request] can have.
type altNames struct {
	dns, emails, uris []string
	ips               []netip.Addr
	others            []OtherName
	// foreign counts names that a Request cannot have: other types, and otherNames with a value that
	// is not a UTF8String.
	foreign int
}

// altNames returns the names of the request in canonical form, each once.
func (r Request) altNames() (names altNames, err error) {
	for _, list := range []struct {
		field     string
		values    []string
		canonical func(string) (string, error)
		to        *[]string
	}{
		{"spec.dnsNames", r.DNSNames, DNSName, &names.dns},
		{"spec.emailAddresses", r.EmailAddresses, CanonicalEmail, &names.emails},
		{"spec.uris", r.URIs, CanonicalURI, &names.uris},
	} {
		for i, value := range list.values {
			form, err := list.canonical(value)
			if err == nil {
				err = checkIA5(form)
			}
			if err != nil {
				return altNames{}, fmt.Errorf("%s[%d]: %w", list.field, i, err)
			}
			*list.to = append(*list.to, form)
		}
		*list.to = distinct(list.canonical, *list.to)
	}
	if r.LeaveOutCovered {
		names.dns = WithoutCovered(names.dns)
	}
	for i, s := range r.IPAddresses {
		ip, err := parseIP(s)
		if err != nil {
			return altNames{}, fmt.Errorf("spec.ipAddresses[%d]: %w", i, err)
		}
		if !slices.Contains(names.ips, ip) {
			names.ips = append(names.ips, ip)
		}
	}
	for i, other := range r.OtherNames {
		if _, err := parseOID(other.OID); err != nil {
			return altNames{}, fmt.Errorf("spec.otherNames[%d].oid: %w", i, err)
		}
		if other.UTF8Value == "" {
			return altNames{}, fmt.Errorf("spec.otherNames[%d].utf8Value: it is empty", i)
		}
		if !utf8.ValidString(other.UTF8Value) {
			return altNames{}, fmt.Errorf("spec.otherNames[%d].utf8Value: it is not valid UTF-8", i)
		}
		if !slices.ContainsFunc(names.others, func(o OtherName) bool { return flatOtherName(o) == flatOtherName(other) }) {
			names.others = append(names.others, other)
		}
	}
	return names, nil
}

// checkIA5 reports why s cannot be a name in an IA5String, if it cannot.
func checkIA5(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return fmt.Errorf("%q has characters that are not ASCII, write a domain in its xn-- form", s)
		}
	}
	return nil
}

// parseIP reads an address. It returns an IPv4-mapped IPv6 address as IPv4, which is the form in
// certificates.
func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	return ip.Unmap(), nil
}

func (n altNames) empty() bool {
	return len(n.dns)+len(n.emails)+len(n.uris)+len(n.ips)+len(n.others) == 0
}

// marshal encodes GeneralNames, kinds in the order of crypto/x509 and other names last.
func (n altNames) marshal() ([]byte, error) {
	general := make([]asn1.RawValue, 0, len(n.dns)+len(n.emails)+len(n.uris)+len(n.ips)+len(n.others))
	add := func(tag int, value []byte) {
		general = append(general, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value})
	}
	for _, name := range n.dns {
		add(tagDNS, []byte(name))
	}
	for _, address := range n.emails {
		add(tagEmail, []byte(address))
	}
	for _, ip := range n.ips {
		add(tagIP, ip.AsSlice())
	}
	for _, uri := range n.uris {
		add(tagURI, []byte(uri))
	}
	for _, other := range n.others {
		value, err := marshalOtherName(other)
		if err != nil {
			return nil, err
		}
		general = append(general, value)
	}
	return asn1.Marshal(general)
}

func marshalOtherName(other OtherName) (asn1.RawValue, error) {
	oid, err := parseOID(other.OID)
	if err != nil {
		return asn1.RawValue{}, err
	}
	id, err := asn1.Marshal(oid)
	if err != nil {
		return asn1.RawValue{}, err
	}
	text, err := asn1.MarshalWithParams(other.UTF8Value, "utf8")
	if err != nil {
		return asn1.RawValue{}, err
	}
	value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: text})
	if err != nil {
		return asn1.RawValue{}, err
	}
	return asn1.RawValue{
		Class:      asn1.ClassContextSpecific,
		Tag:        tagOtherName,
		IsCompound: true,
		Bytes:      append(id, value...),
	}, nil
}

// parseAltNames reads a subject alternative name extension.
func parseAltNames(der []byte) (names altNames, err error) {
	var general []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &general); err != nil || len(rest) != 0 {
		return altNames{}, errors.New("the subject alternative name extension is malformed")
	}
	for _, name := range general {
		if name.Class != asn1.ClassContextSpecific {
			return altNames{}, errors.New("the subject alternative name extension is malformed")
		}
		switch name.Tag {
		case tagDNS:
			names.dns = append(names.dns, string(name.Bytes))
		case tagEmail:
			names.emails = append(names.emails, string(name.Bytes))
		case tagURI:
			names.uris = append(names.uris, string(name.Bytes))
		case tagIP:
			ip, ok := netip.AddrFromSlice(name.Bytes)
			if !ok {
				return altNames{}, fmt.Errorf(
					"an IP address in the subject alternative name extension has %d bytes",
					len(name.Bytes),
				)
			}
			names.ips = append(names.ips, ip.Unmap())
		case tagOtherName:
			if other, ok := parseOtherName(name.Bytes); ok {
				names.others = append(names.others, other)
			} else {
				names.foreign++
			}
		default:
			names.foreign++
		}
	}
	return names, nil
}

// canonicalAltNames returns the value of a subject alternative name extension with its names in
// canonical form, each once, in their order. Names of types that a [Request] cannot have stay
// unchanged. It returns nil if there are no names.
func canonicalAltNames(der []byte) ([]byte, error) {
	if _, err := parseAltNames(der); err != nil {
		return nil, err
	}
	var general, distinct []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &general); err != nil || len(general) == 0 {
		return nil, err
	}
	seen := make(map[string]bool, len(general))
	for _, name := range general {
		name = asn1.RawValue{Class: name.Class, Tag: name.Tag, IsCompound: name.IsCompound, Bytes: canonicalAltName(name)}
		if key := fmt.Sprintf("%d %s", name.Tag, name.Bytes); !seen[key] {
			seen[key] = true
			distinct = append(distinct, name)
		}
	}
	return asn1.Marshal(distinct)
}

// canonicalAltName returns the canonical form of an encoded name, or the name itself if it has
// none.
func canonicalAltName(name asn1.RawValue) []byte {
	switch name.Tag {
	case tagDNS:
		return []byte(formOf(DNSName, string(name.Bytes)))
	case tagEmail:
		return []byte(formOf(CanonicalEmail, string(name.Bytes)))
	case tagURI:
		return []byte(formOf(CanonicalURI, string(name.Bytes)))
	case tagIP:
		if ip, ok := netip.AddrFromSlice(name.Bytes); ok {
			return ip.Unmap().AsSlice()
		}
	}
	return name.Bytes
}

func parseOtherName(der []byte) (other OtherName, ok bool) {
	var id asn1.ObjectIdentifier
	var value, text asn1.RawValue
	rest, err := asn1.Unmarshal(der, &id)
	if err != nil {
		return OtherName{}, false
	}
	if rest, err = asn1.Unmarshal(rest, &value); err != nil || len(rest) != 0 ||
		value.Class != asn1.ClassContextSpecific || value.Tag != 0 || !value.IsCompound {
		return OtherName{}, false
	}
	if rest, err = asn1.Unmarshal(value.Bytes, &text); err != nil || len(rest) != 0 ||
		text.Class != asn1.ClassUniversal || text.Tag != asn1.TagUTF8String || !utf8.Valid(text.Bytes) ||
		len(text.Bytes) == 0 {
		return OtherName{}, false
	}
	return OtherName{OID: id.String(), UTF8Value: string(text.Bytes)}, true
}

// basicConstraints is RFC 5280 section 4.2.1.9. A path length of -1 means no limit.
type basicConstraints struct {
	IsCA       bool `asn1:"optional"`
	MaxPathLen int  `asn1:"optional,default:-1"`
}

func parseBasicConstraints(der []byte) (basicConstraints, error) {
	var constraints basicConstraints
	if rest, err := asn1.Unmarshal(der, &constraints); err != nil || len(rest) != 0 {
		return basicConstraints{}, errors.New("the basic constraints extension is malformed")
	}
	return constraints, nil
}

// generalSubtrees is RFC 5280 section 4.2.1.10: two lists of names.
type generalSubtrees struct {
	Permitted []asn1.RawValue `asn1:"optional,omitempty,tag:0"`
	Excluded  []asn1.RawValue `asn1:"optional,omitempty,tag:1"`
}

func (c *NameConstraints) empty() bool {
	return c == nil ||
		len(c.PermittedDNSDomains)+len(c.PermittedIPRanges)+len(c.PermittedEmailAddresses)+len(c.PermittedURIDomains)+
			len(c.ExcludedDNSDomains)+len(c.ExcludedIPRanges)+len(c.ExcludedEmailAddresses)+len(c.ExcludedURIDomains) == 0
}

// marshal encodes the extension's value. Name types are in the order of crypto/x509.
func (c *NameConstraints) marshal() ([]byte, error) {
	permitted, err := marshalSubtrees(
		"spec.nameConstraints.permitted",
		c.PermittedDNSDomains,
		c.PermittedIPRanges,
		c.PermittedEmailAddresses,
		c.PermittedURIDomains,
	)
	if err != nil {
		return nil, err
	}
	excluded, err := marshalSubtrees(
		"spec.nameConstraints.excluded",
		c.ExcludedDNSDomains,
		c.ExcludedIPRanges,
		c.ExcludedEmailAddresses,
		c.ExcludedURIDomains,
	)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(generalSubtrees{Permitted: permitted, Excluded: excluded})
}

func marshalSubtrees(field string, dns, ips, emails, uris []string) ([]asn1.RawValue, error) {
	var subtrees []asn1.RawValue
	add := func(tag int, value []byte) error {
		base, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value})
		subtrees = append(subtrees, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: base})
		return err
	}
	addStrings := func(field string, tag int, canonical func(string) (string, error), values []string) error {
		for i, value := range values {
			value, err := canonical(value)
			if err == nil && value != "" { // an empty domain stands for all domains
				err = checkIA5(value)
			}
			if err != nil {
				return fmt.Errorf("%s[%d]: %w", field, i, err)
			}
			if err := add(tag, []byte(value)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := addStrings(field+".dnsDomains", tagDNS, constraintDomain, dns); err != nil {
		return nil, err
	}
	for i, cidr := range ips {
		ipnet, err := parseCIDR(cidr)
		if err != nil {
			return nil, fmt.Errorf("%s.ipRanges[%d]: %w", field, i, err)
		}
		if err := add(tagIP, append(bytes.Clone(ipnet.IP), ipnet.Mask...)); err != nil {
			return nil, err
		}
	}
	if err := addStrings(field+".emailAddresses", tagEmail, constraintEmail, emails); err != nil {
		return nil, err
	}
	if err := addStrings(field+".uriDomains", tagURI, constraintDomain, uris); err != nil {
		return nil, err
	}
	return subtrees, nil
}

func parseCIDR(s string) (*net.IPNet, error) {
	_, ipnet, err := net.ParseCIDR(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a range of IP addresses, write it as in 10.0.0.0/8", s)
	}
	return ipnet, nil
}

// parseNameConstraints reads the extension. Types of names that a [Request] cannot have are an
// error: ignoring one would widen the permissions of a CA.
func parseNameConstraints(ext *pkix.Extension) (*NameConstraints, error) {
	var subtrees generalSubtrees
	if rest, err := asn1.Unmarshal(ext.Value, &subtrees); err != nil || len(rest) != 0 {
		return nil, errMalformedConstraints
	}
	constraints := &NameConstraints{Critical: ext.Critical}
	err := parseSubtrees(
		subtrees.Permitted,
		&constraints.PermittedDNSDomains,
		&constraints.PermittedIPRanges,
		&constraints.PermittedEmailAddresses,
		&constraints.PermittedURIDomains,
	)
	if err != nil {
		return nil, err
	}
	err = parseSubtrees(
		subtrees.Excluded,
		&constraints.ExcludedDNSDomains,
		&constraints.ExcludedIPRanges,
		&constraints.ExcludedEmailAddresses,
		&constraints.ExcludedURIDomains,
	)
	if err != nil {
		return nil, err
	}
	if constraints.empty() {
		return nil, errMalformedConstraints
	}
	return constraints, nil
}

var errMalformedConstraints = errors.New("the name constraints extension is malformed")

func parseSubtrees(subtrees []asn1.RawValue, dns, ips, emails, uris *[]string) error {
	for _, subtree := range subtrees {
		var base asn1.RawValue
		// minimum and maximum could follow, but RFC 5280 does not use them.
		if rest, err := asn1.Unmarshal(subtree.Bytes, &base); err != nil || len(rest) != 0 ||
			subtree.Tag != asn1.TagSequence || subtree.Class != asn1.ClassUniversal || base.Class != asn1.ClassContextSpecific {
			return errMalformedConstraints
		}
		switch base.Tag {
		case tagDNS:
			*dns = append(*dns, string(base.Bytes))
		case tagEmail:
			*emails = append(*emails, string(base.Bytes))
		case tagURI:
			*uris = append(*uris, string(base.Bytes))
		case tagIP:
			n := len(base.Bytes) / 2
			ipnet := net.IPNet{IP: base.Bytes[:n], Mask: base.Bytes[n:]}
			if _, bits := ipnet.Mask.Size(); len(base.Bytes)%2 != 0 || bits == 0 {
				return errors.New("a range of IP addresses in the name constraints extension is malformed")
			}
			*ips = append(*ips, ipnet.String())
		default:
			return fmt.Errorf(
				"the name constraints extension has a name of kind %d, only DNS domains, IP ranges, email addresses and URI "+
					"domains are supported",
				base.Tag,
			)
		}
	}
	return nil
}
