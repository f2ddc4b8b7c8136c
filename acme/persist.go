package acme

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DNSPersist01Name is the name of the standing TXT record for a domain of dns-persist-01.
func DNSPersist01Name(domain string) string {
	return "_validation-persist." + strings.TrimPrefix(domain, "*.")
}

// DNSPersist01 is a value of the standing TXT record: that an account may have certificates of a CA
// for the name, as long as the record stands. Draft-ietf-acme-dns-persist-01 section 4.1.
type DNSPersist01 struct {
	// IssuerDomainName is one of the names that the CA's challenge has.
	IssuerDomainName string
	// AccountURI is the URL of the account.
	AccountURI string
	// Wildcard grants certificates for wildcards, and names below, as well.
	Wildcard bool
	// Until is when the grant ends. Never if zero.
	Until time.Time
}

// maxPersist is how long a value may be: it has to fit into one string of a TXT record, as not all
// DNS services take more.
const maxPersist = 255

// String is the value as it stands in the record.
func (p DNSPersist01) String() string {
	value := p.IssuerDomainName + "; accounturi=" + p.AccountURI
	if p.Wildcard {
		value += "; policy=wildcard"
	}
	if !p.Until.IsZero() {
		value += "; persistUntil=" + strconv.FormatInt(p.Until.Unix(), 10)
	}
	return value
}

// ParseDNSPersist01 reads a value, of at most 255 bytes. Parameters that are not known are passed
// over. Whatever String makes of a grant that it accepts means the same.
func ParseDNSPersist01(value string) (DNSPersist01, error) {
	var p DNSPersist01
	if len(value) > maxPersist {
		return p, fmt.Errorf("it is longer than %d bytes", maxPersist)
	}
	parts := strings.Split(value, ";")
	if p.IssuerDomainName = blank(parts[0]); !isDomainName(p.IssuerDomainName) {
		return p, errors.New("it does not begin with a domain name")
	}
	seen := map[string]bool{}
	for _, part := range parts[1:] {
		tag, text, found := strings.Cut(part, "=")
		tag, text = strings.ToLower(blank(tag)), blank(text)
		if !found || tag == "" || seen[tag] || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return p, errors.New("its parameters are not of the form tag=value, each once")
		}
		seen[tag] = true
		switch tag {
		case "accounturi":
			p.AccountURI = text
		case "policy":
			p.Wildcard = strings.EqualFold(text, "wildcard")
		case "persistuntil":
			seconds, err := strconv.ParseInt(text, 10, 64)
			if err != nil || seconds <= 0 {
				return p, errors.New("its persistUntil is not a UNIX time")
			}
			p.Until = time.Unix(seconds, 0)
		}
	}
	if p.AccountURI == "" {
		return p, errors.New("it has no accounturi")
	}
	return p, nil
}

// blank removes the blanks of RFC 8659 section 4.2 around a word.
func blank(s string) string { return strings.Trim(s, " \t") }

// Grants reports whether p grants at the time what is wanted, of which the end does not matter.
func (p DNSPersist01) Grants(wanted DNSPersist01, now time.Time) bool {
	return p.IssuerDomainName == wanted.IssuerDomainName && p.AccountURI == wanted.AccountURI &&
		(p.Wildcard || !wanted.Wildcard) &&
		(p.Until.IsZero() || now.Before(p.Until))
}
