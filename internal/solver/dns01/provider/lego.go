package provider

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

const (
	// Manual is the name of the provider of dns01.provider that leaves the records to a user.
	Manual = "manual"

	legoField = "dns01.provider.secretRef"
)

var legoService = service{
	field:      "provider",
	configured: func(s *spec) bool { return s.Provider != nil },
	check:      checkLego,
	verify: func(ctx context.Context, f *Factory, issuer *signer.Issuer, s *spec) error {
		c := s.Provider
		if c.SecretRef == nil {
			return nil
		}
		secret, err := f.legoSecret(ctx, issuer, c)
		if err != nil {
			return err
		}
		return lego.Check(c.Name, raw(c), secret, true, f.author(issuer.Kind))
	},
	open: openLego,
	traits: func(s *spec) Traits {
		t := Traits{MayKeepRecord: true}
		if lego.Exclusive(s.Provider.Name) {
			t.Capacity = 1
		}
		return t
	},
	place: func(s *spec, fqdn string) string { return lego.Place(s.Provider.Name, fqdn) },
}

// checkLego returns an error if a solver's settings are wrong.
func checkLego(f *Factory, issuer *signer.Issuer, s *spec) error {
	c := s.Provider
	if err := lego.Check(c.Name, raw(c), nil, c.SecretRef == nil, f.author(issuer.Kind)); err != nil {
		return err
	}
	if s.ChallengeType == cmacme.DNS01ChallengeTypeDNSAccount01 && s.CNAMEStrategy != cmacme.FollowStrategy &&
		lego.ByDomain(c.Name) {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.provider %s cannot have the record of dns-account-01 itself: let a CNAME lead from it to a name that "+
				"begins with _acme-challenge., "+
				"and set cnameStrategy: Follow; or use another provider",
			c.Name,
		)
	}
	return nil
}

// raw returns the JSON of the configuration of dns01.provider.
func raw(c *cmacme.ACMEIssuerDNS01ProviderLego) []byte {
	if c.Config == nil {
		return nil
	}
	return c.Config.Raw
}

// legoSecret reads the Secret of dns01.provider, whose entries are all settings.
func (f *Factory) legoSecret(ctx context.Context, issuer *signer.Issuer,
	c *cmacme.ACMEIssuerDNS01ProviderLego) (map[string][]byte, error) {
	secretName := issuer.SecretInRequests(c.SecretRef.Name)
	got, err := issuer.ReadSecret(ctx, f.Secrets, c.SecretRef.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Missingf("PresentError",
			"%s, %s, does not exist: create it, with the settings of %s as entries%s",
			secretName, legoField, c.Name, issuer.SecretsHint())
	case err != nil:
		return nil, fault.Transientf("PresentError", "%w", err)
	}
	return got.Data, nil
}

// legoRecords makes the record of one challenge with a provider that challenges share.
type legoRecords struct {
	provider  *lego.Provider
	challenge *cmacme.Challenge
}

func (l legoRecords) record(r Record) lego.Record {
	return lego.Record{
		FQDN:             r.FQDN,
		Zone:             r.Zone,
		Value:            r.Value,
		Domain:           l.challenge.Spec.DNSName,
		Token:            l.challenge.Spec.Token,
		KeyAuthorization: l.challenge.Spec.KeyAuthorization,
	}
}

// Present makes the record, or makes it again if it was lost.
func (l legoRecords) Present(ctx context.Context, r Record) error {
	if l.challenge.Status.Presented {
		return l.provider.Restore(ctx, l.record(r))
	}
	return l.provider.Present(ctx, l.record(r))
}

// CleanUp removes the record.
func (l legoRecords) CleanUp(ctx context.Context, r Record) error {
	return l.provider.CleanUp(ctx, l.record(r))
}

// Busy is as in Asynchronous.
func (l legoRecords) Busy(ctx context.Context, value string) (over bool, err error) {
	return l.provider.Busy(ctx, value)
}

// Overwrites is as in Asynchronous.
func (l legoRecords) Overwrites(r Record) bool {
	return lego.Exclusive(l.challenge.Spec.Solver.DNS01.Provider.Name) && !l.provider.Begun(l.record(r))
}

// openLego returns the provider that dns01.provider names. One with the same settings is used
// again, because it remembers the records that it has made.
func openLego(ctx context.Context, f *Factory, r request, _ credentials) (Provider, error) {
	ch, c := r.challenge, r.spec().Provider
	if acme.DNS01Value(ch.Spec.KeyAuthorization) != ch.Spec.Key {
		return nil, fault.Refusedf(
			"PresentError",
			"the Challenge has no keyAuthorization, which dns01.provider needs: it was not made by this version of Perennial",
		)
	}
	config, kind := raw(c), r.issuer.Kind
	settings := []string{c.Name, string(config), kind} // the author differs by kind
	var secret map[string][]byte
	if c.SecretRef != nil {
		var err error
		if secret, err = f.legoSecret(ctx, r.issuer, c); err != nil {
			return nil, err
		}
		for name, value := range secret {
			settings = append(settings, fmt.Sprintf("%s=%s", name, value))
		}
		slices.Sort(settings[3:])
	}
	found, err := openOnce(&f.lego, "lego", settings, func() (*lego.Provider, error) {
		made, err := lego.NewWithin(f.Reach(kind), c.Name, config, secret, f.author(kind), f.Now)
		if err == nil {
			made.Records = &f.records
		}
		return made, err
	})
	if err != nil {
		return nil, err
	}
	return legoRecords{found, ch}, nil
}
