package lego

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
)

// Records lets one call at a time change a record set or a zone. Most services have no operation
// for a single value: lego reads the set, or at some services the zone, and writes it back, so two
// concurrent calls lose a value. That also holds for calls with different settings. The zero value
// is ready. Use nil for a provider that needs no lock.
type Records struct {
	mu   sync.Mutex
	busy map[string]bool
}

// version matches the suffix of providers that use another API version of the same service.
var version = regexp.MustCompile(`v[0-9]+$`)

// The units that a call changes as a whole, as messages name them.
const (
	RecordSet = "the DNS record"
	Zone      = "the DNS zone"
)

// Alone locks a RecordSet or a Zone at a name until done is called. The error is a limiter.ErrBusy
// while another call has the lock.
func (r *Records) Alone(ctx context.Context, service, what, fqdn string) (done func(), err error) {
	if r == nil {
		return func() {}, nil
	}
	of := limiter.Target{
		Name: what + " " + strings.TrimSuffix(fqdn, "."), Key: version.ReplaceAllString(service, "") + " " +
			strings.ToLower(fqdn), Resource: true,
	}
	leave, err := limiter.Detach(ctx, of)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[of.Key] { // by a call outside the limiter
		leave()
		return nil, &solver.RetryLaterError{After: again, Why: "waiting for another change of " + of.Name}
	}
	if r.busy == nil {
		r.busy = map[string]bool{}
	}
	r.busy[of.Key] = true
	return sync.OnceFunc(func() {
		r.mu.Lock()
		delete(r.busy, of.Key)
		r.mu.Unlock()
		leave()
	}), nil
}
