// Package lego makes the records of DNS-01 challenges by lego's DNS providers. lego is made for a
// process that runs once, for one user, with settings in the environment. This package adapts it to
// a controller: settings come only from an issuer and its Secret. A provider has one call at a
// time, and no worker waits for it longer than a moment. The state of a provider is rebuilt after a
// restart. No error contains a secret.
package lego

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
)

//go:generate go -C ../../../../test run ./legogen

const (
	// callLimit bounds one call of a provider. Some providers wait for their service, which may take a
	// minute.
	callLimit = 2 * time.Minute
	// pollInterval is how often such providers poll.
	pollInterval = 2 * time.Second
	// overtime is how long a call may outlive its context before it counts as hanging.
	overtime = 30 * time.Second
	// patience is how long a worker waits for a call. again is when it comes back for the result.
	patience, again = time.Second, time.Second
	// remembered is for how long this process remembers the records that it has made and removed.
	// Challenges end before that.
	remembered = 3 * time.Hour
	// maxText bounds the text of an error in messages.
	maxText = 400
	// domainLabels is the number of labels of an account's domain at a service with a wide provider.
	domainLabels = 3
)

// Record is one TXT value at one name.
type Record struct {
	// FQDN is the name of the record, and Zone is the apex above it, with dots at their ends.
	FQDN, Zone, Value string
	// Domain is the name that is proven. Token and KeyAuthorization are those of RFC 8555 section 8.1;
	// Value is a digest of the latter.
	Domain, Token, KeyAuthorization string
}

func (r Record) key() string { return r.FQDN + " " + r.Value }

// backend makes and removes records. It is never called concurrently.
type backend interface {
	present(ctx context.Context, r Record) error
	cleanUp(ctx context.Context, r Record) error
}

// Provider is one provider with its settings.
type Provider struct {
	kind      *kind
	backend   backend
	secrets   []string
	transport *transport // nil if it sends no requests
	now       func() time.Time
	// Records are shared by all providers that may change the same ones.
	Records *Records

	mu      sync.Mutex
	running *call
	// ended are finished calls whose results have not been fetched yet.
	ended map[string]*call
	// made and gone have the times at which this instance made the records that still exist, and
	// removed the others.
	made, gone map[string]time.Time
}

// The purposes of calls, in their keys.
const presenting, restoring, cleaning = "present ", "restore ", "clean up "

// call is one call of the backend.
type call struct {
	key  string
	done chan struct{}
	err  error
	at   time.Time
}

// Exclusive reports whether a provider can have only one value at a name, so that challenges for
// one name take turns. It is false for unknown providers.
func Exclusive(name string) bool {
	k, err := find(name)
	return err == nil && k.exclusive
}

// ByDomain reports whether a provider can have records only at names that begin with
// _acme-challenge.
func ByDomain(name string) bool {
	k, err := find(name)
	return err == nil && k.byDomain
}

// Place returns where an exclusive provider has its only value: at the name, or at the domain of
// the account.
func Place(name, fqdn string) string {
	k, err := find(name)
	if labels := dns.Split(fqdn); err == nil && k.wide && len(labels) > domainLabels {
		return fqdn[labels[len(labels)-domainLabels]:]
	}
	return fqdn
}

// Author says which rights the author of a provider's settings has.
type Author int

const (
	// Tenant may write issuers in a namespace. Messages contain only the error texts of hosts that it
	// names, and no other part of their answers.
	Tenant Author = iota
	// Admin may also write ClusterIssuers.
	Admin
	// Owner owns the machine: providers may run programs there, and may be at loopback addresses.
	Owner
)

// usable finds a provider. It returns an error if that author may not use it.
func usable(name string, by Author) (*kind, error) {
	k, err := find(name)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver", "%w", err)
	}
	if k.local && by != Owner {
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.provider.name: %q can only be used with perenniald: in a cluster it would let every author of an issuer "+
				"act in the controller's place",
			name,
		)
	}
	return k, nil
}

// Check returns an error if settings are wrong. If known is false, the content of the Secret is not
// known, and no setting counts as missing.
func Check(name string, config []byte, secret map[string][]byte, known bool, by Author) error {
	k, err := usable(name, by)
	if err != nil {
		return err
	}
	v, err := k.read(config, secret)
	switch {
	case err != nil || !known:
	case name == "exec":
		_, err = newProgram(v)
	default:
		if err = k.missing(v); err == nil {
			_, err = clientCertificate(v)
			err = inSecret(err)
		}
	}
	if err != nil {
		return fault.Misconfiguredf("InvalidSolver", "%w", err)
	}
	return nil
}

// inSecret says that an error is about the Secret.
func inSecret(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the Secret of dns01.provider.secretRef: %w", err)
}

// New makes a provider with settings from an issuer, a JSON object, and from a Secret.
func New(name string, config []byte, secret map[string][]byte, by Author, now func() time.Time) (*Provider, error) {
	reach := egress.Anywhere()
	if by == Tenant {
		reach = egress.Egress{}.Of(false)
	}
	return NewWithin(reach, name, config, secret, by, now)
}

// NewWithin is New for a service at an address within reach.
func NewWithin(reach egress.Reach, name string, config []byte, secret map[string][]byte, by Author,
	now func() time.Time) (*Provider, error) {
	k, err := usable(name, by)
	if err != nil {
		return nil, err
	}
	v, err := k.read(config, secret)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver", "%w", err)
	}
	p := &Provider{
		kind:  k,
		now:   now,
		ended: map[string]*call{},
		made:  map[string]time.Time{},
		gone:  map[string]time.Time{},
	}
	for _, value := range secret {
		parts, _ := split(string(value)) // if it has parts
		p.secrets = append(append(p.secrets, slices.Collect(maps.Values(parts))...), strings.TrimSpace(string(value)))
	}
	switch name {
	case "exec":
		if p.backend, err = newProgram(v); err != nil {
			return nil, fault.Misconfiguredf("InvalidSolver", "%w", err)
		}
		return p, nil
	case "manual":
		p.backend = byHand{}
		return p, nil
	}
	stub, err := startDNSStub()
	if err != nil {
		return nil, fault.Transientf("PresentError", "%w", err)
	}
	client, transport, err := newClient(k, v, by, reach)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver", "%w", inSecret(err))
	}
	p.transport = transport
	p.backend = &adapter{kind: k, stub: stub, make: func() (challenge.Provider, error) {
		of, err := k.make(v, client)
		if u := new(
			url.Error,
		); err != nil && !errors.As(err, &u) &&
			!transport.isHidden() { // the settings cause it, and no answer of a host
			return nil, fault.Misconfiguredf("InvalidSolver", "dns01.provider %s: %s; %s", name, p.clean(err.Error()), k.known())
		}
		return of, err
	}}
	return p, nil
}

// adapter is a backend that calls one of lego's providers.
type adapter struct {
	kind *kind
	stub *dnsStub
	// make makes of on its first use, because some providers contact their service then.
	make func() (challenge.Provider, error)
	of   atomic.Pointer[challenge.Provider]
}

const prefix = "_acme-challenge."

func (a *adapter) present(ctx context.Context, r Record) error {
	return a.call(ctx, r, challenge.Provider.Present)
}

func (a *adapter) cleanUp(ctx context.Context, r Record) error {
	return a.call(ctx, r, challenge.Provider.CleanUp)
}

func (a *adapter) call(
	ctx context.Context,
	r Record,
	do func(of challenge.Provider, ctx context.Context, domain, token, keyAuth string) error,
) error {
	of := a.of.Load()
	if of == nil {
		made, err := a.make()
		if err != nil {
			return err
		}
		of = &made
		a.of.Store(of)
	}
	domain := r.Domain
	if a.kind.byDomain {
		var ok bool
		if domain, ok = strings.CutPrefix(strings.TrimSuffix(r.FQDN, "."), prefix); !ok {
			return fault.Misconfiguredf(
				"PresentError",
				"%s cannot make a record at %s: only where the name begins with %s",
				a.kind.name,
				r.FQDN,
				prefix,
			)
		}
	}
	return do(
		*of,
		a.stub.with(ctx, finding{challenge: prefix + domain + ".", effective: r.FQDN, zone: r.Zone}),
		domain,
		r.Token,
		r.KeyAuthorization,
	)
}

// Present makes the record, unless this process has made it. The error is a solver.RetryLaterError
// if the call is still under way: call Present again.
func (p *Provider) Present(ctx context.Context, r Record) error {
	return p.do(ctx, presenting, r, func(ctx context.Context) error {
		if _, made := p.at(p.made, r); made {
			return nil
		}
		if err := p.backend.present(ctx, r); err != nil {
			return err
		}
		p.note(r, p.made, p.gone)
		return nil
	})
}

// Restore makes a lost record again, even if this process has made it before. It first removes what
// may be left: otherwise most services would have the record twice, and their providers remove only
// one.
func (p *Provider) Restore(ctx context.Context, r Record) error {
	return p.do(ctx, restoring, r, func(ctx context.Context) error {
		_ = p.backend.cleanUp(ctx, r) // many fail if there is nothing to remove
		if err := p.backend.present(ctx, r); err != nil {
			return err
		}
		p.note(r, p.made, p.gone)
		return nil
	})
}

// CleanUp removes the record, unless this process has done so. A stateful provider may have lost
// its state in a restart. Then CleanUp makes the record once more to get the state.
func (p *Provider) CleanUp(ctx context.Context, r Record) error {
	return p.do(ctx, cleaning, r, func(ctx context.Context) error {
		if _, gone := p.at(p.gone, r); gone {
			return nil
		}
		if _, made := p.at(p.made, r); !made && p.kind.stateful {
			if err := p.backend.present(ctx, r); err != nil {
				return fmt.Errorf("make the record once more, to be able to remove it: %w", err)
			}
			p.note(r, p.made, p.gone)
		}
		if err := p.backend.cleanUp(ctx, r); err != nil {
			return err
		}
		p.note(r, p.gone, p.made)
		return nil
	})
}

func (p *Provider) at(m map[string]time.Time, r Record) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, found := m[r.key()]
	return t, found
}

// note moves a record from one map to the other, and drops old entries.
func (p *Provider) note(r Record, to, from map[string]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	delete(from, r.key())
	to[r.key()] = now
	for _, m := range []map[string]time.Time{to, from} {
		for k, t := range m {
			if now.Sub(t) > remembered {
				delete(m, k)
			}
		}
	}
}

// Busy checks the calls before any DNS query for a record. It reports whether a call for the value
// is over, so that its result can be fetched. The error is a solver.RetryLaterError while a call
// for the value is under way, and a limiter.ErrBusy while one for another record is.
func (p *Provider) Busy(ctx context.Context, value string) (over bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ours := func(key string) bool { return strings.HasSuffix(key, " "+value) }
	for key := range p.ended {
		if ours(key) {
			return true, nil
		}
	}
	switch {
	case p.running == nil:
		return false, nil
	case ours(p.running.key):
		return false, &solver.RetryLaterError{After: again, Why: p.kind.name + " is at work"}
	}
	return false, limiter.Acquire(ctx, p.target())
}

// target returns the limiter target of the provider.
func (p *Provider) target() limiter.Target {
	return limiter.Target{Name: "the DNS provider " + p.kind.name, Key: fmt.Sprintf("%p", p), Exclusive: true}
}

// Begun reports whether this process has made the record, or is making it.
func (p *Provider) Begun(r Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, made := p.made[r.key()]
	return made || p.running != nil && p.running.key == presenting+r.key() || p.ended[presenting+r.key()] != nil
}

// do starts a call, or returns the result of the call with the same key. It waits for patience at
// most.
func (p *Provider) do(ctx context.Context, verb string, r Record, f func(context.Context) error) error {
	key := verb + r.key()
	p.mu.Lock()
	if c := p.ended[key]; c != nil {
		delete(p.ended, key)
		p.mu.Unlock()
		return c.err
	}
	c := p.running
	switch {
	case c == nil:
		left, err := p.turn(ctx, r)
		if err != nil {
			p.mu.Unlock()
			return err
		}
		c = &call{key: key, done: make(chan struct{})}
		p.running = c
		go func() {
			defer left()
			p.run(context.WithoutCancel(ctx), c, f)
		}()
	case c.key != key:
		p.mu.Unlock()
		return &solver.RetryLaterError{After: again, Why: "waiting for other changes by " + p.kind.name}
	}
	p.mu.Unlock()
	moment := time.NewTimer(patience)
	defer moment.Stop()
	select {
	case <-c.done:
		p.mu.Lock()
		delete(p.ended, key)
		p.mu.Unlock()
		return c.err
	case <-moment.C:
	case <-ctx.Done():
	}
	return &solver.RetryLaterError{After: again, Why: p.kind.name + " is at work"}
}

// turn locks the record, or its zone, and takes the slot of the provider, until the call is over.
func (p *Provider) turn(ctx context.Context, r Record) (over func(), err error) {
	what, name := RecordSet, r.FQDN
	if p.kind.wholeZone && r.Zone != "" {
		what, name = Zone, r.Zone
	}
	done, err := p.Records.Alone(ctx, p.kind.name, what, name)
	if err != nil {
		return nil, err
	}
	left, err := limiter.Detach(ctx, p.target())
	if err != nil {
		done()
		return nil, err
	}
	return func() { left(); done() }, nil
}

// run makes a call and stores its result.
func (p *Provider) run(ctx context.Context, c *call, f func(context.Context) error) {
	x := &exchange{}
	if p.transport != nil {
		p.transport.running.Store(x)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, exchangeKey{}, x), callLimit)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // lego may panic on an unexpected answer
				result <- fmt.Errorf("%s: lego gave up: %v", p.kind.name, r)
			}
		}()
		result <- f(ctx)
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		hanging := time.NewTimer(overtime)
		defer hanging.Stop()
		select {
		case err = <-result:
		case <-hanging.C:
			err = ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.err, c.at = p.fault(x, err), p.now()
	p.running = nil
	for k, old := range p.ended {
		if c.at.Sub(old.at) > callLimit {
			delete(p.ended, k) // the challenge no longer exists
		}
	}
	p.ended[c.key] = c
	close(c.done)
}

// fault gives an error its class, by the answer of the service, and a text without secrets.
func (p *Provider) fault(x *exchange, err error) error {
	var classified *fault.Error
	if err == nil || errors.As(err, &classified) {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	text := p.clean(err.Error())
	if x.hidden {
		text = p.clean(x.hiddenError(p.kind.name, err))
	}
	switch {
	case egress.IsBlockedAddress(err):
		return fault.Misconfiguredf("PresentError", "%s: %s", text, egress.BlockedAddressAdvice)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Transientf("PresentError", "%s was not done within %s", p.kind.name, callLimit)
	case x.status == 401 || x.status == 403:
		return fault.Misconfiguredf(
			"PresentError",
			"%s refuses the credentials: %s. Correct the Secret, or what its token may do",
			p.kind.name,
			text,
		)
	case x.status == 429:
		return fault.Limitedf(
			"PresentError",
			egress.RetryAt(x.retryAfter, p.now()),
			"%s says that it is asked too much: %s",
			p.kind.name,
			text,
		)
	case x.status == 503 && x.retryAfter != "":
		return fault.Limitedf("PresentError", egress.RetryAt(x.retryAfter, p.now()), "%s", text)
	case x.status >= 400 && x.status < 500:
		return fault.Misconfiguredf("PresentError", "%s refuses the request: %s", p.kind.name, text)
	}
	return fault.Transientf("PresentError", "%s", text)
}

// query matches the query of a URL, because some services have their credentials there.
var query = regexp.MustCompile(`\?[^\s"'<>]+`)

// clean removes secrets from a text.
func (p *Provider) clean(text string) string {
	text = query.ReplaceAllString(egress.Redact(text, p.secrets...), "?…")
	return egress.SingleLine(text, maxText)
}
