package lego

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perennial-pki/perennial/internal/solver"
)

// wholeSets is a service without an operation for a single value: a call reads the set and, a
// moment later, writes it.
type wholeSets struct {
	mu       sync.Mutex
	of       map[string][]string
	at, most int
}

func (s *wholeSets) change(name string, f func([]string) []string) error {
	s.mu.Lock()
	set := slices.Clone(s.of[name])
	s.at++
	s.most = max(s.most, s.at)
	s.mu.Unlock()
	time.Sleep(time.Second) // of the clock of the test
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at--
	s.of[name] = f(set)
	return nil
}

func (s *wholeSets) present(_ context.Context, r Record) error {
	return s.change(r.FQDN, func(set []string) []string { return append(set, r.Value) })
}

func (s *wholeSets) cleanUp(_ context.Context, r Record) error {
	return s.change(r.FQDN, func(set []string) []string {
		return slices.DeleteFunc(set, func(v string) bool { return v == r.Value })
	})
}

// settle repeats a call as a reconciler does, after the time in the error.
func settle(t *testing.T, do func(context.Context, Record) error, r Record) {
	for {
		err := do(t.Context(), r)
		later := new(solver.RetryLaterError)
		if !errors.As(err, &later) {
			if err != nil {
				t.Error(err)
			}
			return
		}
		time.Sleep(later.After)
	}
}

func TestProvidersWithOtherSettingsDoNotOverwriteARecord(t *testing.T) {
	synctest.Test(t, providersWithOtherSettings)
}

func providersWithOtherSettings(t *testing.T) {
	service, records := &wholeSets{of: map[string][]string{}}, &Records{}
	made := func(name string) *Provider {
		return &Provider{
			kind: &kind{name: name}, backend: service, Records: records, now: time.Now,
			ended: map[string]*call{}, made: map[string]time.Time{}, gone: map[string]time.Time{},
		}
	}
	// All use one service by two API versions, with different settings.
	providers := []*Provider{made("gandi"), made("gandiv5"), made("gandiv5"), made("gandiv5")}
	all := func(do func(p *Provider, r Record)) {
		var group sync.WaitGroup
		for i, p := range providers {
			for _, name := range []string{"www.example.com", "api.example.com"} {
				group.Go(func() { do(p, record(name, string(rune('a'+i)))) })
			}
		}
		group.Wait()
	}
	all(func(p *Provider, r Record) { settle(t, p.Present, r) })
	for name, values := range service.of {
		if len(values) != len(providers) {
			t.Errorf("at %s there is %q", name, values)
		}
	}
	all(func(p *Provider, r Record) { settle(t, p.CleanUp, r) })
	for name, values := range service.of {
		if len(values) != 0 {
			t.Errorf("at %s there is still %q", name, values)
		}
	}
	if service.most < 2 {
		t.Error("other records are waited for, too")
	}
	synctest.Wait() // a record is free a moment after its call
	for _, p := range providers {
		done, err := records.Alone(t.Context(), p.kind.name, RecordSet, "_acme-challenge.www.example.com.")
		if err != nil {
			t.Fatal(err)
		}
		done()
	}
}

// wholeZones is a service without an operation for a single record: a call reads the zone and, a
// moment later, writes it.
type wholeZones struct{ wholeSets }

func (s *wholeZones) present(_ context.Context, r Record) error {
	return s.change(r.Zone, func(zone []string) []string { return append(zone, r.key()) })
}

func (s *wholeZones) cleanUp(_ context.Context, r Record) error {
	return s.change(r.Zone, func(zone []string) []string {
		return slices.DeleteFunc(zone, func(v string) bool { return v == r.key() })
	})
}

// TestProvidersThatReplaceZonesDoSoOneAfterTheOther has instances of one service with settings of
// their own, and records at different names of a zone.
func TestProvidersThatReplaceZonesDoSoOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kind, err := find("namecheap")
		if err != nil {
			t.Fatal(err)
		}
		service, records := &wholeZones{wholeSets{of: map[string][]string{}}}, &Records{}
		var group sync.WaitGroup
		var providers []*Provider
		for range 4 {
			providers = append(providers, &Provider{
				kind: kind, backend: service, Records: records, now: time.Now,
				ended: map[string]*call{}, made: map[string]time.Time{}, gone: map[string]time.Time{},
			})
		}
		zones := []string{"example.com.", "example.org."}
		all := func(do func(p *Provider, r Record)) {
			for i, p := range providers {
				for _, zone := range zones {
					r := record(string(rune('a'+i))+"."+zone[:len(zone)-1], "value")
					r.Zone = zone
					group.Go(func() { do(p, r) })
				}
			}
			group.Wait()
		}
		all(func(p *Provider, r Record) { settle(t, p.Present, r) })
		for _, zone := range zones {
			if n := len(service.of[zone]); n != len(providers) {
				t.Errorf("%s has %d records: %q", zone, n, service.of[zone])
			}
		}
		if service.most < 2 {
			t.Error("other zones are waited for, too")
		}
		all(func(p *Provider, r Record) { settle(t, p.CleanUp, r) })
		for _, zone := range zones {
			if left := service.of[zone]; len(left) != 0 {
				t.Errorf("%s still has %q", zone, left)
			}
		}
	})
}
