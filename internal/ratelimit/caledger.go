package ratelimit

import (
	"context"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// worthWriting is the shortest wait that is stored.
	worthWriting = time.Minute
	// DefaultRetryAfter is how long no order is sent to a CA that limits our address and does not say
	// until when. After that one order is sent before the others.
	DefaultRetryAfter = time.Minute
	// MaxRetryAfter bounds the Retry-After of a CA, because all its certificates wait for it.
	MaxRetryAfter = 24 * time.Hour
)

// For is the ledger of one CA, stored in a ConfigMap.
type CALedger struct {
	ledgers   *Ledgers
	directory string

	loading sync.Mutex // held while the ledger is read for the first time

	mu     sync.Mutex
	ledger *Ledger           // nil until it is read
	object *corev1.ConfigMap // as it was last read or written; nil if there is none
	saved  uint64            // changes of the ledger that are written
	saving chan struct{}     // closed when the current write ends; nil if there is none
	timer  *time.Timer       // of a write that can wait
	whole  bool              // the name has the whole digest, because the short name is another CA's

	closedUntil        time.Time // the CA asked to be left alone
	renewalInfoRefused time.Time // the CA refuses renewal information until then
}

// Admit decides whether an order may be sent now. If so, Admit stores what the order spends before
// it returns.
func (c *CALedger) Admit(ctx context.Context, r Request) (Decision, error) {
	if err := c.load(ctx); err != nil {
		return Decision{}, err
	}
	c.mu.Lock()
	d := c.ledger.Admit(r, c.now())
	must := uint64(0)
	if o := c.ledger.open[r.ID]; o != nil {
		must = o.since
	}
	wake := c.admitted(r.ID)
	c.mu.Unlock()
	wake()
	if !d.Allowed || must == 0 {
		c.writeSoon()
		return d, nil
	}
	return d, c.durable(ctx, must)
}

// Validated records that the CA has validated a name.
func (c *CALedger) Validated(account string, id acme.Identifier) {
	c.change(func(l *Ledger, now time.Time) { l.Validated(account, id, now) })
}

// ValidationFailed counts a failed validation, and stores it before it returns.
func (c *CALedger) ValidationFailed(ctx context.Context, v FailedValidation) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.ledger.ValidationFailed(v, c.now())
	must := c.ledger.changes
	c.mu.Unlock()
	return c.durable(ctx, must)
}

// PausedUntil returns those names of an order that are paused for it, and until when.
func (c *CALedger) PausedUntil(ctx context.Context, r Request) (names []string, until time.Time, err error) {
	if err := c.load(ctx); err != nil {
		return nil, until, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	names, until = c.ledger.PausedUntil(r, c.now())
	return names, until, nil
}

// Refused learns from the refusal of an order, and returns the decision that follows. If Refused
// returns no error, the refusal is stored.
func (c *CALedger) Refused(ctx context.Context, r Request, problem *acme.Problem, until time.Time) (Decision, error) {
	if err := c.load(ctx); err != nil {
		return Decision{}, err
	}
	c.mu.Lock()
	d := c.ledger.Refused(r, problem, until, c.now())
	must := c.ledger.changes
	c.mu.Unlock()
	return d, c.durable(ctx, must)
}

// MayRegister returns an error if the CA has refused new accounts until a time in the future.
func (c *CALedger) MayRegister(ctx context.Context) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	until, detail := c.ledger.refusedUntil(accountsKey, c.now())
	if until.IsZero() {
		return nil
	}
	return fault.Limitedf("ErrRegisterACMEAccount", until, "the CA takes no new accounts until %s: %s",
		stamp(until), detail)
}

// RegistrationRefused remembers that the CA takes no new accounts until a time.
func (c *CALedger) RegistrationRefused(ctx context.Context, detail string, until time.Time) {
	if c.load(ctx) != nil {
		return // the CA will refuse again
	}
	c.change(func(l *Ledger, now time.Time) { l.refuse(accountsKey, "", detail, until, now) })
}

// Available returns an error if the CA asked to be left alone until a time in the future.
func (c *CALedger) Available(ctx context.Context) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if isFuture(&c.closedUntil, c.now()) {
		return fault.Limitedf(fault.Busy, c.closedUntil,
			"%s wants to be left alone until %s: nothing is asked before", c.directory, stamp(c.closedUntil))
	}
	return nil
}

// RenewalInfoAvailable returns an error if the CA refuses renewal information until a time in the
// future. After a restart the CA is asked once more.
func (c *CALedger) RenewalInfoAvailable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isFuture(&c.renewalInfoRefused, c.now()) {
		return fault.Limitedf(fault.Busy, c.renewalInfoRefused,
			"%s gives no renewal information until %s", c.directory, stamp(c.renewalInfoRefused))
	}
	return nil
}

// isFuture reports whether a time is in the future. A time that is too far in the future was set by
// a clock that was ahead; it is moved to now, and the CA says it again.
func isFuture(until *time.Time, now time.Time) bool {
	if until.Sub(now) > MaxRetryAfter {
		*until = now
	}
	return now.Before(*until)
}

// CountedByAddress reports whether a request has no account, so that the CA can count it only by
// our address. Renewal information has a limit of its own.
func CountedByAddress(action string) bool { return action == "directory" || action == "newNonce" }

// Observe learns from an exchange until when to send the CA no requests: after status 503, or after
// a limit on requests that the CA counts by our address. A limit on renewal information stops only
// requests for renewal information, because certificates are issued without it, too.
func (c *CALedger) Observe(e acme.Exchange) {
	now := c.now()
	until := e.RetryAfter
	switch {
	case e.Action == "renewalInfo":
		c.observeRenewalInfo(e, now)
		return
	case e.Status == http.StatusServiceUnavailable && !until.IsZero():
	case e.Status == http.StatusTooManyRequests && CountedByAddress(e.Action):
		if until.IsZero() {
			until = now.Add(DefaultRetryAfter)
		}
	default:
		return
	}
	if least, most := now.Add(time.Second), now.Add(MaxRetryAfter); until.Before(least) {
		until = least
	} else if until.After(most) {
		until = most
	}
	c.mu.Lock()
	if until.After(c.closedUntil) {
		c.closedUntil = until
	}
	c.mu.Unlock()
	if until.Sub(now) >= worthWriting {
		c.change(func(l *Ledger, now time.Time) { l.refuse(closedKey, "", "", until, now) })
	}
}

func (c *CALedger) observeRenewalInfo(e acme.Exchange, now time.Time) {
	if e.Status != http.StatusServiceUnavailable && e.Status != http.StatusTooManyRequests {
		return
	}
	until := e.RetryAfter
	if last := now.Add(MaxRetryAfter); until.After(last) {
		until = last
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until.After(c.renewalInfoRefused) {
		c.renewalInfoRefused = until
	}
}

func (c *CALedger) now() time.Time { return c.ledgers.Clock.Now() }

// change changes the ledger, if it was read, and schedules a write. A ledger that is read later is
// settled with the Orders.
func (c *CALedger) change(f func(l *Ledger, now time.Time)) {
	c.mu.Lock()
	if c.ledger == nil {
		c.mu.Unlock()
		return
	}
	f(c.ledger, c.now())
	wake := c.admitted("")
	c.mu.Unlock()
	wake()
	c.writeSoon()
}

// admitted returns a function that wakes the orders that may be sent now, except one. c.mu must be
// held.
func (c *CALedger) admitted(except string) (wake func()) {
	var names []types.NamespacedName
	for _, r := range c.ledger.Admitted() {
		if r.ID != except {
			names = append(names, types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
		}
	}
	return func() {
		if c.ledgers.Wake == nil {
			return
		}
		for _, name := range names {
			c.ledgers.Wake(name)
		}
	}
}

// idle reports whether the ledger can be dropped from memory.
func (c *CALedger) idle() bool {
	if !c.loading.TryLock() {
		return false
	}
	defer c.loading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledger == nil ||
		c.saving == nil && c.saved >= c.ledger.changes && len(c.ledger.queue.waiting) == 0 && !c.now().Before(c.closedUntil)
}
