package ratelimit

import (
	"slices"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

// Reason says what an order waits for.
type Reason string

const (
	// NewOrders is the limit of new orders by account.
	NewOrders Reason = "new_orders"
	// Domain is the limit of certificates by registered domain.
	Domain Reason = "registered_domain"
	// ExactSet is the limit of certificates by the exact set of identifiers.
	ExactSet Reason = "exact_set"
	// Validations is the limit of failed validations by account and identifier.
	Validations Reason = "failed_validations"
	// Paused means that validations of a name failed repeatedly, or that the CA has paused the name.
	Paused Reason = "paused"
	// Refused means that the CA has refused the order until a time that it named.
	Refused Reason = "refused"
	// Accounts is the limit of new accounts. It is known only from a refusal by the CA.
	Accounts Reason = "new_accounts"
	// Unavailable means that the CA asked for no requests until a later time.
	Unavailable Reason = "closed"
)

const (
	// pauseAfter is the number of validations of a name that fail in a row before the name is paused.
	pauseAfter = 5
	// pauseLength is the time from the last failure of a paused name to its next try.
	pauseLength = 24 * time.Hour
	// windowMargin is how far inside its suggested window a renewal must be to count as exempt,
	// because clocks differ and a request takes time.
	windowMargin = 30 * time.Second
	// tryAgain is the time after which an order asks again about a paused name that another order
	// tries. The end of that try wakes it earlier.
	tryAgain = 10 * time.Minute
	// forgetAfter is how long a failure is remembered if no other validation of the name follows.
	forgetAfter = 60 * 24 * time.Hour
	// longestRefused is the longest time that a refusal of a CA holds. See package account.
	longestRefused = 7 * 24 * time.Hour
)

// Request describes an order that is to be sent.
type Request struct {
	// ID is unique, and the same each time that the order is asked for.
	ID string
	// Namespace and Name are those of the Order.
	Namespace, Name string
	// Account is the URL of the ACME account.
	Account string
	// Identifiers are the identifiers of the order.
	Identifiers []acme.Identifier
	// Limits are the limits that the issuer sets, and Published are the published limits of the CA.
	Limits, Published Limits
	// Renewal says that the CA has issued a certificate for exactly these identifiers in the last 120
	// days.
	Renewal bool
	// Window is when the CA suggests to renew the certificate that the order replaces. It is zero if
	// the CA suggests nothing.
	Window acme.Window
	// Manual says that a user asks for a try now, which ends the pauses of the names.
	Manual bool
	// Expires is when the certificate in use expires. It is zero if there is none.
	Expires time.Time
	// Created is when the Order was created.
	Created time.Time
}

// exempt reports whether the CA accepts the order without counting it against its limits.
func (r *Request) exempt(now int64) bool {
	return !r.Window.Start.IsZero() && now >= r.Window.Start.Add(windowMargin).UnixMilli() &&
		now < r.Window.End.Add(-windowMargin).UnixMilli()
}

// Decision says whether an order may be sent now, or else why it waits and until when.
type Decision struct {
	// Allowed says that the order may be sent. The other fields are zero then.
	Allowed bool
	// Reason is what the order waits for.
	Kind Reason
	// Until is when to ask again.
	Until time.Time
	// Subject is what the limit counts by, or the name that is paused.
	Subject string
	// Limit is the limit that is spent.
	Limit Limit
	// RefusedFor is the limit that the CA gave as the reason of a refusal. It is empty if the CA gave
	// none.
	RefusedFor Reason
	// Share is how many of the limit the namespace may use while others use it, too. It is zero if the
	// limit itself is spent.
	Share int64
	// Ahead is the number of orders that are served first.
	Ahead int
	// Failures is the number of validations that failed in a row, the last of them at Since.
	Failures int
	// Since is the time of the last failure or of the refusal.
	Since time.Time
	// Detail is what the CA said at that time.
	Detail string
	// Underway says that another order tries the paused name now.
	Underway bool
}

// Ledger holds what is spent of the limits of one CA, and the orders that wait. It is pure: it has
// no clock and does no I/O.
//
// A certificate is reserved when its order is sent. It is spent when the order ends with a
// certificate, not earlier, because the CA counts it at that moment. An order that does not
// progress reserves nothing after a while, so that stuck orders keep no others waiting.
//
// What the CA counts is common to all. Within that, namespaces that use the same limit have equal
// shares, and the last token of a limit is kept for renewals of valid certificates.
type Ledger struct {
	full     map[key]int64 // when each bucket is full again
	open     map[string]*openOrder
	failures map[key]*failure
	refusals map[key]*refusal

	reserved map[key]int64 // by open orders; follows from open
	usage    usage         // of namespaces
	queue    queue
	// nextLapse is when reservations lapse next at the earliest.
	nextLapse int64
	admitted  []Request // orders that waited and may be sent now
	// changes counts the changes that must be written.
	changes uint64
}

// openOrder is an order that was admitted and has not ended.
type openOrder struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Order is reserved until the CA has accepted the order, Certificate until the order has ended.
	Order       []reservation `json:"order,omitempty"`
	Certificate []reservation `json:"certificate,omitempty"`
	// Tries are the paused names that the order tries.
	Tries []key `json:"tries,omitempty"`
	// Exempt says that the order was admitted because the CA does not count it.
	Exempt bool `json:"exempt,omitempty"`
	// NoReply says that the order was sent and no reply came. What it reserved is spent, and another
	// token is needed to send it again.
	NoReply bool `json:"noReply,omitempty"`
	// Accepted says that the CA has the order, Finalizing that the certificate was requested.
	Accepted   bool `json:"taken,omitempty"`
	Finalizing bool `json:"final,omitempty"`

	since uint64 // the change that must be written before the order is sent
	// lapses is when the certificates stop being reserved, unless the order progresses. lapsed says
	// that they are not reserved any more. Neither is stored: after a restart they are reserved again.
	lapses int64
	lapsed bool
	// held is since when the order waits to finalize.
	held int64
}

// reservation is a reserved token of a bucket.
type reservation struct {
	Key    key   `json:"key"`
	Count  int64 `json:"count"`
	Period int64 `json:"period"` // in ms
	// ExactSet says that the limit is the one by exact set. An order that is sent again for the same
	// set does not spend it.
	Set bool `json:"set,omitempty"`
}

func (r reservation) limit() Limit {
	return Limit{r.Count, time.Duration(r.Period) * time.Millisecond}
}

// NewLedger returns a ledger in which nothing is spent.
func NewLedger() *Ledger {
	return &Ledger{
		full: map[key]int64{}, open: map[string]*openOrder{}, failures: map[key]*failure{},
		refusals: map[key]*refusal{}, reserved: map[key]int64{}, usage: newUsage(),
	}
}

// empty reports whether the ledger has no entries. Encode drops entries that are over.
func (l *Ledger) empty() bool {
	return len(l.full)+len(l.open)+len(l.failures)+len(l.refusals) == 0
}

// fullAt returns when a bucket is full again, which is no later than for an empty bucket. A later
// time was counted by a clock that was ahead, or written by hand.
func (l *Ledger) fullAt(c charge, now int64) int64 {
	if most := now + c.limit.Count*c.limit.interval(); l.full[c.key] > most {
		l.full[c.key] = most
		l.changes++
	}
	return l.full[c.key]
}

// reserve admits an order.
func (l *Ledger) reserve(c *candidate, now int64) {
	o := &openOrder{Namespace: c.Namespace, Name: c.Name, Exempt: c.exempt(now)}
	renewal := l.renewal(c, now)
	reservations := func(charges []charge) (all []reservation) {
		for _, b := range charges {
			if !renewal || b.kind == ExactSet {
				all = append(all, reservation{b.key, b.limit.Count, b.limit.Period.Milliseconds(), b.kind == ExactSet})
			}
		}
		return all
	}
	if !o.Exempt {
		o.Order = reservations(c.orders)
	}
	o.Certificate = reservations(c.certificates)
	for _, k := range c.failures {
		if l.failures[k].paused() {
			o.Tries = append(o.Tries, k)
		}
	}
	l.queue.remove(c.ID)
	if len(o.Order)+len(o.Certificate)+len(o.Tries) == 0 {
		return // no limit counts it
	}
	l.open[c.ID] = o
	l.changes++
	o.since = l.changes
	l.index(o, 1)
	l.postponeLapse(o, now)
}

// index adds what an open order reserves, or removes it.
func (l *Ledger) index(o *openOrder, by int64) {
	count := func(k key) {
		if l.reserved[k] += by; l.reserved[k] == 0 {
			delete(l.reserved, k)
		}
	}
	for _, r := range o.Order {
		count(r.Key)
	}
	if o.lapsed {
		l.queue.addStuck(o.Namespace, int(by))
	} else {
		for _, r := range o.Certificate {
			count(r.Key)
			l.usage.reserve(r.Key, o.Namespace, by)
		}
	}
	for _, k := range o.Tries {
		count(k)
	}
}

// drop forgets an open order and what it reserves.
func (l *Ledger) drop(id string) {
	l.index(l.open[id], -1)
	delete(l.open, id)
	l.changes++
}

// spendCertificate takes the tokens of an issued certificate from their buckets.
func (l *Ledger) spendCertificate(o *openOrder, now int64) {
	l.spend(o.Certificate, now)
	for _, r := range o.Certificate {
		l.usage.spend(r, o.Namespace, now)
	}
}

// spend takes the reserved tokens from their buckets.
func (l *Ledger) spend(reservations []reservation, now int64) {
	for _, r := range reservations {
		l.full[r.Key] = r.limit().take(l.full[r.Key], now)
	}
}

// NoReply records that an order was sent and no reply came. The CA may have counted the order, by
// account and by registered domain. It counts the order again when the order is sent again, even if
// it answers with the same order. So the order is sent again only if there is room for one more.
func (l *Ledger) NoReply(id string, at time.Time) {
	o := l.open[id]
	if o == nil || o.Accepted {
		return
	}
	l.spend(o.Order, at.UnixMilli())
	notSet := slices.DeleteFunc(slices.Clone(o.Certificate), func(r reservation) bool { return r.Set })
	l.spend(notSet, at.UnixMilli())
	o.NoReply = true
	l.changes++
}

// Restarted records that the process before this one ended. Each order without a known answer of
// the CA may have been sent, or may have waited to be sent. Its new order counts, because that
// token comes back soon. Its certificates do not count, because those tokens take days to come
// back.
func (l *Ledger) Restarted(at time.Time) {
	for _, o := range l.open {
		l.postponeLapse(o, at.UnixMilli())
		if !o.Accepted && len(o.Order) > 0 {
			l.spend(o.Order, at.UnixMilli())
			o.NoReply = true // it is sent again only if there is room for one more
			l.changes++
		}
	}
}

// Accepted records that the CA has accepted an order.
func (l *Ledger) Accepted(id string, at time.Time) {
	o := l.open[id]
	if o == nil || o.Accepted {
		return
	}
	l.index(o, -1)
	l.spend(o.Order, at.UnixMilli())
	o.Order, o.Accepted = nil, true
	l.index(o, 1)
	l.postponeLapse(o, at.UnixMilli())
	l.changes++
}

// Finalizing records that the certificate of an order is about to be requested. If it returns
// false, the order must wait for a moment, because another order that is just being sent would be
// refused.
func (l *Ledger) Finalizing(id string, at time.Time) bool {
	o, now := l.open[id], at.UnixMilli()
	if o == nil || o.Finalizing {
		return true
	}
	if o.lapsed && !l.mayFinalize(o, now) {
		if o.held == 0 {
			o.held = now
		}
		if now-o.held < finalizeAfter.Milliseconds() {
			return false
		}
	}
	o.Finalizing = true
	l.postponeLapse(o, now)
	l.changes++
	return true
}

// Finished records that an order has ended, with a certificate or without. What the order reserved
// is spent, or free for others.
func (l *Ledger) Finished(id string, issued bool, at time.Time) {
	l.queue.leave(id)
	o := l.open[id]
	if o == nil {
		return
	}
	l.drop(id)
	free := len(o.Tries) > 0
	if issued {
		l.spend(o.Order, at.UnixMilli())
		l.spendCertificate(o, at.UnixMilli())
	} else {
		for _, r := range slices.Concat(o.Order, o.Certificate) {
			free = free || l.queue.waitingFor(r.Key) > 0
		}
	}
	if free {
		l.admitWaiting("", at)
	}
}

// Deleted records that the Order of a name was deleted. A certificate that was requested counts as
// issued.
func (l *Ledger) Deleted(namespace, name string, at time.Time) {
	l.queue.deleted(namespace, name)
	for id, o := range l.open {
		if o.Namespace == namespace && o.Name == name {
			l.Finished(id, o.Finalizing, at)
		}
	}
}
