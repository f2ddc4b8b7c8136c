package dns01

import (
	"context"
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

// reference is an entry of a Secret that a solver names.
type reference struct{ field, name, key string }

// references returns the Secret entries with the credentials of a solver. It leaves out the Secret
// of dns01.provider, because all entries of that are settings.
func references(spec *cmacme.ACMEChallengeSolverDNS01) []reference {
	of := func(field string, s cmmeta.SecretKeySelector) reference { return reference{field, s.Name, s.Key} }
	var all []reference
	optional := func(field string, s *cmmeta.SecretKeySelector) {
		if s != nil {
			all = append(all, of(field, *s))
		}
	}
	switch {
	case spec.RFC2136 != nil:
		if spec.RFC2136.TSIGKeyName != "" {
			all = append(all, of(tsigField, spec.RFC2136.TSIGSecret))
		}
	case spec.Cloudflare != nil:
		optional("dns01.cloudflare.apiTokenSecretRef", spec.Cloudflare.APIToken)
		if spec.Cloudflare.APIToken == nil {
			optional("dns01.cloudflare.apiKeySecretRef", spec.Cloudflare.APIKey)
		}
	case spec.DigitalOcean != nil:
		all = append(all, of("dns01.digitalocean.tokenSecretRef", spec.DigitalOcean.Token))
	case spec.AcmeDNS != nil:
		all = append(all, of(acmeDNSField, spec.AcmeDNS.AccountSecret))
	case spec.Route53 != nil:
		optional("dns01.route53.accessKeyIDSecretRef", spec.Route53.SecretAccessKeyID)
		if spec.Route53.SecretAccessKey.Name != "" {
			all = append(all, of("dns01.route53.secretAccessKeySecretRef", spec.Route53.SecretAccessKey))
		}
	case spec.CloudDNS != nil:
		optional(cloudDNSField, spec.CloudDNS.ServiceAccount)
	case spec.AzureDNS != nil:
		optional(azureDNSField, spec.AzureDNS.ClientSecret)
	case spec.Akamai != nil:
		all = append(all, of("dns01.akamai.clientTokenSecretRef", spec.Akamai.ClientToken),
			of("dns01.akamai.clientSecretSecretRef", spec.Akamai.ClientSecret),
			of("dns01.akamai.accessTokenSecretRef", spec.Akamai.AccessToken))
	}
	return all
}

const (
	tsigField    = "dns01.rfc2136.tsigSecretSecretRef"
	acmeDNSField = "dns01.acmeDNS.accountSecretRef"
	legoField    = "dns01.provider.secretRef"
)

// SecretNames returns the Secrets that a solver names.
func SecretNames(spec *cmacme.ACMEChallengeSolverDNS01) []string {
	var names []string
	for _, r := range references(spec) {
		names = append(names, r.name)
	}
	if spec.Provider != nil && spec.Provider.SecretRef != nil {
		names = append(names, spec.Provider.SecretRef.Name)
	}
	return names
}

// Verify returns all problems of a solver that can be found without its service: wrong settings,
// missing Secrets and entries, credentials in the wrong form, and a webhook that the API server
// does not have. The error is set if a Secret could not be read.
func (s *Solver) Verify(ctx context.Context, issuer *signer.Issuer,
	spec *cmacme.ACMEChallengeSolverDNS01) (wrong []error, err error) {
	note := func(e error) {
		switch {
		case e == nil:
		case fault.Of(e).Class == fault.Transient:
			err = e
		default:
			wrong = append(wrong, e)
		}
	}
	note(s.Settings(issuer, spec))
	for _, r := range references(spec) {
		value, e := s.entry(ctx, issuer, r)
		if e == nil {
			e = checkForm(issuer, r.field, value)
		}
		note(e)
	}
	if c := spec.Provider; c != nil && c.SecretRef != nil && len(wrong) == 0 {
		secret, e := s.settingsOf(ctx, issuer, c)
		if e == nil {
			e = lego.Check(c.Name, raw(c), secret, true, s.author(issuer.Kind))
		}
		note(e)
	}
	if len(wrong) == 0 && spec.Webhook != nil && s.API != nil {
		w, e := newWebhook(s.API, spec.Webhook, challengeRequest{})
		if e == nil {
			e = w.checkAPIService(ctx)
		}
		note(e)
	}
	return wrong, err
}

// checkForm returns an error if a credential does not have the form that its service needs.
func checkForm(issuer *signer.Issuer, field, value string) error {
	switch field {
	case tsigField:
		return checkTSIGSecret(value)
	case cloudDNSField:
		return checkGoogleKey(value, issuer)
	case acmeDNSField:
		_, err := acmeDNSAccounts(value)
		return err
	}
	return nil
}

// entry reads a credential, without the space around it.
func (s *Solver) entry(ctx context.Context, issuer *signer.Issuer, r reference) (string, error) {
	if r.key == "" {
		return "", fault.Misconfiguredf("PresentError", "%s names no entry of Secret %s: set key", r.field, r.name)
	}
	at := issuer.SecretNamespace + "/" + r.name
	got, err := s.Secrets.Get(ctx, issuer.SecretNamespace, r.name)
	switch {
	case apierrors.IsNotFound(err):
		return "", fault.Missingf("PresentError", "Secret %s, %s, does not exist: create it with the entry %s%s", at,
			r.field, r.key, issuer.SecretsHint())
	case err != nil:
		return "", fault.Transientf("PresentError", "get Secret %s: %w", at, err)
	}
	return entryOf(got, at, r.field, r.key)
}

// settingsOf reads the Secret of dns01.provider.
func (s *Solver) settingsOf(ctx context.Context, issuer *signer.Issuer,
	c *cmacme.ACMEIssuerDNS01ProviderLego) (map[string][]byte, error) {
	at := issuer.SecretNamespace + "/" + c.SecretRef.Name
	got, err := s.Secrets.Get(ctx, issuer.SecretNamespace, c.SecretRef.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Missingf("PresentError",
			"Secret %s, %s, does not exist: create it, with the settings of %s as entries%s",
			at, legoField, c.Name, issuer.SecretsHint())
	case err != nil:
		return nil, fault.Transientf("PresentError", "get Secret %s: %w", at, err)
	}
	return got.Data, nil
}

// raw returns the JSON of the configuration of dns01.provider.
func raw(c *cmacme.ACMEIssuerDNS01ProviderLego) []byte {
	if c.Config == nil {
		return nil
	}
	return c.Config.Raw
}

// acmeDNSAccounts reads the accounts of acme-dns, by the names of their domains.
func acmeDNSAccounts(text string) (map[string]acmeDNSAccount, error) {
	var all map[string]acmeDNSAccount
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver",
			"the Secret of dns01.acmeDNS.accountSecretRef is not a JSON object of accounts by name")
	}
	return all, nil
}
