package ratelimit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

func TestALedgerFitsIntoAConfigMapWhateverHappens(t *testing.T) {
	l := NewLedger()
	for i := range 20000 {
		a := asks(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i), fmt.Sprintf("www.d%d.example", i))
		a.Limits = Limits{
			NewOrders:   Limit{1000000, time.Hour},
			Domain:      Limit{50, 7 * 24 * time.Hour},
			Set:         Limit{5, 7 * 24 * time.Hour},
			Validations: Limit{5, time.Hour},
		}
		if i%20 > 0 {
			issue(t, l, a, start.Add(time.Duration(i)*time.Second))
		} else if v := l.Admit(a, start.Add(time.Duration(i)*time.Second)); !v.Allowed {
			t.Fatal(v.Message())
		}
		fail(l, a.Account, a.Identifiers[0], a.Limits.Validations, fmt.Sprint(i), strings.Repeat("é", 500), start)
		if i%50 > 0 {
			continue
		}
		l.Refused(
			asks(fmt.Sprint(i), fmt.Sprintf("w.d%d.example", i)),
			&acme.Problem{Detail: strings.Repeat("y", 7000)},
			start.Add(time.Hour),
			start,
		)
	}
	text, err := l.Encode(start)
	if err != nil || len(text) > 1000<<10 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if _, err := Decode(text); err != nil {
		t.Error(err)
	}

	// Entries that are over are dropped.
	l = NewLedger()
	issue(t, l, asks("1", "www.example.com"), start)
	if text, err := l.Encode(start.Add(30 * 24 * time.Hour)); err != nil || string(text) != "{}" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestAccountsOfTwoProcessesArePutTogether(t *testing.T) {
	a, b := NewLedger(), NewLedger()
	issue(t, a, asks("1", "a.example.com"), start)
	if v := b.Admit(asks("2", "b.example.com"), start); !v.Allowed {
		t.Fatal(v.Message())
	}
	for i := range 5 {
		fail(b, "https://ca.example/acct/1", acme.DNS("x.example.net"), Limit{}, fmt.Sprint(i), "no", start)
	}
	a.merge(b)
	if v := a.Admit(asks("3", "c.example.com"), start); v.Kind != Domain {
		t.Errorf("%+v", v)
	}
	if v := a.Admit(asks("4", "x.example.net"), start); v.Kind != Paused {
		t.Errorf("%+v", v)
	}
}

func FuzzDecode(f *testing.F) {
	l := NewLedger()
	if v := l.Admit(asks("1", "a.example.com"), start); !v.Allowed {
		f.Fatal(v.Message())
	}
	fail(l, "https://ca.example/acct/1", acme.DNS("x.example.net"), few.Validations, "1", "no", start)
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
		l.Admit(asks("1", "a.example.com"), start)
		l.Accepted("1", start)
		l.Settle(nil, start)
		l.Admit(asks("2", "b.example.com"), start)
		if _, err := l.Encode(start); err != nil {
			t.Error(err)
		}
	})
}

func TestAbsurdTimesHoldNoOrderForEver(t *testing.T) {
	a := asks("it", "www.example.com")
	p := newCandidate(a)
	for _, absurd := range []int64{1<<63 - 1, 1 << 62, start.Add(100 * 365 * 24 * time.Hour).UnixMilli()} {
		text, err := json.Marshal(written{
			Buckets: map[key]int64{
				p.orders[0].key:       absurd,
				p.certificates[0].key: absurd,
				p.certificates[1].key: absurd,
				p.validations[0].key:  absurd,
			},
			Failures: map[key]*failure{p.failures[0]: {InARow: 1 << 30, At: absurd}},
			Refusals: map[key]*refusal{
				p.refusals.request: {At: start.UnixMilli(), Until: absurd},
				p.refusals.set:     {At: absurd, Until: absurd},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		now := start
		v := l.Admit(a, now)
		if v.Allowed {
			t.Errorf("%d is taken for nothing", absurd)
		}
		for ; !v.Allowed; v = l.Admit(a, now) {
			if now = v.Until; now.Sub(start) > longestRefused+few.Domain.Period {
				t.Fatalf("%d: %s", absurd, v.Message())
			}
		}
	}
}

func TestALedgerOfOpenOrdersOfManyDomainsFitsIntoAConfigMap(t *testing.T) {
	l := NewLedger()
	limits := Published("https://acme-v02.api.letsencrypt.org/directory")
	limits.NewOrders = Limit{3000, 3 * time.Hour} // granted
	ask := func(i int) Request {
		a := asks(fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012d", i))
		a.Limits = limits
		for n := range 99 {
			a.Identifiers = append(a.Identifiers, acme.DNS(fmt.Sprintf("www.d%d-%d.example", i, n)))
		}
		if i < 49 { // the last one is kept for renewals
			a.Identifiers = append(a.Identifiers, acme.DNS(fmt.Sprintf("w%d.busy.example", i)))
		}
		return a
	}
	const n = 1000
	for i := range n {
		if v := l.Admit(ask(i), start); !v.Allowed {
			t.Fatal(v.Message())
		}
		if i%2 == 0 {
			l.Accepted(ask(i).ID, start)
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
			if v := l.Admit(ask(i), start); i%2 > 0 && !v.Allowed {
				t.Fatalf("%s: one that was let go must wait: %s", when, v.Message())
			}
		}
		a := asks("new", "new.busy.example")
		a.Limits = limits
		if v := l.Admit(a, start); v.Kind != Domain {
			t.Errorf("%s: %+v", when, v)
		}
	}
}
