package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

const (
	// manual is the name of the provider that leaves the records to a user.
	manual = "manual"
	// remainsAgain is how often the solver checks whether a record is gone: secondaries get the change
	// later.
	remainsAgain = 15 * time.Second
	// absence is how long after the end of a challenge a record that no server has counts as removed
	// although CleanUp fails. An earlier process may have removed it and ended before it stored that.
	// Before this time the record may still reach the servers.
	absence = time.Minute
)

// legoRecords makes the record of one challenge with a provider that challenges share.
type legoRecords struct {
	of *lego.Provider
	ch *cmacme.Challenge
}

func (l legoRecords) record(r Record) lego.Record {
	return lego.Record{
		FQDN:             r.FQDN,
		Zone:             r.Zone,
		Value:            r.Value,
		Domain:           l.ch.Spec.DNSName,
		Token:            l.ch.Spec.Token,
		KeyAuthorization: l.ch.Spec.KeyAuthorization,
	}
}

func (l legoRecords) Present(ctx context.Context, r Record) error {
	if l.ch.Status.Presented {
		return l.of.Restore(ctx, l.record(r))
	}
	return l.of.Present(ctx, l.record(r))
}

func (l legoRecords) CleanUp(ctx context.Context, r Record) error {
	return l.of.CleanUp(ctx, l.record(r))
}

// author returns the rights of the users that write issuers of a kind.
func (s *Solver) author(kind string) lego.Author {
	switch {
	case s.OwnMachine:
		return lego.Owner
	case kind == signer.KindClusterIssuer:
		return lego.Admin
	}
	return lego.Tenant
}

// legoProvider returns the provider that dns01.provider names. One with the same settings is used
// again, because it remembers the records that it has made.
func (s *Solver) legoProvider(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (Provider, error) {
	if acme.DNS01Value(ch.Spec.KeyAuthorization) != ch.Spec.Key {
		return nil, fault.Refusedf(
			"PresentError",
			"the Challenge has no keyAuthorization, which dns01.provider needs: it was not made by this version of Perennial",
		)
	}
	spec := ch.Spec.Solver.DNS01.Provider
	config := raw(spec)
	settings := []string{spec.Name, string(config), issuer.Kind} // the author differs by kind
	var secret map[string][]byte
	if spec.SecretRef != nil {
		var err error
		if secret, err = s.settingsOf(ctx, issuer, spec); err != nil {
			return nil, err
		}
		for name, value := range secret {
			settings = append(settings, fmt.Sprintf("%s=%s", name, value))
		}
		slices.Sort(settings[3:])
	}
	found, err := s.lego.get("lego", settings, func() (*lego.Provider, error) {
		made, err := lego.NewWithin(s.reach(issuer.Kind), spec.Name, config, secret, s.author(issuer.Kind), s.Now)
		if err == nil {
			made.Records = &s.records
		}
		return made, err
	})
	if err != nil {
		return nil, err
	}
	return legoRecords{found, ch}, nil
}

// remains checks, after CleanUp returned err, whether the record can still be seen. Some providers
// do not find the record any more, or only one of two. The recursive servers cannot decide that,
// because they cache.
func (s *Solver) remains(ctx context.Context, ch *cmacme.Challenge, err error) error {
	if later := new(solver.Later); errors.As(err, &later) {
		return err
	}
	resolver := s.resolver(ch)
	record, failed := s.locate(ctx, resolver, ch)
	if limiter.IsBusy(failed) {
		return failed
	}
	if failed != nil || s.RecursiveOnly && len(ch.Spec.Solver.DNS01.Nameservers) == 0 {
		return err
	}
	answers, failed := resolver.Ask(ctx, record)
	if failed != nil {
		return err
	}
	var at []string
	silent := len(answers) == 0
	for _, a := range answers {
		switch {
		case a.Err != nil:
			silent = true
		case slices.Contains(a.Values, record.Value):
			at = append(at, strings.TrimSuffix(a.Server, "."))
		}
	}
	switch by := ch.Spec.Solver.DNS01.Provider.Name; {
	case len(at) > 0 && err != nil:
		return fault.Transientf("CleanUpError", "%s still has the record: %w", strings.Join(at, ", "), err)
	case len(at) > 0 && by == manual:
		return &solver.Later{
			After: remainsAgain,
			Why: fmt.Sprintf("remove the TXT record %s with the value %q, which %s still has",
				strings.TrimSuffix(record.FQDN, "."), record.Value, strings.Join(at, ", ")),
			Ask: true,
		}
	case len(at) > 0:
		return &solver.Later{
			After: remainsAgain,
			Why:   fmt.Sprintf("%s still has it, although %s was asked to remove it", strings.Join(at, ", "), by),
		}
	case err != nil && !silent && ch.DeletionTimestamp != nil && s.Now().Sub(ch.DeletionTimestamp.Time) > absence:
		return nil
	}
	return err
}
