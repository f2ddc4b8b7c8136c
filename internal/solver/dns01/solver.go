// Package dns01 creates the TXT records of DNS-01 challenges, RFC 8555 section 8.4, and checks that
// every authoritative server of the zone has them. Package resolver asks these servers, and package
// provider changes the records.
package dns01

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// recordTTL is the smallest TTL that every provider accepts.
const recordTTL = 60 * time.Second

// Solver gives the proof of DNS-01 challenges.
type Solver struct {
	// Providers make the records.
	Providers *provider.Factory
	// Nameservers and RecursiveOnly are as in resolver.Resolver, for solvers that name no name
	// servers.
	Nameservers   []string
	RecursiveOnly bool
	// Dial connects to name servers. If nil, a net.Dialer does.
	Dial resolver.Dial
	// Now returns the current time, for waits and persistUntil.
	Now func() time.Time

	warned warnings
	tenant sync.Once
	// tenantHTTPS is the client for the DNS servers with URLs that namespaced Issuers name.
	tenantHTTPS *http.Client
}

func (s *Solver) resolver(ch *cmacme.Challenge) *resolver.Resolver {
	r := &resolver.Resolver{
		Nameservers:   s.Nameservers,
		RecursiveOnly: s.RecursiveOnly,
		Dial:          s.Dial,
		Reach:         egress.Anywhere(),
	}
	spec := ch.Spec.Solver.DNS01
	if len(spec.Nameservers) == 0 {
		return r
	}
	r.Nameservers, r.RecursiveOnly = spec.Nameservers, true
	if kind := ch.Spec.IssuerRef.KindOrDefault(); !s.Providers.Trusted(kind) {
		r.Reach = s.Providers.Reach(kind)
		s.tenant.Do(func() { s.tenantHTTPS = resolver.NewHTTPSClient(s.Providers.Reach(signer.KindIssuer)) })
		r.HTTPS = s.tenantHTTPS
	}
	return r
}

// cachesAnswers reports whether the servers that are asked for records may cache that one is gone.
func (s *Solver) cachesAnswers(ch *cmacme.Challenge) bool {
	return s.RecursiveOnly && len(ch.Spec.Solver.DNS01.Nameservers) == 0
}

func checkNameservers(spec *cmacme.ACMEChallengeSolverDNS01) error {
	if _, err := resolver.ParseNameservers(spec.Nameservers); err != nil {
		return fault.Misconfiguredf("InvalidSolver", "dns01.nameservers: %w", err)
	}
	return nil
}

// locate finds the record of a challenge. It keeps the limiter slot of its name servers.
func (s *Solver) locate(ctx context.Context, r *resolver.Resolver, ch *cmacme.Challenge) (resolver.Record, error) {
	if err := limiter.Acquire(ctx, solver.TargetOf(ch)); err != nil {
		return resolver.Record{}, err
	}
	spec := ch.Spec.Solver.DNS01
	if err := checkNameservers(spec); err != nil {
		return resolver.Record{}, err
	}
	name, zone, err := r.Locate(ctx, recordName(ch),
		spec.CNAMEStrategy == cmacme.FollowStrategy || provider.TraitsOf(spec).BehindCNAME)
	switch {
	case errors.Is(err, resolver.RCode(dns.RcodeServerFailure)) && r.Bogus(ctx, ch.Spec.DNSName):
		return resolver.Record{}, fault.Transientf(
			"PresentError",
			"find the zone of %s: %w, as its DNSSEC does not verify: correct the DS record at the registrar, or sign the "+
				"zone anew",
			ch.Spec.DNSName,
			err,
		)
	case egress.IsBlockedAddress(err):
		return resolver.Record{}, fault.Misconfiguredf("PresentError", "find the zone of %s: %w: %s", ch.Spec.DNSName, err,
			egress.BlockedAddressAdvice)
	case fault.Of(err).Class == fault.Misconfigured:
		return resolver.Record{}, fault.Misconfiguredf("PresentError", "find the zone of %s: %w", ch.Spec.DNSName, err)
	case err != nil:
		return resolver.Record{}, fault.Transientf("PresentError", "find the zone of %s: %w", ch.Spec.DNSName, err)
	}
	record := resolver.Record{FQDN: name, Zone: zone, Value: ch.Spec.Key}
	if persists(ch) {
		record.Enough = s.grants(ch.Spec.Key)
	}
	return record, nil
}

// recordName returns the name of a challenge's record, before CNAMEs.
func recordName(ch *cmacme.Challenge) string {
	return cmp.Or(ch.Spec.RecordName, acme.DNS01Name(ch.Spec.DNSName))
}

// Present adds the record.
func (s *Solver) Present(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error {
	if persists(ch) {
		return s.presentPersistent(ctx, issuer, ch)
	}
	return s.change(ctx, issuer, ch, func(ctx context.Context, p provider.Provider, r provider.Record) error {
		if err := s.spareForeignRecords(ctx, p, ch, r); err != nil {
			return err
		}
		return p.Present(ctx, r)
	})
}

// PresentAlong adds the record at a provider that keeps only the last few values. It cannot know
// which value the provider drops next, so it first sets the values of the other challenges again.
func (s *Solver) PresentAlong(
	ctx context.Context,
	issuer *signer.Issuer,
	ch *cmacme.Challenge,
	others []*cmacme.Challenge,
) error {
	return s.change(ctx, issuer, ch, func(ctx context.Context, p provider.Provider, r provider.Record) error {
		for _, other := range others {
			again := r
			again.Value = other.Spec.Key
			if err := p.Present(ctx, again); err != nil {
				return err
			}
		}
		return p.Present(ctx, r)
	})
}

// Capacity returns how many values the provider of a challenge can have at one name at the same
// time, or 0 if there is no limit.
func (s *Solver) Capacity(ch *cmacme.Challenge) int {
	return provider.TraitsOf(ch.Spec.Solver.DNS01).Capacity
}

// Place is the name of the record, after CNAMEs if those are followed.
func (s *Solver) Place(ctx context.Context, ch *cmacme.Challenge) (string, error) {
	record, err := s.locate(ctx, s.resolver(ch), ch)
	return provider.Place(ch.Spec.Solver.DNS01, record.FQDN), err
}

// CleanUp removes the record. It leaves persistent records, and those of providers that drop old
// values by themselves.
func (s *Solver) CleanUp(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error {
	traits := provider.TraitsOf(ch.Spec.Solver.DNS01)
	if persists(ch) || traits.DropsOldValues {
		return nil
	}
	err := s.change(ctx, issuer, ch, func(ctx context.Context, p provider.Provider, r provider.Record) error {
		if s.onlyForeignRecords(ctx, p, ch, r) {
			return nil
		}
		return p.CleanUp(ctx, r)
	})
	if traits.MayKeepRecord {
		err = s.checkRemoved(ctx, ch, err)
	}
	if err == nil {
		s.warned.remove(ch.UID)
	}
	return err
}

// change finds the record of a challenge and changes it by its provider.
func (s *Solver) change(
	ctx context.Context,
	issuer *signer.Issuer,
	ch *cmacme.Challenge,
	change func(context.Context, provider.Provider, provider.Record) error,
) error {
	p, err := s.provider(ctx, issuer, ch)
	if err != nil {
		return err
	}
	asynchronous, isAsynchronous := p.(provider.Asynchronous)
	if isAsynchronous {
		over, err := asynchronous.Busy(ctx, ch.Spec.Key)
		if err != nil {
			return err // before any DNS query
		}
		if over {
			ctx = limiter.Bypass(ctx) // only the result of an ended call is fetched
		}
	}
	found, err := s.locate(ctx, s.resolver(ch), ch)
	if err != nil {
		return err
	}
	record := provider.Record{FQDN: found.FQDN, Zone: found.Zone, Value: found.Value, TTL: recordTTL}
	if p, ok := p.(provider.Locker); ok {
		unlock, err := p.Lock(ctx, record)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if !isAsynchronous { // its calls outlive this one and take their own slots
		if err := limiter.Acquire(ctx, provider.Target(issuer, ch)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, provider.TraitsOf(ch.Spec.Solver.DNS01).Timeout)
	defer cancel()
	return change(ctx, p, record)
}

// provider makes the provider that a solver names.
func (s *Solver) provider(ctx context.Context, issuer *signer.Issuer,
	ch *cmacme.Challenge) (provider.Provider, error) {
	if issuer != nil { // or else New says so
		if err := checkNameservers(ch.Spec.Solver.DNS01); err != nil {
			return nil, err
		}
	}
	return s.Providers.New(ctx, issuer, ch)
}

// Settings returns an error if a solver of an issuer is misconfigured, as far as that follows from
// its spec. It reads no Secrets and sends no requests.
func (s *Solver) Settings(issuer *signer.Issuer, spec *cmacme.ACMEChallengeSolverDNS01) error {
	if err := checkNameservers(spec); err != nil {
		return err
	}
	return s.Providers.Check(issuer, spec)
}

// Verify returns all problems of a solver that can be found without its service. The error is set
// if a Secret could not be read.
func (s *Solver) Verify(ctx context.Context, issuer *signer.Issuer,
	spec *cmacme.ACMEChallengeSolverDNS01) (wrong []error, err error) {
	wrong, err = s.Providers.Verify(ctx, issuer, spec)
	if e := checkNameservers(spec); e != nil {
		wrong = append([]error{e}, wrong...)
	}
	return wrong, err
}
