package dns01

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// Check asks all authoritative servers of the zone, and then the provider if it is a Settler.
func (s *Solver) Check(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (solver.CheckResult, error) {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if limiter.IsBusy(err) {
		return solver.CheckResult{}, err
	}
	if err != nil {
		return solver.CheckResult{Why: err.Error()}, nil
	}
	answers, err := r.Ask(ctx, record)
	if err != nil {
		return solver.CheckResult{Why: err.Error()}, nil
	}
	var since time.Time
	if ch.Status.PresentedAt != nil {
		since = ch.Status.PresentedAt.Time
	}
	seen := resolver.Judge(record, answers, since, s.Now())
	switch spec := ch.Spec.Solver.DNS01; {
	case !seen.Visible && spec.Provider != nil && spec.Provider.Name == provider.Manual:
		seen.Ask = fmt.Sprintf(
			"create the TXT record %s with the value %q, beside others that are there",
			strings.TrimSuffix(record.FQDN, "."),
			record.Value,
		)
		seen.Why = seen.Ask + "; " + seen.Why
		return seen, nil
	case !seen.Visible, !provider.TraitsOf(spec).Settles: // so the provider need not be made
		return seen, nil
	}
	settled, err := s.settled(ctx, issuer, ch, record)
	switch {
	case err != nil:
		return solver.CheckResult{}, err
	case !settled:
		return solver.CheckResult{
			Why: "the servers that were asked have the record, but the provider says that not all of its servers do yet",
		}, nil
	}
	return seen, nil
}

// settled asks the provider whether all of its servers have the record.
func (s *Solver) settled(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge,
	record resolver.Record) (bool, error) {
	limiter.Release(ctx)
	p, err := s.provider(ctx, issuer, ch)
	if err != nil {
		return false, err
	}
	settler, ok := p.(provider.Settler)
	if !ok {
		return true, nil
	}
	if err := limiter.Acquire(ctx, provider.Target(issuer, ch)); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, provider.Timeout)
	defer cancel()
	return settler.Settled(ctx, provider.Record{FQDN: record.FQDN, Zone: record.Zone, Value: record.Value})
}

// Look asks all name servers of the zone for the record.
func (s *Solver) Look(ctx context.Context, ch *cmacme.Challenge) ([]solver.EndpointView, error) {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if err != nil {
		return nil, err
	}
	answers, err := r.Ask(ctx, record)
	if err != nil {
		return nil, err
	}
	var views []solver.EndpointView
	for _, a := range answers {
		v := solver.EndpointView{Where: a.Name()}
		switch {
		case a.Err != nil:
			v.NoResponse, v.Shows = true, fmt.Sprintf("cannot be reached: %s", a.Err)
		case slices.Contains(a.Values, record.Value):
			v.Matches = true
		default:
			v.Shows = fmt.Sprintf("answers %s for %s", resolver.Quote(a.Values), strings.TrimSuffix(record.FQDN, "."))
		}
		views = append(views, v)
	}
	return views, nil
}
