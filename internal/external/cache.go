package external

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

const (
	// Interval is the shortest time between two reads of an issuer. Many requests may have failed at
	// one issuer.
	Interval  = time.Minute
	lookLimit = 10 * time.Second
	maxStates = 4096
)

// StateCache caches the states of external issuers. Only those are read that a failed request
// refers to, or that are about to get a request.
type StateCache struct {
	// Live reads from the API server: a cache would watch all issuers of a kind.
	Live   client.Reader
	Mapper meta.RESTMapper
	Clock  clock.PassiveClock

	mu    sync.Mutex
	known map[cmmeta.IssuerReference]map[string]seen // by namespace
	size  int
}

type seen struct {
	state State
	at    time.Time
}

// State returns the state of the issuer that ref names in an object of the namespace. It may be up
// to Interval old.
func (s *StateCache) State(ctx context.Context, namespace string, ref cmmeta.IssuerReference) (State, error) {
	now := s.Clock.Now()
	s.mu.Lock()
	last, ok := s.known[ref][namespace]
	s.mu.Unlock()
	if ok && now.Sub(last.at) < Interval {
		return last.state, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	state, err := Look(ctx, s.Live, s.Mapper, namespace, ref)
	if err != nil {
		return State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || s.size >= maxStates {
		s.known, s.size = map[cmmeta.IssuerReference]map[string]seen{}, 0
	}
	if s.known[ref] == nil {
		s.known[ref] = map[string]seen{}
	}
	if _, ok := s.known[ref][namespace]; !ok {
		s.size++
	}
	s.known[ref][namespace] = seen{state, now}
	return state, nil
}
