package lego

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/solver"
)

func TestErrorsHaveAClassAndContainNoSecret(t *testing.T) {
	const key = "s3cret/key+with=signs"
	answer, after := http.StatusUnauthorized, ""
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(answer)
		fmt.Fprintf(w, "%s is not good, nor is %s: %s", key, url.QueryEscape(key), r.URL)
	})
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for code, class := range map[int]fault.Class{401: fault.Misconfigured, 403: fault.Misconfigured,
		404: fault.Misconfigured, 429: fault.Limited, 500: fault.Transient, 503: fault.Limited} {
		answer, after = code, "90"
		if code == 503 { // the other form
			after = now.Add(90 * time.Second).Format(http.TimeFormat)
		}
		// dode has its token in the URL.
		for name, secret := range map[string]map[string]string{"pdns": {"apiKey": key,
			"host": "http://dns.example.com"}, "dode": {"token": key}} {
			p := standIn(t, name, secret, service)()
			p.now = func() time.Time { return now }
			err := finish(t, p.Present, record("www.example.com", "token"))
			f := fault.Of(err)
			if err == nil || f.Class != class || class == fault.Limited && !f.Until.Equal(now.Add(90*time.Second)) {
				t.Errorf("%s, status %d: %+v", name, code, f)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || len(err.Error()) > 2*maxText) {
				t.Errorf("%s tells %v", name, err)
			}
		}
	}
	p := standIn(t, "dode", map[string]string{"token": key}, service)()
	p.backend.(*adapter).make = func() (challenge.Provider, error) {
		v, _ := p.kind.read(nil, map[string][]byte{"token": []byte(key)})
		return p.kind.make(v, &http.Client{Transport: through(unreachable{})})
	}
	if err := finish(
		t,
		p.Present,
		record("www.example.com", "token"),
	); fault.Of(err).Class != fault.Transient ||
		strings.Contains(err.Error(), "s3cret") {
		t.Errorf("it says %v", err)
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

// slow is a backend that waits for the test.
type slow struct{ begin, end chan struct{} }

func (s slow) present(context.Context, Record) error {
	s.begin <- struct{}{}
	<-s.end
	return nil
}

func (s slow) cleanUp(context.Context, Record) error { panic("an unexpected answer") }

func TestASlowProviderBlocksNoCaller(t *testing.T) {
	s := slow{make(chan struct{}, 1), make(chan struct{})}
	p := &Provider{
		kind:    &kind{name: "slow"},
		backend: s,
		now:     time.Now,
		ended:   map[string]*call{},
		made:    map[string]time.Time{},
		gone:    map[string]time.Time{},
	}
	one, other := record("www.example.com", "one"), record("www.example.com", "other")
	var later *solver.RetryLaterError
	if err := p.Present(t.Context(), one); !errors.As(err, &later) || !strings.Contains(later.Why, "at work") {
		t.Fatalf("it says %v", err)
	}
	<-s.begin
	if err := p.Present(t.Context(), other); !errors.As(err, &later) || !strings.Contains(later.Why, "other changes") {
		t.Fatalf("the other gets %v", err)
	}
	close(s.end)
	mustFinish(t, p.Present, one)
	mustFinish(t, p.Present, other)
	if err := finish(
		t,
		p.CleanUp,
		one,
	); fault.Of(err).Class != fault.Transient ||
		!strings.Contains(err.Error(), "lego gave up") {
		t.Errorf("a panic becomes %v", err)
	}
	if len(s.begin) != 1 {
		t.Error("the second Present of one record made it again, or that of the other did not")
	}
}

// pile is a service in which a record exists as often as it is made.
type pile struct{ made int }

func (p *pile) present(context.Context, Record) error {
	p.made++
	return nil
}

func (p *pile) cleanUp(context.Context, Record) error {
	if p.made == 0 {
		return errors.New("there is no such record")
	}
	p.made--
	return nil
}

func TestARecordThatIsSeenNowhereIsMadeAgainOnce(t *testing.T) {
	service := &pile{}
	p := &Provider{
		kind:    &kind{name: "pile"},
		backend: service,
		now:     time.Now,
		ended:   map[string]*call{},
		made:    map[string]time.Time{},
		gone:    map[string]time.Time{},
	}
	r := record("www.example.com", "one")
	mustFinish(t, p.Present, r)
	mustFinish(t, p.Restore, r)
	if service.made != 1 {
		t.Errorf("one that was only late is there %d times", service.made)
	}
	service.made = 0
	mustFinish(t, p.Restore, r)
	if service.made != 1 {
		t.Errorf("one that was lost is there %d times", service.made)
	}
	mustFinish(t, p.CleanUp, r)
	if service.made != 0 {
		t.Errorf("it is there %d times in the end", service.made)
	}
}

func TestWhereOnlyOneValueCanBe(t *testing.T) {
	for what, test := range map[string]struct {
		name, fqdn, place string
		exclusive         bool
	}{
		"a service that has values beside each other": {"pdns", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
		"one at each name":                            {"hurricane", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", true},
		"one for all names of an account":             {"duckdns", "_acme-challenge.b.a.duckdns.org.", "a.duckdns.org.", true},
		"one for all names, at the shortest":          {"duckdns", "_acme-challenge.a.duckdns.org.", "a.duckdns.org.", true},
		"a person":                                    {"manual", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
		"unknown":                                     {"unknown", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
	} {
		if got := Place(test.name, test.fqdn); got != test.place || Exclusive(test.name) != test.exclusive {
			t.Errorf("%s: %s, exclusive: %v", what, got, Exclusive(test.name))
		}
	}
}
