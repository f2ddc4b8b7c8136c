// Package budget keeps orders within the limits of ACME servers, so that none is sent just to be refused. What a CA allows is known, or set on the
// issuer, or learnt from its refusals. The limits are the CA's, so what is spent is counted by directory, for all issuers and accounts.
//
// The counting is a pure Ledger. CA keeps one in a ConfigMap, which has what an order spends before the order is sent.
package budget

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// entry of the ConfigMap has the ledger.
	entry = "ledger"
	// directoryAnnotation says, for people, of which CA it is.
	directoryAnnotation = "perennial.dev/acme-directory"
	// ledgerLabel is on the ConfigMaps of ledgers, by which unneeded ones are found.
	ledgerLabel = "perennial.dev/acme-limits"
	// shortDigest is how much of the digest of the directory's URL the names of ConfigMaps have.
	shortDigest = 12
	// sweepAgain is when the ConfigMaps of CAs of which nothing is spent are removed.
	sweepAgain = time.Hour
	// ioLimit bounds one attempt to read or write the ledger.
	ioLimit = 10 * time.Second
	// writeTries is how often it is tried to write while others write, too.
	writeTries = 4
	// later is when something is written that need not be written at once: orders that ended free what they reserved only then.
	later = 2 * time.Second
	// worthWriting is the shortest wait that is remembered over a restart.
	worthWriting = time.Minute
	// Unsaid is how long all stay away from a CA that limits our address and does not say until when. Then one asks before the others.
	Unsaid = time.Minute
	// maxCAs is of how many CAs the ledgers are kept in memory, if they have nothing to do.
	maxCAs = 256
	// LongestClosed is how long a CA is left alone at most that answers nobody, whatever it says: all its certificates wait for that.
	LongestClosed = 24 * time.Hour
	// flushLimit is how long the process may take to write what is left when it ends.
	flushLimit = 3 * time.Second
)

// Budget has the ledgers of all CAs.
type Budget struct {
	// Client reads and writes ConfigMaps in Namespace, without a cache.
	Client    client.Client
	Namespace string
	Clock     clock.PassiveClock
	Log       logr.Logger
	Events    record.EventRecorder

	// Orders are the objects of orders to the CA of a directory, which is Canonical.
	Orders func(ctx context.Context, directory string) ([]Past, error)
	// Wake has an order looked at again that may go. Whoever sends orders sets it.
	Wake func(types.NamespacedName)

	mu  sync.Mutex
	cas map[string]*CA
}

// Canonical is the one spelling of a directory's URL by which its CA is known.
func Canonical(directory string) string {
	u, err := url.Parse(directory)
	if err != nil || u.Host == "" {
		return directory
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" && port != "443" {
		host += ":" + port
	}
	u.Host, u.Fragment = host, ""
	return u.String()
}

// CA returns the ledger of the CA of a directory.
func (b *Budget) CA(directory string) *CA {
	directory = Canonical(directory)
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.cas[directory]
	if c == nil {
		if b.cas == nil {
			b.cas = map[string]*CA{}
		}
		if len(b.cas) >= maxCAs {
			for d, other := range b.cas {
				if other.idle() {
					delete(b.cas, d) // it can be read again
				}
			}
		}
		c = &CA{budget: b, directory: directory}
		b.cas[directory] = c
	}
	return c
}

func (b *Budget) all() []*CA {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*CA
	for _, c := range b.cas {
		all = append(all, c)
	}
	return all
}

// Unheard says that an order was sent and nothing was heard of it, Taken that the CA has taken an order, Final that it is about to be finalized, Ended that it has ended.
func (b *Budget) Unheard(id string) {
	b.change(id, func(l *Ledger, now time.Time) { l.Unheard(id, now) })
}
func (b *Budget) Taken(id string) { b.change(id, func(l *Ledger, now time.Time) { l.Taken(id, now) }) }
func (b *Budget) Final(id string) { b.change(id, func(l *Ledger, _ time.Time) { l.Final(id) }) }
func (b *Budget) Ended(id string, issued bool) {
	b.change(id, func(l *Ledger, now time.Time) { l.Ended(id, issued, now) })
}

// change changes the ledgers that know of an order.
func (b *Budget) change(id string, f func(*Ledger, time.Time)) {
	for _, c := range b.all() {
		c.change(func(l *Ledger, now time.Time) {
			if l.open[id] != nil || l.line.at(id) != nil {
				f(l, now)
			}
		})
	}
}

// Gone says that the object of an order was deleted.
func (b *Budget) Gone(name types.NamespacedName) {
	for _, c := range b.all() {
		c.change(func(l *Ledger, now time.Time) { l.Gone(name.Namespace, name.Name, now) })
	}
}

// Start removes what is over now and then, and writes what is left when the process ends.
func (b *Budget) Start(ctx context.Context) error {
	ticker := time.NewTicker(sweepAgain)
	defer ticker.Stop()
	for b.sweep(ctx); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			b.sweep(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	for _, c := range b.all() {
		if err := c.flush(last); err != nil {
			b.Log.Error(err, "what was spent last is not written; it is reckoned with more carefully after the start", "directory", c.directory)
		}
	}
	return nil
}

// CA is the ledger of one CA, in a ConfigMap.
type CA struct {
	budget    *Budget
	directory string

	loading sync.Mutex // held while the ledger is read for the first time

	mu     sync.Mutex
	ledger *Ledger           // nil until it is read
	object *corev1.ConfigMap // as it was last seen; nil if there is none
	saved  uint64            // changes of the ledger that are written
	saving chan struct{}     // closed when the write that is under way ends; nil if none is
	timer  *time.Timer       // of a write that can wait
	whole  bool              // its name has the whole digest, as the short name is another CA's
	closed time.Time         // until when the CA is to be left alone
	quiet  time.Time         // until when it says nobody when to renew
}

// name is that of the ConfigMap: a short digest of the directory's URL, or the whole one where the
// ConfigMap of that name says that it is of another CA.
func (c *CA) name() types.NamespacedName {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := sha256.Sum256([]byte(c.directory))
	digest := hex.EncodeToString(sum[:])
	if !c.whole {
		digest = digest[:shortDigest]
	}
	return types.NamespacedName{Namespace: c.budget.Namespace, Name: "perennial-acme-limits-" + digest}
}

// get reads the ConfigMap of the CA. One of that name is only taken for it if it has the
// directory's URL.
func (c *CA) get(ctx context.Context) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{}
	if err := c.budget.Client.Get(ctx, c.name(), object); err != nil {
		return nil, err
	}
	if of, said := object.Annotations[directoryAnnotation]; !said || of == c.directory {
		return object, nil
	}
	c.mu.Lock()
	again := !c.whole
	c.whole = true
	c.mu.Unlock()
	if again {
		return c.get(ctx)
	}
	return nil, fmt.Errorf("ConfigMap %s is of another CA", c.name())
}

// Ask says whether an order may be sent now. If so, what it spends is written down when Ask returns.
func (c *CA) Ask(ctx context.Context, a Ask) (Verdict, error) {
	if err := c.load(ctx); err != nil {
		return Verdict{}, err
	}
	c.mu.Lock()
	v := c.ledger.Ask(a, c.budget.Clock.Now())
	must := uint64(0)
	if o := c.ledger.open[a.ID]; o != nil {
		must = o.since
	}
	wake := c.woken(a.ID)
	c.mu.Unlock()
	wake()
	if !v.Allowed || must == 0 {
		c.soon()
		return v, nil
	}
	return v, c.durable(ctx, must)
}

// Validated says that a name was proven.
func (c *CA) Validated(account string, id acme.Identifier) {
	c.change(func(l *Ledger, now time.Time) { l.Validated(account, id, now) })
}

// Failed counts a validation that failed. It is written down when Failed returns.
func (c *CA) Failed(ctx context.Context, account string, id acme.Identifier, limit Limit, authorization, why string) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.ledger.Failed(account, id, limit, authorization, why, c.budget.Clock.Now())
	must := c.ledger.changes
	c.mu.Unlock()
	return c.durable(ctx, must)
}

// PausedUntil returns the names of an order that are paused, and until when.
func (c *CA) PausedUntil(ctx context.Context, account string, ids []acme.Identifier) (names []string, until time.Time, err error) {
	if err := c.load(ctx); err != nil {
		return nil, until, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	names, until = c.ledger.PausedUntil(account, ids, c.budget.Clock.Now())
	return names, until, nil
}

// Refused learns from the refusal of an order, and returns what it holds for. It is written down, if that can be.
func (c *CA) Refused(ctx context.Context, a Ask, problem *acme.Problem, until time.Time) (Verdict, error) {
	if err := c.load(ctx); err != nil {
		return Verdict{}, err
	}
	c.mu.Lock()
	v := c.ledger.Refused(a, problem, until, c.budget.Clock.Now())
	must := c.ledger.changes
	c.mu.Unlock()
	return v, c.durable(ctx, must)
}

// MayRegister is nil unless the CA has refused new accounts until a time that has not come.
func (c *CA) MayRegister(ctx context.Context) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	until, why := c.ledger.refusedUntil(accountsKey, c.budget.Clock.Now())
	if until.IsZero() {
		return nil
	}
	return fault.Limitedf("ErrRegisterACMEAccount", until, "the CA takes no new accounts until %s: %s", stamp(until), why)
}

// RegistrationRefused remembers that the CA takes no new accounts until a time.
func (c *CA) RegistrationRefused(ctx context.Context, why string, until time.Time) {
	if c.load(ctx) != nil {
		return // it will refuse again
	}
	c.change(func(l *Ledger, now time.Time) { l.refuse(accountsKey, "", why, until, now) })
}

// Open is nil unless the CA is to be left alone until a time that has not come.
func (c *CA) Open(ctx context.Context) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.budget.Clock.Now()
	if c.closed.Sub(now) > LongestClosed {
		c.closed = now // by a clock that was ahead: the CA says it again
	}
	if !now.Before(c.closed) {
		return nil
	}
	return fault.Limitedf(fault.Busy, c.closed, "%s wants to be left alone until %s: nothing is asked before", c.directory, stamp(c.closed))
}

// Quiet is nil unless the CA has refused to say when to renew until a time that has not come. After a restart it is asked once more.
func (c *CA) Quiet() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.budget.Clock.Now()
	if c.quiet.Sub(now) > LongestClosed {
		c.quiet = now // as in Open
	}
	if !now.Before(c.quiet) {
		return nil
	}
	return fault.Limitedf(fault.Busy, c.quiet, "%s says nobody when to renew until %s", c.directory, stamp(c.quiet))
}

// ByAddress reports whether something is asked of a CA without an account, so that it can limit that by our address alone. When to renew is, too, but
// that is a limit of its own.
func ByAddress(action string) bool { return action == "directory" || action == "newNonce" }

// Saw learns from an exchange until when all stay away from the CA: if it says so with a status of 503, or limits what is asked of it without an
// account, which it can count by our address alone. When to renew is asked so, too, but of what certificates can do without: that alone rests then.
func (c *CA) Saw(e acme.Exchange) {
	now := c.budget.Clock.Now()
	until := e.RetryAfter
	switch {
	case e.Action == "renewalInfo":
		if e.Status != http.StatusServiceUnavailable && e.Status != http.StatusTooManyRequests {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if last := now.Add(LongestClosed); until.After(last) {
			until = last
		}
		if until.After(c.quiet) {
			c.quiet = until
		}
		return
	case e.Status == http.StatusServiceUnavailable && !until.IsZero():
	case e.Status == http.StatusTooManyRequests && ByAddress(e.Action):
		if until.IsZero() {
			until = now.Add(Unsaid)
		}
	default:
		return
	}
	if least, most := now.Add(time.Second), now.Add(LongestClosed); until.Before(least) {
		until = least
	} else if until.After(most) {
		until = most
	}
	c.mu.Lock()
	if until.After(c.closed) {
		c.closed = until
	}
	c.mu.Unlock()
	if until.Sub(now) >= worthWriting {
		c.change(func(l *Ledger, now time.Time) { l.refuse(closedKey, "", "", until, now) })
	}
}

// change changes the ledger, if it is read already, and has that written soon.
func (c *CA) change(f func(l *Ledger, now time.Time)) {
	c.mu.Lock()
	if c.ledger == nil {
		c.mu.Unlock()
		return // whoever reads it reckons with what the objects say
	}
	f(c.ledger, c.budget.Clock.Now())
	wake := c.woken("")
	c.mu.Unlock()
	wake()
	c.soon()
}

// woken returns how to wake those that may go now, but for one. c.mu is held.
func (c *CA) woken(but string) func() {
	var names []types.NamespacedName
	for _, a := range c.ledger.Admitted() {
		if a.ID != but {
			names = append(names, types.NamespacedName{Namespace: a.Namespace, Name: a.Name})
		}
	}
	return func() {
		for _, name := range names {
			if c.budget.Wake != nil { // nobody sends orders
				c.budget.Wake(name)
			}
		}
	}
}

// idle reports whether the ledger can be forgotten.
func (c *CA) idle() bool {
	if !c.loading.TryLock() {
		return false
	}
	defer c.loading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ledger == nil || c.saving == nil && c.saved >= c.ledger.changes && len(c.ledger.line.waiting) == 0 && !c.budget.Clock.Now().Before(c.closed)
}

// load reads the ledger, if that was not done.
func (c *CA) load(ctx context.Context) error {
	c.mu.Lock()
	done := c.ledger != nil
	c.mu.Unlock()
	if done {
		return nil
	}
	c.loading.Lock()
	defer c.loading.Unlock()
	c.mu.Lock()
	done = c.ledger != nil
	c.mu.Unlock()
	if done {
		return nil
	}
	ledger, object, err := c.read(ctx)
	if err != nil {
		return err
	}
	ledger.Interrupted(c.budget.Clock.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger, c.object = ledger, object
	if until, _ := ledger.refusedUntil(closedKey, c.budget.Clock.Now()); until.After(c.closed) {
		c.closed = until
	}
	return nil
}

// read reads the ledger and compares it with the objects. Where there is none, or none that can be read, it is made of these.
func (c *CA) read(ctx context.Context) (*Ledger, *corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	objects, err := c.budget.Orders(ctx, c.directory)
	if err != nil {
		return nil, nil, fault.Transientf("LimitsUnknown", "list the orders to %s: %w", c.directory, err)
	}
	now := c.budget.Clock.Now()
	object, err := c.get(ctx)
	name := c.name()
	switch {
	case apierrors.IsNotFound(err):
		return Restore(objects, now), nil, nil
	case err != nil:
		return nil, nil, fault.Transientf("LimitsUnknown", "read what is spent of the limits of %s from ConfigMap %s: %w", c.directory, name, err)
	}
	ledger, err := Decode([]byte(object.Data[entry]))
	if err != nil {
		const message = "what is spent of the limits of %s cannot be read: %v. It is reckoned anew from the Orders that exist; deleted ones are not among them"
		c.budget.Events.Eventf(object, corev1.EventTypeWarning, "LimitsForgotten", message, c.directory, err)
		c.budget.Log.Info(fmt.Sprintf(message, c.directory, err), "configMap", name)
		return Restore(objects, now), object, nil
	}
	ledger.Settle(objects, now)
	return ledger, object, nil
}

// durable returns when so many changes are written. Many who wait share one write.
func (c *CA) durable(ctx context.Context, changes uint64) error {
	for {
		c.mu.Lock()
		if c.saved >= changes {
			c.mu.Unlock()
			return nil
		}
		if wait := c.saving; wait != nil {
			c.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return fault.Transientf("LimitsNotWritten", "wait until what is spent of the limits of %s is written: %w", c.directory, ctx.Err())
			}
			continue
		}
		c.saving = make(chan struct{})
		c.mu.Unlock()
		err := c.write(ctx)
		c.mu.Lock()
		close(c.saving)
		c.saving = nil
		c.mu.Unlock()
		if err != nil {
			return fault.Transientf("LimitsNotWritten", "write what is spent of the limits of %s to ConfigMap %s: %w", c.directory, c.name(), err)
		}
	}
}

// write writes the ledger as it is now. If somebody else has written it, both accounts are put together.
func (c *CA) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	for try := 1; ; try++ {
		c.mu.Lock()
		changes := c.ledger.changes
		text, err := c.ledger.Encode(c.budget.Clock.Now())
		was, empty := c.object, c.ledger.empty()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if empty {
			done, err := c.remove(ctx, was, changes)
			if done || err != nil {
				return err
			}
		}
		name := c.name()
		is := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		if was != nil {
			is = was.DeepCopy()
		}
		metav1.SetMetaDataAnnotation(&is.ObjectMeta, directoryAnnotation, c.directory)
		metav1.SetMetaDataLabel(&is.ObjectMeta, ledgerLabel, "")
		is.Data = map[string]string{entry: string(text)}
		if was == nil {
			err = c.budget.Client.Create(ctx, is)
		} else {
			err = c.budget.Client.Patch(ctx, is, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
		}
		switch {
		case err == nil:
			c.mu.Lock()
			c.object, c.saved = is, changes
			c.mu.Unlock()
			return nil
		case try == writeTries, !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err), was == nil && apierrors.IsNotFound(err):
			return err // the last is a namespace that does not exist
		}
		other, object, err := c.read(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.ledger.merge(other)
		c.object = object
		c.mu.Unlock()
	}
}

// soon has what was changed written in a moment, together with what else changes until then.
func (c *CA) soon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil || c.ledger == nil || c.saved >= c.ledger.changes {
		return
	}
	c.timer = time.AfterFunc(later, func() {
		ctx, cancel := context.WithTimeout(context.Background(), ioLimit)
		defer cancel()
		if err := c.flush(ctx); err != nil {
			c.budget.Log.V(1).Info("not written yet", "error", err.Error()) // the next change, or order, tries again
		}
	})
}

// flush writes what is not written.
func (c *CA) flush(ctx context.Context) error {
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	must := uint64(0)
	if c.ledger != nil {
		must = c.ledger.changes
	}
	c.mu.Unlock()
	if must == 0 {
		return nil
	}
	return c.durable(ctx, must)
}
