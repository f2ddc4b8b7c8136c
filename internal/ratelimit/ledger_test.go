package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

var start = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

var few = Limits{
	NewOrders:   Limit{3, time.Hour},
	Domain:      Limit{2, 24 * time.Hour},
	Set:         Limit{1, 12 * time.Hour},
	Validations: Limit{2, time.Hour},
}

func asks(id string, names ...string) Request {
	a := Request{ID: id, Namespace: "shop", Name: id, Account: "https://ca.example/acct/1", Limits: few, Created: start}
	for _, n := range names {
		a.Identifiers = append(a.Identifiers, acme.DNS(n))
	}
	return a
}

// fail counts a failed validation of an order in the namespace shop.
func fail(
	l *Ledger, account string, id acme.Identifier, limit Limit, authorization, detail string, at time.Time,
) int {
	return l.ValidationFailed(FailedValidation{
		Account: account, Namespace: "shop", Identifier: id, Limit: limit, Authorization: authorization, Detail: detail,
	}, at)
}

// issue sends an order and has it issued.
func issue(t *testing.T, l *Ledger, a Request, at time.Time) {
	t.Helper()
	if v := l.Admit(a, at); !v.Allowed {
		t.Fatalf("%s: %s", a.ID, v.Message())
	}
	l.Accepted(a.ID, at)
	l.Finished(a.ID, true, at)
}

// admitCase says what happened to a ledger before an order for www.example.co.uk is to be sent, and
// what Admit says of it.
type admitCase struct {
	before func(*testing.T, *Ledger)
	ask    func(*Request)
	kind   Reason
	in     time.Duration // 0 for none
	says   string
}

// issued has n orders issued, each for one name, made from its number.
func issued(n int, name string, at time.Time, change ...func(*Request)) func(*testing.T, *Ledger) {
	return func(t *testing.T, l *Ledger) {
		t.Helper()
		for i := range n {
			a := asks(fmt.Sprint(i), fmt.Sprintf(name, i))
			for _, c := range change {
				c(&a)
			}
			issue(t, l, a, at)
		}
	}
}

// failed has n validations of www.example.co.uk fail.
func failed(n int, limit Limit, detail string, at time.Time) func(*testing.T, *Ledger) {
	return func(_ *testing.T, l *Ledger) {
		for i := range n {
			fail(l, "https://ca.example/acct/1", acme.DNS("www.example.co.uk"), limit, fmt.Sprint(i), detail, at)
		}
	}
}

// admitted has two orders for names below example.co.uk sent, and then has happen what happens to
// each.
func admitted(at time.Time, happens func(l *Ledger, id string)) func(*testing.T, *Ledger) {
	return func(t *testing.T, l *Ledger) {
		t.Helper()
		for i := range 2 {
			id := fmt.Sprint(i)
			if v := l.Admit(asks(id, fmt.Sprintf("w%d.example.co.uk", i)), at); !v.Allowed {
				t.Fatal(v.Message())
			}
			happens(l, id)
		}
	}
}

func TestAdmitSaysUntilWhenAnOrderWaitsAndWhatFor(t *testing.T) {
	window := acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)}
	domainAndAccount := func(t *testing.T, l *Ledger) {
		issued(2, "w%d.example.co.uk", start)(t, l)
		issue(t, l, asks("2", "www.other.example"), start)
	}
	for name, test := range map[string]admitCase{
		"a first order goes": {},
		"orders by account are spent": {
			before: issued(3, "www.d%d.example", start), kind: NewOrders, in: 20 * time.Minute,
			says: "the limit of 3 new orders of account https://ca.example/acct/1 in 1 hour is spent",
		},
		"those of another account are not": {
			before: issued(3, "www.d%d.example", start),
			ask:    func(a *Request) { a.Account = "https://ca.example/acct/2" },
		},
		"a bucket refills evenly": {before: issued(3, "www.d%d.example", start.Add(-20*time.Minute))},
		"certificates for the registered domain are spent, by whatever account": {
			before: issued(2, "w%d.example.co.uk", start, func(a *Request) { a.Account = "https://ca.example/acct/2" }),
			kind:   Domain, in: 12 * time.Hour,
			says: "the limit of 2 certificates for example.co.uk and names below it in 1 day is spent",
		},
		"certificates for the same names are spent": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "*.EXAMPLE.co.uk", "www.example.co.uk"), start)
		}, ask: func(a *Request) {
			a.Identifiers = asks("", "www.example.co.uk", "*.example.co.uk").Identifiers
		}, kind: ExactSet, in: 12 * time.Hour, says: "for exactly these names"},
		"of several limits the one that is spent longest counts": {
			before: domainAndAccount, kind: Domain, in: 12 * time.Hour,
		},
		"a renewal takes neither an order nor one of the domain": {
			before: domainAndAccount, ask: func(a *Request) { a.Renewal = true },
		},
		"but it counts for the same names": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Request) { a.Renewal = true }, kind: ExactSet, in: 12 * time.Hour},
		"a renewal in its window is not counted": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Request) { a.Window = window }},
		"one that is too early for it waits for the window at most": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Request) {
			a.Window = acme.Window{Start: start.Add(time.Hour), End: start.Add(2 * time.Hour)}
		}, kind: ExactSet, in: time.Hour + windowMargin},
		"one that is too late for it is like others": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Request) {
			a.Window = acme.Window{Start: start.Add(-2 * time.Hour), End: start}
		}, kind: ExactSet, in: 12 * time.Hour},
		"failed validations are spent": {
			before: failed(2, few.Validations, "no", start), kind: Validations, in: 30 * time.Minute,
			says: "2 failed validations of www.example.co.uk in 1 hour",
		},
		"a failed authorization counts once": {before: func(_ *testing.T, l *Ledger) {
			for range 3 {
				fail(l, "https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, "the same", "no", start)
			}
		}},
		"a name that failed five times in a row is paused": {
			before: failed(5, few.Validations, "the CA got 404.", start.Add(-time.Hour)), kind: Paused, in: 23 * time.Hour,
			says: "www.example.co.uk is paused until 2026-12-01T23:00:00Z, as its last 5 validations failed, " +
				"the last at 2026-11-30T23:00:00Z: the CA got 404. It is tried once a day",
		},
		"also for a renewal in its window": {
			before: failed(5, Limit{}, "no", start), ask: func(a *Request) { a.Window = window },
			kind: Paused, in: 24 * time.Hour,
		},
		"a wildcard is proven by its base": {
			before: failed(5, Limit{}, "no", start),
			ask:    func(a *Request) { a.Identifiers = asks("", "*.www.example.co.uk").Identifiers },
			kind:   Paused, in: 24 * time.Hour,
		},
		"a day later it is tried": {before: failed(5, Limit{}, "no", start.Add(-24*time.Hour))},
		"but by one order at a time": {before: func(t *testing.T, l *Ledger) {
			failed(5, Limit{}, "no", start.Add(-24*time.Hour))(t, l)
			if v := l.Admit(asks("0", "www.example.co.uk", "example.co.uk"), start); !v.Allowed {
				t.Fatal(v.Message())
			}
		}, kind: Paused, in: 10 * time.Minute, says: "another order tries it now"},
		"a success ends the row": {before: func(t *testing.T, l *Ledger) {
			failed(3, Limit{}, "no", start)(t, l)
			l.Validated("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), start)
			failed(2, Limit{}, "no", start)(t, l)
		}},
		"a person ends the pause": {
			before: failed(5, Limit{}, "no", start), ask: func(a *Request) { a.Manual = true },
		},
		"but not the CA's limit": {
			before: failed(5, few.Validations, "no", start), ask: func(a *Request) { a.Manual = true },
			kind: Validations, in: 30 * time.Minute,
		},
		"an order that is open counts": {
			before: admitted(start.Add(-29*time.Minute), func(l *Ledger, id string) {
				l.Accepted(id, start.Add(-29*time.Minute))
			}),
			kind: Domain, in: 12 * time.Hour,
		},
		"one that failed does not": {before: admitted(start, func(l *Ledger, id string) {
			l.Accepted(id, start)
			l.Finished(id, false, start)
		})},
		"one whose object is gone does if it was to be finalized": {
			before: admitted(start, func(l *Ledger, id string) {
				l.Finalizing(id, start)
				l.Deleted("shop", id, start)
			}),
			kind: Domain, in: 12 * time.Hour,
		},
		"no limits": {before: func(t *testing.T, l *Ledger) {
			for i := range 9 {
				a := asks(fmt.Sprint(i), "www.example.co.uk")
				a.Limits = Limits{}
				issue(t, l, a, start)
			}
		}},
		"what one issuer may do beyond the limits of all counts for all": {
			before: issued(3, "w%d.example.co.uk", start, func(a *Request) {
				a.Limits.Domain, a.Published = Limit{1000, 24 * time.Hour}, few
			}),
			ask:  func(a *Request) { a.Published, a.Account = few, "https://ca.example/acct/2" },
			kind: Domain, in: 12 * time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			if test.before != nil {
				test.before(t, l)
			}
			// A restart changes nothing.
			text, err := l.Encode(start)
			if err != nil {
				t.Fatal(err)
			}
			read, err := Decode(text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			for when, l := range map[string]*Ledger{"before a restart": l, "after it": read} {
				test.check(t, when, l)
			}
		})
	}
}

// check asks whether the order may be sent.
func (test admitCase) check(t *testing.T, when string, l *Ledger) {
	t.Helper()
	a := asks("it", "www.example.co.uk")
	if test.ask != nil {
		test.ask(&a)
	}
	v := l.Admit(a, start)
	if v.Allowed != (test.in == 0) || v.Kind != test.kind {
		t.Fatalf("%s: %+v", when, v)
	}
	if v.Allowed {
		return
	}
	if wait := v.Until.Sub(start); wait != test.in {
		t.Errorf("%s it waits %s", when, wait)
	}
	if !strings.Contains(v.Message(), test.says) {
		t.Errorf("it says %q", v.Message())
	}
	// At that time the order may be sent.
	if v := l.Admit(a, v.Until); !v.Allowed && !v.Underway && test.kind != Domain {
		t.Errorf("%s it waits again: %s", when, v.Message())
	}
}

func TestAnOrderThatIsAskedForAgainSpendsOnce(t *testing.T) {
	l := NewLedger()
	for range 5 {
		if v := l.Admit(asks("same", "www.example.com"), start); !v.Allowed {
			t.Fatal(v.Message())
		}
	}
	for i := range 2 {
		issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
	}
	if v := l.Admit(asks("one more", "www.example.org"), start); v.Kind != NewOrders {
		t.Errorf("%+v", v)
	}
}

func TestARenewalWhoseWindowIsOverBeforeItWasSentIsLikeOthers(t *testing.T) {
	l := NewLedger()
	issue(t, l, asks("0", "www.example.com"), start)
	a := asks("1", "www.example.com")
	a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)}
	if v := l.Admit(a, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	if v := l.Admit(a, start.Add(2*time.Hour)); v.Kind != ExactSet {
		t.Errorf("%+v", v)
	}
}

func TestAnOrderWithoutReplyIsSentAgainOnlyWithinItsLimits(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	week := 7 * 24 * time.Hour
	order := func(id string, limits Limits) Request {
		return Request{ID: id, Account: "https://ca.example/1", Identifiers: []acme.Identifier{acme.DNS(id + ".example.com")},
			Limits: limits, Created: now, Expires: now.Add(30 * 24 * time.Hour)}
	}
	domain, set := Limits{Domain: Limit{5, week}}, Limits{Set: Limit{1, week}}
	for name, test := range map[string]lossyCase{
		"every reply comes":               {domain, false, nil, 5},
		"the third is lost":               {domain, false, []string{"c"}, 5},
		"the last that goes is lost":      {domain, false, []string{"e"}, 5},
		"all are lost":                    {domain, false, []string{"a", "b", "c", "d", "e"}, 5},
		"by account":                      {Limits{NewOrders: Limit{5, time.Hour}}, false, []string{"c", "e"}, 5},
		"the set is that of the same":     {set, false, []string{"a", "b"}, 8 + 2},
		"renewals do not count by domain": {domain, true, []string{"a"}, 8 + 1},
	} {
		t.Run(name, func(t *testing.T) { test.run(t, order, now) })
	}
}

// lossyCase is a CA whose replies to some orders are lost the first time.
type lossyCase struct {
	limits  Limits
	renewal bool
	lost    []string
	sent    int
}

// run has eight orders sent in three passes, in each of which all are sent before a reply comes.
func (test lossyCase) run(t *testing.T, order func(string, Limits) Request, now time.Time) {
	t.Helper()
	l := NewLedger()
	sent, lost := 0, map[string]bool{}
	for _, id := range test.lost {
		lost[id] = true
	}
	taken := map[string]bool{}
	for range 3 { // passes
		var went []string
		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			a := order(id, test.limits)
			a.Renewal = test.renewal
			if !taken[id] && l.Admit(a, now).Allowed {
				sent++
				went = append(went, id)
			}
		}
		for _, id := range went { // after all were sent
			if lost[id] {
				l.NoReply(id, now)
				delete(lost, id)
			} else {
				l.Accepted(id, now)
				taken[id] = true
			}
		}
		text, err := l.Encode(now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(text); err != nil {
			t.Error(err)
		}
	}
	if sent != test.sent {
		t.Errorf("%d were sent, not %d", sent, test.sent)
	}
}

func TestAnOrderWithoutReplyCountsEachTimeItIsSent(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	limits := Limits{NewOrders: Limit{3, time.Hour}}
	order := func(id string) Request {
		return Request{
			ID:          id,
			Account:     "https://ca.example/1",
			Identifiers: []acme.Identifier{acme.DNS(id + ".example.com")},
			Limits:      limits,
			Created:     now,
		}
	}
	for name, test := range map[string]struct {
		happens func(l *Ledger) *Ledger
		left    int // of three
	}{
		"it was heard":                {func(l *Ledger) *Ledger { l.Accepted("a", now); return l }, 2},
		"its reply was lost once":     {func(l *Ledger) *Ledger { l.NoReply("a", now); l.Admit(order("a"), now); l.Accepted("a", now); return l }, 1},
		"its reply was lost twice":    {func(l *Ledger) *Ledger { l.NoReply("a", now); l.NoReply("a", now); l.Accepted("a", now); return l }, 0},
		"what comes later is nothing": {func(l *Ledger) *Ledger { l.Accepted("a", now); l.NoReply("a", now); return l }, 2},
		"the process ended meanwhile": {func(l *Ledger) *Ledger {
			text, err := l.Encode(now)
			if err != nil {
				t.Fatal(err)
			}
			next, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			next.Settle([]OrderRecord{{Request: order("a")}}, now)
			next.Restarted(now)
			next.Admit(order("a"), now)
			next.Accepted("a", now)
			return next
		}, 1},
		"the process ended when the CA had answered, long after it was asked for": {func(l *Ledger) *Ledger {
			for _, id := range []string{"x", "y"} {
				l.Admit(order(id), now)
				l.Accepted(id, now)
			}
			p := OrderRecord{Request: order("a"), Sent: true}
			p.Created = now.Add(-2 * time.Hour)
			l.Settle([]OrderRecord{p}, now)
			l.Restarted(now)
			return l
		}, 0},
		"the process ended when the CA had answered, and it failed meanwhile": {func(l *Ledger) *Ledger {
			l.Settle([]OrderRecord{{Request: order("a"), Sent: true, Finished: true}}, now)
			l.Restarted(now)
			return l
		}, 2},
		"the process ended, and the CA never had it": {func(l *Ledger) *Ledger {
			l.Settle([]OrderRecord{{Request: order("a"), Finished: true}}, now)
			l.Restarted(now)
			return l
		}, 3},
		"the process ended when the CA had answered": {func(l *Ledger) *Ledger {
			l.Settle([]OrderRecord{{Request: order("a"), Sent: true}}, now)
			l.Restarted(now)
			return l
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			if v := l.Admit(order("a"), now); !v.Allowed {
				t.Fatal(v.Message())
			}
			l = test.happens(l)
			left := 0
			for _, id := range []string{"b", "c", "d"} {
				if l.Admit(order(id), now).Allowed {
					left++
				}
			}
			if left != test.left {
				t.Errorf("%d orders more may be sent, not %d", left, test.left)
			}
		})
	}
}

func TestNothingWaitsLongerThanItMayAfterAClockWasAhead(t *testing.T) {
	ahead := start.Add(365 * 24 * time.Hour)
	for name, test := range map[string]struct {
		before func(*testing.T, *Ledger)
		most   time.Duration
	}{
		"certificates": {func(t *testing.T, l *Ledger) {
			for i := range 2 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), ahead)
			}
		}, few.Domain.Period},
		"failed validations": {func(_ *testing.T, l *Ledger) {
			for i := range 2 {
				fail(l, "https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, fmt.Sprint(i), "no", ahead)
			}
		}, few.Validations.Period},
		"a pause": {func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				fail(l, "https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", ahead)
			}
		}, pauseLength},
		"a refusal": {func(_ *testing.T, l *Ledger) {
			l.Refused(asks("0", "www.example.co.uk"), &acme.Problem{Detail: "not now"}, ahead.Add(time.Hour), ahead)
		}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			test.before(t, l)
			text, err := l.Encode(ahead)
			if err != nil {
				t.Fatal(err)
			}
			read, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			for when, l := range map[string]*Ledger{"before a restart": l, "after it": read} {
				a, now := asks("it", "www.example.co.uk"), start
				for v := l.Admit(a, now); !v.Allowed; v = l.Admit(a, now) {
					if now = v.Until; now.Sub(start) > test.most {
						t.Fatalf("%s: %s", when, v.Message())
					}
				}
			}
		})
	}
}

// TestAnOrderThatMayHaveBeenSentBeforeARestartNeedsRoomToBeSentAgain ends the process after the CA
// got an order and before that was stored.
func TestAnOrderThatMayHaveBeenSentBeforeARestartNeedsRoomToBeSentAgain(t *testing.T) {
	l := NewLedger()
	r := asks("sent", "www.example.com")
	r.Limits = Limits{NewOrders: Limit{1, time.Hour}}
	if d := l.Admit(r, start); !d.Allowed {
		t.Fatal(d.Message())
	}
	l.Restarted(start.Add(time.Minute))
	if d := l.Admit(r, start.Add(2*time.Minute)); d.Kind != NewOrders || !d.Until.Equal(start.Add(time.Hour+time.Minute)) {
		t.Errorf("%+v", d)
	}
}
