package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

func TestALostLedgerIsMadeOfTheObjectsThatExist(t *testing.T) {
	past := func(id string, ago time.Duration, sent, ended, issued bool, names ...string) OrderRecord {
		p := OrderRecord{Request: asks(id, names...), Sent: sent, Finished: ended, Issued: issued}
		p.Created = start.Add(-ago)
		return p
	}
	at := func(ago time.Duration, p OrderRecord) OrderRecord {
		if p.At = start.Add(-ago); p.Issued {
			p.At = p.At.Add(-backdated)
		}
		return p
	}
	for name, test := range map[string]struct {
		past []OrderRecord
		kind Reason
		in   time.Duration // 0 for none
	}{
		"one that is open, and one that was issued, count": {[]OrderRecord{
			past("open", time.Minute, true, false, false, "a.example.com"), at(time.Hour, past("issued", time.Hour, true, true, true, "b.example.com")),
		}, Domain, 11 * time.Hour},
		"one that failed has spent no certificate, one that was not sent nothing": {[]OrderRecord{
			past("open", time.Minute, true, false, false, "a.example.com"), at(time.Hour, past("failed", time.Hour, true, true, false, "c.example.com")),
			past("not sent", time.Minute, false, false, false, "d.example.com"),
		}, "", 0},
		"those that were issued long ago are forgotten": {[]OrderRecord{
			at(24*time.Hour, past("a", 24*time.Hour, true, true, true, "a.example.com")), at(24*time.Hour, past("b", 24*time.Hour, true, true, true, "b.example.com")),
		}, "", 0},
		"those that had waited long, and were issued just now, count from now on": {[]OrderRecord{
			at(0, past("a", 192*time.Hour, true, true, true, "a.example.com")), at(0, past("b", 192*time.Hour, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
		"what was issued last counts last, whatever was asked for first": {[]OrderRecord{
			at(0, past("a", 192*time.Hour, true, true, true, "a.example.com")), at(12*time.Hour, past("b", 13*time.Hour, true, true, true, "b.example.com")),
			at(time.Hour, past("c", time.Hour, true, true, true, "c.example.com")),
		}, Domain, 12 * time.Hour},
		"where it is not known when one was issued it was now": {[]OrderRecord{
			past("a", 192*time.Hour, true, true, true, "a.example.com"), past("b", 192*time.Hour, true, true, true, "b.example.com"),
		}, Domain, 12 * time.Hour},
		"of one that is open it is not known when it was sent": {[]OrderRecord{
			past("a", 192*time.Hour, true, false, false, "a.example.org"), past("b", 192*time.Hour, true, false, false, "b.example.net"),
			past("c", 192*time.Hour, true, false, false, "c.example.edu"),
		}, NewOrders, 20 * time.Minute},
		"one that has failed was sent before that": {[]OrderRecord{
			at(time.Minute, past("a", 192*time.Hour, true, true, false, "a.example.org")), at(time.Minute, past("b", 192*time.Hour, true, true, false, "b.example.net")),
			at(time.Minute, past("c", 192*time.Hour, true, true, false, "c.example.edu")),
		}, NewOrders, 19 * time.Minute},
		"one that may have been sent counts, too, while others do": {[]OrderRecord{
			at(0, past("a", time.Hour, true, true, false, "a.example.org")), at(0, past("b", time.Hour, true, true, false, "b.example.net")),
			past("c", time.Hour, false, false, false, "c.example.edu"),
		}, NewOrders, 20 * time.Minute},
		"but not where there was no room for it": {[]OrderRecord{
			at(10*time.Minute, past("a", time.Hour, true, true, false, "a.example.org")), at(10*time.Minute, past("b", time.Hour, true, true, false, "b.example.net")),
			at(10*time.Minute, past("c", time.Hour, true, true, false, "c.example.edu")), past("d", time.Hour, false, false, false, "d.example.edu"),
		}, NewOrders, 10 * time.Minute},
		"nor if it was never sent as it failed before": {[]OrderRecord{
			at(0, past("a", time.Hour, true, true, false, "a.example.org")), at(0, past("b", time.Hour, true, true, false, "b.example.net")),
			at(0, past("c", time.Hour, false, true, false, "c.example.edu")),
		}, "", 0},
		"nor if nothing was sent yet": {[]OrderRecord{
			past("a", time.Hour, false, false, false, "a.example.org"), past("b", time.Hour, false, false, false, "b.example.net"),
			past("c", time.Hour, false, false, false, "c.example.edu"),
		}, "", 0},
		"nothing was before it was asked for": {[]OrderRecord{
			at(48*time.Hour, past("a", 0, true, true, true, "a.example.com")), at(48*time.Hour, past("b", 0, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
		"nothing is yet to come": {[]OrderRecord{
			at(-48*time.Hour, past("a", time.Hour, true, true, true, "a.example.com")), at(-48*time.Hour, past("b", time.Hour, true, true, true, "b.example.com")),
		}, Domain, 12 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			v := Restore(test.past, start).Admit(asks("new", "e.example.com"), start)
			if v.Allowed != (test.in == 0) || v.Kind != test.kind || !v.Allowed && v.Until.Sub(start) != test.in {
				t.Errorf("%+v", v)
			}
		})
	}
	l := Restore(
		[]OrderRecord{
			past("open", time.Minute, true, false, false, "a.example.com"),
			past("not sent", time.Minute, false, false, false, "d.example.com"),
		},
		start,
	)
	if v := l.Admit(asks("not sent", "www.example.org"), start); !v.Allowed {
		t.Error(v.Message())
	}
	// The open order ended while no process ran.
	l.Settle(nil, start)
	if len(l.open) > 0 {
		t.Errorf("still open: %v", l.open)
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
	five := func(and ...OrderRecord) (all []OrderRecord) {
		for i := range 5 {
			all = append(all, OrderRecord{
				Request: Request{
					ID:      fmt.Sprint(i),
					Account: "https://ca.example/1",
					Limits:  Limits{},
					Created: now.Add(-23 * time.Hour),
				},
				Sent:     true,
				Finished: true,
				Failed:   names("a.example.com"),
				At:       now.Add(-20 * time.Hour),
			})
		}
		return append(all, and...)
	}
	proven := func(ago time.Duration) OrderRecord {
		return OrderRecord{
			Request: Request{
				ID:          "proven",
				Account:     "https://ca.example/1",
				Identifiers: names("a.example.com"),
				Created:     now.Add(-48 * time.Hour),
			},
			Sent:     true,
			Finished: true,
			Issued:   true,
			At:       now.Add(-ago),
		}
	}
	past := func(failed []acme.Identifier, paused time.Time) []OrderRecord {
		return []OrderRecord{
			{
				Request: Request{
					ID:          "past",
					Account:     "https://ca.example/1",
					Identifiers: failed,
					Limits:      limits,
					Created:     now.Add(-time.Hour),
				},
				Sent:        true,
				Finished:    true,
				Failed:      failed,
				At:          now.Add(-time.Minute),
				Detail:      "no answer",
				PausedUntil: paused,
			},
		}
	}
	for name, test := range map[string]struct {
		past []OrderRecord
		want map[string]Reason // empty: it may go
	}{
		"a name that failed has spent its limit":           {past(names("a.example.com"), time.Time{}), map[string]Reason{"a.example.com": Validations, "b.example.com": ""}},
		"of several each may have been it":                 {past(names("a.example.com", "b.example.com"), time.Time{}), map[string]Reason{"a.example.com": Validations, "b.example.com": Validations}},
		"the only name is paused":                          {past(names("a.example.com"), now.Add(23*time.Hour)), map[string]Reason{"a.example.com": Paused}},
		"also if it was asked for with its wildcard":       {past(names("a.example.com", "*.a.example.com"), now.Add(23*time.Hour)), map[string]Reason{"a.example.com": Paused}},
		"a pause that is over is none":                     {past(names("a.example.com"), now.Add(-time.Second)), map[string]Reason{"a.example.com": Validations}},
		"a name that failed again and again is paused":     {five(), map[string]Reason{"a.example.com": Paused}},
		"not if it was proven afterwards":                  {five(proven(time.Hour)), map[string]Reason{"a.example.com": ""}},
		"but if it was proven before":                      {five(proven(30 * time.Hour)), map[string]Reason{"a.example.com": Paused}},
		"of several names it is not known which is paused": {past(names("a.example.com", "b.example.com"), now.Add(23*time.Hour)), map[string]Reason{"a.example.com": Validations}},
	} {
		t.Run(name, func(t *testing.T) {
			l := Restore(test.past, now)
			for name, want := range test.want {
				v := l.Admit(
					Request{ID: name, Account: "https://ca.example/1", Identifiers: names(name), Limits: limits, Created: now},
					now,
				)
				if v.Allowed != (want == "") || !v.Allowed && v.Kind != want {
					t.Errorf("%s: %+v, want %q", name, v, want)
				}
			}
		})
	}
}
