package ratelimit

import (
	"cmp"
	"slices"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

// OrderRecord is the state of an order at the CA, as its Order object has it.
type OrderRecord struct {
	Request
	// Sent says that the CA has accepted the order.
	Sent bool
	// Finished says that the order has ended, and Issued that it ended with a certificate.
	Finished, Issued bool
	// At is when the certificate begins, or when the order failed or was paused. It is zero if that is
	// not known.
	At time.Time
	// Failed are the names of which at least one failed validation.
	Failed []acme.Identifier
	// Detail is what the CA said of the failure.
	Detail string
	// PausedUntil is until when the failed names are paused.
	PausedUntil time.Time
}

// backdated is the longest time between the notBefore of a certificate and its issuance: an hour at
// Let's Encrypt, plus a difference of the clocks.
const backdated = time.Hour + time.Minute

// latest returns the latest time at which an order was sent and its certificate issued. The time of
// creation says little, as the order may have waited for days.
func (r *OrderRecord) latest(now int64) int64 {
	at := r.At
	if at.IsZero() {
		return now
	}
	if r.Issued {
		at = at.Add(backdated)
	}
	return min(max(at.UnixMilli(), r.Created.UnixMilli()), now)
}

// Settle closes the open orders that have ended according to their Order objects, and those without
// an Order object. It counts the orders that the CA has accepted.
func (l *Ledger) Settle(records []OrderRecord, at time.Time) {
	now := at.UnixMilli()
	known := map[string]*OrderRecord{}
	for i := range records {
		known[records[i].ID] = &records[i]
	}
	l.restoreUsage(records, now)
	for id, o := range l.open {
		r := known[id]
		switch {
		case r == nil: // it ended while no process ran
			l.drop(id)
			l.spend(o.Order, now)
			l.spendCertificate(o, now)
		case r.Finished:
			l.drop(id)
			if r.Sent {
				l.spend(o.Order, now)
			}
			if r.Issued {
				l.spend(o.Certificate, now)
			}
		case r.Sent:
			l.Accepted(id, at) // the CA accepted it earlier, at an unknown time
		}
	}
}

// Restore makes a ledger from the Orders, if there is none yet or it was lost. It lacks the orders
// whose Order objects were deleted. For a failed order each name that may be the reason counts as
// failed once. If it is the only such name, it is paused.
func Restore(records []OrderRecord, at time.Time) *Ledger {
	now := at.UnixMilli()
	l := NewLedger()
	slices.SortFunc(records, func(a, b OrderRecord) int { return cmp.Compare(a.latest(now), b.latest(now)) })
	for i := range records {
		l.restoreFailures(&records[i], at)
		if records[i].Sent {
			l.restoreSent(&records[i], now)
		}
	}
	l.restoreUnsent(records, at)
	l.restoreUsage(records, now)
	return l
}

// restoreUsage counts the certificates that each namespace got.
func (l *Ledger) restoreUsage(records []OrderRecord, now int64) {
	l.usage.full = map[key]map[string]int64{}
	for i := range records {
		r := &records[i]
		issued := r.latest(now)
		longest := max(r.Limits.Domain.Period, r.Limits.Set.Period, r.Published.Domain.Period, r.Published.Set.Period)
		if !r.Issued || issued <= now-longest.Milliseconds() {
			continue
		}
		for _, b := range newCandidate(r.Request).certificates {
			if r.Renewal && b.kind != ExactSet {
				continue
			}
			each := reservation{Key: b.key, Count: b.limit.Count, Period: b.limit.Period.Milliseconds()}
			if issued > now-each.Period {
				l.usage.spend(each, r.Namespace, issued)
			}
		}
	}
}

// restoreFailures counts the failed and the validated names of an order.
func (l *Ledger) restoreFailures(r *OrderRecord, at time.Time) {
	when := r.latest(at.UnixMilli())
	names := map[string]bool{}
	for _, id := range r.Failed {
		names[base(id)] = true
	}
	for _, id := range r.Failed {
		authorization := r.ID + " " + base(id)
		failed := l.ValidationFailed(FailedValidation{
			Account: r.Account, Namespace: r.Namespace, Identifier: id, Limit: r.Limits.Validations,
			Authorization: authorization, Detail: r.Detail,
		}, time.UnixMilli(when))
		if f := l.failures[failureKey(r.Account, base(id))]; len(names) == 1 && r.PausedUntil.After(at) {
			f.InARow, f.At = max(failed, pauseAfter), r.PausedUntil.Add(-pauseLength).UnixMilli()
			f.By[keyOf(r.Namespace)] = f.InARow
		}
	}
	if r.Issued { // what failed before is over
		for _, id := range r.Identifiers {
			l.Validated(r.Account, id, at)
		}
	}
}

// restoreSent counts an order that the CA has accepted.
func (l *Ledger) restoreSent(r *OrderRecord, now int64) {
	spent := r.latest(now)
	l.reserve(newCandidate(r.Request), spent)
	l.Accepted(r.ID, time.UnixMilli(spent))
	switch o := l.open[r.ID]; {
	case o == nil:
	case !r.Finished:
		o.Finalizing = true // whether a certificate was requested is not known
	default:
		l.drop(r.ID)
		if r.Issued {
			l.spend(o.Certificate, spent)
		}
	}
}

// restoreUnsent counts the orders that may have been sent just before the process ended: those that
// the limits allowed. It skips limits that no other order has used.
func (l *Ledger) restoreUnsent(records []OrderRecord, at time.Time) {
	now := at.UnixMilli()
	room := map[key]bool{}
	for _, r := range records {
		if r.Sent || r.Finished || r.Renewal || r.PausedUntil.After(at) {
			continue
		}
		for _, b := range newCandidate(r.Request).orders {
			full := l.full[b.key]
			if _, known := room[b.key]; !known {
				room[b.key] = full > now && b.limit.free(full, 0, now) <= now
			}
			if room[b.key] {
				l.full[b.key] = b.limit.take(full, now)
			}
		}
	}
}
