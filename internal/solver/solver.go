// Package solver defines the interface of challenge solvers. The packages below it implement one
// type of challenge each.
package solver

import (
	"context"
	"hash/adler32"
	"strconv"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// A Solver proves control of a name by one type of challenge. Every method makes one attempt,
// within a deadline of its own, and may be called again after a crash. Errors have a class of
// internal/fault, except limiter.ErrBusy: the remote endpoint of the call has no free slot.
type Solver interface {
	// Present creates the proof that the challenge asks for. If the proof exists, nothing changes. If
	// the status of the challenge says that it is presented, the proof was lost and is created again.
	Present(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
	// Check checks once whether the ACME server would see the proof.
	Check(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (CheckResult, error)
	// Look is called when the ACME server has refused a proof. It returns what each place shows now
	// that the server may have asked. It changes nothing.
	Look(ctx context.Context, ch *cmacme.Challenge) ([]EndpointView, error)
	// CleanUp removes what Present has created, and nothing else. If that is gone, nothing changes.
	CleanUp(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
}

// TargetOf returns the remote endpoint that a self-check contacts: the site, or the name servers,
// of the challenge's name.
func TargetOf(ch *cmacme.Challenge) limiter.Target {
	if ch.Spec.Type == cmacme.ACMEChallengeTypeDNS01 {
		return NameServers(ch.Namespace, ch.Spec.DNSName)
	}
	return limiter.Target{Name: "the site " + ch.Spec.DNSName, Key: ch.Namespace}
}

// NameServers returns the target for the name servers of a name. Each namespace has its own target.
func NameServers(namespace, name string) limiter.Target {
	return limiter.Target{Name: "the name servers of " + name, Key: namespace}
}

// CapacityLimited is a Solver that may have a limited number of proofs at one place. Challenges
// with the same place take turns, across all namespaces.
type CapacityLimited interface {
	Solver
	// Capacity returns how many proofs can exist at the challenge's place at the same time, or 0 if
	// there is no limit. It asks no server.
	Capacity(ch *cmacme.Challenge) int
	// Place returns the key of the place where the proof will be. It is called only if Capacity is
	// limited.
	Place(ctx context.Context, ch *cmacme.Challenge) (string, error)
	// PresentAlong does what Present does, and keeps the proofs of others at that place. There are
	// fewer others than Capacity.
	PresentAlong(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge, others []*cmacme.Challenge) error
}

// CheckResult is what Check saw.
type CheckResult struct {
	Visible bool
	// Why says what was seen instead, for users. It is set if the proof is not visible.
	Why string
	// Lost says that no place that answered has the proof, so that another client may have removed it.
	Lost bool
	// Unseen says why the proof could not be seen from here. It is set if the proof counts as visible
	// nevertheless, and the ACME server decides.
	Unseen string
	// Ask says what a user must do before the proof can be seen. It is empty if no user must act.
	Ask string
}

// RetryLaterError is the error of an operation that has neither failed nor finished: a step is
// under way that this or another challenge has started.
type RetryLaterError struct {
	// After is when to call again.
	After time.Duration
	// Why says what the operation waits for, for users.
	Why string
	// Ask says that a user must do what Why says. Tell says that users should see Why before the
	// operation goes on.
	Ask, Tell bool
}

// Error returns Why.
func (l *RetryLaterError) Error() string { return l.Why }

// A View is what one place shows that an ACME server may ask.
type EndpointView struct {
	// Where is the address of a site, or a name server. It is empty if the site was reached by its
	// name.
	Where string
	// Matches says that the place shows the proof.
	Matches bool
	// NoResponse says that there was no response.
	NoResponse bool
	// Shows describes what the place shows instead of the proof: the end of a sentence that begins
	// with Where.
	Shows string
}

// ReadLimiter limits how often requests for unknown challenges, which any client on the Internet
// can send, cause reads from the API server. A read that finds a challenge does not count: when the
// cache lags, the CA asks for many at once. The zero value is ready.
type ReadLimiter struct {
	mu       sync.Mutex
	second   int64
	missed   int // reads of this second that found nothing
	underWay int
	ended    chan struct{} // closed when the next read has ended; nil if no request waits for that
}

// ListOptionsForHost returns the options of such a read: the Challenges for a host, in a namespace
// or, if that is empty, in all.
func ListOptionsForHost(namespace, host string) []client.ListOption {
	return []client.ListOption{client.InNamespace(namespace),
		client.MatchingLabels{cmacme.DomainLabelKey: HashLabelValue(pki.ComparableDNSName(host))}}
}

// HashLabelValue returns the value of the labels cmacme.DomainLabelKey and cmacme.TokenLabelKey.
// Several hosts, or tokens, may have the same value.
func HashLabelValue(text string) string {
	return strconv.FormatUint(uint64(adler32.Checksum([]byte(text))), 10)
}

// readRate is how many reads of a second may find nothing.
const readRate = 5

// Begin waits until one more read may be made, and reports whether that is so. It does not wait for
// the next second. Call end after the read.
func (r *ReadLimiter) Begin(ctx context.Context, now func() time.Time) (end func(found bool), ok bool) {
	for {
		r.mu.Lock()
		if second := now().Unix(); second != r.second {
			r.second, r.missed = second, 0
		}
		if r.missed+r.underWay < readRate {
			r.underWay++
			r.mu.Unlock()
			return r.end, true
		}
		if r.missed >= readRate {
			r.mu.Unlock()
			return nil, false
		}
		if r.ended == nil {
			r.ended = make(chan struct{})
		}
		ended := r.ended
		r.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (r *ReadLimiter) end(found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underWay--
	if !found {
		r.missed++
	}
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
}
