package ratelimit

import (
	"net/url"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// Limit is a bucket of Count tokens, which is full again Period after it was empty. The zero value
// is no limit.
type Limit struct {
	// Count is the size of the bucket.
	Count int64
	// Period is the time in which an empty bucket becomes full.
	Period time.Duration
}

// None reports whether there is no limit.
func (l Limit) None() bool { return l.Count <= 0 || l.Period <= 0 }

// interval is the time in which one token comes back, in ms. It is rounded up, because an order
// that is sent too early is refused.
func (l Limit) interval() int64 {
	period := l.Period.Milliseconds()
	return max((period+l.Count-1)/l.Count, 1)
}

// free returns the earliest time at which a token can be taken from a bucket that is full again at
// full and has so many reserved tokens. It is not after now if one can be taken now. Like CAs, this
// uses GCRA: a bucket is one instant. All times are in ms.
func (l Limit) free(full, reserved, now int64) int64 {
	return max(full, now) + (reserved+1-l.Count)*l.interval()
}

// take returns when a bucket is full again after one more token was taken. The bucket never gets
// emptier than empty, nor fuller if now is long ago.
func (l Limit) take(full, now int64) int64 {
	return max(full, min(max(full, now)+l.interval(), now+l.Count*l.interval()))
}

// Limits are those of a CA.
type Limits struct {
	// NewOrders counts new orders by account.
	NewOrders Limit
	// Domain counts certificates by registered domain.
	Domain Limit
	// ExactSet counts certificates by the exact set of identifiers.
	Set Limit
	// Validations counts failed validations by account and identifier.
	Validations Limit
}

// letsEncrypt has the published limits of Let's Encrypt, by the host of the directory. The limits
// by second of its staging environment are too high to matter. See
// https://letsencrypt.org/docs/rate-limits and https://letsencrypt.org/docs/staging-environment, as
// of August 2026.
var letsEncrypt = map[string]Limits{
	"acme-v02.api.letsencrypt.org": {
		NewOrders: Limit{300, 3 * time.Hour}, Domain: Limit{50, 7 * 24 * time.Hour},
		Set: Limit{5, 7 * 24 * time.Hour}, Validations: Limit{5, time.Hour},
	},
	"acme-staging-v02.api.letsencrypt.org": {
		NewOrders: Limit{1500, 3 * time.Hour}, Set: Limit{30000, 7 * 24 * time.Hour},
		Validations: Limit{200, time.Hour},
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

// Override returns the limits, replaced by those that an issuer sets.
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
