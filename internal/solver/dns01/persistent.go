package dns01

import (
	"context"
	"reflect"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// persists reports whether a challenge is proven by a persistent record: dns-persist-01.
func persists(ch *cmacme.Challenge) bool {
	spec := ch.Spec.Solver.DNS01
	return spec != nil && spec.ChallengeType == cmacme.DNS01ChallengeTypeDNSPersist01
}

// isManual reports whether the user makes such a record, because the solver names no provider.
func isManual(ch *cmacme.Challenge) bool {
	if !persists(ch) {
		return false
	}
	provider := *ch.Spec.Solver.DNS01
	provider.ChallengeType, provider.PersistUntil, provider.CNAMEStrategy, provider.Nameservers = "", nil, "", nil
	return reflect.ValueOf(provider).IsZero()
}

// grants returns a function that reports whether a value authorizes the account now. The value may
// be written differently, for example by another client.
func (s *Solver) grants(wanted string) func(string) bool {
	want, err := acme.ParseDNSPersist01(wanted)
	return func(value string) bool {
		p, e := acme.ParseDNSPersist01(value)
		return err == nil && e == nil && p.Grants(want, s.Now())
	}
}

// presentPersistent makes a persistent record if no existing one authorizes the account. Other
// values belong to other accounts.
func (s *Solver) presentPersistent(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if err != nil {
		return err
	}
	if answers, err := r.Ask(ctx, record); err == nil && propagated(record, answers) {
		return nil
	}
	if until := ch.Spec.Solver.DNS01.PersistUntil; until != nil && !s.Now().Before(until.Time) {
		return fault.Misconfiguredf(
			"PresentError",
			"dns01.persistUntil: %s is over: choose a later time, or leave it out",
			until.UTC().Format(time.RFC3339),
		)
	}
	if isManual(ch) {
		return fault.Misconfiguredf(
			"PresentError",
			"create the TXT record %s with the value %q, beside what stands there, or name a provider in dns01",
			strings.TrimSuffix(record.FQDN, "."),
			ch.Spec.Key,
		)
	}
	return s.change(ctx, issuer, ch, func(ctx context.Context, p provider.Provider, r provider.Record) error {
		return p.Present(ctx, r)
	})
}

// propagated reports whether every server that answers has the record.
func propagated(r resolver.Record, answers []resolver.Answer) bool {
	have := false
	for _, a := range answers {
		if a.Err == nil && !r.In(a.Values) {
			return false
		}
		have = have || a.Err == nil
	}
	return have
}
