// Package account keeps the accounts of ACME issuers: their keys, their registration, and the
// clients that speak for them. The key is stored before the CA hears of it, so that no crash loses
// an account; the account is found by its key, so that nothing else needs to be remembered.
package account

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxClients is how many clients are kept. When there are so many, all are dropped: a new one
	// costs two requests, for the directory and for a nonce.
	maxClients = 1000
	// maxHeader is how large the header of a reply may be.
	maxHeader = 64 << 10
)

// Accounts has the accounts of all ACME issuers.
type Accounts struct {
	Client  client.Client
	Secrets *secrets.Store
	Limits  pki.Limits
	Clock   clock.PassiveClock
	// RateLimits has the times until which a CA takes no requests, or no new accounts. It may be nil
	// if no accounts are registered.
	RateLimits *ratelimit.Ledgers
	// Egress is how far issuers reach.
	Egress egress.Egress
	// Observe is that of acme.Client.
	Observe func(acme.Exchange)
	// Guard says why the account of an issuer must not be used for others now. It may be nil.
	Guard func(*signer.Issuer) error

	mu        sync.Mutex
	clients   map[server]*acme.Client
	recovered map[string]recovery // by Issuer.Key
}

// server is what a client depends on.
type server struct {
	directory, caBundle string
	skipVerify, cluster bool
}

// Server returns the client for the server of an issuer of a kind. Issuers of one CA share it, and
// so its nonces and connections.
func (a *Accounts) Server(spec *cmacme.ACMEIssuer, kind string) (*acme.Client, error) {
	key := server{spec.Server, string(spec.CABundle), spec.SkipTLSVerify, kind == signer.KindClusterIssuer}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[key]; c != nil {
		return c, nil
	}
	// with the proxy of the environment and the roots of the system
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxHeader
	if len(spec.CABundle) > 0 || spec.SkipTLSVerify {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: spec.SkipTLSVerify} //nolint:gosec // the user says so
	}
	if len(spec.CABundle) > 0 {
		bundle, err := a.bundle(spec)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		for _, c := range bundle {
			roots.AddCert(c)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	c := &acme.Client{
		Directory: spec.Server, HTTP: &http.Client{Transport: a.Egress.Of(key.cluster).Transport(transport)},
		UserAgent: version.UserAgent("perennial"), Now: a.Clock.Now, Observe: a.Observe,
	}
	if a.RateLimits != nil {
		c.Before = func(ctx context.Context) error { return a.RateLimits.For(spec.Server).Available(ctx) }
		c.Observe = func(e acme.Exchange) {
			a.RateLimits.For(spec.Server).Observe(e)
			if a.Observe != nil {
				a.Observe(e)
			}
		}
	}
	if a.clients == nil || len(a.clients) == maxClients {
		for _, c := range a.clients {
			c.HTTP.CloseIdleConnections()
		}
		a.clients = map[server]*acme.Client{}
	}
	a.clients[key] = c
	return c, nil
}

// caTarget returns the ACME server of an issuer as a target of the limiter.
func caTarget(spec *cmacme.ACMEIssuer) limiter.Target {
	return limiter.Target{Name: "the ACME server " + spec.Server}
}

// usable reports whether the issuer has an account. It is true also if only a solver keeps the
// issuer from being ready: open orders go on, and certificates can be revoked.
func usable(issuer *signer.Issuer) bool {
	c, status := cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionReady), issuer.GetStatus().ACME
	return c != nil && status != nil && status.URI != "" &&
		(c.Status == cmmeta.ConditionTrue || c.Reason == signer.ReasonInvalidSolver)
}

// clientOf returns the account of an issuer that is registered, and the client to use it with. If
// the CA does not know the account although it was registered again, the error lasts for
// recoverInterval: otherwise the pass of each object would ask the CA.
func (a *Accounts) clientOf(ctx context.Context, issuer *signer.Issuer) (*acme.Client, acme.Account, error) {
	if a.Guard != nil {
		if err := a.Guard(issuer); err != nil {
			return nil, acme.Account{}, err
		}
	}
	status := issuer.GetStatus().ACME
	if !usable(issuer) {
		_, why := issuer.Ready()
		if why == "" {
			why = "its account is not registered yet"
		}
		return nil, acme.Account{}, fault.Misconfiguredf("IssuerNotReady", "%s is not ready: %s", issuer, why)
	}
	if c := cmapi.GetIssuerCondition(
		issuer.GetStatus(),
		cmapi.IssuerConditionReady,
	); c.ObservedGeneration != issuer.GetGeneration() {
		// It may have another server now, where the account is to be another one.
		return nil, acme.Account{}, fault.Misconfiguredf(
			"IssuerNotReady",
			"%s is not ready: it was changed, and its account is not verified yet",
			issuer,
		)
	}
	c, err := a.Server(issuer.GetSpec().ACME, issuer.Kind)
	if err != nil {
		return nil, acme.Account{}, err
	}
	key, err := a.key(ctx, issuer)
	if err != nil {
		return nil, acme.Account{}, err
	}
	if rotating, err := a.rotating(ctx, issuer); err != nil || rotating {
		if err == nil {
			err = fault.Misconfiguredf("IssuerNotReady", "the account key of %s is being changed", issuer)
		}
		return nil, acme.Account{}, err
	}
	if hash(key) != status.LastPrivateKeyHash {
		return nil, acme.Account{}, fault.Misconfiguredf(
			"IssuerNotReady",
			"the account key of %s changed and is not registered yet",
			issuer,
		)
	}
	a.mu.Lock()
	last := a.recovered[issuer.Key()]
	a.mu.Unlock()
	if last.inVain && last.url == status.URI && a.Clock.Now().Before(last.at.Add(recoverInterval)) {
		return nil, acme.Account{}, last.fault(issuer)
	}
	return c, acme.Account{URL: status.URI, Key: key}, nil
}

// Registration is what Register found out.
type Registration struct {
	// Status is what the issuer's status is to say of the account. It is nil if no account can be
	// used.
	Status *cmacme.ACMEIssuerStatus
	// UnreachableReason is why the CA could not be asked, if the known account can still be used.
	// Status is then the old one.
	Outage error
}

// Register makes sure that the issuer has an account, and that the CA has its profile. The CA is
// asked only if something changed since the status was written. What CheckLocal finds wrong must be
// corrected before.
func (a *Accounts) Register(ctx context.Context, issuer *signer.Issuer) (Registration, error) {
	spec, old := issuer.GetSpec().ACME, issuer.GetStatus().ACME
	c, err := a.Server(spec, issuer.Kind)
	if err != nil {
		return Registration{}, err
	}
	key, err := a.key(ctx, issuer)
	fresh := false
	if apierrors.IsNotFound(err) {
		key, fresh, err = a.makeKey(ctx, issuer)
	}
	if err != nil {
		return Registration{}, err
	}
	stands := !fresh && registered(issuer, hash(key))
	rotating, err := a.rotating(ctx, issuer)
	if err != nil {
		return Registration{}, err
	}
	if stands && !rotating && upToDate(issuer) {
		return Registration{Status: old}, nil
	}
	status, err := a.registerOrFind(ctx, issuer, c, key, fresh)
	if stands && !rotating && err != nil && (fault.Of(err).Class == fault.Transient || UnreachableReason(err) != "") &&
		!limiter.IsBusy(err) {
		return Registration{Status: old, Outage: err}, nil
	}
	if err != nil {
		return Registration{}, err
	}
	return Registration{Status: status}, nil
}

// registerOrFind finds or makes the account at the CA.
func (a *Accounts) registerOrFind(ctx context.Context, issuer *signer.Issuer, c *acme.Client, key crypto.Signer,
	fresh bool) (*cmacme.ACMEIssuerStatus, error) {
	spec := issuer.GetSpec().ACME
	key, err := a.rotate(ctx, issuer, c, key)
	if err != nil {
		return nil, err
	}
	if err := limiter.Acquire(ctx, caTarget(spec)); err != nil {
		return nil, err
	}
	defer limiter.Release(ctx)
	if spec.Profile != "" {
		dir, err := c.FetchDirectory(ctx)
		if err != nil {
			return nil, Classify("ErrRegisterACMEAccount", a.Clock.Now(), err)
		}
		if err := OfferedProfile(spec.Profile, dir.Meta.Profiles); err != nil {
			return nil, err
		}
	}
	account, err := a.register(ctx, issuer, c, key, fresh)
	if err != nil {
		return nil, Classify("ErrRegisterACMEAccount", a.Clock.Now(), err)
	}
	return statusOf(issuer, account, key), nil
}

// statusOf is what the status of an issuer says of its account.
func statusOf(issuer *signer.Issuer, account acme.Account, key crypto.Signer) *cmacme.ACMEIssuerStatus {
	spec := issuer.GetSpec().ACME
	return &cmacme.ACMEIssuerStatus{URI: account.URL, LastRegisteredEmail: spec.Email, LastPrivateKeyHash: hash(key),
		Server: spec.Server}
}

// register finds the account of the key, or makes it. A key that was just made cannot have one.
// Finding comes first because some bindings to an external account can be used only once.
func (a *Accounts) register(
	ctx context.Context,
	issuer *signer.Issuer,
	c *acme.Client,
	key crypto.Signer,
	fresh bool,
) (acme.Account, error) {
	spec := issuer.GetSpec().ACME
	var contact []string
	if spec.Email != "" {
		contact = []string{"mailto:" + spec.Email}
	}
	if !fresh {
		account, err := a.find(ctx, issuer, c, key)
		switch {
		case acme.IsProblem(err, acme.ProblemAccountDoesNotExist):
		case acme.IsProblem(err, acme.ProblemUnauthorized):
			// Servers say this of a deactivated account.
			return acme.Account{}, fault.Misconfiguredf(
				"ErrVerifyACMEAccount",
				"the CA does not accept the account of %s: delete the Secret, and a new account will be made: %w",
				issuer.SecretInRequests(spec.PrivateKey.Name),
				err,
			)
		case err != nil:
			return acme.Account{}, err
		case account.Status != "" && account.Status != acme.StatusValid:
			return acme.Account{}, fault.Misconfiguredf(
				"ErrVerifyACMEAccount",
				"account %s is %s: delete %s, and a new account will be made",
				account.URL,
				account.Status,
				issuer.SecretInRequests(spec.PrivateKey.Name),
			)
		default:
			// CAs no longer say what the contacts are: compare with what was registered last, if that was
			// this account.
			last := ""
			if old := issuer.GetStatus().ACME; old != nil && old.URI == account.URL {
				last = old.LastRegisteredEmail
			}
			if last == spec.Email {
				return account, nil
			}
			if _, err := c.UpdateContact(ctx, account, contact); err != nil {
				return acme.Account{}, Classify("ErrUpdateACMEAccount", a.Clock.Now(), err)
			}
			return account, nil
		}
	}
	request := acme.AccountRequest{Key: key, Contact: contact, TermsOfServiceAgreed: true}
	if b := spec.ExternalAccountBinding; b != nil {
		mac, err := a.macKey(ctx, issuer, b)
		if err != nil {
			return acme.Account{}, err
		}
		request.ExternalAccountBinding = &acme.ExternalAccountBinding{KeyID: b.KeyID, MACKey: mac}
	}
	limits := a.RateLimits.For(spec.Server)
	if err := limits.MayRegister(ctx); err != nil {
		return acme.Account{}, err
	}
	account, err := c.NewAccount(ctx, request)
	if Limited(err) != nil {
		// The limit is one of our address, or of the CA: it is the same for all issuers.
		err = Classify("ErrRegisterACMEAccount", a.Clock.Now(), err)
		limits.RegistrationRefused(ctx, err.Error(), fault.Of(err).Until)
	}
	if acme.IsProblem(err, acme.ProblemExternalAccountRequired) && spec.ExternalAccountBinding == nil {
		return acme.Account{}, fault.Misconfiguredf(
			"ErrRegisterACMEAccount",
			"the CA wants an external account binding: set spec.acme.externalAccountBinding to the key that it gave you: %w",
			err,
		)
	}
	return account, err
}

// afterRejection returns the error of an exchange. If the CA rejects the account or its signature,
// and the account or its key has changed meanwhile, the error becomes transient: it is about the
// old key.
func (a *Accounts) afterRejection(ctx context.Context, issuer *signer.Issuer, by acme.Account, err error) error {
	if !acme.IsProblem(err, acme.ProblemMalformed, acme.ProblemUnauthorized) {
		return err
	}
	if _, now, e := a.clientOf(ctx, issuer); e == nil && now.URL == by.URL && hash(now.Key) == hash(by.Key) {
		return err
	}
	return fault.Transientf("AccountChanged", "the account key was changed meanwhile: %w", err)
}
