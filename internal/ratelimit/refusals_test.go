package ratelimit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

func TestARefusalHoldsForAllOrdersUnderTheLimit(t *testing.T) {
	until := start.Add(time.Hour)
	other := func(change func(*Request)) Request {
		a := asks("other", "www.example.com")
		change(&a)
		return a
	}
	same := other(func(*Request) {})
	account := other(func(a *Request) { a.Identifiers = asks("", "www.unrelated.example").Identifiers })
	domain := other(func(a *Request) {
		a.Account, a.Identifiers = "https://ca.example/acct/2", asks("", "api.example.com").Identifiers
	})
	names := other(func(a *Request) { a.Account = "https://ca.example/acct/2" })
	exempt := other(func(a *Request) { a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(time.Hour)} })
	for detail, waits := range map[string][]Request{
		`too many new orders (300) from this account in the last 3h0m0s, retry after 2026-12-01 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-orders-per-account`:                                   {same, account},
		`too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-12-01 01:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-registered-domain`: {same, domain, names},
		`too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-12-01 01:00:00 UTC`:                                                                        {same, names},
		`too many failed authorizations (5) for "www.example.com" in the last 1h0m0s, retry after 2026-12-01 01:00:00 UTC`:                                                                                            {same},
		`Your account is temporarily prevented from requesting certificates for www.example.com and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc`:                             {same, exempt},
		`not now`: {same, exempt},
	} {
		t.Run(detail[:7]+detail[len(detail)-7:], func(t *testing.T) {
			text := refusedWith(t, detail, until)
			for name, a := range map[string]Request{
				"same": same, "account": account, "domain": domain, "names": names, "exempt": exempt,
			} {
				a.ID = name
				waits := slices.ContainsFunc(waits, func(w Request) bool {
					return a.Account == w.Account && exactSet(a.Identifiers) == exactSet(w.Identifiers) && a.Window == w.Window
				})
				checkRefused(t, text, a, waits, detail, until)
			}
		})
	}
}

// refusedWith returns a ledger in which the CA has refused an order for www.example.com.
func refusedWith(t *testing.T, detail string, until time.Time) []byte {
	t.Helper()
	l := NewLedger()
	a := asks("refused", "www.example.com")
	if v := l.Admit(a, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	v := l.Refused(a, &acme.Problem{Detail: detail, RetryAfter: until}, until, start)
	if !v.Until.Equal(until) || !strings.Contains(v.Message(), detail) ||
		!strings.HasSuffix(v.Message(), help[v.RefusedFor]) {
		t.Errorf("it says %q", v.Message())
	}
	if len(l.open)+len(l.reserved) > 0 {
		t.Error("the order that was refused has spent something")
	}
	text, err := l.Encode(start)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkRefused expects of an order that it waits with the CA's words, or does not wait, and that it
// may be sent when the refusal ends.
func checkRefused(t *testing.T, ledger []byte, a Request, waits bool, detail string, until time.Time) {
	t.Helper()
	l, err := Decode(ledger)
	if err != nil {
		t.Fatal(err)
	}
	v := l.Admit(a, start)
	if v.Allowed == waits {
		t.Errorf("%s: %+v", a.ID, v)
		return
	}
	kind, _ := limitOf(detail)
	if waits && (!strings.Contains(v.Message(), detail) || !strings.HasSuffix(v.Message(), help[kind])) {
		t.Errorf("%s: it says %q", a.ID, v.Message())
	}
	if v := l.Admit(a, until); !v.Allowed {
		t.Errorf("%s: afterwards it still waits: %s", a.ID, v.Message())
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(`too many certificates (50) already issued for "example.com" in the last 168h0m0s`)
	f.Add(`prevented from requesting certificates for a, b and possibly others`)
	f.Fuzz(func(t *testing.T, detail string) {
		l := NewLedger()
		v := l.Refused(asks("1", "a.example.com"), &acme.Problem{Detail: detail}, start.Add(time.Hour), start)
		if v.Until.IsZero() || len(v.Message()) > maxRefusalDetail+1000 {
			t.Errorf("%+v", v)
		}
		text, err := l.Encode(start)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s, %v", text, err)
		}
	})
}

func TestAnOrderThatTheCARefusedThoughItShouldNotCountItIsNotSentAgain(t *testing.T) {
	until := start.Add(time.Hour)
	for name, change := range map[string]func(*Request){
		"a renewal in its window":        func(a *Request) { a.Window = acme.Window{Start: start.Add(-time.Hour), End: start.Add(2 * time.Hour)} },
		"a renewal of the same names":    func(a *Request) { a.Renewal = true },
		"a renewal without known limits": func(a *Request) { a.Renewal, a.Limits = true, Limits{} },
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
				if v := l.Admit(a, start); !v.Allowed {
					t.Fatal(v.Message())
				}
				l.Refused(a, &acme.Problem{Detail: detail}, until, start)
				if v := l.Admit(
					a,
					start.Add(time.Second),
				); v.Allowed || !v.Until.Equal(until) ||
					!strings.Contains(v.Message(), detail) {
					t.Errorf("it is sent again: %+v", v)
				}
				if v := l.Admit(a, until); !v.Allowed {
					t.Errorf("it still waits: %s", v.Message())
				}
			})
		}
	}
	// An ordinary order is refused by a limit from which a renewal in its window is exempt.
	l := NewLedger()
	a := asks("it", "www.example.com")
	l.Refused(
		a,
		&acme.Problem{Detail: `too many certificates (50) already issued for "example.com" in the last 168h0m0s`},
		until,
		start,
	)
	a.Window = acme.Window{Start: start.Add(-time.Hour), End: until}
	if v := l.Admit(a, start); !v.Allowed {
		t.Error(v.Message())
	}
}

func TestWhatWasRefusedOrPausedIsNotForgottenThoughItIsMuch(t *testing.T) {
	const n = 3000
	l := NewLedger()
	limitless := func(id, name string) Request {
		a := asks(id, name)
		a.Limits = Limits{}
		return a
	}
	for i := range n {
		name := fmt.Sprintf("paused%d.example", i)
		for f := range 5 {
			fail(l, "https://ca.example/acct/1", acme.DNS(name), Limit{}, fmt.Sprint(name, f), "no", start)
		}
		l.Refused(
			limitless(fmt.Sprint(i), fmt.Sprintf("refused%d.example", i)),
			&acme.Problem{Detail: "not now: " + strings.Repeat("x", 300)},
			start.Add(time.Hour),
			start,
		)
	}
	for i := range n { // of no consequence
		fail(
			l,
			"https://ca.example/acct/1",
			acme.DNS(fmt.Sprintf("once%d.example", i)),
			Limit{},
			fmt.Sprint(i),
			"no",
			start.Add(time.Minute),
		)
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
			if v := test.ledger.Admit(
				limitless("a"+fmt.Sprint(i), fmt.Sprintf("paused%d.example", i)),
				start,
			); v.Kind == Paused {
				paused++
			}
			if v := test.ledger.Admit(
				limitless("b"+fmt.Sprint(i), fmt.Sprintf("refused%d.example", i)),
				start,
			); v.Kind == Refused {
				refused++
			}
		}
		if paused != n || refused != test.refused {
			t.Errorf("%s %d of %d are paused, %d refused", when, paused, n, refused)
		}
	}
}

func TestWhatAnotherProcessHasWrittenLetsNoOrderGoThatWasRefused(t *testing.T) {
	l := NewLedger()
	a := asks("it", "www.example.com")
	if v := l.Admit(a, start); !v.Allowed {
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
	if v := l.Admit(a, start.Add(time.Minute)); v.Kind != Refused {
		t.Errorf("it is sent again: %+v", v)
	}
}
