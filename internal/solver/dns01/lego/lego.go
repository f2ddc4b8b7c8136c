// Package lego makes the records of DNS-01 challenges by lego's DNS providers, and keeps from the
// rest of the process what they are not made for: lego runs once, for one user, with its settings
// in the environment. Here settings come from an issuer and its Secret alone; a provider has one
// call at a time, which nobody waits for longer than a moment; what a provider remembers is rebuilt
// after a restart; and no error tells a secret.
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

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/outside"
	"github.com/perennial-pki/perennial/internal/solver"
)

//go:generate go -C ../../../../test run ./legogen

const (
	// callLimit bounds one call of a provider. Some wait in it for their service, which may take a
	// minute.
	callLimit = 2 * time.Minute
	// pollInterval is how often those look.
	pollInterval = 2 * time.Second
	// overtime is how long a call may outlive its context, before it is given up as one that hangs.
	overtime = 30 * time.Second
	// patience is how long a worker waits for a call, and again when it comes back for its end.
	patience, again = time.Second, time.Second
	// remembered is for how long it is known what this process has made, and taken away. Challenges
	// are given up before.
	remembered = 3 * time.Hour
	// maxText is the most that is told of an error.
	maxText = 400
	// domainLabels is how many labels the domains have that such services give.
	domainLabels = 3
)

// Record is one TXT value at one name.
type Record struct {
	// FQDN is where the record goes, and Zone the apex above it, with dots at their ends.
	FQDN, Zone, Value string
	// Domain is the name that is proven. Token and KeyAuthorization are those of RFC 8555 section 8.1;
	// Value is a digest of the latter.
	Domain, Token, KeyAuthorization string
}

func (r Record) key() string { return r.FQDN + " " + r.Value }

// backend makes and removes records. Its calls are made one after the other.
type backend interface {
	present(ctx context.Context, r Record) error
	cleanUp(ctx context.Context, r Record) error
}

// Provider is one provider with its settings.
type Provider struct {
	kind    *kind
	backend backend
	secrets []string
	door    *door // nil if it asks nobody
	now     func() time.Time
	// Records are shared by all providers that may change the same ones.
	Records *Records

	mu      sync.Mutex
	running *call
	// ended are calls whose end nobody has seen yet.
	ended map[string]*call
	// made and gone are the records that this instance has made and that still stand, and those that
	// it has taken away, and when.
	made, gone map[string]time.Time
}

// What calls are for, in their keys.
const presenting, restoring, cleaning = "present ", "restore ", "clean up "

// call is one call of the backend.
type call struct {
	key  string
	done chan struct{}
	err  error
	at   time.Time
}

// Exclusive reports whether a provider has only one value at a name, so that challenges for one
// name have to follow each other. It is false for names that do not exist.
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

// Place is where the only value is of an exclusive provider: at the name, or at the domain that the
// service gives to an account.
func Place(name, fqdn string) string {
	k, err := find(name)
	if labels := dns.Split(fqdn); err == nil && k.wide && len(labels) > domainLabels {
		return fqdn[labels[len(labels)-domainLabels]:]
	}
	return fqdn
}

// Author is who writes the settings of a provider.
type Author int

const (
	// Tenant may write issuers in a namespace. What the hosts that it names answer is told only in the
	// form of an error.
	Tenant Author = iota
	// Admin may write issuers of the cluster, too.
	Admin
	// Owner owns the machine: providers may run programs there, and be at its own addresses.
	Owner
)

// usable finds a provider, if settings of that author may use it.
func usable(name string, by Author) (*kind, error) {
	k, err := find(name)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver", "%w", err)
	}
	if k.local && by != Owner {
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.provider.name: %q can only be used with perenniald: in a cluster it would let whoever writes an issuer "+
				"act in the controller's place",
			name,
		)
	}
	return k, nil
}

// Check reports what is wrong with settings. Those of a Secret may not be known: then nothing is
// missing.
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
		err = k.missing(v)
	}
	if err != nil {
		return fault.Misconfiguredf("InvalidSolver", "%w", err)
	}
	return nil
}

// New makes a provider, with settings from an issuer, a JSON object, and from a Secret.
func New(name string, config []byte, secret map[string][]byte, by Author, now func() time.Time) (*Provider, error) {
	reach := outside.Anywhere()
	if by == Tenant {
		reach = outside.Egress{}.Of(false)
	}
	return NewWithin(reach, name, config, secret, by, now)
}

// NewWithin is New for a service that is within reach.
func NewWithin(reach outside.Reach, name string, config []byte, secret map[string][]byte, by Author,
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
		p.backend = person{}
		return p, nil
	}
	feed, err := feeding()
	if err != nil {
		return nil, fault.Transientf("PresentError", "%w", err)
	}
	client, door, err := newClient(k, v, by, reach)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidSolver", "the Secret of dns01.provider.secretRef: %w", err)
	}
	p.door = door
	p.backend = &adapter{kind: k, feed: feed, make: func() (challenge.Provider, error) {
		of, err := k.make(v, client)
		if u := new(
			url.Error,
		); err != nil && !errors.As(err, &u) &&
			!door.quiet() { // it is of the settings, and of nobody who was asked
			return nil, fault.Misconfiguredf("InvalidSolver", "dns01.provider %s: %s; %s", name, p.clean(err.Error()), k.known())
		}
		return of, err
	}}
	return p, nil
}

// adapter calls a provider of lego's.
type adapter struct {
	kind *kind
	feed *feed
	// make makes of when it is needed first: some ask their service then.
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
		a.feed.with(ctx, finding{challenge: prefix + domain + ".", effective: r.FQDN, zone: r.Zone}),
		domain,
		r.Token,
		r.KeyAuthorization,
	)
}

// Present makes the record, unless this process has made it. The error is a solver.Later if that is
// not over yet: then it is to be called again.
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

// Restore makes the record again, whether or not this process has made it, as it can be seen
// nowhere. What may be left of it is removed before: most services would have it twice, of which
// their providers remove one.
func (p *Provider) Restore(ctx context.Context, r Record) error {
	return p.do(ctx, restoring, r, func(ctx context.Context) error {
		_ = p.backend.cleanUp(ctx, r) // many fail where nothing is left
		if err := p.backend.present(ctx, r); err != nil {
			return err
		}
		p.note(r, p.made, p.gone)
		return nil
	})
}

// CleanUp removes the record, unless this process has done so. What a provider has to know for it,
// and has forgotten with the process that made the record, it learns by making the record once
// more.
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

// note moves a record from one memory to the other, and forgets what is old.
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

// Busy looks, before anybody is asked where the record with a value goes, whether there is anything
// to be done. A call for it that is over has an end to be seen. While one is under way the error is
// a solver.Later, and while one for another record is, it is a limiter.ErrBusy.
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
		return false, &solver.Later{After: again, Why: p.kind.name + " is at work"}
	}
	return false, limiter.Enter(ctx, p.party())
}

// party is the provider as one that makes others wait.
func (p *Provider) party() limiter.Target {
	return limiter.Target{Name: "the DNS provider " + p.kind.name, Key: fmt.Sprintf("%p", p), Exclusive: true}
}

// Begun reports whether this process has made the record, or is about to.
func (p *Provider) Begun(r Record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, made := p.made[r.key()]
	return made || p.running != nil && p.running.key == presenting+r.key() || p.ended[presenting+r.key()] != nil
}

// do makes a call, or looks how the one is that was made for the same before. It waits for a moment
// only.
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
		return &solver.Later{After: again, Why: "waiting for other changes by " + p.kind.name}
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
	return &solver.Later{After: again, Why: p.kind.name + " is at work"}
}

// turn takes the record, or its zone, and the provider, until the call is over.
func (p *Provider) turn(ctx context.Context, r Record) (over func(), err error) {
	what, name := RecordSet, r.FQDN
	if p.kind.wholeZone && r.Zone != "" {
		what, name = Zone, r.Zone
	}
	done, err := p.Records.Alone(ctx, p.kind.name, what, name)
	if err != nil {
		return nil, err
	}
	left, err := limiter.Detach(ctx, p.party())
	if err != nil {
		done()
		return nil, err
	}
	return func() { left(); done() }, nil
}

// run makes a call and keeps how it ended.
func (p *Provider) run(ctx context.Context, c *call, f func(context.Context) error) {
	x := &exchange{}
	if p.door != nil {
		p.door.running.Store(x)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, exchangeKey{}, x), callLimit)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // the answer of a service may be other than lego thinks
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
			delete(p.ended, k) // whoever asked is no more
		}
	}
	p.ended[c.key] = c
	close(c.done)
}

// fault gives an error its class, by what the service answered, and a text that may be shown.
func (p *Provider) fault(x *exchange, err error) error {
	var classified *fault.Error
	if err == nil || errors.As(err, &classified) {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	text := p.clean(err.Error())
	if x.quiet {
		text = p.clean(x.told(p.kind.name, err))
	}
	switch {
	case outside.IsRefused(err):
		return fault.Misconfiguredf("PresentError", "%s: %s", text, outside.Advice)
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
			outside.RetryAt(x.retryAfter, p.now()),
			"%s says that it is asked too much: %s",
			p.kind.name,
			text,
		)
	case x.status == 503 && x.retryAfter != "":
		return fault.Limitedf("PresentError", outside.RetryAt(x.retryAfter, p.now()), "%s", text)
	case x.status >= 400 && x.status < 500:
		return fault.Misconfiguredf("PresentError", "%s refuses the request: %s", p.kind.name, text)
	}
	return fault.Transientf("PresentError", "%s", text)
}

// query is the query of a URL, in which some services want their credentials.
var query = regexp.MustCompile(`\?[^\s"'<>]+`)

// clean is a text without what is secret.
func (p *Provider) clean(text string) string {
	text = query.ReplaceAllString(outside.Without(text, p.secrets...), "?…")
	return outside.Line(text, maxText)
}
