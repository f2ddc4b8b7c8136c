package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/pki"
)

// key is a digest that names a bucket, a failure or a refusal in few bytes.
type key string

func keyOf(parts ...string) key {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return key(base64.RawURLEncoding.EncodeToString(sum[:8]))
}

// key returns the key of the bucket of a subject. Each limit has its own bucket.
func (l Limit) key(kind Reason, subject string) key {
	return keyOf(string(kind), subject, l.Period.String(), time.Duration(l.Count).String())
}

// canonical returns the canonical form of an identifier.
func canonical(id acme.Identifier) string {
	if id.Type == acme.IdentifierIP {
		return pki.ComparableIP(id.Value)
	}
	return pki.ComparableDNSName(id.Value)
}

// base returns the name that the CA validates for an identifier.
func base(id acme.Identifier) string {
	return strings.TrimPrefix(canonical(id), "*.")
}

// domains returns the subjects of the limit by registered domain: the registered domains of the
// names, by the public suffix list, and the networks of the IP addresses.
func domains(ids []acme.Identifier) []string {
	var all []string
	for _, id := range ids {
		d := base(id)
		if addr, err := netip.ParseAddr(d); err == nil {
			bits := 32
			if addr.Is6() {
				bits = 64
			}
			network, _ := addr.Prefix(bits) // it fails only for other sizes
			d = network.String()
		} else if registered, err := publicsuffix.EffectiveTLDPlusOne(d); err == nil {
			d = registered
		} // a public suffix itself stays as it is
		all = append(all, d)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// exactSet returns the exact set of identifiers as one string.
func exactSet(ids []acme.Identifier) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = canonical(id)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
