package lego

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// wholeSets is a service that has no operation for one value: the set is read and, a moment later,
// written.
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
	time.Sleep(20 * time.Millisecond)
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

func TestProvidersWithOtherSettingsDoNotOverwriteARecord(t *testing.T) {
	service, records := &wholeSets{of: map[string][]string{}}, &Records{}
	made := func(name string) *Provider {
		return &Provider{
			kind: &kind{name: name}, backend: service, Records: records, now: time.Now,
			ended: map[string]*call{}, made: map[string]time.Time{}, gone: map[string]time.Time{},
		}
	}
	// Of one service by two of its APIs, with settings of their own.
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
	all(func(p *Provider, r Record) { mustFinish(t, p.Present, r) })
	for name, values := range service.of {
		if len(values) != len(providers) {
			t.Errorf("at %s there is %q", name, values)
		}
	}
	all(func(p *Provider, r Record) { mustFinish(t, p.CleanUp, r) })
	for name, values := range service.of {
		if len(values) != 0 {
			t.Errorf("at %s there is still %q", name, values)
		}
	}
	if service.most < 2 {
		t.Error("other records are waited for, too")
	}
	for _, p := range providers { // a record is free a moment after its call
		done, err := records.Alone(t.Context(), p.kind.name, "_acme-challenge.www.example.com.")
		for ; err != nil; done, err = records.Alone(t.Context(), p.kind.name, "_acme-challenge.www.example.com.") {
			time.Sleep(time.Millisecond)
		}
		done()
	}
}
