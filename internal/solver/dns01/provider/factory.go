package provider

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// Ambient says which kinds of issuers may use the credentials of the process's environment if a
// solver names none.
type Ambient struct{ ClusterIssuers, Issuers bool }

func (a Ambient) allows(issuer *signer.Issuer) bool {
	return issuer.Kind == signer.KindClusterIssuer && a.ClusterIssuers || issuer.Kind == signer.KindIssuer && a.Issuers
}

// Tokens requests a token of a ServiceAccount.
type Tokens func(ctx context.Context, account types.NamespacedName, audiences []string) (string, error)

// A Factory makes the providers that solvers name, and checks their settings.
type Factory struct {
	// Secrets reads the credentials.
	Secrets *secrets.Store
	// Ambient says which issuers may use the credentials of the environment.
	Ambient Ambient
	// Tokens requests the tokens that are exchanged for credentials of a service.
	Tokens Tokens
	// API is the Kubernetes API server, which forwards requests to webhooks.
	API *API
	// OwnMachine says that the users that write issuers own this machine: a provider may run programs,
	// and may be at a loopback address.
	OwnMachine bool
	// Allowed are loopback, link-local or cloud metadata addresses that namespaced Issuers may name
	// nevertheless.
	Allowed []netip.Prefix
	// Dial connects to the name servers that get updates. If nil, a net.Dialer does.
	Dial resolver.Dial
	// Now returns the current time, for waits and signatures.
	Now func() time.Time

	opened  cache[digest, Provider]
	lego    cache[digest, *lego.Provider]
	records lego.Records
	tenant  sync.Once
	// tenantClient is the client for hosts that namespaced Issuers name.
	tenantClient *http.Client
}

// request is what a provider is made for.
type request struct {
	issuer    *signer.Issuer
	challenge *cmacme.Challenge
	// target is that of the service.
	target limiter.Target
}

func (r request) spec() *spec { return r.challenge.Spec.Solver.DNS01 }

// New makes the provider that the solver of a challenge names.
func (f *Factory) New(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (Provider, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	if issuer == nil {
		return nil, fault.Misconfiguredf("IssuerNotFound", "the issuer, whose credentials it takes, is gone")
	}
	r := request{issuer: issuer, challenge: ch, target: Target(issuer, ch)}
	if err := f.Check(issuer, r.spec()); err != nil {
		return nil, err
	}
	found := find(r.spec())
	if found == nil {
		return nil, noService()
	}
	c, err := f.credentials(ctx, issuer, found, r.spec())
	if err != nil {
		return nil, err
	}
	return found.open(ctx, f, r, c)
}

func noService() error {
	var all []string
	for _, s := range services {
		all = append(all, s.field)
	}
	last := len(all) - 1
	return fault.Misconfiguredf("InvalidSolver",
		"the dns01 solver names no provider that this version of Perennial knows: use %s or %s",
		strings.Join(all[:last], ", "), all[last])
}

// Check returns an error if the settings of a solver are wrong, as far as that follows from its
// spec. It reads no Secrets and sends no requests.
func (f *Factory) Check(issuer *signer.Issuer, s *cmacme.ACMEChallengeSolverDNS01) error {
	if found := find(s); found != nil && found.check != nil {
		return found.check(f, issuer, s)
	}
	return nil
}

// Verify returns all problems of a solver that can be found without its service: wrong settings,
// missing Secrets and entries, credentials in the wrong form, and a webhook that the API server
// does not have. The error is set if a Secret could not be read.
func (f *Factory) Verify(ctx context.Context, issuer *signer.Issuer,
	s *cmacme.ACMEChallengeSolverDNS01) (wrong []error, err error) {
	note := func(e error) {
		switch {
		case e == nil:
		case fault.Of(e).Class == fault.Transient:
			err = e
		default:
			wrong = append(wrong, e)
		}
	}
	note(f.Check(issuer, s))
	found := find(s)
	if found == nil {
		return wrong, err
	}
	for _, r := range found.credentialsOf(s) {
		_, e := f.credential(ctx, issuer, found, r)
		note(e)
	}
	if found.verify != nil && len(wrong) == 0 {
		note(found.verify(ctx, f, issuer, s))
	}
	return wrong, err
}

// Target returns the limiter target for the DNS service of a challenge's solver. Each tenant and
// each setting has its own target, so that a slow endpoint of one does not slow down others.
func Target(issuer *signer.Issuer, ch *cmacme.Challenge) limiter.Target {
	s, name := ch.Spec.Solver.DNS01, "its DNS service"
	if found := find(s); found != nil && found.endpoint != nil {
		name = found.endpoint(s)
	}
	settings, err := json.Marshal(s)
	if err != nil { // the provider reports invalid raw JSON
		settings = nil
	}
	return limiter.Target{Name: name, Key: fmt.Sprintf("%s %x", issuer.SecretNamespace, sha256.Sum256(settings))}
}

// Trusted reports whether the users that write issuers of a kind may name any address.
func (f *Factory) Trusted(kind string) bool { return f.author(kind) != lego.Tenant }

// Reach returns the addresses that an issuer of a kind may name.
func (f *Factory) Reach(kind string) egress.Reach {
	return egress.Egress{Allowed: f.Allowed}.Of(f.Trusted(kind))
}

// author returns the rights of the users that write issuers of a kind.
func (f *Factory) author(kind string) lego.Author {
	switch {
	case f.OwnMachine:
		return lego.Owner
	case kind == signer.KindClusterIssuer:
		return lego.Admin
	}
	return lego.Tenant
}

// clientOf returns the client for a host that an issuer of a kind names.
func (f *Factory) clientOf(kind string) *http.Client {
	if f.Trusted(kind) {
		return restClient
	}
	f.tenant.Do(func() { f.tenantClient = newRestClient(f.Reach(signer.KindIssuer)) })
	return f.tenantClient
}
