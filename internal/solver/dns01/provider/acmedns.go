package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const acmeDNSField = "dns01.acmeDNS.accountSecretRef"

var acmeDNSService = service{
	field:      "acmeDNS",
	configured: func(s *spec) bool { return s.AcmeDNS != nil },
	check: func(_ *Factory, _ *signer.Issuer, s *spec) error {
		_, err := acmeDNSBase(s.AcmeDNS.Host)
		return err
	},
	references: func(s *spec) []reference {
		return []reference{referenceTo(acmeDNSField, s.AcmeDNS.AccountSecret)}
	},
	checkCredential: func(_ *signer.Issuer, _, value string) error {
		_, err := acmeDNSAccounts(value)
		return err
	},
	open: func(_ context.Context, f *Factory, r request, c credentials) (Provider, error) {
		ch := r.challenge.Spec
		record := cmp.Or(ch.RecordName, acme.DNS01Name(ch.DNSName))
		p, err := newACMEDNS(r.spec().AcmeDNS.Host, c[acmeDNSField], ch.DNSName, record)
		if err != nil {
			return nil, err
		}
		p.client, p.now = f.clientOf(r.issuer.Kind), f.Now
		return p, nil
	},
	traits: traits(Traits{Capacity: acmeDNSValues, BehindCNAME: true, DropsOldValues: true}),
}

// acmeDNSValues is how many values an acme-dns server keeps for an account: a third value replaces
// the oldest.
const acmeDNSValues = 2

// acmeDNS sets the values of a name that only an acme-dns server answers for. A CNAME leads to it.
// The server replaces old values, so there is nothing to clean up.
type acmeDNS struct {
	rest
	subdomain string
	// full is the name that the server answers for, or empty if the account does not say.
	full string
}

// acmeDNSAccount is the response to a registration at acme-dns. Tools store it in one file for all
// names.
type acmeDNSAccount struct {
	FullDomain string `json:"fulldomain"`
	SubDomain  string `json:"subdomain"`
	Username   string `json:"username"`
	Password   string `json:"password"`
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

// acmeDNSBase returns the URL of a server. The host alone means https.
func acmeDNSBase(host string) (string, error) {
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	at, err := url.Parse(host)
	if err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Hostname() == "" || at.RawQuery != "" ||
		at.Fragment != "" {
		return "", fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.acmeDNS.host: %.100q is not a host, nor a URL that begins with https:// or http://",
			host,
		)
	}
	return strings.TrimSuffix(host, "/"), nil
}

// newACMEDNS makes the provider for a name, and the name of its record, from the accounts of a
// Secret.
func newACMEDNS(host, accounts, name, record string) (*acmeDNS, error) {
	all, err := acmeDNSAccounts(accounts)
	if err != nil {
		return nil, err
	}
	account, found := all[name]
	if !found {
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"the Secret of dns01.acmeDNS.accountSecretRef has no account for %q: register one, and let %s be a CNAME to "+
				"its fulldomain",
			name,
			record,
		)
	}
	base, err := acmeDNSBase(host)
	if err != nil {
		return nil, err
	}
	return &acmeDNS{
		subdomain: account.SubDomain,
		full:      account.FullDomain,
		rest: rest{name: "acme-dns", base: base, secrets: []string{account.Password}, header: http.Header{
			"X-Api-User": {account.Username}, "X-Api-Key": {account.Password},
		}},
	}, nil
}

// Present sets the value. It refuses to if the CNAME does not lead to the name of the account.
func (p *acmeDNS) Present(ctx context.Context, r Record) error {
	if p.full != "" && resolver.FQDN(p.full) != r.FQDN {
		return fault.Misconfiguredf(
			"PresentError",
			"the challenge leads to %s, and not to the account at acme-dns: let _acme-challenge be a CNAME to %s; if only "+
				"other name servers see it, name those in dns01.nameservers",
			strings.TrimSuffix(r.FQDN, "."),
			p.full,
		)
	}
	_, err := p.do(ctx, http.MethodPost, "/update", map[string]string{"subdomain": p.subdomain, "txt": r.Value}, nil)
	return err
}

// CleanUp has nothing to do.
func (p *acmeDNS) CleanUp(context.Context, Record) error { return nil }
