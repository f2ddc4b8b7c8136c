package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTheQueueIsFairToNamespaces(t *testing.T) {
	l := NewLedger()
	limits := Limits{NewOrders: Limit{1, time.Hour}}
	ask := func(namespace string, i int, expires time.Duration) Request {
		a := asks(fmt.Sprintf("%s-%d", namespace, i), fmt.Sprintf("%s%d.example", namespace, i))
		a.Namespace, a.Limits, a.Created = namespace, limits, start.Add(time.Duration(i)*time.Second)
		if expires != 0 {
			a.Expires = start.Add(expires)
		}
		return a
	}
	issue(t, l, ask("first", 0, 0), start)
	var all []Request
	for i := range 3 {
		all = append(all, ask("many", i, 0))
	}
	all = append(all, ask("renewals", 1, 30*24*time.Hour), ask("few", 5, 0), ask("renewals", 0, 10*time.Hour))
	until := map[string]time.Time{}
	for i, a := range all {
		v := l.Admit(a, start)
		if v.Allowed || v.Ahead != i || !v.Until.Equal(start.Add(time.Duration(1+i)*time.Hour)) {
			t.Fatalf("%s: %+v", a.ID, v)
		}
		until[a.ID] = v.Until
		if again := l.Admit(a, start.Add(time.Minute)); again != v {
			t.Fatalf("%s: asked again it says %+v, not %+v", a.ID, again, v)
		}
	}
	order := served(t, l, all, until)
	if got := strings.Join(order, " "); got != "renewals-0 many-0 few-5 many-1 many-2 renewals-1" {
		t.Error(got)
	}
}

// served returns the orders in the sequence in which they are sent, when each is tried at the time
// that the ledger says and when the ledger names it, once an hour.
func served(t *testing.T, l *Ledger, all []Request, until map[string]time.Time) []string {
	t.Helper()
	var order []string
	for now := start; len(order) < len(all); now = now.Add(time.Hour) {
		if now.Sub(start) > 30*time.Hour {
			t.Fatalf("some are never served: %v", order)
		}
		send := func(id string) {
			order = append(order, id)
			l.Accepted(id, now)
		}
		for _, a := range all {
			was := l.open[a.ID] != nil
			if !now.Before(until[a.ID]) {
				until[a.ID] = l.Admit(a, now).Until
			}
			if !was && l.open[a.ID] != nil {
				send(a.ID)
			}
		}
		for _, a := range l.Admitted() {
			if o := l.open[a.ID]; o != nil && !o.Accepted {
				send(a.ID)
			}
		}
	}
	return order
}

func TestAnOrderMovesUpWhenOrdersAheadLeave(t *testing.T) {
	l := NewLedger()
	limits := Limits{Domain: Limit{1, time.Hour}}
	ask := func(id, name string) Request {
		a := asks(id, name)
		a.Limits = limits
		return a
	}
	issue(t, l, ask("first", "first.example.com"), start)
	for i := range 50 {
		if v := l.Admit(ask(fmt.Sprint(i), fmt.Sprintf("w%d.example.com", i)), start); v.Allowed {
			t.Fatal("it does not wait")
		}
	}
	a := ask("wildcard", "*.example.com")
	if v := l.Admit(a, start); v.Ahead != 50 || !v.Until.Equal(start.Add(51*time.Hour)) {
		t.Fatalf("%+v", v)
	}
	for i := range 50 {
		if i%2 == 0 {
			l.Deleted("shop", fmt.Sprint(i), start)
		} else {
			l.Finished(fmt.Sprint(i), false, start)
		}
	}
	if v := l.Admit(a, start.Add(time.Minute)); v.Ahead != 0 || !v.Until.Equal(start.Add(time.Hour)) {
		t.Errorf("it still says: %s", v.Message())
	}
}

func TestAnOrderWaitsForTheLimitThatItsIssuerHasNow(t *testing.T) {
	ask := func(id string, l Limit) Request {
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
			l.Admit(ask("it", test.was), start)
			if v := l.Admit(
				ask("it", test.is),
				start.Add(time.Minute),
			); v.Limit != test.is ||
				v.Until.Sub(start) != test.is.Period {
				t.Errorf("it says: %s", v.Message())
			}
		})
	}
}

func TestALimitThatIsChangedWhileSomethingWaitsKeepsWhatWasSpent(t *testing.T) {
	was := Limits{NewOrders: Limit{3, time.Hour}, Domain: Limit{3, time.Hour}}
	ask := func(id string, limits Limits) Request {
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
			if v := l.Admit(ask("open", was), start); !v.Allowed {
				t.Fatal(v.Message())
			}
			if v := l.Admit(ask("it", was), start); v.Allowed {
				t.Fatal("it does not wait")
			}
			if v := l.Admit(
				ask("it", test.is),
				start,
			); v.Allowed != (test.in == 0) ||
				!v.Allowed && v.Until.Sub(start) != test.in {
				t.Errorf("%+v", v)
			}
		})
	}
}
