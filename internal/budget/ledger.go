package budget

import (
	"slices"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/outside"
	"github.com/perennial-pki/perennial/pki"
)

// Kind says what an order waits for.
type Kind string

const (
	// NewOrders, Domain, Set and Validations are spent limits.
	NewOrders   Kind = "new_orders"
	Domain      Kind = "registered_domain"
	Set         Kind = "exact_set"
	Validations Kind = "failed_validations"
	// Paused is a name that failed again and again, or that the CA has paused.
	Paused Kind = "paused"
	// Refused is what the CA has refused until a time that it named.
	Refused Kind = "refused"
	// Accounts is that the CA has refused a new account.
	Accounts Kind = "new_accounts"
	// Closed is a CA that is to be left alone.
	Closed Kind = "closed"
)

const (
	// pauseAfter is how many validations of a name fail in a row before it is paused: tried again only pauseLength after the last.
	pauseAfter  = 5
	pauseLength = 24 * time.Hour
	// windowMargin is how far inside its suggested window a renewal must be to count as exempt: clocks differ, and a request takes its time.
	windowMargin = 30 * time.Second
	// tryAgain is when it is looked again whether a paused name that somebody else tries is proven, unless the end of that is heard of: each time is told.
	tryAgain = 10 * time.Minute
	// forgetAfter is how long a failure is remembered that nothing followed.
	forgetAfter = 60 * 24 * time.Hour
	// longestRefused is how long a CA is believed that refuses something: see package account.
	longestRefused = 7 * 24 * time.Hour
)

// Ask is an order that is to be sent.
type Ask struct {
	// ID is unique, and the same whenever the order is asked for. Namespace and Name are those of the object.
	ID, Namespace, Name string
	// Account is the URL of the account, Identifiers what the order is for.
	Account     string
	Identifiers []acme.Identifier
	// Limits are those of the issuer, Published those that are known of the CA.
	Limits, Published Limits
	// Renewal says that the CA has issued a certificate for exactly these identifiers in the last 120 days.
	Renewal bool
	// Window is when the CA suggests to renew the certificate that the order says to replace. Zero if it says none.
	Window acme.Window
	// Manual says that somebody wants it tried now: pauses end.
	Manual bool
	// Expires is when the certificate that is in use ends, zero if there is none. Asked is when it was asked for first.
	Expires, Asked time.Time
}

// exempt reports whether a CA takes an order without looking at its limits.
func (a *Ask) exempt(now int64) bool {
	return !a.Window.Start.IsZero() && now >= a.Window.Start.Add(windowMargin).UnixMilli() && now < a.Window.End.Add(-windowMargin).UnixMilli()
}

// Verdict is whether an order may be sent now, or else until when it waits, and why.
type Verdict struct {
	Allowed bool
	Kind    Kind
	Until   time.Time
	// Subject is what the limit counts by, or the name that is paused. Limit is the one that is spent.
	Subject string
	Limit   Limit
	// Limits is which limit the CA says that a refusal is for, empty if it is not known.
	Limits Kind
	// Ahead is how many others are before it.
	Ahead int
	// Failures are in a row, the last of them at Since. Why is what the CA said then. Underway says that another order tries the name.
	Failures int
	Since    time.Time
	Why      string
	Underway bool
}

// Ledger is what was spent of the limits of one CA, and who waits. It is pure: it knows no clock, asks nobody and writes nothing. A
// certificate counts from the moment its order is sent, when it is reserved, until that has failed; what was issued is spent at that moment, and
// not earlier, as the CA will do it.
type Ledger struct {
	full     map[key]int64 // when buckets are full again
	open     map[string]*open
	failures map[key]*failure
	refusals map[key]*refusal

	reserved map[key]int64 // by open orders; follows from open
	line     line
	admitted []Ask // those that were let go after they had waited
	// changes counts what must be written down.
	changes uint64
}

// open is an order that was let go and has not ended.
type open struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Order is reserved until the CA has taken the order, Certificate until that has ended.
	Order       []hold `json:"order,omitempty"`
	Certificate []hold `json:"certificate,omitempty"`
	// Tries are paused names that it tries.
	Tries []key `json:"tries,omitempty"`
	// Exempt says that it is let go because the CA does not count it.
	Exempt bool `json:"exempt,omitempty"`
	// NoReply says that it was sent and no reply came: what it reserved is spent, and it needs room to
	// be sent again.
	NoReply bool `json:"noReply,omitempty"`
	// Taken says that the CA has it, Final that it was asked for the certificate.
	Taken bool `json:"taken,omitempty"`
	Final bool `json:"final,omitempty"`

	since uint64 // of changes
}

// hold is a reserved token.
type hold struct {
	Key    key   `json:"key"`
	Count  int64 `json:"count"`
	Period int64 `json:"period"` // in ms
	// Set is the limit of an exact set, which an order that is sent again for the same set does not
	// spend.
	Set bool `json:"set,omitempty"`
}

func (h hold) limit() Limit { return Limit{h.Count, time.Duration(h.Period) * time.Millisecond} }

// failure is what is remembered of a name whose validation failed.
type failure struct {
	InARow int   `json:"inARow"`
	At     int64 `json:"at"`
	// Authorization is a digest of the last one's URL, so that it is counted once.
	Authorization key    `json:"authorization"`
	Why           string `json:"why,omitempty"`
}

// refusal is what the CA has refused.
type refusal struct {
	At    int64 `json:"at"`
	Until int64 `json:"until"`
	// By is the ID of the order.
	By  string `json:"by,omitempty"`
	Why string `json:"why,omitempty"`
}

// NewLedger returns a ledger in which nothing is spent.
func NewLedger() *Ledger {
	return &Ledger{full: map[key]int64{}, open: map[string]*open{}, failures: map[key]*failure{}, refusals: map[key]*refusal{}, reserved: map[key]int64{}}
}

// empty reports whether nothing is to be remembered. Encode forgets what is over.
func (l *Ledger) empty() bool {
	return len(l.full)+len(l.open)+len(l.failures)+len(l.refusals) == 0
}

// slot is a bucket that an order needs a token of.
type slot struct {
	kind    Kind
	subject string
	limit   Limit
	key     key
	// asked says that it must have a token: others only lose one.
	asked bool
}

// asking is an Ask with what follows from it.
type asking struct {
	Ask
	orders, certificates, validations []slot
	// refusals say what may have been refused, in the same order as their slots; those of pauses and request hold for exempt orders, too.
	refusedOrders, refusedSet, refusedRenewal, refusedRequest key
	refusedDomains, refusedNames                              []key
	names                                                     []string
	failed, pausedByCA                                        []key
}

func ask(a Ask) *asking {
	p := &asking{Ask: a}
	add := func(to *[]slot, kind Kind, subject string, own, published Limit) {
		if !own.None() {
			*to = append(*to, slot{kind, subject, own, own.key(kind, subject), true})
		}
		// What an issuer may do beyond the limits of all counts for all.
		if !published.None() && own != published {
			*to = append(*to, slot{kind, subject, published, published.key(kind, subject), false})
		}
	}
	add(&p.orders, NewOrders, a.Account, a.Limits.NewOrders, a.Published.NewOrders)
	p.refusedOrders = keyOf(string(Refused), string(NewOrders), a.Account)
	for _, d := range domains(a.Identifiers) {
		add(&p.certificates, Domain, d, a.Limits.Domain, a.Published.Domain)
		p.refusedDomains = append(p.refusedDomains, keyOf(string(Refused), string(Domain), d))
	}
	s := set(a.Identifiers)
	add(&p.certificates, Set, s, a.Limits.Set, a.Published.Set)
	p.refusedSet = keyOf(string(Refused), string(Set), s)
	p.refusedRenewal = keyOf(string(Refused), "renewal", a.Account, s)
	p.refusedRequest = keyOf(string(Refused), a.Account, s)
	seen := map[string]bool{}
	for _, id := range a.Identifiers {
		name := base(id)
		if seen[name] {
			continue
		}
		seen[name] = true
		p.names = append(p.names, name)
		if l := a.Limits.Validations; !l.None() {
			subject := a.Account + " " + name
			p.validations = append(p.validations, slot{Validations, name, l, l.key(Validations, subject), true})
		}
		p.failed = append(p.failed, failureKey(a.Account, name))
		p.refusedNames = append(p.refusedNames, keyOf(string(Refused), string(Validations), a.Account, name))
		p.pausedByCA = append(p.pausedByCA, keyOf(string(Refused), string(Paused), a.Account, name))
	}
	return p
}

func failureKey(account, name string) key { return keyOf("failure", account, name) }

// renewal reports whether the CA takes the order as the renewal of a certificate with the same identifiers.
func (l *Ledger) renewal(p *asking, now int64) bool {
	if p.Renewal {
		return true
	}
	for _, s := range p.certificates {
		if s.kind == Set && l.full[s.key] > now {
			return true // it was issued not long ago
		}
	}
	return false
}

// Ask says whether an order may be sent, and reserves what it spends. Asked again, it says the same as long as the order has not ended.
func (l *Ledger) Ask(a Ask, at time.Time) Verdict {
	now := at.UnixMilli()
	p := ask(a)
	if o := l.open[a.ID]; o != nil {
		if o.Taken || !o.NoReply && (!o.Exempt || p.exempt(now)) {
			return Verdict{Allowed: true}
		}
		l.drop(a.ID) // no reply came, its window is over, or the CA does not believe that it replaces something
		if v := l.check(p, now, nil); o.NoReply && v.Allowed {
			l.reserve(p, now) // it was let go before those that wait
			return v
		}
	}
	// A wish ends the pauses that there were, and none that begins while its order waits.
	ended := a.Manual && l.line.at(a.ID) == nil && l.endPauses(p)
	v := l.enter(p, at)
	if ended {
		l.admit("", at) // others waited for these names, too
	}
	return v
}

// enter lets an order go, or has it wait.
func (l *Ledger) enter(p *asking, at time.Time) Verdict {
	now := at.UnixMilli()
	before := l.line.at(p.ID)
	if before != nil {
		l.inherit(before.asking, p, now)
	}
	v := l.check(p, now, nil)
	if v.Allowed && !l.contested(p, now) {
		l.reserve(p, now)
		return v
	}
	if v.Allowed {
		l.line.put(p, v)
		l.admit(p.ID, at)
		if l.line.at(p.ID) == nil {
			return v
		}
		// Others were before it.
		v = l.check(p, now, l.line.before(p.ID, at))
	} else if before == nil {
		v = l.check(p, now, l.line.all)
	} else {
		was, left := before.verdict, before.left
		// Before its time it hears the same, unless that cannot be, or others have left that were before it.
		holds := was.Kind == v.Kind && was.Subject == v.Subject && was.Limit == v.Limit && now < was.Until.UnixMilli() && !v.Until.After(was.Until)
		if !holds || left != l.line.left {
			l.line.put(p, v)
			v = l.check(p, now, l.line.before(p.ID, at))
		}
		if holds && (left == l.line.left || !v.Until.Before(was.Until)) {
			v = was
		}
	}
	l.line.put(p, v)
	return v
}

// inherit counts, where the limits of who waits have changed, what was spent of the former ones: a limit that somebody lowers lets nobody go.
func (l *Ledger) inherit(was, is *asking, now int64) {
	lists := func(p *asking) [][]slot { return [][]slot{p.orders, p.certificates, p.validations} }
	for i, list := range lists(is) {
		for _, s := range list {
			former := slices.IndexFunc(lists(was)[i], func(o slot) bool {
				return o.asked && s.asked && o.kind == s.kind && o.subject == s.subject && o.key != s.key
			})
			if _, known := l.full[s.key]; known || former < 0 {
				continue
			}
			o := lists(was)[i][former]
			each := o.limit.interval()
			spent := (max(l.fullAt(o, now)-now, 0)+each-1)/each + l.reserved[o.key]
			if spent = min(spent, s.limit.Count); spent > 0 {
				l.full[s.key] = now + spent*s.limit.interval()
				l.changes++
			}
		}
	}
}

// contested reports whether somebody waits for what an order would take.
func (l *Ledger) contested(p *asking, now int64) bool {
	exempt, renewal := p.exempt(now), l.renewal(p, now)
	for _, list := range [][]slot{p.orders, p.certificates} {
		for _, s := range list {
			if counts := !exempt && (!renewal || s.kind == Set); counts && l.line.all(s.key) > 0 {
				return true
			}
		}
	}
	return false
}

// admit lets those go that may, of those that wait, in the order of the line: up to an order, or all if that is empty.
func (l *Ledger) admit(upTo string, at time.Time) {
	if len(l.line.waiting) == 0 {
		return
	}
	now := at.UnixMilli()
	spent := map[key]bool{} // most wait for the same
	for _, w := range l.line.sorted(at) {
		if w.gone {
			continue
		}
		if plain := !w.Renewal && w.Window.Start.IsZero(); !plain || len(w.orders) == 0 || !spent[w.orders[0].key] {
			v := l.check(w.asking, now, nil)
			if v.Allowed {
				l.line.served(w, at)
				l.reserve(w.asking, now)
				l.admitted = append(l.admitted, w.Ask)
			} else if v.Kind == NewOrders {
				spent[w.orders[0].key] = true
			}
		}
		if w.ID == upTo {
			return
		}
	}
}

// Admitted returns those that were let go after they had waited, once.
func (l *Ledger) Admitted() []Ask {
	all := l.admitted
	l.admitted = nil
	return all
}

// fullAt is when a bucket is full again: no later than an empty one. What is later was counted by a clock that was ahead, or written by hand.
func (l *Ledger) fullAt(s slot, now int64) int64 {
	if most := now + s.limit.Count*s.limit.interval(); l.full[s.key] > most {
		l.full[s.key] = most
		l.changes++
	}
	return l.full[s.key]
}

// refusal is what is remembered of a refusal, or nil. It was not in the future, nor for longer than CAs are believed.
func (l *Ledger) refusal(k key, now int64) *refusal {
	r := l.refusals[k]
	if r == nil {
		return nil
	}
	at := min(r.At, now)
	if until := at + min(r.Until-r.At, longestRefused.Milliseconds()); until != r.Until {
		r.At, r.Until = at, until
		l.changes++
	}
	return r
}

// check says whether an order may be sent now, or else until when it waits: the longest of all that it waits for. ahead says how many others
// want a token of a bucket first; nil is nobody.
func (l *Ledger) check(p *asking, now int64, ahead func(key) int64) Verdict {
	v := Verdict{Allowed: true}
	wait := func(until int64, w Verdict) {
		if until <= now || !v.Allowed && until <= v.Until.UnixMilli() {
			return
		}
		w.Until = time.UnixMilli(until).UTC()
		v = w
	}
	refused := func(k key, kind Kind, subject string, limits Kind) {
		if r := l.refusal(k, now); r != nil {
			wait(r.Until, Verdict{Kind: kind, Subject: subject, Limits: limits, Why: r.Why, Since: time.UnixMilli(r.At).UTC()})
		}
	}
	exempt, renewal := p.exempt(now), l.renewal(p, now)
	if !exempt {
		slots := func(list []slot) {
			for _, s := range list {
				if !s.asked || renewal && (s.kind == NewOrders || s.kind == Domain) {
					continue
				}
				others := int64(0)
				if ahead != nil {
					others = ahead(s.key)
				}
				wait(s.limit.free(l.fullAt(s, now), l.reserved[s.key]+others, now), Verdict{Kind: s.kind, Subject: s.subject, Limit: s.limit, Ahead: int(others)})
			}
		}
		slots(p.orders)
		slots(p.certificates)
		slots(p.validations)
		if !renewal {
			refused(p.refusedOrders, Refused, p.Account, NewOrders)
			for _, k := range p.refusedDomains {
				refused(k, Refused, "", Domain)
			}
		}
		refused(p.refusedSet, Refused, "", Set)
		refused(p.refusedRenewal, Refused, "", "")
		for i, k := range p.refusedNames {
			refused(k, Refused, p.names[i], Validations)
		}
		// From the beginning of its window on it is exempt.
		if begins := p.Window.Start.Add(windowMargin).UnixMilli(); !v.Allowed && !p.Window.Start.IsZero() && now < begins && begins < v.Until.UnixMilli() {
			v.Until = time.UnixMilli(begins).UTC()
		}
	}
	refused(p.refusedRequest, Refused, "", "")
	for i, k := range p.failed {
		f := l.failures[k]
		if f == nil || f.InARow < pauseAfter {
			continue
		}
		if f.At > now { // as in fullAt
			f.At = now
			l.changes++
		}
		w := Verdict{Kind: Paused, Subject: p.names[i], Failures: f.InARow, Since: time.UnixMilli(f.At).UTC(), Why: f.Why}
		until := f.At + pauseLength.Milliseconds()
		if until <= now && l.reserved[k] > 0 {
			w.Underway = true
			until = now + tryAgain.Milliseconds()
		}
		wait(until, w)
	}
	for i, k := range p.pausedByCA {
		refused(k, Paused, p.names[i], "")
	}
	return v
}

// reserve lets an order go.
func (l *Ledger) reserve(p *asking, now int64) {
	o := &open{Namespace: p.Namespace, Name: p.Name, Exempt: p.exempt(now)}
	renewal := l.renewal(p, now)
	holds := func(list []slot) (h []hold) {
		for _, s := range list {
			if !renewal || s.kind == Set {
				h = append(h, hold{s.key, s.limit.Count, s.limit.Period.Milliseconds(), s.kind == Set})
			}
		}
		return h
	}
	if !o.Exempt {
		o.Order = holds(p.orders)
	}
	o.Certificate = holds(p.certificates)
	for _, k := range p.failed {
		if f := l.failures[k]; f != nil && f.InARow >= pauseAfter {
			o.Tries = append(o.Tries, k)
		}
	}
	l.line.remove(p.ID)
	if len(o.Order)+len(o.Certificate)+len(o.Tries) == 0 {
		return // nobody counts it
	}
	l.open[p.ID] = o
	l.changes++
	o.since = l.changes
	l.index(o, 1)
}

// index counts what an open order reserves.
func (l *Ledger) index(o *open, by int64) {
	add := func(k key) {
		if l.reserved[k] += by; l.reserved[k] == 0 {
			delete(l.reserved, k)
		}
	}
	for _, h := range o.Order {
		add(h.Key)
	}
	for _, h := range o.Certificate {
		add(h.Key)
	}
	for _, k := range o.Tries {
		add(k)
	}
}

// drop forgets an open order and what it reserves.
func (l *Ledger) drop(id string) {
	l.index(l.open[id], -1)
	delete(l.open, id)
	l.changes++
}

func (l *Ledger) spend(holds []hold, now int64) {
	for _, h := range holds {
		l.full[h.Key] = h.limit().take(l.full[h.Key], now)
	}
}

// Unheard says that an order was sent and no reply came. The CA may have counted it, by account and
// by registered domain, and counts it again when it is sent again, though it may answer with the
// same order. So it is sent again only if there is room for one more.
func (l *Ledger) Unheard(id string, at time.Time) {
	o := l.open[id]
	if o == nil || o.Taken {
		return
	}
	l.spend(o.Order, at.UnixMilli())
	l.spend(slices.DeleteFunc(slices.Clone(o.Certificate), func(h hold) bool { return h.Set }), at.UnixMilli())
	o.NoReply = true
	l.changes++
}

// Interrupted says that a process ended. Each order of which the CA's answer is not known may have
// been sent, or may have waited to be sent: the new orders count, which are back soon, and the
// certificates, which take days, do not.
func (l *Ledger) Interrupted(at time.Time) {
	for _, o := range l.open {
		if !o.Taken && len(o.Order) > 0 {
			l.spend(o.Order, at.UnixMilli())
			l.changes++
		}
	}
}

// Taken says that the CA has taken an order.
func (l *Ledger) Taken(id string, at time.Time) {
	o := l.open[id]
	if o == nil || o.Taken {
		return
	}
	l.index(o, -1)
	l.spend(o.Order, at.UnixMilli())
	o.Order, o.Taken = nil, true
	l.index(o, 1)
	l.changes++
}

// Final says that an order is about to be finalized.
func (l *Ledger) Final(id string) {
	if o := l.open[id]; o != nil && !o.Final {
		o.Final = true
		l.changes++
	}
}

// Ended says that an order has ended, with a certificate or without. What it reserved is spent, or free for others.
func (l *Ledger) Ended(id string, issued bool, at time.Time) {
	l.line.leave(id)
	o := l.open[id]
	if o == nil {
		return
	}
	l.drop(id)
	free := len(o.Tries) > 0
	if issued {
		l.spend(o.Order, at.UnixMilli())
		l.spend(o.Certificate, at.UnixMilli())
	} else {
		for _, h := range slices.Concat(o.Order, o.Certificate) {
			free = free || l.line.all(h.Key) > 0
		}
	}
	if free {
		l.admit("", at)
	}
}

// Gone says that the object of an order is no more. What may have come of the order counts.
func (l *Ledger) Gone(namespace, name string, at time.Time) {
	l.line.gone(namespace, name)
	for id, o := range l.open {
		if o.Namespace == namespace && o.Name == name {
			l.Ended(id, o.Final, at)
		}
	}
}

// Failed counts a validation that failed, and returns how many did in a row.
func (l *Ledger) Failed(account string, id acme.Identifier, limit Limit, authorization, why string, at time.Time) int {
	now, name := at.UnixMilli(), base(id)
	k := failureKey(account, name)
	f := l.failures[k]
	if f == nil {
		f = &failure{}
		l.failures[k] = f
	}
	digest := keyOf(authorization)
	if f.InARow > 0 && f.Authorization == digest {
		return f.InARow
	}
	f.InARow++
	f.At, f.Authorization, f.Why = now, digest, outside.Short(why, maxWhy)
	if !limit.None() {
		b := limit.key(Validations, account+" "+name)
		l.full[b] = limit.take(l.full[b], now)
	}
	l.changes++
	return f.InARow
}

// Validated says that a name was proven.
func (l *Ledger) Validated(account string, id acme.Identifier, at time.Time) {
	k := failureKey(account, base(id))
	f := l.failures[k]
	if f == nil {
		return
	}
	delete(l.failures, k)
	l.changes++
	if f.InARow >= pauseAfter {
		l.admit("", at)
	}
}

// PausedUntil returns the names of an order that are paused, and until when.
func (l *Ledger) PausedUntil(account string, ids []acme.Identifier, at time.Time) (names []string, until time.Time) {
	for _, id := range ids {
		f := l.failures[failureKey(account, base(id))]
		if f == nil || f.InARow < pauseAfter {
			continue
		}
		if end := time.UnixMilli(f.At).Add(pauseLength).UTC(); end.After(at) {
			names = append(names, base(id))
			if end.After(until) {
				until = end
			}
		}
	}
	return names, until
}

// endPauses ends the pauses of an order's names: ours, and what the CA has said of them to another order. It reports whether there was one.
func (l *Ledger) endPauses(p *asking) bool {
	was := l.changes
	for _, k := range p.failed {
		if f := l.failures[k]; f != nil && f.InARow >= pauseAfter {
			delete(l.failures, k)
			l.changes++
		}
	}
	for _, k := range p.pausedByCA {
		if r := l.refusals[k]; r != nil && r.By != p.ID {
			delete(l.refusals, k)
			l.changes++
		}
	}
	return l.changes > was
}

// refuse remembers a refusal.
func (l *Ledger) refuse(k key, by, why string, until, at time.Time) {
	l.refusals[k] = &refusal{At: at.UnixMilli(), Until: until.UnixMilli(), By: by, Why: outside.Short(why, maxRefusal)}
	l.changes++
}

// refusedUntil returns until when something of the whole CA is refused, and what the CA said.
func (l *Ledger) refusedUntil(k key, at time.Time) (until time.Time, why string) {
	if r := l.refusal(k, at.UnixMilli()); r != nil && r.Until > at.UnixMilli() {
		return time.UnixMilli(r.Until).UTC(), r.Why
	}
	return time.Time{}, ""
}

var (
	closedKey   = keyOf(string(Refused), string(Closed))
	accountsKey = keyOf(string(Refused), string(Accounts))
)

// Refused learns from the refusal of an order: it holds for all to whom the same limit applies. One that nobody knows holds for the same
// request. It returns what it holds for.
func (l *Ledger) Refused(a Ask, problem *acme.Problem, until, at time.Time) Verdict {
	p := ask(a)
	kind, names := scopeOf(problem.Detail)
	v := Verdict{Kind: Refused, Until: until, Limits: kind, Why: outside.Short(problem.Detail, maxRefusal), Since: at}
	learn := func(k key) { l.refuse(k, a.ID, problem.Detail, until, at) }
	match := func(known []string, keys []key) (found bool) {
		for i, k := range known {
			for _, name := range names {
				if strings.TrimPrefix(pki.ComparableDNSName(name), "*.") == k {
					learn(keys[i])
					v.Subject, found = k, true
				}
			}
		}
		return found
	}
	switch kind {
	case NewOrders:
		learn(p.refusedOrders)
		v.Subject = a.Account
	case Set:
		learn(p.refusedSet)
	case Domain:
		if !match(domains(a.Identifiers), p.refusedDomains) {
			learn(p.refusedRequest)
		}
	case Validations:
		if !match(p.names, p.refusedNames) {
			learn(p.refusedRequest)
		}
	case Paused:
		// Nobody can know when the account's owner ends it: once a day, as with our own pauses.
		if problem.RetryAfter.IsZero() {
			until = at.Add(pauseLength)
		}
		v.Kind, v.Until = Paused, until
		if !match(p.names, p.pausedByCA) {
			learn(p.refusedRequest)
		}
	default:
		learn(p.refusedRequest)
	}
	// Whatever we believe that the CA does not count, the same is not sent again.
	if now := at.UnixMilli(); p.exempt(now) {
		learn(p.refusedRequest)
	} else if l.renewal(p, now) {
		learn(p.refusedRenewal)
	}
	l.drops(a.ID)
	return v
}

// drops forgets an open order that the CA has not taken.
func (l *Ledger) drops(id string) {
	if o := l.open[id]; o != nil && !o.Taken {
		l.drop(id)
	}
}
