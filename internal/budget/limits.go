package budget

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/pki"
)

// Limit is how many of something there may be: a bucket of Count tokens, which are full again after Period. The zero value is no limit.
type Limit struct {
	Count  int64
	Period time.Duration
}

// None reports whether there is no limit.
func (l Limit) None() bool { return l.Count <= 0 || l.Period <= 0 }

// interval is how long a token takes to come back, in ms, rounded up: rather too late than refused.
func (l Limit) interval() int64 {
	period := l.Period.Milliseconds()
	return max((period+l.Count-1)/l.Count, 1)
}

// free is the earliest time at which a token can be taken from a bucket that is full again at full and of which so many tokens are
// reserved. It is not after now if one can be taken now. This is GCRA, as CAs do it: a bucket is one instant. All times are in ms.
func (l Limit) free(full, reserved, now int64) int64 {
	return max(full, now) + (reserved+1-l.Count)*l.interval()
}

// take returns when a bucket is full again after one more token was taken. It does not get emptier than empty, nor fuller if now is long ago.
func (l Limit) take(full, now int64) int64 {
	return max(full, min(max(full, now)+l.interval(), now+l.Count*l.interval()))
}

// Limits are those of a CA.
type Limits struct {
	// NewOrders is by account, Domain by registered domain, Set by the exact set of identifiers, Validations, the failed ones, by account and
	// identifier.
	NewOrders, Domain, Set, Validations Limit
}

// letsEncrypt are the published limits of Let's Encrypt, by the host of the directory. What its staging environment allows a second is no limit for us.
// https://letsencrypt.org/docs/rate-limits and https://letsencrypt.org/docs/staging-environment, as of August 2026.
var letsEncrypt = map[string]Limits{
	"acme-v02.api.letsencrypt.org": {
		NewOrders: Limit{300, 3 * time.Hour}, Domain: Limit{50, 7 * 24 * time.Hour}, Set: Limit{5, 7 * 24 * time.Hour}, Validations: Limit{5, time.Hour},
	},
	"acme-staging-v02.api.letsencrypt.org": {
		NewOrders: Limit{1500, 3 * time.Hour}, Set: Limit{30000, 7 * 24 * time.Hour}, Validations: Limit{200, time.Hour},
	},
}

// Published returns the limits that are known of a directory's CA.
func Published(directory string) Limits {
	u, err := url.Parse(Canonical(directory))
	if err != nil {
		return Limits{}
	}
	return letsEncrypt[u.Hostname()]
}

// Override returns the limits with those of an issuer in their place.
func (l Limits) Override(o *cmacme.ACMERateLimits) Limits {
	if o == nil {
		return l
	}
	for _, f := range []struct {
		limit *Limit
		by    *cmacme.ACMERateLimit
	}{
		{&l.NewOrders, o.NewOrdersPerAccount}, {&l.Domain, o.CertificatesPerRegisteredDomain},
		{&l.Set, o.CertificatesPerExactSet}, {&l.Validations, o.FailedValidationsPerIdentifier},
	} {
		if f.by == nil {
			continue
		}
		*f.limit = Limit{Count: int64(f.by.Count)}
		if f.by.Period != nil {
			f.limit.Period = f.by.Period.Duration
		}
	}
	return l
}

// key names a bucket, or something else that is remembered of a subject, in few bytes.
type key string

func keyOf(parts ...string) key {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return key(base64.RawURLEncoding.EncodeToString(sum[:8]))
}

// key is that of the bucket of a subject. Other limits have other buckets.
func (l Limit) key(kind Kind, subject string) key {
	return keyOf(string(kind), subject, l.Period.String(), time.Duration(l.Count).String())
}

// canonical is the one form of what an identifier names.
func canonical(id acme.Identifier) string {
	if id.Type == acme.IdentifierIP {
		return pki.ComparableIP(id.Value)
	}
	return pki.ComparableDNSName(id.Value)
}

// base is the name that is validated for an identifier.
func base(id acme.Identifier) string {
	return strings.TrimPrefix(canonical(id), "*.")
}

// domains are what CAs count certificates by: the registered domains of the names, by the public suffix list, and the networks of the addresses.
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
		} // a public suffix itself stays what it is
		all = append(all, d)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// set is the exact set of identifiers.
func set(ids []acme.Identifier) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = canonical(id)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}
