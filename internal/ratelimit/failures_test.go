package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

func TestAPauseOfTheCAEndsByHandOnce(t *testing.T) {
	const detail = "Your account is temporarily prevented from requesting certificates for www.example.com, " +
		"example.com and possibly others. Please visit: https://portal.letsencrypt.org/x"
	l := NewLedger()
	a := asks("1", "www.example.com")
	if v := l.Refused(
		a,
		&acme.Problem{Detail: detail},
		start.Add(time.Hour),
		start,
	); v.Until.Sub(start) != 24*time.Hour ||
		v.Kind != Paused {
		t.Fatalf("%+v", v)
	}
	b := asks("2", "www.example.com")
	b.Manual = true
	if v := l.Admit(b, start); !v.Allowed {
		t.Fatal(v.Message())
	}
	l.Refused(b, &acme.Problem{Detail: detail}, start.Add(time.Hour), start)
	if v := l.Admit(b, start); v.Allowed || v.Kind != Paused {
		t.Errorf("the same order asks again and again: %+v", v)
	}
}

func TestTheEndOfAPauseWakesWaitingOrders(t *testing.T) {
	for name, end := range map[string]func(*Ledger){
		"by hand": func(l *Ledger) {
			a := asks("by hand", "www.example.com")
			a.Manual, a.Limits = true, Limits{}
			if v := l.Admit(a, start); !v.Allowed {
				t.Error(v.Message())
			}
		},
		"as it was proven": func(l *Ledger) { l.Validated("https://ca.example/acct/1", acme.DNS("www.example.com"), start) },
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			for i := range 5 {
				fail(l, "https://ca.example/acct/1", acme.DNS("www.example.com"), Limit{}, fmt.Sprint(i), "no", start)
			}
			a := asks("waits", "www.example.com", "example.com")
			a.Limits = Limits{}
			if v := l.Admit(a, start); v.Kind != Paused {
				t.Fatalf("%+v", v)
			}
			end(l)
			if woken := l.Admitted(); len(woken) != 1 || woken[0].Name != "waits" {
				t.Errorf("woken: %+v", woken)
			}
		})
	}
}

func TestAManualTriggerEndsEarlierPausesOnly(t *testing.T) {
	l := NewLedger()
	for i := range 3 {
		issue(t, l, asks(fmt.Sprint(i), fmt.Sprintf("www.d%d.example", i)), start)
	}
	fail := func(row string) {
		for i := range 5 {
			fail(l, "https://ca.example/acct/1", acme.DNS("www.example.com"), Limit{}, row+fmt.Sprint(i), "no", start)
		}
	}
	fail("before")
	a := asks("by hand", "www.example.com")
	a.Manual = true
	if v := l.Admit(a, start); v.Kind != NewOrders {
		t.Fatalf("%+v", v)
	}
	fail("meanwhile")
	for _, in := range []time.Duration{time.Minute, 20 * time.Minute} {
		if v := l.Admit(a, start.Add(in)); v.Kind != Paused {
			t.Errorf("after %s: %+v", in, v)
		}
	}
}
