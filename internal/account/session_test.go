package account

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

func TestTheErrorsOfASessionHaveAClass(t *testing.T) {
	start := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	const url = "https://ca.example/order/1"
	page := &acme.Problem{Status: 404, Action: "order"}
	unread := &acme.ProtocolError{Action: "certificate", URL: url, Reason: "no PEM"}
	for name, test := range map[string]struct {
		err   error
		url   string
		since time.Duration // the same error came first so long ago, if it did
		class fault.Class
	}{
		"a refusal":                              {&acme.Problem{Type: acme.ProblemRejectedIdentifier, Status: 400}, created, 0, fault.Refused},
		"no answer":                              {errors.New("connection refused"), url, 0, fault.Transient},
		"a limit":                                {&acme.Problem{Type: acme.ProblemRateLimited, Status: 429}, url, 0, fault.Limited},
		"a page of a proxy":                      {page, url, 0, fault.Transient},
		"the same for an hour":                   {page, url, time.Hour, fault.Refused},
		"a page of a proxy for a new order":      {page, created, 0, fault.Refused},
		"a certificate that cannot be read":      {unread, url, 0, fault.Transient},
		"the same, for an hour":                  {unread, url, time.Hour, fault.Refused},
		"a URL of another server":                {&acme.ForeignURLError{Action: "authorization"}, url, 0, fault.Refused},
		"a certificate at another server's URL":  {&acme.ForeignURLError{Action: "certificate"}, url, 0, fault.Transient},
		"an error that has a class, which stays": {fault.Misconfiguredf("", "no Secret"), url, 0, fault.Misconfigured},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(start)
			s := session(clock, nil)
			if test.since > 0 {
				_ = s.outcome(t.Context(), test.url, start, test.err)
				clock.SetTime(start.Add(test.since))
			}
			if got := fault.Of(s.outcome(t.Context(), test.url, start, test.err)).Class; got != test.class {
				t.Errorf("it is %s, not %s", got, test.class)
			}
		})
	}
}

func TestASessionNotesWhatBecameOfItsExchanges(t *testing.T) {
	start := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	clock := clocktesting.NewFakePassiveClock(start)
	before := metav1.NewTime(start.Add(-time.Hour))
	silent := errors.New("connection refused")

	// An exchange that succeeds before one that fails does not make the outage begin anew.
	since := &before
	s := session(clock, &since)
	_ = s.outcome(t.Context(), "a", start, nil)
	if since != nil {
		t.Error("the server answers, and is unreachable")
	}
	_ = s.outcome(t.Context(), "b", start, silent)
	if since == nil || !since.Equal(&before) {
		t.Errorf("the server does not answer since %v, not since %s", since, before)
	}
	// A cached answer says nothing about the server.
	if _ = s.outcome(t.Context(), cached, start, nil); since == nil {
		t.Error("a server that was not asked answers")
	}

	// A limit counts for existing objects, and for the account that met it.
	limit := &acme.Problem{Type: acme.ProblemRateLimited, Status: 429, RetryAfter: start.Add(time.Minute)}
	if _ = s.outcome(t.Context(), created, start, limit); s.Wait() > 0 {
		t.Errorf("the limit of a new order keeps another from being read for %s", s.Wait())
	}
	if _ = s.outcome(t.Context(), "a", start, limit); s.Wait() != time.Minute {
		t.Errorf("it waits %s", s.Wait())
	}
	if s.Account.URL = "another"; s.Wait() > 0 {
		t.Errorf("another account waits %s", s.Wait())
	}

	// A readable reply ends the retry time for its URL alone.
	page := &acme.Problem{Status: 404, Action: "order"}
	for _, url := range []string{"a", "b"} {
		_ = s.outcome(t.Context(), url, start, page)
	}
	_ = s.outcome(t.Context(), "a", start, nil)
	clock.SetTime(start.Add(RereadFor))
	for url, want := range map[string]fault.Class{"a": fault.Transient, "b": fault.Refused} {
		if got := fault.Of(s.outcome(t.Context(), url, start, page)).Class; got != want {
			t.Errorf("%s is %s, not %s", url, got, want)
		}
	}
}

func session(clock *clocktesting.FakePassiveClock, since **metav1.Time) *Session {
	if since == nil {
		since = new(*metav1.Time)
	}
	return &Session{
		Account: acme.Account{URL: "https://ca.example/acct/1"}, accounts: &Accounts{Clock: clock}, notes: &Notes{},
		since: since, before: *since,
	}
}
