package ratelimit

import "time"

const (
	// reservedFor is how long an order that does not progress reserves certificates: from the moment
	// the CA has accepted it, or from the last time that it was admitted. It reserves them again when
	// it finalizes.
	reservedFor = 30 * time.Minute
	// finalizingFor is how long an order that finalizes reserves certificates.
	finalizingFor = 6 * time.Hour
	// finalizeAfter is how long an order waits at most to finalize while the last certificate of a
	// limit is reserved by an order that is just being sent.
	finalizeAfter = time.Minute
	// keptFrom is the smallest limit of which the last token is kept for renewals.
	keptFrom = 4
)

// usage is what each namespace uses of the limits that namespaces share. It is not stored: after a
// restart it follows from the Orders that exist.
type usage struct {
	// full is when the bucket of a namespace would be full again if only that namespace used it.
	full map[key]map[string]int64
	// reserved is what the open orders of a namespace reserve.
	reserved map[key]map[string]int64
}

func newUsage() usage {
	return usage{full: map[key]map[string]int64{}, reserved: map[key]map[string]int64{}}
}

// reserve adds to what a namespace reserves.
func (u *usage) reserve(k key, namespace string, by int64) {
	add(u.reserved, k, namespace, by)
}

// spend counts a token of a bucket for a namespace.
func (u *usage) spend(r reservation, namespace string, now int64) {
	if u.full[r.Key] == nil {
		u.full[r.Key] = map[string]int64{}
	}
	u.full[r.Key][namespace] = r.limit().take(u.full[r.Key][namespace], now)
}

// forget drops entries that are over.
func (u *usage) forget(now int64) {
	for k, namespaces := range u.full {
		for namespace, full := range namespaces {
			if full <= now {
				delete(namespaces, namespace)
			}
		}
		if len(namespaces) == 0 {
			delete(u.full, k)
		}
	}
}

// share returns how many tokens of a limit a namespace may use: all of them, divided by the
// namespaces that use the limit or wait for it. A namespace that has stuck orders counts only if
// certificates were issued to it.
func (l *Ledger) share(b charge, namespace string, now int64) int64 {
	alone := func(counts map[string]int64) bool {
		_, own := counts[namespace]
		return len(counts) == 0 || own && len(counts) == 1
	}
	full, reserved, waiting := l.usage.full[b.key], l.usage.reserved[b.key], l.queue.namespaces[b.key]
	if alone(full) && alone(reserved) && alone(waiting) {
		return b.limit.Count
	}
	sharers := map[string]bool{namespace: true}
	for n, full := range full {
		if full > now {
			sharers[n] = true
		}
	}
	for _, counts := range []map[string]int64{reserved, waiting} {
		for n := range counts {
			if l.queue.stuck[n] == 0 {
				sharers[n] = true
			}
		}
	}
	n := int64(len(sharers))
	return (b.limit.Count + n - 1) / n
}

// checkShare adds a reason to wait if the namespace has spent its share.
func (l *Ledger) checkShare(w *wait, c *candidate, b charge) {
	share := l.share(b, c.Namespace, w.now)
	if share >= b.limit.Count || c.holds(w.now) && c.Expires.UnixMilli() < w.now+urgent.Milliseconds() {
		return
	}
	full := min(l.usage.full[b.key][c.Namespace], w.now+b.limit.Count*b.limit.interval())
	reserved := l.usage.reserved[b.key][c.Namespace]
	until := max(full, w.now) + (reserved+1-share)*b.limit.interval()
	w.add(until, Decision{Kind: b.kind, Subject: b.subject, Limit: b.limit, Share: share})
}

// kept returns how many tokens of a limit this order may not take. The last token is kept for
// renewals of valid certificates, so that new orders cannot block them.
func (c *candidate) kept(b charge, now int64) int64 {
	if b.kind == NewOrders || b.limit.Count < keptFrom || c.holds(now) {
		return 0
	}
	return 1
}

// holds reports whether the order renews a certificate that is still valid.
func (r *Request) holds(now int64) bool { return r.Expires.UnixMilli() > now }

// lapse ends the reservations of orders that do not progress, and admits orders that wait.
func (l *Ledger) lapse(at time.Time) {
	now := at.UnixMilli()
	if len(l.open) == 0 || now < l.nextLapse {
		return
	}
	l.nextLapse = now + reservedFor.Milliseconds()
	lapsed := false
	for id, o := range l.open {
		if o.lapsed {
			continue
		}
		o.lapses = min(o.lapses, now+o.reservedFor())
		if o.lapses == 0 {
			o.lapses = now + o.reservedFor()
		}
		if o.lapses > now {
			l.nextLapse = min(l.nextLapse, o.lapses)
			continue
		}
		lapsed = true
		if !o.Accepted {
			l.drop(id) // it asks again before it is sent
			continue
		}
		l.index(o, -1)
		o.lapsed = true
		l.index(o, 1)
	}
	if lapsed {
		l.queue.left++ // waiting orders may go earlier than their decision says
		l.queue.inOrder = nil
		l.admitWaiting("", at)
	}
}

// reservedFor returns how long an order reserves certificates, in ms.
func (o *openOrder) reservedFor() int64 {
	if o.Finalizing {
		return finalizingFor.Milliseconds()
	}
	return reservedFor.Milliseconds()
}

// postponeLapse restarts the time for which an order reserves certificates, and reserves them again
// if they have lapsed.
func (l *Ledger) postponeLapse(o *openOrder, now int64) {
	if o.lapsed {
		l.index(o, -1)
		o.lapsed = false
		l.index(o, 1)
	}
	o.lapses = now + o.reservedFor()
	l.nextLapse = min(l.nextLapse, o.lapses)
}

// mayFinalize reports whether an order with lapsed reservations may finalize. It must not do so
// while an order that is just being sent has the last token of a limit, because the CA would refuse
// that order.
func (l *Ledger) mayFinalize(o *openOrder, now int64) bool {
	for _, r := range o.Certificate {
		sending := l.sending(r.Key)
		if sending > 0 && r.limit().free(l.full[r.Key], sending, now) > now {
			return false
		}
	}
	return true
}

// sending counts the orders that are just being sent and reserve a token of a bucket.
func (l *Ledger) sending(k key) (n int64) {
	if l.reserved[k] == 0 {
		return 0
	}
	for _, o := range l.open {
		if o.Accepted || o.NoReply {
			continue
		}
		for _, r := range o.Certificate {
			if r.Key == k {
				n++
			}
		}
	}
	return n
}

// add adds to the count of a namespace, and removes a count of zero.
func add(counts map[key]map[string]int64, k key, namespace string, by int64) {
	if counts[k] == nil {
		counts[k] = map[string]int64{}
	}
	if counts[k][namespace] += by; counts[k][namespace] == 0 {
		if delete(counts[k], namespace); len(counts[k]) == 0 {
			delete(counts, k)
		}
	}
}
