// Package dns01 creates the TXT records of DNS-01 challenges, RFC 8555 section 8.4, and checks that
// every authoritative server of the zone has them. It asks these servers directly, so that no
// resolver caches a negative answer.
package dns01

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/outside"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
	"github.com/perennial-pki/perennial/pki"
)

// Record is one TXT value at one name.
type Record struct {
	// FQDN is the name at which the ACME server finds the record, after CNAMEs if those are followed,
	// with a dot at its end.
	FQDN string
	// Zone is the apex of the zone that has the name, with a dot at its end.
	Zone  string
	Value string
	TTL   time.Duration
	// enough reports which other values also prove control. If nil, only Value does.
	enough func(value string) bool
}

// in reports whether one of the values at the name is Value or enough.
func (r Record) in(values []string) bool {
	return slices.Contains(values, r.Value) || r.enough != nil && slices.ContainsFunc(values, r.enough)
}

// A Provider changes the records of a zone. Present adds one value to the existing values of a
// name, and CleanUp removes that one value. Both may be repeated, also by another process, and obey
// ctx.
type Provider interface {
	Present(ctx context.Context, r Record) error
	CleanUp(ctx context.Context, r Record) error
}

// A Settler is a Provider that knows when a change has reached all of its servers.
type Settler interface {
	// Settled reports whether all servers have the last change of the record by this process, if there
	// was one.
	Settled(ctx context.Context, r Record) (bool, error)
}

// Ambient says which kinds of issuers may use the credentials of the process's environment if a
// solver names none.
type Ambient struct{ ClusterIssuers, Issuers bool }

func (a Ambient) allows(issuer *signer.Issuer) bool {
	return issuer.Kind == signer.KindClusterIssuer && a.ClusterIssuers || issuer.Kind == signer.KindIssuer && a.Issuers
}

// ownCredentials says in messages where the credentials are if an issuer names none.
const ownCredentials = "the credentials of the controller's environment"

// noAmbient is the error of a solver without credentials that may not use those of the environment.
// instead has the fields to set.
func noAmbient(issuer *signer.Issuer, field, instead string) error {
	return fault.Misconfiguredf(
		"InvalidSolver",
		"%s names no credentials, and solvers of %s may not use the controller's own: set %s, or start the controller "+
			"with --%s-ambient-credentials",
		field,
		issuer,
		instead,
		map[string]string{signer.KindIssuer: "issuer", signer.KindClusterIssuer: "cluster-issuer"}[issuer.Kind],
	)
}

// Tokens requests a token of a ServiceAccount.
type Tokens func(ctx context.Context, account types.NamespacedName, audiences []string) (string, error)

const (
	// recordTTL is the smallest TTL that every provider accepts.
	recordTTL = 60 * time.Second
	// attempt bounds each step for a challenge: preparing a provider, finding the zone of the record,
	// one change, and one check of the servers. Each step has its own timeout.
	attempt = 20 * time.Second
)

// Solver gives the proof of DNS-01 challenges.
type Solver struct {
	Secrets *secrets.Store
	// Nameservers are host:port or https URLs of recursive servers, which find zones and their
	// servers. If empty, those of the system are used.
	Nameservers []string
	// RecursiveOnly asks the recursive servers for the records, too, for networks that block
	// authoritative servers.
	RecursiveOnly bool
	// Ambient says which issuers may use the credentials of the environment.
	Ambient Ambient
	Tokens  Tokens
	// API is the Kubernetes API server, which forwards requests to webhooks.
	API *API
	// OwnMachine says that the users that write issuers own this machine: a provider may run programs,
	// and may be at a loopback address.
	OwnMachine bool
	// Allowed are loopback, link-local or cloud metadata addresses that namespaced Issuers may name
	// nevertheless.
	Allowed []netip.Prefix
	// Dial connects to name servers. If nil, a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now returns the current time, for waits, signatures and persistUntil.
	Now func() time.Time

	pool    pool[Provider]
	lego    pool[*lego.Provider]
	records lego.Records
	making  sync.Once
	made    *tenants
}

func (s *Solver) resolver(ch *cmacme.Challenge) *Resolver {
	r := &Resolver{Nameservers: s.Nameservers, RecursiveOnly: s.RecursiveOnly, Dial: s.Dial, Reach: outside.Anywhere()}
	if spec := ch.Spec.Solver.DNS01; len(spec.Nameservers) > 0 {
		r.Nameservers, r.RecursiveOnly = spec.Nameservers, true
		if kind := ch.Spec.IssuerRef.KindOrDefault(); s.author(kind) == lego.Tenant {
			r.Reach, r.https = s.reach(kind), s.tenants().secure
		}
	}
	return r
}

func checkNameservers(spec *cmacme.ACMEChallengeSolverDNS01) error {
	if _, err := ParseNameservers(spec.Nameservers); err != nil {
		return fault.Misconfiguredf("InvalidSolver", "dns01.nameservers: %w", err)
	}
	return nil
}

// locate finds the record of a challenge. It keeps the limiter slot of its name servers.
func (s *Solver) locate(ctx context.Context, r *Resolver, ch *cmacme.Challenge) (Record, error) {
	if err := limiter.Enter(ctx, solver.TargetOf(ch)); err != nil {
		return Record{}, err
	}
	spec := ch.Spec.Solver.DNS01
	if err := checkNameservers(spec); err != nil {
		return Record{}, err
	}
	name, zone, err := r.Locate(ctx, recordName(ch),
		spec.CNAMEStrategy == cmacme.FollowStrategy || spec.AcmeDNS != nil) // acme-dns is always behind a CNAME
	switch {
	case errors.Is(err, rcode(dns.RcodeServerFailure)) && r.Bogus(ctx, ch.Spec.DNSName):
		return Record{}, fault.Transientf(
			"PresentError",
			"find the zone of %s: %w, as its DNSSEC does not verify: correct the DS record at the registrar, or sign the "+
				"zone anew",
			ch.Spec.DNSName,
			err,
		)
	case outside.IsRefused(err):
		return Record{}, fault.Misconfiguredf("PresentError", "find the zone of %s: %w: %s", ch.Spec.DNSName, err,
			outside.Advice)
	case fault.Of(err).Class == fault.Misconfigured:
		return Record{}, fault.Misconfiguredf("PresentError", "find the zone of %s: %w", ch.Spec.DNSName, err)
	case err != nil:
		return Record{}, fault.Transientf("PresentError", "find the zone of %s: %w", ch.Spec.DNSName, err)
	}
	record := Record{FQDN: name, Zone: zone, Value: ch.Spec.Key, TTL: recordTTL}
	if persists(ch) {
		record.enough = s.grants(ch.Spec.Key)
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
		return s.presentStanding(ctx, issuer, ch)
	}
	return s.change(ctx, issuer, ch, func(p Provider, ctx context.Context, r Record) error {
		if err := s.yield(ctx, p, ch, r); err != nil {
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
	return s.change(ctx, issuer, ch, func(p Provider, ctx context.Context, r Record) error {
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
	spec := ch.Spec.Solver.DNS01
	switch {
	case spec == nil:
		return 0
	case spec.AcmeDNS != nil:
		return acmeDNSValues
	case spec.Provider != nil && lego.Exclusive(spec.Provider.Name):
		return 1
	case spec.Webhook != nil:
		return webhookValues
	}
	return 0
}

// Place is the name of the record, after CNAMEs if those are followed.
func (s *Solver) Place(ctx context.Context, ch *cmacme.Challenge) (string, error) {
	record, err := s.locate(ctx, s.resolver(ch), ch)
	if p := ch.Spec.Solver.DNS01.Provider; p != nil {
		return lego.Place(p.Name, record.FQDN), err
	}
	return record.FQDN, err
}

// CleanUp removes the record. It leaves persistent records, and those of acme-dns, which drops old
// values by itself.
func (s *Solver) CleanUp(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error {
	if persists(ch) || ch.Spec.Solver.DNS01.AcmeDNS != nil {
		return nil
	}
	err := s.change(ctx, issuer, ch, func(p Provider, ctx context.Context, r Record) error {
		if s.others(ctx, p, ch, r) {
			return nil
		}
		return p.CleanUp(ctx, r)
	})
	if ch.Spec.Solver.DNS01.Provider != nil {
		return s.remains(ctx, ch, err)
	}
	return err
}

func (s *Solver) change(
	ctx context.Context,
	issuer *signer.Issuer,
	ch *cmacme.Challenge,
	change func(Provider, context.Context, Record) error,
) error {
	p, err := s.provider(ctx, issuer, ch)
	if err != nil {
		return err
	}
	if p, ok := p.(legoRecords); ok {
		done, err := p.of.Busy(ctx, ch.Spec.Key)
		if err != nil {
			return err // before any DNS query
		}
		if done {
			ctx = limiter.Bypass(ctx) // only the result of an ended call is fetched
		}
	}
	record, err := s.locate(ctx, s.resolver(ch), ch)
	if err != nil {
		return err
	}
	if p, ok := p.(*akamai); ok {
		done, err := s.aloneAtAkamai(ctx, p, record)
		if err != nil {
			return err
		}
		defer done()
	}
	if _, ok := p.(legoRecords); !ok { // its calls outlive this one and take their own slots
		if err := limiter.Enter(ctx, party(issuer, ch)); err != nil {
			return err
		}
	}
	limit := attempt
	if ch.Spec.Solver.DNS01.Webhook != nil {
		limit = webhookAttempt
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return change(p, ctx, record)
}

// aloneAtAkamai locks a record set and its zone. The record set, because Akamai replaces it without
// a condition. The zone, because Akamai accepts one change of a zone at a time. The lock of a zone
// is by API host, so that a host of one tenant that hangs does not block another tenant's zone of
// the same name.
func (s *Solver) aloneAtAkamai(ctx context.Context, p *akamai, r Record) (done func(), err error) {
	set, err := s.records.Alone(ctx, "akamai", lego.RecordSet, r.FQDN)
	if err != nil {
		return nil, err
	}
	zone, err := s.records.Alone(ctx, "akamai "+p.base, lego.Zone, r.Zone)
	if err != nil {
		set()
		return nil, err
	}
	return func() { zone(); set() }, nil
}

// party returns the limiter target for the DNS service of a challenge's solver. Each tenant and
// each setting has its own target, so that a slow endpoint of one does not slow down others.
func party(issuer *signer.Issuer, ch *cmacme.Challenge) limiter.Target {
	spec := ch.Spec.Solver.DNS01
	who := "its DNS service"
	switch {
	case spec.Webhook != nil:
		who = fmt.Sprintf("the webhook %s/%s", spec.Webhook.GroupName, spec.Webhook.SolverName)
	case spec.RFC2136 != nil:
		who = "the name server " + spec.RFC2136.Nameserver
	}
	settings, err := json.Marshal(spec)
	if err != nil { // the provider reports invalid raw JSON
		settings = nil
	}
	return limiter.Target{Name: who, Key: fmt.Sprintf("%s %x", issuer.SecretNamespace, sha256.Sum256(settings))}
}

// Check asks all authoritative servers of the zone, and then the provider if it is a Settler.
func (s *Solver) Check(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (solver.Sight, error) {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if limiter.IsBusy(err) {
		return solver.Sight{}, err
	}
	if err != nil {
		return solver.Sight{Why: err.Error()}, nil
	}
	answers, err := r.Ask(ctx, record)
	if err != nil {
		return solver.Sight{Why: err.Error()}, nil
	}
	var since time.Time
	if ch.Status.PresentedAt != nil {
		since = ch.Status.PresentedAt.Time
	}
	seen := Judge(record, answers, since, s.Now())
	if !seen.Visible {
		if ch.Spec.Solver.DNS01.Provider != nil && ch.Spec.Solver.DNS01.Provider.Name == manual {
			seen.Ask = fmt.Sprintf(
				"create the TXT record %s with the value %q, beside others that are there",
				strings.TrimSuffix(record.FQDN, "."),
				record.Value,
			)
			seen.Why = seen.Ask + "; " + seen.Why
		}
		return seen, nil
	}
	if spec := ch.Spec.Solver.DNS01; spec.Route53 == nil && spec.CloudDNS == nil {
		return seen, nil // no other provider is a Settler, so it need not be made
	}
	limiter.Leave(ctx)
	p, err := s.provider(ctx, issuer, ch)
	if err != nil {
		return solver.Sight{}, err
	}
	if p, ok := p.(Settler); ok {
		if err := limiter.Enter(ctx, party(issuer, ch)); err != nil {
			return solver.Sight{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		settled, err := p.Settled(ctx, record)
		if err != nil {
			return solver.Sight{}, err
		}
		if !settled {
			return solver.Sight{
				Why: "the servers that were asked have the record, but the provider says that not all of its servers do yet",
			}, nil
		}
	}
	return seen, nil
}

// provider makes the provider that a solver names.
func (s *Solver) provider(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (Provider, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	spec := ch.Spec.Solver.DNS01
	if issuer == nil {
		return nil, fault.Misconfiguredf("IssuerNotFound", "the issuer, whose credentials it takes, is gone")
	}
	if err := s.Settings(issuer, spec); err != nil {
		return nil, err
	}
	secret := func(field, name, key string) (string, error) {
		return s.entry(ctx, issuer, reference{field, name, key})
	}
	if c := spec.RFC2136; c != nil {
		p := &rfc2136{nameserver: c.Nameserver, protocol: strings.ToLower(string(c.Protocol)),
			dial: within(s.reach(issuer.Kind), s.Dial), now: s.Now}
		if c.TSIGKeyName != "" {
			var err error
			if p.secret, err = secret(tsigField, c.TSIGSecret.Name, c.TSIGSecret.Key); err != nil {
				return nil, err
			}
		}
		return p, p.configure(c.TSIGKeyName, c.TSIGAlgorithm)
	}
	if c := spec.Cloudflare; c != nil {
		var token, key string
		var err error
		if c.APIToken != nil {
			token, err = secret("dns01.cloudflare.apiTokenSecretRef", c.APIToken.Name, c.APIToken.Key)
		} else {
			key, err = secret("dns01.cloudflare.apiKeySecretRef", c.APIKey.Name, c.APIKey.Key)
		}
		if err != nil {
			return nil, err
		}
		return s.pool.get("cloudflare", []string{token, c.Email, key}, func() (Provider, error) {
			p := newCloudflare(cloudflareAPI, token, c.Email, key)
			p.now = s.Now
			return p, nil
		})
	}
	if c := spec.DigitalOcean; c != nil {
		token, err := secret("dns01.digitalocean.tokenSecretRef", c.Token.Name, c.Token.Key)
		if err != nil {
			return nil, err
		}
		p := newDigitalOcean(digitalOceanAPI, token)
		p.now = s.Now
		return p, nil
	}
	if c := spec.AcmeDNS; c != nil {
		accounts, err := secret(acmeDNSField, c.AccountSecret.Name, c.AccountSecret.Key)
		if err != nil {
			return nil, err
		}
		p, err := newACMEDNS(c.Host, accounts, ch.Spec.DNSName, recordName(ch))
		if err != nil {
			return nil, err
		}
		p.client, p.now = s.named(issuer.Kind), s.Now
		return p, nil
	}
	if c := spec.Route53; c != nil {
		return s.route53(ctx, issuer, c, party(issuer, ch), secret)
	}
	if c := spec.Webhook; c != nil {
		return newWebhook(
			s.API,
			c,
			challengeRequest{UID: string(ch.UID), DNSName: ch.Spec.DNSName, ResourceNamespace: issuer.SecretNamespace,
				AllowAmbientCredentials: s.Ambient.allows(issuer)},
		)
	}
	if spec.Provider != nil {
		return s.legoProvider(ctx, issuer, ch)
	}
	if c := spec.CloudDNS; c != nil {
		return s.cloudDNS(ctx, issuer, c, party(issuer, ch), secret)
	}
	if c := spec.AzureDNS; c != nil {
		return s.azureDNS(c, secret)
	}
	if c := spec.Akamai; c != nil {
		return s.akamai(issuer.Kind, c, secret)
	}
	return nil, fault.Misconfiguredf(
		"InvalidSolver",
		"the dns01 solver names no provider that this version of Perennial knows: "+
			"use rfc2136, route53, cloudDNS, azureDNS, cloudflare, digitalocean, akamai, acmeDNS, webhook or provider",
	)
}

// entryOf returns an entry of a Secret without the space around it. A blank entry is an error:
// without a credential some libraries use those of the environment.
func entryOf(secret *corev1.Secret, at, field, key string) (string, error) {
	value := strings.TrimSpace(string(secret.Data[key]))
	if value == "" {
		return "", fault.Misconfiguredf("PresentError", "Secret %s, %s, has no entry %s: add it, or correct the key", at,
			field, key)
	}
	return value, nil
}

// Settings returns an error if a solver of an issuer is misconfigured, as far as that follows from
// its spec. It reads no Secrets and sends no requests.
func (s *Solver) Settings(issuer *signer.Issuer, spec *cmacme.ACMEChallengeSolverDNS01) error {
	if err := checkNameservers(spec); err != nil {
		return err
	}
	switch {
	case spec.Provider != nil:
		c := spec.Provider
		if err := lego.Check(c.Name, raw(c), nil, c.SecretRef == nil, s.author(issuer.Kind)); err != nil {
			return err
		}
		if spec.ChallengeType == cmacme.DNS01ChallengeTypeDNSAccount01 && spec.CNAMEStrategy != cmacme.FollowStrategy &&
			lego.ByDomain(c.Name) {
			return fault.Misconfiguredf(
				"InvalidSolver",
				"dns01.provider %s cannot have the record of dns-account-01 itself: let a CNAME lead from it to a name that "+
					"begins with _acme-challenge., "+
					"and set cnameStrategy: Follow; or use another provider",
				c.Name,
			)
		}
	case spec.Webhook != nil:
		return checkWebhook(spec.Webhook)
	case spec.AcmeDNS != nil:
		_, err := acmeDNSBase(spec.AcmeDNS.Host)
		return err
	case spec.Akamai != nil:
		_, err := akamaiHost(spec.Akamai)
		return err
	case spec.RFC2136 != nil:
		return checkTSIG(spec.RFC2136)
	case spec.Cloudflare != nil:
		if c := spec.Cloudflare; c.APIToken == nil && (c.APIKey == nil || c.Email == "") {
			return fault.Misconfiguredf(
				"InvalidSolver",
				"dns01.cloudflare names no credentials: set apiTokenSecretRef, or email and apiKeySecretRef",
			)
		}
	case spec.Route53 != nil:
		return s.checkRoute53(issuer, spec.Route53)
	case spec.CloudDNS != nil && spec.CloudDNS.ServiceAccount == nil && !s.Ambient.allows(issuer):
		return noAmbient(issuer, "dns01.cloudDNS", "serviceAccountSecretRef")
	case spec.AzureDNS != nil:
		return s.checkAzureDNS(issuer, spec.AzureDNS)
	}
	return nil
}

// fqdn returns the canonical form of a name with a dot at its end.
func fqdn(name string) string {
	return pki.ComparableDNSName(name) + "."
}

// under reports whether a name is an apex or below it. Both end with a dot.
func under(name, apex string) bool {
	return apex == "." || name == apex || strings.HasSuffix(name, "."+apex)
}

// quoted shortens values for a message.
func quoted(values []string) string {
	if len(values) == 0 {
		return "no TXT record"
	}
	const few = 3
	var parts []string
	for _, v := range values[:min(len(values), few)] {
		if len(v) > 64 {
			v = v[:64] + "…"
		}
		parts = append(parts, fmt.Sprintf("%q", v))
	}
	if len(values) > few {
		parts = append(parts, fmt.Sprintf("and %d more", len(values)-few))
	}
	return strings.Join(parts, ", ")
}
