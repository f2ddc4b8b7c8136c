package lego

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
)

// Records lets one call at a time change a record set, or a zone. Most services have no operation
// for one value: the set, and of some services the zone, is read and written back, so two calls at
// once lose a value, whatever the settings and credentials of each. The zero value is ready, and
// nil is for a provider that has its records to itself.
type Records struct {
	mu   sync.Mutex
	busy map[string]bool
}

// version is what the names of providers end with that use another API of the same service.
var version = regexp.MustCompile(`v[0-9]+$`)

// What a call changes as a whole, as messages name it.
const (
	RecordSet = "the DNS record"
	Zone      = "the DNS zone"
)

// Alone takes what a service changes as a whole at a name, RecordSet or a zone, until done. The
// error is a limiter.ErrBusy while another call has it.
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
	if r.busy[of.Key] { // by a call that is in no lane
		leave()
		return nil, &solver.Later{After: again, Why: "waiting for another change of " + of.Name}
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
