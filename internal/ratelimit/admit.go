package ratelimit

import (
	"slices"
	"time"
)

// Admit decides whether an order may be sent, and reserves what it spends. The answer stays the
// same as long as the order has not ended.
func (l *Ledger) Admit(r Request, at time.Time) Decision {
	now := at.UnixMilli()
	l.lapse(at)
	c := newCandidate(r)
	if o := l.open[r.ID]; o != nil {
		if !o.Accepted {
			l.postponeLapse(o, now)
		}
		if o.Accepted || !o.NoReply && (!o.Exempt || c.exempt(now)) {
			return Decision{Allowed: true}
		}
		// No reply came, its window is over, or the CA does not believe that it replaces something.
		l.drop(r.ID)
		if d := l.check(c, now, nil); o.NoReply && d.Allowed {
			l.reserve(c, now) // it was admitted before those that wait
			return d
		}
	}
	// A manual trigger ends the pauses that exist, and none that begins while its order waits.
	ended := r.Manual && l.queue.get(r.ID) == nil && l.endPauses(c)
	d := l.enter(c, at)
	if ended {
		l.admitWaiting("", at) // others waited for these names, too
	}
	return d
}

// enter admits an order, or puts it into the queue.
func (l *Ledger) enter(c *candidate, at time.Time) Decision {
	now := at.UnixMilli()
	before := l.queue.get(c.ID)
	if before != nil {
		l.inherit(before.candidate, c, now)
	}
	d := l.check(c, now, nil)
	switch {
	case d.Allowed && !l.contested(c, now):
		l.reserve(c, now)
		return d
	case d.Allowed:
		l.queue.put(c, d)
		l.admitWaiting(c.ID, at)
		if l.queue.get(c.ID) == nil {
			return d
		}
		d = l.check(c, now, l.queue.ahead(c.ID, at)) // others were ahead
	case before == nil:
		d = l.check(c, now, l.queue.waitingFor)
	default:
		d = l.stillWaits(before, c, d, at)
	}
	l.queue.put(c, d)
	return d
}

// stillWaits returns the decision about an order that was in the queue. Before its time the order
// gets the same decision again, unless that is no longer right, or orders that were ahead have
// left.
func (l *Ledger) stillWaits(before *waiter, c *candidate, d Decision, at time.Time) Decision {
	now, was, left := at.UnixMilli(), before.decision, before.left
	holds := was.Kind == d.Kind && was.Subject == d.Subject && was.Limit == d.Limit &&
		now < was.Until.UnixMilli() && !d.Until.After(was.Until)
	if !holds || left != l.queue.left {
		l.queue.put(c, d)
		d = l.check(c, now, l.queue.ahead(c.ID, at))
	}
	if holds && (left == l.queue.left || !d.Until.Before(was.Until)) {
		return was
	}
	return d
}

// inherit carries the spent tokens over to the limits that an order has now, if they changed while
// it waited. So a lower limit does not admit additional orders.
func (l *Ledger) inherit(was, is *candidate, now int64) {
	charges := func(c *candidate) [][]charge { return [][]charge{c.orders, c.certificates, c.validations} }
	for i, list := range charges(is) {
		for _, b := range list {
			former := slices.IndexFunc(charges(was)[i], func(o charge) bool {
				return o.required && b.required && o.kind == b.kind && o.subject == b.subject && o.key != b.key
			})
			if _, known := l.full[b.key]; known || former < 0 {
				continue
			}
			o := charges(was)[i][former]
			each := o.limit.interval()
			spent := (max(l.fullAt(o, now)-now, 0)+each-1)/each + l.reserved[o.key]
			if spent = min(spent, b.limit.Count); spent > 0 {
				l.full[b.key] = now + spent*b.limit.interval()
				l.changes++
			}
		}
	}
}

// contested reports whether other orders wait for a token that an order would take.
func (l *Ledger) contested(c *candidate, now int64) bool {
	if c.exempt(now) {
		return false
	}
	renewal := l.renewal(c, now)
	waitedFor := func(b charge) bool {
		return (!renewal || b.kind == ExactSet) && l.queue.waitingFor(b.key) > 0
	}
	return slices.ContainsFunc(c.orders, waitedFor) || slices.ContainsFunc(c.certificates, waitedFor)
}

// admitWaiting admits waiting orders in the order of the queue: up to one of them, or all that may
// go if upTo is empty.
func (l *Ledger) admitWaiting(upTo string, at time.Time) {
	if len(l.queue.waiting) == 0 {
		return
	}
	now := at.UnixMilli()
	spent := map[key]bool{} // of new orders, which most wait for
	for _, w := range l.queue.sorted(at) {
		if w.gone {
			continue
		}
		if !w.waitsForOneOf(spent) {
			l.admitWaiter(w, spent, at, now)
		}
		if w.ID == upTo {
			return
		}
	}
}

// waitsForOneOf reports whether a waiter certainly needs a token of one of these buckets.
func (w *waiter) waitsForOneOf(spent map[key]bool) bool {
	return !w.Renewal && w.Window.Start.IsZero() && len(w.orders) > 0 && spent[w.orders[0].key]
}

func (l *Ledger) admitWaiter(w *waiter, spent map[key]bool, at time.Time, now int64) {
	d := l.check(w.candidate, now, nil)
	if d.Allowed {
		l.queue.served(w, at)
		l.reserve(w.candidate, now)
		l.admitted = append(l.admitted, w.Request)
	} else if d.Kind == NewOrders {
		spent[w.orders[0].key] = true
	}
}

// Admitted returns, once, the orders that waited and may be sent now.
func (l *Ledger) Admitted() []Request {
	all := l.admitted
	l.admitted = nil
	return all
}
