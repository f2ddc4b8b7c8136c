package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

// week has limits like those of Let's Encrypt.
var week = Limits{
	Domain: Limit{10, 7 * 24 * time.Hour}, Set: Limit{5, 7 * 24 * time.Hour}, Validations: Limit{5, time.Hour},
}

const hour = time.Hour

// sharedRequest is a request of a namespace under the limits of a week.
func sharedRequest(namespace, name string) Request {
	r := asks(namespace+"/"+name, name+".example.com")
	r.Namespace, r.Limits = namespace, week
	return r
}

// acceptStuck has the CA accept orders of another namespace that never end.
func acceptStuck(t *testing.T, l *Ledger, n int, at time.Time) {
	t.Helper()
	for i := range n {
		r := sharedRequest("stuck", fmt.Sprintf("s%d", i))
		if d := l.Admit(r, at); !d.Allowed {
			t.Fatal(d.Message())
		}
		l.Accepted(r.ID, at)
	}
}

// issueOf has n orders of a namespace issued, each for a name of its own unless names are given.
func issueOf(t *testing.T, l *Ledger, namespace string, n int, names ...string) {
	t.Helper()
	for i := range n {
		r := sharedRequest(namespace, fmt.Sprintf("%s%d", namespace, i))
		if len(names) > 0 {
			r.Identifiers = asks("", names...).Identifiers
		}
		issue(t, l, r, start)
	}
}

// failures has n validations of www.example.com fail for a namespace.
func failures(l *Ledger, namespace string, n int, at time.Time) {
	for i := range n {
		l.ValidationFailed(FailedValidation{
			Account: "https://ca.example/acct/1", Namespace: namespace, Identifier: acme.DNS("www.example.com"),
			Limit: week.Validations, Authorization: fmt.Sprint(namespace, i), Detail: "the CA got 404",
		}, at)
	}
}

// admits expects that the order for www.example.com of the namespace shop may be sent, or that it
// waits as the case says.
func (test admitCase) admits(t *testing.T) {
	t.Helper()
	l := NewLedger()
	test.before(t, l)
	r := sharedRequest("shop", "www")
	if test.ask != nil {
		test.ask(&r)
	}
	d := l.Admit(r, start)
	if d.Allowed != (test.in == 0) || d.Kind != test.kind || !d.Allowed && d.Until.Sub(start) != test.in {
		t.Fatalf("%+v", d)
	}
	if !d.Allowed && !strings.Contains(d.Message(), test.says) {
		t.Errorf("it says %q", d.Message())
	}
}

func TestOneNamespaceKeepsNoOtherFromTheLimitsThatTheyShare(t *testing.T) {
	renewal := func(r *Request) { r.Renewal, r.Expires = true, start.Add(20*24*hour) }
	expiring := func(r *Request) { r.Renewal, r.Expires = true, start.Add(3*hour) }
	window := func(r *Request) {
		renewal(r)
		r.Window = acme.Window{Start: start.Add(-hour), End: start.Add(hour)}
	}
	for name, test := range map[string]admitCase{
		"orders that have just begun reserve the limit": {
			before: func(t *testing.T, l *Ledger) { acceptStuck(t, l, 9, start) },
			kind:   Domain, in: 7 * 24 * hour / 10, says: "the limit of 10 certificates",
		},
		"orders that are stuck do not": {
			before: func(t *testing.T, l *Ledger) { acceptStuck(t, l, 9, start.Add(-31*time.Minute)) },
		},
		"nor for days": {
			before: func(t *testing.T, l *Ledger) { acceptStuck(t, l, 9, start.Add(-29*24*hour)) },
		},
		"an order that was not sent for long reserves nothing": {
			before: func(_ *testing.T, l *Ledger) {
				for i := range 9 {
					l.Admit(sharedRequest("stuck", fmt.Sprintf("s%d", i)), start.Add(-31*time.Minute))
				}
			},
		},
		"a stuck order that finalizes reserves the limit again": {
			before: func(t *testing.T, l *Ledger) {
				acceptStuck(t, l, 9, start.Add(-hour))
				l.lapse(start)
				for i := range 9 {
					l.Finalizing(fmt.Sprintf("stuck/s%d", i), start)
				}
			},
			kind: Domain, in: 7 * 24 * hour / 10,
		},
		"stuck orders for the same names do not hold the exact set": {
			before: func(t *testing.T, l *Ledger) {
				for i := range 4 {
					r := sharedRequest("stuck", "www")
					r.ID = fmt.Sprint(i)
					l.Admit(r, start.Add(-31*time.Minute))
					l.Accepted(r.ID, start.Add(-31*time.Minute))
				}
			},
			ask: expiring,
		},
		"a namespace alone may use all but the last certificate": {
			before: func(t *testing.T, l *Ledger) { issueOf(t, l, "shop", 8) },
		},
		"the last is kept": {
			before: func(t *testing.T, l *Ledger) { issueOf(t, l, "shop", 9) },
			kind:   Domain, in: 7 * 24 * hour / 10,
		},
		"for a namespace that holds a valid certificate": {
			before: func(t *testing.T, l *Ledger) { issueOf(t, l, "other", 9) },
			ask:    func(r *Request) { r.Expires = start.Add(hour) },
		},
		"an expired certificate is none": {
			before: func(t *testing.T, l *Ledger) { issueOf(t, l, "other", 9) },
			ask:    func(r *Request) { r.Expires = start.Add(-hour) },
			kind:   Domain, in: 7 * 24 * hour / 10,
		},
		"the last certificate of an exact set is kept for its renewal": {
			before: func(t *testing.T, l *Ledger) { issueOf(t, l, "other", 4, "www.example.com") },
			ask:    renewal,
		},
		"two namespaces have half each": {
			before: func(t *testing.T, l *Ledger) {
				issueOf(t, l, "shop", 5)
				issueOf(t, l, "other", 1)
			},
			kind: Domain, in: 7 * 24 * hour / 10, says: "the namespace has its share, 5, of the limit of 10 certificates",
		},
		"what another waits for is part of its share": {
			before: func(t *testing.T, l *Ledger) {
				issueOf(t, l, "shop", 5)
				r := sharedRequest("other", "o")
				r.Limits.NewOrders = Limit{1, hour}
				first := asks("first", "first.example.net")
				first.Limits = Limits{NewOrders: r.Limits.NewOrders}
				issue(t, l, first, start)
				if d := l.Admit(r, start); d.Allowed {
					t.Fatal("the other does not wait")
				}
			},
			kind: Domain, in: 7 * 24 * hour / 10,
		},
		"a share holds up no renewal of a certificate that is about to expire": {
			before: func(t *testing.T, l *Ledger) {
				issueOf(t, l, "shop", 3, "www.example.com")
				issueOf(t, l, "other", 1, "www.example.com")
			},
			ask: expiring,
		},
		"the last validation that may fail is kept for a renewal": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "other", 4, start) },
			kind:   Validations, in: 12 * time.Minute,
		},
		"which may use it": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "other", 4, start) },
			ask:    renewal,
		},
		"failures of another namespace pause a name": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "other", 5, start.Add(-2*hour)) },
			kind:   Paused, in: 22 * hour,
		},
		"but no renewal in its window": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "other", 5, start) }, ask: window,
		},
		"nor another renewal of a valid certificate": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "other", 5, start.Add(-2*hour)) }, ask: renewal,
		},
		"not even while another order tries the name": {
			before: func(t *testing.T, l *Ledger) {
				failures(l, "other", 5, start.Add(-25*hour))
				if d := l.Admit(sharedRequest("other", "www"), start); !d.Allowed {
					t.Fatal(d.Message())
				}
			},
			ask: window,
		},
		"its own failures do": {
			before: func(_ *testing.T, l *Ledger) { failures(l, "shop", 5, start.Add(-2*hour)) }, ask: window,
			kind: Paused, in: 22 * hour,
		},
		"failures of both count apart": {
			before: func(_ *testing.T, l *Ledger) {
				failures(l, "shop", 4, start.Add(-2*hour))
				failures(l, "other", 4, start.Add(-2*hour))
			},
			ask: renewal,
		},
	} {
		t.Run(name, test.admits)
	}
}

// TestNoOrderIsSentWhileAnOrderWhoseReservationLapsedTakesTheLastToken has an order that was stuck
// finalize while another is being sent for the last certificate.
func TestNoOrderIsSentWhileAnOrderWhoseReservationLapsedTakesTheLastToken(t *testing.T) {
	l := NewLedger()
	request := func(id string) Request {
		r := asks(id, id+".example.com")
		r.Limits = Limits{Domain: Limit{1, 7 * 24 * time.Hour}}
		return r
	}
	if d := l.Admit(request("stuck"), start); !d.Allowed {
		t.Fatal(d.Message())
	}
	l.Accepted("stuck", start)
	now := start.Add(time.Hour)
	if d := l.Admit(request("sent"), now); !d.Allowed {
		t.Fatal(d.Message())
	}
	if l.Finalizing("stuck", now) {
		t.Error("the CA would count this certificate before it gets the order, and refuse that")
	}
	l.Accepted("sent", now.Add(time.Second))
	if !l.Finalizing("stuck", now.Add(time.Second)) {
		t.Error("it waits although the CA has accepted the other order")
	}

	// It does not wait forever.
	l = NewLedger()
	l.Admit(request("stuck"), start)
	l.Accepted("stuck", start)
	l.Admit(request("sent"), now)
	l.Finalizing("stuck", now)
	if !l.Finalizing("stuck", now.Add(finalizeAfter)) {
		t.Error("it waits for longer than finalizeAfter")
	}
}

func TestSharesAreKnownAfterARestart(t *testing.T) {
	var records []OrderRecord
	for i := range 6 {
		r := asks(fmt.Sprint(i), fmt.Sprintf("w%d.example.com", i))
		r.Limits = week
		if i == 5 {
			r.Namespace = "other"
		}
		records = append(records, OrderRecord{Request: r, Sent: true, Finished: true, Issued: true, At: start})
	}
	for name, l := range map[string]*Ledger{
		"of a ledger that was lost": Restore(records, start),
		"of one that was read":      func() *Ledger { l := NewLedger(); l.Settle(records, start); return l }(),
	} {
		r := asks("new", "www.example.com")
		r.Limits = week
		if d := l.Admit(r, start); d.Share != 5 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
