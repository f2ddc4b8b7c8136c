package budget

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

var start = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

var few = Limits{NewOrders: Limit{3, time.Hour}, Domain: Limit{2, 24 * time.Hour}, Set: Limit{1, 12 * time.Hour}, Validations: Limit{2, time.Hour}}

func asks(id string, names ...string) Ask {
	a := Ask{ID: id, Namespace: "shop", Name: id, Account: "https://ca.example/acct/1", Limits: few, Asked: start}
	for _, n := range names {
		a.Identifiers = append(a.Identifiers, acme.DNS(n))
	}
	return a
}

// issue sends an order and has it issued.
func issue(t *testing.T, l *Ledger, a Ask, at time.Time) {
	t.Helper()
	if v := l.Ask(a, at); !v.Allowed {
		t.Fatalf("%s: %s", a.ID, v.Message())
	}
	l.Taken(a.ID, at)
	l.Ended(a.ID, true, at)
}

func TestAskSaysUntilWhenAnOrderWaitsAndWhatFor(t *testing.T) {
	window := acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)}
	for name, test := range map[string]struct {
		before func(*testing.T, *Ledger)
		ask    func(*Ask)
		kind   Kind
		in     time.Duration // 0 for none
		says   string
	}{
		"a first order goes": {},
		"orders by account are spent": {before: func(t *testing.T, l *Ledger) {
			for i := range 3 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
			}
		}, kind: NewOrders, in: 20 * time.Minute, says: "the limit of 3 new orders of account https://ca.example/acct/1 in 1 hour is spent"},
		"those of another account are not": {before: func(t *testing.T, l *Ledger) {
			for i := range 3 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
			}
		}, ask: func(a *Ask) { a.Account = "https://ca.example/acct/2" }},
		"a bucket refills evenly": {before: func(t *testing.T, l *Ledger) {
			for i := range 3 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start.Add(-20*time.Minute))
			}
		}},
		"certificates for the registered domain are spent, by whatever account": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				a := asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i))
				a.Account = "https://ca.example/acct/2"
				issue(t, l, a, start)
			}
		}, kind: Domain, in: 12 * time.Hour, says: "the limit of 2 certificates for example.co.uk and names below it in 1 day is spent"},
		"certificates for the same names are spent": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "*.EXAMPLE.co.uk", "www.example.co.uk"), start)
		}, ask: func(a *Ask) { a.Identifiers = asks("", "www.example.co.uk", "*.example.co.uk").Identifiers }, kind: Set, in: 12 * time.Hour, says: "for exactly these names"},
		"of several limits the one that is spent longest counts": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), start)
			}
			issue(t, l, asks("2", "www.other.example"), start)
		}, kind: Domain, in: 12 * time.Hour},
		"a renewal takes neither an order nor one of the domain": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), start)
			}
			issue(t, l, asks("2", "www.other.example"), start)
		}, ask: func(a *Ask) { a.Renewal = true }},
		"but it counts for the same names": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Ask) { a.Renewal = true }, kind: Set, in: 12 * time.Hour},
		"a renewal in its window is not counted": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Ask) { a.Window = window }},
		"one that is too early for it waits for the window at most": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Ask) { a.Window = acme.Window{Start: start.Add(time.Hour), End: start.Add(2 * time.Hour)} }, kind: Set, in: time.Hour + windowMargin},
		"one that is too late for it is like others": {before: func(t *testing.T, l *Ledger) {
			issue(t, l, asks("0", "www.example.co.uk"), start)
		}, ask: func(a *Ask) { a.Window = acme.Window{Start: start.Add(-2 * time.Hour), End: start} }, kind: Set, in: 12 * time.Hour},
		"failed validations are spent": {before: func(_ *testing.T, l *Ledger) {
			for i := range 2 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, fmt.Sprint(i), "no", start)
			}
		}, kind: Validations, in: 30 * time.Minute, says: "2 failed validations of www.example.co.uk in 1 hour"},
		"a failed authorization counts once": {before: func(_ *testing.T, l *Ledger) {
			for range 3 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, "the same", "no", start)
			}
		}},
		"a name that failed five times in a row is paused": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, fmt.Sprint(i), "the CA got 404.", start.Add(-time.Hour))
			}
		}, kind: Paused, in: 23 * time.Hour, says: "www.example.co.uk is paused until 2026-12-01T23:00:00Z, as its last 5 validations failed, the last at 2026-11-30T23:00:00Z: the CA got 404. It is tried once a day"},
		"also for a renewal in its window": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start)
			}
		}, ask: func(a *Ask) { a.Window = window }, kind: Paused, in: 24 * time.Hour},
		"a wildcard is proven by its base": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start)
			}
		}, ask: func(a *Ask) { a.Identifiers = asks("", "*.www.example.co.uk").Identifiers }, kind: Paused, in: 24 * time.Hour},
		"a day later it is tried": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start.Add(-24*time.Hour))
			}
		}},
		"but by one order at a time": {before: func(t *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start.Add(-24*time.Hour))
			}
			if v := l.Ask(asks("0", "www.example.co.uk", "example.co.uk"), start); !v.Allowed {
				t.Fatal(v.Message())
			}
		}, kind: Paused, in: 10 * time.Minute, says: "another order tries it now"},
		"a success ends the row": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				if i == 3 {
					l.Validated("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), start)
				}
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start)
			}
		}},
		"a person ends the pause": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", start)
			}
		}, ask: func(a *Ask) { a.Manual = true }},
		"but not the CA's limit": {before: func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, fmt.Sprint(i), "no", start)
			}
		}, ask: func(a *Ask) { a.Manual = true }, kind: Validations, in: 30 * time.Minute},
		"an order that is open counts": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				if v := l.Ask(asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), start.Add(-48*time.Hour)); !v.Allowed {
					t.Fatal(v.Message())
				}
				l.Taken(fmt.Sprint(i), start.Add(-48*time.Hour))
			}
		}, kind: Domain, in: 12 * time.Hour},
		"one that failed does not": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				if v := l.Ask(asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), start); !v.Allowed {
					t.Fatal(v.Message())
				}
				l.Taken(fmt.Sprint(i), start)
				l.Ended(fmt.Sprint(i), false, start)
			}
		}},
		"one whose object is gone does if it was to be finalized": {before: func(t *testing.T, l *Ledger) {
			for i := range 2 {
				if v := l.Ask(asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i)), start); !v.Allowed {
					t.Fatal(v.Message())
				}
				l.Final(fmt.Sprint(i))
				l.Gone("shop", fmt.Sprint(i), start)
			}
		}, kind: Domain, in: 12 * time.Hour},
		"no limits": {before: func(t *testing.T, l *Ledger) {
			for i := range 9 {
				a := asks(fmt.Sprint(i), "www.example.co.uk")
				a.Limits = Limits{}
				issue(t, l, a, start)
			}
		}},
		"what one issuer may do beyond the limits of all counts for all": {before: func(t *testing.T, l *Ledger) {
			for i := range 3 {
				a := asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.co.uk", i))
				a.Limits.Domain, a.Published = Limit{1000, 24 * time.Hour}, few
				issue(t, l, a, start)
			}
		}, ask: func(a *Ask) { a.Published, a.Account = few, "https://ca.example/acct/2" }, kind: Domain, in: 12 * time.Hour},
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
				a := asks("it", "www.example.co.uk")
				if test.ask != nil {
					test.ask(&a)
				}
				v := l.Ask(a, start)
				if v.Allowed != (test.in == 0) || v.Kind != test.kind {
					t.Fatalf("%s: %+v", when, v)
				}
				if v.Allowed {
					continue
				}
				if wait := v.Until.Sub(start); wait != test.in {
					t.Errorf("%s it waits %s", when, wait)
				}
				if !strings.Contains(v.Message(), test.says) {
					t.Errorf("it says %q", v.Message())
				}
				// At that time it goes.
				if v := l.Ask(a, v.Until); !v.Allowed && !v.Underway && test.kind != Domain {
					t.Errorf("%s it waits again: %s", when, v.Message())
				}
			}
		})
	}
}

func TestAnOrderThatIsAskedForAgainSpendsOnce(t *testing.T) {
	l := NewLedger()
	for range 5 {
		if v := l.Ask(asks("same", "www.example.com"), start); !v.Allowed {
			t.Fatal(v.Message())
		}
	}
	for i := range 2 {
		issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
	}
	if v := l.Ask(asks("one more", "www.example.org"), start); v.Kind != NewOrders {
		t.Errorf("%+v", v)
	}
}

func TestARenewalWhoseWindowIsOverBeforeItWasSentIsLikeOthers(t *testing.T) {
	l := NewLedger()
	issue(t, l, asks("0", "www.example.com"), start)
	a := asks("1", "www.example.com")
	a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)}
	if v := l.Ask(a, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	if v := l.Ask(a, start.Add(2*time.Hour)); v.Kind != Set {
		t.Errorf("%+v", v)
	}
}

func TestWhatTheCARefusesHoldsForAllToWhomTheLimitApplies(t *testing.T) {
	until := start.Add(time.Hour)
	other := func(change func(*Ask)) Ask {
		a := asks("other", "www.example.com")
		change(&a)
		return a
	}
	same := other(func(*Ask) {})
	account := other(func(a *Ask) { a.Identifiers = asks("", "www.unrelated.example").Identifiers })
	domain := other(func(a *Ask) {
		a.Account, a.Identifiers = "https://ca.example/acct/2", asks("", "api.example.com").Identifiers
	})
	names := other(func(a *Ask) { a.Account = "https://ca.example/acct/2" })
	exempt := other(func(a *Ask) { a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)} })
	for detail, waits := range map[string][]Ask{
		`too many new orders (300) from this account in the last 3h0m0s, retry after 2026-12-01 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-orders-per-account`:                                   {same, account},
		`too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-12-01 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-registered-domain`: {same, domain, names},
		`too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-12-01 01:00:00 UTC`:                                                                        {same, names},
		`too many failed authorizations (5) for "www.example.com" in the last 1h0m0s, retry after 2026-12-01 01:00:00 UTC`:                                                                                            {same},
		`Your account is temporarily prevented from requesting certificates for www.example.com and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc`:                             {same, exempt},
		`not now`: {same, exempt},
	} {
		t.Run(detail[:7]+detail[len(detail)-7:], func(t *testing.T) {
			l := NewLedger()
			a := asks("refused", "www.example.com")
			if v := l.Ask(a, start); !v.Allowed {
				t.Fatal(v.Message())
			}
			if v := l.Refused(a, &acme.Problem{Detail: detail, RetryAfter: until}, until, start); !v.Until.Equal(until) || !strings.Contains(v.Message(), detail) || !strings.HasSuffix(v.Message(), help[v.Limits]) {
				t.Errorf("it says %q", v.Message())
			}
			if len(l.open)+len(l.reserved) > 0 {
				t.Error("the order that was refused has spent something")
			}
			text, err := l.Encode(start)
			if err != nil {
				t.Fatal(err)
			}
			for name, a := range map[string]Ask{"same": same, "account": account, "domain": domain, "names": names, "exempt": exempt} {
				should := false
				for _, w := range waits {
					should = should || a.Account == w.Account && set(a.Identifiers) == set(w.Identifiers) && a.Window == w.Window
				}
				l, err := Decode(text)
				if err != nil {
					t.Fatal(err)
				}
				a.ID = name
				if v := l.Ask(a, start); v.Allowed == should {
					t.Errorf("%s: %+v", name, v)
				} else if kind, _ := scopeOf(detail); should && (!strings.Contains(v.Message(), detail) || !strings.HasSuffix(v.Message(), help[kind])) {
					t.Errorf("%s: it says %q", name, v.Message())
				}
				if v := l.Ask(a, until); !v.Allowed {
					t.Errorf("%s: afterwards it still waits: %s", name, v.Message())
				}
			}
		})
	}
}

func TestAPauseOfTheCAEndsByHandOnce(t *testing.T) {
	const detail = "Your account is temporarily prevented from requesting certificates for www.example.com, example.com and possibly others. Please visit: https://portal.letsencrypt.org/x"
	l := NewLedger()
	a := asks("1", "www.example.com")
	if v := l.Refused(a, &acme.Problem{Detail: detail}, start.Add(time.Hour), start); v.Until.Sub(start) != 24*time.Hour || v.Kind != Paused {
		t.Fatalf("%+v", v)
	}
	b := asks("2", "www.example.com")
	b.Manual = true
	if v := l.Ask(b, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	l.Refused(b, &acme.Problem{Detail: detail}, start.Add(time.Hour), start)
	if v := l.Ask(b, start); v.Allowed || v.Kind != Paused {
		t.Errorf("the same order asks again and again: %+v", v)
	}
}

func TestWhoeverWaitsForANameHearsThatItsPauseHasEnded(t *testing.T) {
	for name, end := range map[string]func(*Ledger){
		"by hand": func(l *Ledger) {
			a := asks("by hand", "www.example.com")
			a.Manual, a.Limits = true, Limits{}
			if v := l.Ask(a, start); !v.Allowed {
				t.Error(v.Message())
			}
		},
		"as it was proven": func(l *Ledger) { l.Validated("https://ca.example/acct/1", acme.DNS("www.example.com"), start) },
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.com"), Limit{}, fmt.Sprint(i), "no", start)
			}
			a := asks("waits", "www.example.com", "example.com")
			a.Limits = Limits{}
			if v := l.Ask(a, start); v.Kind != Paused {
				t.Fatalf("%+v", v)
			}
			end(l)
			if woken := l.Admitted(); len(woken) != 1 || woken[0].Name != "waits" {
				t.Errorf("woken: %+v", woken)
			}
		})
	}
}

func TestWhoWaitsIsServedInAFairOrder(t *testing.T) {
	l := NewLedger()
	limits := Limits{NewOrders: Limit{1, time.Hour}}
	ask := func(namespace string, i int, expires time.Duration) Ask {
		a := asks(fmt.Sprintf("%s-%d", namespace, i), fmt.Sprintf("%s%d.example", namespace, i))
		a.Namespace, a.Limits, a.Asked = namespace, limits, start.Add(time.Duration(i)*time.Second)
		if expires != 0 {
			a.Expires = start.Add(expires)
		}
		return a
	}
	issue(t, l, ask("first", 0, 0), start)
	var all []Ask
	for i := range 3 {
		all = append(all, ask("many", i, 0))
	}
	all = append(all, ask("renewals", 1, 30*24*time.Hour), ask("few", 5, 0), ask("renewals", 0, 10*time.Hour))
	until := map[string]time.Time{}
	for i, a := range all {
		v := l.Ask(a, start)
		if v.Allowed || v.Ahead != i || !v.Until.Equal(start.Add(time.Duration(1+i)*time.Hour)) {
			t.Fatalf("%s: %+v", a.ID, v)
		}
		until[a.ID] = v.Until
		if again := l.Ask(a, start.Add(time.Minute)); again != v {
			t.Fatalf("%s: asked again it says %+v, not %+v", a.ID, again, v)
		}
	}
	var order []string
	for now := start; len(order) < len(all); now = now.Add(time.Hour) {
		for _, a := range all {
			was := l.open[a.ID] != nil
			if !now.Before(until[a.ID]) {
				until[a.ID] = l.Ask(a, now).Until
			}
			if !was && l.open[a.ID] != nil {
				order = append(order, a.ID)
				l.Taken(a.ID, now)
			}
		}
		for _, a := range l.Admitted() {
			if o := l.open[a.ID]; o != nil && !o.Taken {
				order = append(order, a.ID)
				l.Taken(a.ID, now)
			}
		}
		if now.Sub(start) > 30*time.Hour {
			t.Fatalf("some are never served: %v", order)
		}
	}
	if got := strings.Join(order, " "); got != "renewals-0 many-0 few-5 many-1 many-2 renewals-1" {
		t.Error(got)
	}
}

func TestALedgerFitsIntoAConfigMapWhateverHappens(t *testing.T) {
	l := NewLedger()
	for i := range 20000 {
		a := asks(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i), fmt.Sprintf("www.d%d.example", i))
		a.Limits = Limits{NewOrders: Limit{1000000, time.Hour}, Domain: Limit{50, 7 * 24 * time.Hour}, Set: Limit{5, 7 * 24 * time.Hour}, Validations: Limit{5, time.Hour}}
		if i%20 > 0 {
			issue(t, l, a, start.Add(time.Duration(i)*time.Second))
		} else if v := l.Ask(a, start.Add(time.Duration(i)*time.Second)); !v.Allowed {
			t.Fatal(v.Message())
		}
		l.Failed(a.Account, a.Identifiers[0], a.Limits.Validations, fmt.Sprint(i), strings.Repeat("é", 500), start)
		if i%50 > 0 {
			continue
		}
		l.Refused(asks(fmt.Sprint(i), fmt.Sprintf("w.d%d.example", i)), &acme.Problem{Detail: strings.Repeat("y", 7000)}, start.Add(time.Hour), start)
	}
	text, err := l.Encode(start)
	if err != nil || len(text) > 1000<<10 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if _, err := Decode(text); err != nil {
		t.Error(err)
	}

	// What no longer matters is not kept.
	l = NewLedger()
	issue(t, l, asks("1", "www.example.com"), start)
	if text, err := l.Encode(start.Add(30 * 24 * time.Hour)); err != nil || string(text) != "{}" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestALostLedgerIsMadeOfTheObjectsThatExist(t *testing.T) {
	past := func(id string, ago time.Duration, sent, ended, issued bool, names ...string) Past {
		p := Past{Ask: asks(id, names...), Sent: sent, Ended: ended, Issued: issued}
		p.Asked = start.Add(-ago)
		return p
	}
	at := func(ago time.Duration, p Past) Past {
		if p.At = start.Add(-ago); p.Issued {
			p.At = p.At.Add(-backdated)
		}
		return p
	}
	for name, test := range map[string]struct {
		past []Past
		kind Kind
		in   time.Duration // 0 for none
	}{
		"one that is open, and one that was issued, count": {[]Past{
			past("open", time.Minute, true, false, false, "a.example.com"), at(time.Hour, past("issued", time.Hour, true, true, true, "b.example.com")),
		}, Domain, 11 * time.Hour},
		"one that failed has spent no certificate, one that was not sent nothing": {[]Past{
			past("open", time.Minute, true, false, false, "a.example.com"), at(time.Hour, past("failed", time.Hour, true, true, false, "c.example.com")),
			past("not sent", time.Minute, false, false, false, "d.example.com"),
		}, "", 0},
		"those that were issued long ago are forgotten": {[]Past{
			at(24*time.Hour, past("a", 24*time.Hour, true, true, true, "a.example.com")), at(24*time.Hour, past("b", 24*time.Hour, true, true, true, "b.example.com")),
		}, "", 0},
		"those that had waited long, and were issued just now, count from now on": {[]Past{
			at(0, past("a", 192*time.Hour, true, true, true, "a.example.com")), at(0, past("b", 192*time.Hour, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
		"what was issued last counts last, whatever was asked for first": {[]Past{
			at(0, past("a", 192*time.Hour, true, true, true, "a.example.com")), at(12*time.Hour, past("b", 13*time.Hour, true, true, true, "b.example.com")),
			at(time.Hour, past("c", time.Hour, true, true, true, "c.example.com")),
		}, Domain, 12 * time.Hour},
		"where it is not known when one was issued it was now": {[]Past{
			past("a", 192*time.Hour, true, true, true, "a.example.com"), past("b", 192*time.Hour, true, true, true, "b.example.com"),
		}, Domain, 12 * time.Hour},
		"of one that is open it is not known when it was sent": {[]Past{
			past("a", 192*time.Hour, true, false, false, "a.example.org"), past("b", 192*time.Hour, true, false, false, "b.example.net"),
			past("c", 192*time.Hour, true, false, false, "c.example.edu"),
		}, NewOrders, 20 * time.Minute},
		"one that has failed was sent before that": {[]Past{
			at(time.Minute, past("a", 192*time.Hour, true, true, false, "a.example.org")), at(time.Minute, past("b", 192*time.Hour, true, true, false, "b.example.net")),
			at(time.Minute, past("c", 192*time.Hour, true, true, false, "c.example.edu")),
		}, NewOrders, 19 * time.Minute},
		"one that may have been sent counts, too, while others do": {[]Past{
			at(0, past("a", time.Hour, true, true, false, "a.example.org")), at(0, past("b", time.Hour, true, true, false, "b.example.net")),
			past("c", time.Hour, false, false, false, "c.example.edu"),
		}, NewOrders, 20 * time.Minute},
		"but not where there was no room for it": {[]Past{
			at(10*time.Minute, past("a", time.Hour, true, true, false, "a.example.org")), at(10*time.Minute, past("b", time.Hour, true, true, false, "b.example.net")),
			at(10*time.Minute, past("c", time.Hour, true, true, false, "c.example.edu")), past("d", time.Hour, false, false, false, "d.example.edu"),
		}, NewOrders, 10 * time.Minute},
		"nor if it was never sent as it failed before": {[]Past{
			at(0, past("a", time.Hour, true, true, false, "a.example.org")), at(0, past("b", time.Hour, true, true, false, "b.example.net")),
			at(0, past("c", time.Hour, false, true, false, "c.example.edu")),
		}, "", 0},
		"nor if nothing was sent yet": {[]Past{
			past("a", time.Hour, false, false, false, "a.example.org"), past("b", time.Hour, false, false, false, "b.example.net"),
			past("c", time.Hour, false, false, false, "c.example.edu"),
		}, "", 0},
		"nothing was before it was asked for": {[]Past{
			at(48*time.Hour, past("a", 0, true, true, true, "a.example.com")), at(48*time.Hour, past("b", 0, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
		"nothing is yet to come": {[]Past{
			at(-48*time.Hour, past("a", time.Hour, true, true, true, "a.example.com")), at(-48*time.Hour, past("b", time.Hour, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			v := Restore(test.past, start).Ask(asks("new", "e.example.com"), start)
			if v.Allowed != (test.in == 0) || v.Kind != test.kind || !v.Allowed && v.Until.Sub(start) != test.in {
				t.Errorf("%+v", v)
			}
		})
	}
	l := Restore([]Past{past("open", time.Minute, true, false, false, "a.example.com"), past("not sent", time.Minute, false, false, false, "d.example.com")}, start)
	if v := l.Ask(asks("not sent", "www.example.org"), start); !v.Allowed {
		t.Error(v.Message())
	}
	// The open one is over, and nobody saw its end.
	l.Settle(nil, start)
	if len(l.open) > 0 {
		t.Errorf("still open: %v", l.open)
	}
}

func TestAccountsOfTwoProcessesArePutTogether(t *testing.T) {
	a, b := NewLedger(), NewLedger()
	issue(t, a, asks("1", "a.example.com"), start)
	if v := b.Ask(asks("2", "b.example.com"), start); !v.Allowed {
		t.Fatal(v.Message())
	}
	for i := range 5 {
		b.Failed("https://ca.example/acct/1", acme.DNS("x.example.net"), Limit{}, fmt.Sprint(i), "no", start)
	}
	a.merge(b)
	if v := a.Ask(asks("3", "c.example.com"), start); v.Kind != Domain {
		t.Errorf("%+v", v)
	}
	if v := a.Ask(asks("4", "x.example.net"), start); v.Kind != Paused {
		t.Errorf("%+v", v)
	}
}

func TestDomainsAreRegisteredOnesAndNetworks(t *testing.T) {
	ids := asks("", "*.www.Example.co.uk", "example.co.uk", "a.b.github.io", "com", "www.example.de").Identifiers
	ids = append(ids, acme.IP(netip.MustParseAddr("192.0.2.7")), acme.IP(netip.MustParseAddr("2001:db8:1:2:3::4")))
	if got := strings.Join(domains(ids), " "); got != "192.0.2.7/32 2001:db8:1:2::/64 b.github.io com example.co.uk example.de" {
		t.Error(got)
	}
}

func TestLimitsOfIssuersTakeThePlaceOfThoseThatAreKnown(t *testing.T) {
	l := Published("https://acme-v02.api.letsencrypt.org/directory").Override(&cmacme.ACMERateLimits{
		NewOrdersPerAccount:     &cmacme.ACMERateLimit{Count: 1000, Period: &metav1.Duration{Duration: time.Hour}},
		CertificatesPerExactSet: &cmacme.ACMERateLimit{Count: 0},
	})
	if l.NewOrders != (Limit{1000, time.Hour}) || !l.Set.None() || l.Domain != (Limit{50, 7 * 24 * time.Hour}) || l.Validations != (Limit{5, time.Hour}) {
		t.Errorf("%+v", l)
	}
	if l := Published("https://acme.example/directory"); l != (Limits{}) {
		t.Errorf("%+v", l)
	}
}

func TestACAHasOneLedgerHoweverItsDirectoryIsSpelt(t *testing.T) {
	b := &Budget{}
	ca := b.CA("https://acme-v02.api.letsencrypt.org/directory")
	for _, same := range []string{"https://acme-v02.api.letsencrypt.org:443/directory", "https://ACME-v02.API.letsencrypt.org/directory", "HTTPS://acme-v02.api.letsencrypt.org/directory#x",
		"https://acme-v02.api.letsencrypt.org./directory"} {
		if b.CA(same) != ca {
			t.Errorf("%s has another ledger", same)
		}
		if Published(same) != Published("https://acme-v02.api.letsencrypt.org/directory") {
			t.Errorf("%s has other limits", same)
		}
	}
	for _, other := range []string{"https://acme-staging-v02.api.letsencrypt.org/directory", "https://acme-v02.api.letsencrypt.org:14000/directory",
		"https://acme-v02.api.letsencrypt.org/other", "https://acme-v02.api.letsencrypt.org/directory?x", "https://[2001:db8::1]/directory", "%"} {
		if b.CA(other) == ca {
			t.Errorf("%s has the same ledger", other)
		}
	}
}

func FuzzDecode(f *testing.F) {
	l := NewLedger()
	if v := l.Ask(asks("1", "a.example.com"), start); !v.Allowed {
		f.Fatal(v.Message())
	}
	l.Failed("https://ca.example/acct/1", acme.DNS("x.example.net"), few.Validations, "1", "no", start)
	l.refuse(closedKey, "", "busy", start.Add(time.Hour), start)
	text, err := l.Encode(start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"orders":{"x":{"order":[{"key":"k","count":-1,"period":0}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Decode(text)
		if err != nil {
			return
		}
		l.Ask(asks("1", "a.example.com"), start)
		l.Taken("1", start)
		l.Settle(nil, start)
		l.Ask(asks("2", "b.example.com"), start)
		if _, err := l.Encode(start); err != nil {
			t.Error(err)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(`too many certificates (50) already issued for "example.com" in the last 168h0m0s`)
	f.Add(`prevented from requesting certificates for a, b and possibly others`)
	f.Fuzz(func(t *testing.T, detail string) {
		l := NewLedger()
		v := l.Refused(asks("1", "a.example.com"), &acme.Problem{Detail: detail}, start.Add(time.Hour), start)
		if v.Until.IsZero() || len(v.Message()) > maxRefusal+1000 {
			t.Errorf("%+v", v)
		}
		text, err := l.Encode(start)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s, %v", text, err)
		}
	})
}

func TestAnOrderWithoutReplyIsSentAgainOnlyWithinItsLimits(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	week := 7 * 24 * time.Hour
	order := func(id string, limits Limits) Ask {
		return Ask{ID: id, Account: "https://ca.example/1", Identifiers: []acme.Identifier{acme.DNS(id + ".example.com")},
			Limits: limits, Asked: now}
	}
	domain, set := Limits{Domain: Limit{5, week}}, Limits{Set: Limit{1, week}}
	for name, test := range map[string]struct {
		limits  Limits
		renewal bool
		lost    []string
		sent    int
	}{
		"every reply comes":               {domain, false, nil, 5},
		"the third is lost":               {domain, false, []string{"c"}, 5},
		"the last that goes is lost":      {domain, false, []string{"e"}, 5},
		"all are lost":                    {domain, false, []string{"a", "b", "c", "d", "e"}, 5},
		"by account":                      {Limits{NewOrders: Limit{5, time.Hour}}, false, []string{"c", "e"}, 5},
		"the set is that of the same":     {set, false, []string{"a", "b"}, 8 + 2},
		"renewals do not count by domain": {domain, true, []string{"a"}, 8 + 1},
	} {
		t.Run(name, func(t *testing.T) {
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
					if !taken[id] && l.Ask(a, now).Allowed {
						sent++
						went = append(went, id)
					}
				}
				for _, id := range went { // after all were sent
					if lost[id] {
						l.Unheard(id, now)
						delete(lost, id)
					} else {
						l.Taken(id, now)
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
		})
	}
}

func TestAnOrderOfWhichNothingWasHeardCountsForEachTimeThatItIsSent(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	limits := Limits{NewOrders: Limit{3, time.Hour}}
	order := func(id string) Ask {
		return Ask{ID: id, Account: "https://ca.example/1", Identifiers: []acme.Identifier{acme.DNS(id + ".example.com")}, Limits: limits, Asked: now}
	}
	for name, test := range map[string]struct {
		happens func(l *Ledger) *Ledger
		left    int // of three
	}{
		"it was heard":                {func(l *Ledger) *Ledger { l.Taken("a", now); return l }, 2},
		"its reply was lost once":     {func(l *Ledger) *Ledger { l.Unheard("a", now); l.Ask(order("a"), now); l.Taken("a", now); return l }, 1},
		"its reply was lost twice":    {func(l *Ledger) *Ledger { l.Unheard("a", now); l.Unheard("a", now); l.Taken("a", now); return l }, 0},
		"what comes later is nothing": {func(l *Ledger) *Ledger { l.Taken("a", now); l.Unheard("a", now); return l }, 2},
		"the process ended meanwhile": {func(l *Ledger) *Ledger {
			text, err := l.Encode(now)
			if err != nil {
				t.Fatal(err)
			}
			next, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			next.Settle([]Past{{Ask: order("a")}}, now)
			next.Interrupted(now)
			next.Ask(order("a"), now)
			next.Taken("a", now)
			return next
		}, 1},
		"the process ended when the CA had answered, long after it was asked for": {func(l *Ledger) *Ledger {
			for _, id := range []string{"x", "y"} {
				l.Ask(order(id), now)
				l.Taken(id, now)
			}
			p := Past{Ask: order("a"), Sent: true}
			p.Asked = now.Add(-2 * time.Hour)
			l.Settle([]Past{p}, now)
			l.Interrupted(now)
			return l
		}, 0},
		"the process ended when the CA had answered, and it failed meanwhile": {func(l *Ledger) *Ledger {
			l.Settle([]Past{{Ask: order("a"), Sent: true, Ended: true}}, now)
			l.Interrupted(now)
			return l
		}, 2},
		"the process ended, and the CA never had it": {func(l *Ledger) *Ledger {
			l.Settle([]Past{{Ask: order("a"), Ended: true}}, now)
			l.Interrupted(now)
			return l
		}, 3},
		"the process ended when the CA had answered": {func(l *Ledger) *Ledger {
			l.Settle([]Past{{Ask: order("a"), Sent: true}}, now)
			l.Interrupted(now)
			return l
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			if v := l.Ask(order("a"), now); !v.Allowed {
				t.Fatal(v.Message())
			}
			l = test.happens(l)
			left := 0
			for _, id := range []string{"b", "c", "d"} {
				if l.Ask(order(id), now).Allowed {
					left++
				}
			}
			if left != test.left {
				t.Errorf("%d orders more may be sent, not %d", left, test.left)
			}
		})
	}
}

func TestALostLedgerIsMadeOfWhatTheOrdersSayOfFailures(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	limits := Limits{Validations: Limit{1, time.Hour}}
	names := func(list ...string) (ids []acme.Identifier) {
		for _, name := range list {
			ids = append(ids, acme.DNS(name))
		}
		return ids
	}
	five := func(and ...Past) (all []Past) {
		for i := range 5 {
			all = append(all, Past{
				Ask:  Ask{ID: fmt.Sprint(i), Account: "https://ca.example/1", Limits: Limits{}, Asked: now.Add(-23 * time.Hour)},
				Sent: true, Ended: true, Failed: names("a.example.com"), At: now.Add(-20 * time.Hour),
			})
		}
		return append(all, and...)
	}
	proven := func(ago time.Duration) Past {
		return Past{
			Ask:  Ask{ID: "proven", Account: "https://ca.example/1", Identifiers: names("a.example.com"), Asked: now.Add(-48 * time.Hour)},
			Sent: true, Ended: true, Issued: true, At: now.Add(-ago),
		}
	}
	past := func(failed []acme.Identifier, paused time.Time) []Past {
		return []Past{{
			Ask:  Ask{ID: "past", Account: "https://ca.example/1", Identifiers: failed, Limits: limits, Asked: now.Add(-time.Hour)},
			Sent: true, Ended: true, Failed: failed, At: now.Add(-time.Minute), Why: "no answer", Paused: paused,
		}}
	}
	for name, test := range map[string]struct {
		past []Past
		want map[string]Kind // empty: it may go
	}{
		"a name that failed has spent its limit":           {past(names("a.example.com"), time.Time{}), map[string]Kind{"a.example.com": Validations, "b.example.com": ""}},
		"of several each may have been it":                 {past(names("a.example.com", "b.example.com"), time.Time{}), map[string]Kind{"a.example.com": Validations, "b.example.com": Validations}},
		"the only name is paused":                          {past(names("a.example.com"), now.Add(23*time.Hour)), map[string]Kind{"a.example.com": Paused}},
		"also if it was asked for with its wildcard":       {past(names("a.example.com", "*.a.example.com"), now.Add(23*time.Hour)), map[string]Kind{"a.example.com": Paused}},
		"a pause that is over is none":                     {past(names("a.example.com"), now.Add(-time.Second)), map[string]Kind{"a.example.com": Validations}},
		"a name that failed again and again is paused":     {five(), map[string]Kind{"a.example.com": Paused}},
		"not if it was proven afterwards":                  {five(proven(time.Hour)), map[string]Kind{"a.example.com": ""}},
		"but if it was proven before":                      {five(proven(30 * time.Hour)), map[string]Kind{"a.example.com": Paused}},
		"of several names it is not known which is paused": {past(names("a.example.com", "b.example.com"), now.Add(23*time.Hour)), map[string]Kind{"a.example.com": Validations}},
	} {
		t.Run(name, func(t *testing.T) {
			l := Restore(test.past, now)
			for name, want := range test.want {
				v := l.Ask(Ask{ID: name, Account: "https://ca.example/1", Identifiers: names(name), Limits: limits, Asked: now}, now)
				if v.Allowed != (want == "") || !v.Allowed && v.Kind != want {
					t.Errorf("%s: %+v, want %q", name, v, want)
				}
			}
		})
	}
}

func TestAnOrderThatTheCARefusedThoughItShouldNotCountItIsNotSentAgain(t *testing.T) {
	until := start.Add(time.Hour)
	for name, change := range map[string]func(*Ask){
		"a renewal in its window":        func(a *Ask) { a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(2 * time.Hour)} },
		"a renewal of the same names":    func(a *Ask) { a.Renewal = true },
		"a renewal without known limits": func(a *Ask) { a.Renewal, a.Limits = true, Limits{} },
	} {
		for _, detail := range []string{
			`too many new orders (300) from this account in the last 3h0m0s`,
			`too many certificates (50) already issued for "example.com" in the last 168h0m0s`,
			`too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s`,
			`too many failed authorizations (5) for "www.example.com" in the last 1h0m0s`,
		} {
			t.Run(name+" "+detail[9:14], func(t *testing.T) {
				l := NewLedger()
				a := asks("it", "www.example.com")
				change(&a)
				if v := l.Ask(a, start); !v.Allowed {
					t.Fatal(v.Message())
				}
				l.Refused(a, &acme.Problem{Detail: detail}, until, start)
				if v := l.Ask(a, start.Add(time.Second)); v.Allowed || !v.Until.Equal(until) || !strings.Contains(v.Message(), detail) {
					t.Errorf("it is sent again: %+v", v)
				}
				if v := l.Ask(a, until); !v.Allowed {
					t.Errorf("it still waits: %s", v.Message())
				}
			})
		}
	}
	// An order that is like others is refused for what a renewal in its window is not.
	l := NewLedger()
	a := asks("it", "www.example.com")
	l.Refused(a, &acme.Problem{Detail: `too many certificates (50) already issued for "example.com" in the last 168h0m0s`}, until, start)
	a.Window = acme.Window{Start: start.Add(-time.Hour), End: until}
	if v := l.Ask(a, start); !v.Allowed {
		t.Error(v.Message())
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
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), few.Validations, fmt.Sprint(i), "no", ahead)
			}
		}, few.Validations.Period},
		"a pause": {func(_ *testing.T, l *Ledger) {
			for i := range 5 {
				l.Failed("https://ca.example/acct/1", acme.DNS("www.example.co.uk"), Limit{}, fmt.Sprint(i), "no", ahead)
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
				for v := l.Ask(a, now); !v.Allowed; v = l.Ask(a, now) {
					if now = v.Until; now.Sub(start) > test.most {
						t.Fatalf("%s: %s", when, v.Message())
					}
				}
			}
		})
	}
}

func TestALedgerOfAbsurdTimesHoldsNobodyForEver(t *testing.T) {
	a := asks("it", "www.example.com")
	p := ask(a)
	for _, absurd := range []int64{1<<63 - 1, 1 << 62, start.Add(100 * 365 * 24 * time.Hour).UnixMilli()} {
		text, err := json.Marshal(written{
			Buckets:  map[key]int64{p.orders[0].key: absurd, p.certificates[0].key: absurd, p.certificates[1].key: absurd, p.validations[0].key: absurd},
			Failures: map[key]*failure{p.failed[0]: {InARow: 1 << 30, At: absurd}},
			Refusals: map[key]*refusal{p.refusedRequest: {At: start.UnixMilli(), Until: absurd}, p.refusedSet: {At: absurd, Until: absurd}},
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		now := start
		v := l.Ask(a, now)
		if v.Allowed {
			t.Errorf("%d is taken for nothing", absurd)
		}
		for ; !v.Allowed; v = l.Ask(a, now) {
			if now = v.Until; now.Sub(start) > longestRefused+few.Domain.Period {
				t.Fatalf("%d: %s", absurd, v.Message())
			}
		}
	}
}

func TestWhoeverWaitsIsNextWhenThoseBeforeItHaveLeft(t *testing.T) {
	l := NewLedger()
	limits := Limits{Domain: Limit{1, time.Hour}}
	ask := func(id, name string) Ask {
		a := asks(id, name)
		a.Limits = limits
		return a
	}
	issue(t, l, ask("first", "first.example.com"), start)
	for i := range 50 {
		if v := l.Ask(ask(fmt.Sprint(i), fmt.Sprintf("w%d.example.com", i)), start); v.Allowed {
			t.Fatal("it does not wait")
		}
	}
	a := ask("wildcard", "*.example.com")
	if v := l.Ask(a, start); v.Ahead != 50 || !v.Until.Equal(start.Add(51*time.Hour)) {
		t.Fatalf("%+v", v)
	}
	for i := range 50 {
		if i%2 == 0 {
			l.Gone("shop", fmt.Sprint(i), start)
		} else {
			l.Ended(fmt.Sprint(i), false, start)
		}
	}
	if v := l.Ask(a, start.Add(time.Minute)); v.Ahead != 0 || !v.Until.Equal(start.Add(time.Hour)) {
		t.Errorf("it still says: %s", v.Message())
	}
}

func TestAnOrderWaitsForTheLimitThatItsIssuerHasNow(t *testing.T) {
	ask := func(id string, l Limit) Ask {
		a := asks(id, id+".example.com")
		a.Limits = Limits{Domain: l}
		return a
	}
	tight, loose := Limit{1, 7 * 24 * time.Hour}, Limit{1, time.Hour}
	for name, test := range map[string]struct{ was, is Limit }{"looser": {tight, loose}, "tighter": {loose, tight}} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			issue(t, l, ask("a", test.was), start)
			issue(t, l, ask("b", test.is), start)
			l.Ask(ask("it", test.was), start)
			if v := l.Ask(ask("it", test.is), start.Add(time.Minute)); v.Limit != test.is || v.Until.Sub(start) != test.is.Period {
				t.Errorf("it says: %s", v.Message())
			}
		})
	}
}

func TestALedgerOfOpenOrdersOfManyDomainsFitsIntoAConfigMap(t *testing.T) {
	l := NewLedger()
	limits := Published("https://acme-v02.api.letsencrypt.org/directory")
	limits.NewOrders = Limit{3000, 3 * time.Hour} // granted
	ask := func(i int) Ask {
		a := asks(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i))
		a.Limits = limits
		for n := range 99 {
			a.Identifiers = append(a.Identifiers, acme.DNS(fmt.Sprintf("www.d%d-%d.example", i, n)))
		}
		if i < 50 {
			a.Identifiers = append(a.Identifiers, acme.DNS(fmt.Sprintf("w%d.busy.example", i)))
		}
		return a
	}
	const n = 1000
	for i := range n {
		if v := l.Ask(ask(i), start); !v.Allowed {
			t.Fatal(v.Message())
		}
		if i%2 == 0 {
			l.Taken(ask(i).ID, start)
		}
	}
	text, err := l.Encode(start)
	if err != nil || len(text) > 1000<<10 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	read, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for when, l := range map[string]*Ledger{"before a restart": l, "after it": read} {
		for i := range n {
			if v := l.Ask(ask(i), start); i%2 > 0 && !v.Allowed {
				t.Fatalf("%s: one that was let go must wait: %s", when, v.Message())
			}
		}
		a := asks("new", "new.busy.example")
		a.Limits = limits
		if v := l.Ask(a, start); v.Kind != Domain {
			t.Errorf("%s: %+v", when, v)
		}
	}
}

func TestWhatWasRefusedOrPausedIsNotForgottenThoughItIsMuch(t *testing.T) {
	const n = 3000
	l := NewLedger()
	limitless := func(id, name string) Ask {
		a := asks(id, name)
		a.Limits = Limits{}
		return a
	}
	for i := range n {
		name := fmt.Sprintf("paused%d.example", i)
		for f := range 5 {
			l.Failed("https://ca.example/acct/1", acme.DNS(name), Limit{}, fmt.Sprint(name, f), "no", start)
		}
		l.Refused(limitless(fmt.Sprint(i), fmt.Sprintf("refused%d.example", i)), &acme.Problem{Detail: "not now: " + strings.Repeat("x", 300)}, start.Add(time.Hour), start)
	}
	for i := range n { // of no consequence
		l.Failed("https://ca.example/acct/1", acme.DNS(fmt.Sprintf("once%d.example", i)), Limit{}, fmt.Sprint(i), "no", start.Add(time.Minute))
	}
	text, err := l.Encode(start)
	if err != nil || len(text) > 1000<<10 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	read, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for when, test := range map[string]struct {
		ledger  *Ledger
		refused int
	}{"before a restart": {l, n}, "after it": {read, maxRefusals}} {
		paused, refused := 0, 0
		for i := range n {
			if v := test.ledger.Ask(limitless("a"+fmt.Sprint(i), fmt.Sprintf("paused%d.example", i)), start); v.Kind == Paused {
				paused++
			}
			if v := test.ledger.Ask(limitless("b"+fmt.Sprint(i), fmt.Sprintf("refused%d.example", i)), start); v.Kind == Refused {
				refused++
			}
		}
		if paused != n || refused != test.refused {
			t.Errorf("%s %d of %d are paused, %d refused", when, paused, n, refused)
		}
	}
}

func TestAWishEndsThePausesThatThereWereAndNoLaterOnes(t *testing.T) {
	l := NewLedger()
	for i := range 3 {
		issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
	}
	fail := func(row string) {
		for i := range 5 {
			l.Failed("https://ca.example/acct/1", acme.DNS("www.example.com"), Limit{}, row+fmt.Sprint(i), "no", start)
		}
	}
	fail("before")
	a := asks("by hand", "www.example.com")
	a.Manual = true
	if v := l.Ask(a, start); v.Kind != NewOrders {
		t.Fatalf("%+v", v)
	}
	fail("meanwhile")
	for _, in := range []time.Duration{time.Minute, 20 * time.Minute} {
		if v := l.Ask(a, start.Add(in)); v.Kind != Paused {
			t.Errorf("after %s: %+v", in, v)
		}
	}
}

func TestALimitThatIsChangedWhileSomethingWaitsKeepsWhatWasSpent(t *testing.T) {
	was := Limits{NewOrders: Limit{3, time.Hour}, Domain: Limit{3, time.Hour}}
	ask := func(id string, limits Limits) Ask {
		a := asks(id, id+".example.com")
		a.Limits = limits
		return a
	}
	for name, test := range map[string]struct {
		is Limits
		in time.Duration
	}{
		"one of both is lowered": {Limits{NewOrders: Limit{3, time.Hour}, Domain: Limit{2, time.Hour}}, 30 * time.Minute},
		"both are":               {Limits{NewOrders: Limit{1, time.Hour}, Domain: Limit{2, time.Hour}}, time.Hour},
		"both are raised":        {Limits{NewOrders: Limit{4, time.Hour}, Domain: Limit{300, time.Hour}}, 0},
		"both are lifted":        {Limits{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			issue(t, l, ask("a", was), start)
			issue(t, l, ask("b", was), start)
			if v := l.Ask(ask("open", was), start); !v.Allowed {
				t.Fatal(v.Message())
			}
			if v := l.Ask(ask("it", was), start); v.Allowed {
				t.Fatal("it does not wait")
			}
			if v := l.Ask(ask("it", test.is), start); v.Allowed != (test.in == 0) || !v.Allowed && v.Until.Sub(start) != test.in {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestWhatAnotherProcessHasWrittenLetsNoOrderGoThatWasRefused(t *testing.T) {
	l := NewLedger()
	a := asks("it", "www.example.com")
	if v := l.Ask(a, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	text, err := l.Encode(start)
	if err != nil {
		t.Fatal(err)
	}
	l.Refused(a, &acme.Problem{Detail: "not now"}, start.Add(time.Hour), start)
	other, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	l.merge(other)
	if v := l.Ask(a, start.Add(time.Minute)); v.Kind != Refused {
		t.Errorf("it is sent again: %+v", v)
	}
}
