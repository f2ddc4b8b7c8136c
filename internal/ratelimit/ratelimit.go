// Package ratelimit keeps orders within the rate limits of ACME servers, so that no order is sent
// only to be refused. The limits are published, set on the issuer, or learnt from refusals. A CA
// counts for all issuers and accounts, so usage is counted by the directory of the CA.
//
// The counting is a pure Ledger. CA stores one in a ConfigMap, and writes what an order spends
// before the order is sent.
package ratelimit

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// sweepAgain is the interval at which ConfigMaps without usage are removed.
	sweepAgain = time.Hour
	// maxCAs is the number of CAs whose idle ledgers stay in memory.
	maxCAs = 256
	// flushLimit bounds the last write when the process ends.
	flushLimit = 3 * time.Second
)

// Ledgers holds the ledgers of all CAs.
type Ledgers struct {
	// Client reads and writes ConfigMaps in Namespace, without a cache.
	Client client.Client
	// Namespace is the namespace of the ConfigMaps.
	Namespace string
	// Clock tells the time.
	Clock clock.PassiveClock
	// Log gets what cannot be written.
	Log logr.Logger
	// Events gets the warning about a ledger that cannot be read.
	Events record.EventRecorder
	// Orders lists the Orders at the CA of a directory, which is Canonical.
	Orders func(ctx context.Context, directory string) ([]OrderRecord, error)
	// Wake reconciles an Order that may be sent now. It is nil if no controller sends orders.
	Wake func(types.NamespacedName)

	mu  sync.Mutex
	cas map[string]*CALedger
}

// Canonical returns the canonical form of the URL of a directory. It identifies the CA.
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

// For returns the ledger of the CA of a directory.
func (l *Ledgers) For(directory string) *CALedger {
	directory = Canonical(directory)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cas[directory]
	if c == nil {
		if l.cas == nil {
			l.cas = map[string]*CALedger{}
		}
		if len(l.cas) >= maxCAs {
			for d, other := range l.cas {
				if other.idle() {
					delete(l.cas, d) // it can be read again
				}
			}
		}
		c = &CALedger{ledgers: l, directory: directory}
		l.cas[directory] = c
	}
	return c
}

func (l *Ledgers) all() []*CALedger {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*CALedger
	for _, c := range l.cas {
		all = append(all, c)
	}
	return all
}

// NoReply records that an order was sent and no reply came.
func (l *Ledgers) NoReply(id string) {
	l.change(id, func(l *Ledger, now time.Time) { l.NoReply(id, now) })
}

// Accepted records that the CA has accepted an order.
func (l *Ledgers) Accepted(id string) {
	l.change(id, func(l *Ledger, now time.Time) { l.Accepted(id, now) })
}

// Finalizing records that the certificate of an order is about to be requested. If it returns
// false, the order must wait for a moment, because another order that is just being sent would be
// refused.
func (l *Ledgers) Finalizing(id string) (may bool) {
	may = true
	l.change(id, func(l *Ledger, now time.Time) { may = l.Finalizing(id, now) && may })
	return may
}

// Finished records that an order has ended, with a certificate or without.
func (l *Ledgers) Finished(id string, issued bool) {
	l.change(id, func(l *Ledger, now time.Time) { l.Finished(id, issued, now) })
}

// change changes the ledgers that know an order.
func (l *Ledgers) change(id string, f func(*Ledger, time.Time)) {
	for _, c := range l.all() {
		c.change(func(l *Ledger, now time.Time) {
			if l.open[id] != nil || l.queue.get(id) != nil {
				f(l, now)
			}
		})
	}
}

// Deleted records that an Order was deleted.
func (l *Ledgers) Deleted(name types.NamespacedName) {
	for _, c := range l.all() {
		c.change(func(l *Ledger, now time.Time) { l.Deleted(name.Namespace, name.Name, now) })
	}
}

// Start removes unneeded ConfigMaps from time to time, and writes the remaining changes when the
// context ends.
func (l *Ledgers) Start(ctx context.Context) error {
	ticker := time.NewTicker(sweepAgain)
	defer ticker.Stop()
	for l.sweep(ctx); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			l.sweep(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	for _, c := range l.all() {
		if err := c.flush(last); err != nil {
			l.Log.Error(err, "could not save ACME rate-limit usage at shutdown; usage will be over-estimated after restart",
				"directory", c.directory)
		}
	}
	return nil
}
