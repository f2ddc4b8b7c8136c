package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// The canonical form of a name is its form in certificates. Two spellings with the same canonical
// form are the same name: all code that encodes, compares, counts or selects names uses this form.

// lookup maps a domain as clients do before a DNS lookup (UTS #46, nontransitional, as in IDNA
// 2008). It accepts underscores and wildcards.
var lookup = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// DNSName returns the canonical form of a DNS name: lower case, A-labels (RFC 5890) for non-ASCII
// labels, and no trailing dot. A trailing dot marks a name as fully qualified, which names in
// certificates always are (RFC 5280 section 4.2.1.6).
//
// Any ASCII string has a canonical form; [CheckDNSName] reports whether it can be a name.
func DNSName(name string) (string, error) {
	if isASCII(name) {
		return strings.TrimSuffix(strings.ToLower(name), "."), nil
	}
	ascii, err := lookup.ToASCII(name)
	if err != nil || !isASCII(ascii) {
		return "", fmt.Errorf("%q has characters that no domain name has: write its xn-- form, or correct it", name)
	}
	if err := CheckDNSName(ascii); err != nil {
		return "", fmt.Errorf("%q stands for %q, which %w", name, ascii, err)
	}
	return strings.TrimSuffix(ascii, "."), nil
}

// The schema of a Certificate refuses the same names, with the same messages.
var (
	errNotAlone = errors.New("must be a DNS name alone: write www.example.com instead of https://www.example.com/, " +
		"and a URI into uris")
	errSpace = errors.New("must be one DNS name without spaces: write each name as an entry of its own")
	errPort  = errors.New("must be a DNS name without a port: write www.example.com instead of " +
		"www.example.com:443, and an IPv6 address into ipAddresses")
	errAddress    = errors.New("must be a DNS name, not an IP address: write the address into ipAddresses")
	errEmptyLabel = errors.New("must have no empty label: write www.example.com instead of .example.com or " +
		"www..example.com, and *.example.com for all names of a domain")
)

// CheckDNSName reports why a string cannot be a DNS name. It accepts underscores, single labels,
// wildcards in any position and a trailing dot, because names in private networks have them.
func CheckDNSName(name string) error {
	bare := strings.TrimSuffix(name, ".")
	switch _, err := netip.ParseAddr(bare); {
	case strings.Contains(name, "/"):
		return errNotAlone
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return errSpace
	case strings.Contains(name, ":"):
		return errPort
	case err == nil:
		return errAddress
	case bare == "", strings.HasPrefix(name, "."), strings.Contains(name, ".."):
		return errEmptyLabel
	}
	return nil
}

// CheckCSRNames is [CheckDNSName] for the names of a CSR, except for those that were accepted
// elsewhere.
func CheckCSRNames(csr *x509.CertificateRequest, accepted ...string) error {
	accepted = DNSNames(accepted)
	for _, name := range csr.DNSNames {
		if err := CheckDNSName(name); err != nil && !slices.Contains(accepted, ComparableDNSName(name)) {
			return fmt.Errorf("spec.request: the DNS name %.300q %w", name, err)
		}
	}
	return nil
}

// ComparableDNSName is [DNSName] for comparisons: it returns a name without a canonical form
// unchanged.
func ComparableDNSName(name string) string { return formOf(DNSName, name) }

// ComparableIP returns the canonical form of an IP address. It returns other strings unchanged.
func ComparableIP(address string) string { return formOf(canonicalIP, address) }

func canonicalIP(address string) (string, error) {
	ip, err := parseIP(address)
	if err != nil {
		return "", err
	}
	return ip.String(), nil
}

// CanonicalURI returns the canonical form of a URI: its scheme and host in lower case (RFC 3986
// section 6.2.2.1), the host with A-labels and without a trailing dot, and the rest as net/url
// writes it.
func CanonicalURI(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", err
	}
	if u.Host != "" {
		if u.Host, err = canonicalHost(u); err != nil {
			return "", err
		}
	}
	canonical := u.String()
	return canonical, checkIA5(canonical)
}

func canonicalHost(u *url.URL) (string, error) {
	host, err := DNSName(u.Hostname())
	if err != nil {
		return "", err
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
			host = ip.String()
		} else {
			host = u.Hostname() // zone names are local to the host
		}
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" {
		host += ":" + port
	}
	return host, nil
}

// CanonicalEmail returns the canonical form of an email address: that of its domain. Only the
// receiving host can compare the part before the @ (RFC 5321 section 2.4).
func CanonicalEmail(address string) (string, error) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || strings.HasPrefix(address[at+1:], "[") {
		return address, checkIA5(address)
	}
	domain, err := DNSName(address[at+1:])
	if err != nil {
		return "", err
	}
	address = address[:at+1] + domain
	return address, checkIA5(address)
}

// constraintDomain is [DNSName] for a domain in name constraints (RFC 5280 section 4.2.1.10), which
// may begin with a dot, or be empty for all domains.
func constraintDomain(domain string) (string, error) {
	bare, dotted := strings.CutPrefix(domain, ".")
	form, err := DNSName(bare)
	if dotted {
		form = "." + form
	}
	return form, err
}

// constraintEmail is [CanonicalEmail] for name constraints: of an address, a host or a domain.
func constraintEmail(s string) (string, error) {
	if strings.Contains(s, "@") {
		return CanonicalEmail(s)
	}
	return constraintDomain(s)
}

// Covers reports whether one of names, all in canonical form, is a wildcard that matches name:
// *.example.com for www.example.com, but neither for example.com nor for a.b.example.com.
func Covers(names []string, name string) bool {
	label, parent, found := strings.Cut(name, ".")
	return found && label != "*" && parent != "" && slices.Contains(names, "*."+parent)
}

// DNSNames returns the canonical forms of names, each once, in their order. Names without a
// canonical form stay unchanged.
func DNSNames(names []string) []string { return distinct(DNSName, names) }

// WithoutCovered returns [DNSNames] without the names that a wildcard among them covers. ACME
// servers refuse an order with both.
func WithoutCovered(names []string) []string {
	all := DNSNames(names)
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return Covers(all, name) })
}

// formOf returns the canonical form of a name, or the name if it has none.
func formOf(canonical func(string) (string, error), name string) string {
	if form, err := canonical(name); err == nil {
		return form
	}
	return name
}

// distinct returns the canonical forms of names, each once.
func distinct(canonical func(string) (string, error), names []string) []string {
	seen := make(map[string]bool, len(names))
	var all []string
	for _, name := range names {
		if form := formOf(canonical, name); !seen[form] {
			seen[form] = true
			all = append(all, form)
		}
	}
	return all
}

// sameNames reports whether two lists hold the same names.
func sameNames(canonical func(string) (string, error), a, b []string) bool {
	return sameSet(distinct(canonical, a), distinct(canonical, b))
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}
