package ratelimit

import "time"

// wait collects the reasons for which an order waits, and keeps the one with the latest end.
type wait struct {
	decision Decision
	now      int64
}

// add adds a reason to wait until a time.
func (w *wait) add(until int64, d Decision) {
	if until <= w.now || !w.decision.Allowed && until <= w.decision.Until.UnixMilli() {
		return
	}
	d.Until = time.UnixMilli(until).UTC()
	w.decision = d
}

// check decides whether an order may be sent now, or until when it waits: the latest end of all
// reasons. ahead returns how many orders take a token of a bucket first; nil means none.
func (l *Ledger) check(c *candidate, now int64, ahead func(key) int64) Decision {
	w := &wait{Decision{Allowed: true}, now}
	if !c.exempt(now) {
		l.checkLimits(w, c, ahead)
		// From the beginning of its window the order is exempt.
		begins := c.Window.Start.Add(windowMargin).UnixMilli()
		if d := &w.decision; !d.Allowed && !c.Window.Start.IsZero() && now < begins && begins < d.Until.UnixMilli() {
			d.Until = time.UnixMilli(begins).UTC()
		}
	}
	l.checkRefusal(w, c.refusals.request, Decision{Kind: Refused})
	for i, name := range c.names {
		l.checkPause(w, c, c.failures[i], name)
		l.checkRefusal(w, c.refusals.pauses[i], Decision{Kind: Paused, Subject: name})
	}
	return w.decision
}

// checkLimits adds the limits that are spent, and those that the CA has enforced.
func (l *Ledger) checkLimits(w *wait, c *candidate, ahead func(key) int64) {
	renewal := l.renewal(c, w.now)
	for _, charges := range [][]charge{c.orders, c.certificates, c.validations} {
		for _, b := range charges {
			if !b.required || renewal && (b.kind == NewOrders || b.kind == Domain) {
				continue
			}
			first := int64(0)
			if ahead != nil {
				first = ahead(b.key)
			}
			taken := l.reserved[b.key] + first + c.kept(b, w.now)
			until := b.limit.free(l.fullAt(b, w.now), taken, w.now)
			w.add(until, Decision{Kind: b.kind, Subject: b.subject, Limit: b.limit, Ahead: int(first)})
			if b.kind == Domain || b.kind == ExactSet {
				l.checkShare(w, c, b)
			}
		}
	}
	if !renewal {
		l.checkRefusal(w, c.refusals.orders, Decision{Kind: Refused, Subject: c.Account, RefusedFor: NewOrders})
		for _, k := range c.refusals.domains {
			l.checkRefusal(w, k, Decision{Kind: Refused, RefusedFor: Domain})
		}
	}
	l.checkRefusal(w, c.refusals.set, Decision{Kind: Refused, RefusedFor: ExactSet})
	l.checkRefusal(w, c.refusals.renewal, Decision{Kind: Refused})
	for i, k := range c.refusals.names {
		l.checkRefusal(w, k, Decision{Kind: Refused, Subject: c.names[i], RefusedFor: Validations})
	}
}

// checkRefusal adds a refusal of the CA.
func (l *Ledger) checkRefusal(w *wait, k key, d Decision) {
	if r := l.refusal(k, w.now); r != nil {
		d.Detail, d.Since = r.Detail, time.UnixMilli(r.At).UTC()
		w.add(r.Until, d)
	}
}

// checkPause adds the pause of a name. Failures in other namespaces do not pause the renewal of a
// valid certificate.
func (l *Ledger) checkPause(w *wait, c *candidate, k key, name string) {
	f := l.failures[k]
	if !f.paused() || (c.holds(w.now) || c.exempt(w.now)) && !f.pausedBy(c.Namespace) {
		return
	}
	if f.At > w.now { // as in fullAt
		f.At = w.now
		l.changes++
	}
	d := Decision{
		Kind: Paused, Subject: name, Failures: f.InARow, Since: time.UnixMilli(f.At).UTC(), Detail: f.Detail,
	}
	until := f.At + pauseLength.Milliseconds()
	if until <= w.now && l.reserved[k] > 0 {
		d.Underway = true
		until = w.now + tryAgain.Milliseconds()
	}
	w.add(until, d)
}
