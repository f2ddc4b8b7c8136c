package acme

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DNSPersist01Name is the name of the permanent TXT record for a domain of dns-persist-01.
func DNSPersist01Name(domain string) string {
	return "_validation-persist." + strings.TrimPrefix(domain, "*.")
}

// DNSPersist01 is a value of the permanent TXT record. It authorizes an account to obtain
// certificates of a CA for the name, as long as the record exists. Draft-ietf-acme-dns-persist-01
// section 4.1.
type DNSPersist01 struct {
	// IssuerDomainName is one of the IssuerDomainNames of the CA's challenge.
	IssuerDomainName string
	// AccountURI is the URL of the account.
	AccountURI string
	// Wildcard grants certificates for wildcards, and names below, as well.
	Wildcard bool
	// Until is when the authorization ends. Never if zero.
	Until time.Time
}

// maxPersist is the maximum length of a value. It must fit into one string of a TXT record, because
// some DNS services accept only one.
const maxPersist = 255

// String returns the value as it is in the record.
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

// ParseDNSPersist01 reads a value, of at most 255 bytes. It ignores unknown parameters. String of
// the result has the same meaning.
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

// Grants reports whether p authorizes wanted at the given time. It ignores the Until of wanted.
func (p DNSPersist01) Grants(wanted DNSPersist01, now time.Time) bool {
	return p.IssuerDomainName == wanted.IssuerDomainName && p.AccountURI == wanted.AccountURI &&
		(p.Wildcard || !wanted.Wildcard) &&
		(p.Until.IsZero() || now.Before(p.Until))
}
