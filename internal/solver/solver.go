// Package solver says what proves control of a name to an ACME server. The packages below it are
// the kinds of proof, one each.
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

// A Solver gives the proof of one type of challenge. Every method makes one attempt, within a
// deadline of its own, and may be called again after a crash. Errors are classified by
// internal/fault, but for that of package lane: whoever makes it wait makes too many others wait.
type Solver interface {
	// Present sets up what the challenge asks for. If it is there, nothing changes. If the challenge
	// says that it is presented, that was lost, and is set up again.
	Present(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
	// Check looks once whether the ACME server would see it.
	Check(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (Sight, error)
	// Look says what each place shows now that the ACME server may have asked, when it has refused a
	// proof. It changes nothing.
	Look(ctx context.Context, ch *cmacme.Challenge) ([]View, error)
	// CleanUp takes away what Present has set up, and nothing else. If it is gone, nothing changes.
	CleanUp(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
}

// TargetOf is who makes wait who looks for the proof of a challenge: the site, or the name servers,
// of its name.
func TargetOf(ch *cmacme.Challenge) limiter.Target {
	if ch.Spec.Type == cmacme.ACMEChallengeTypeDNS01 {
		return NameServers(ch.Namespace, ch.Spec.DNSName)
	}
	return limiter.Target{Name: "the site " + ch.Spec.DNSName, Key: ch.Namespace}
}

// NameServers are those of a name, as far as a namespace waits for them.
func NameServers(namespace, name string) limiter.Target {
	return limiter.Target{Name: "the name servers of " + name, Key: namespace}
}

// Exclusive is a Solver of proofs of which only few can stand at one place. Challenges whose proofs
// stand at the same place take turns there, in all namespaces.
type Exclusive interface {
	Solver
	// Capacity is how many proofs can stand at once where that of the challenge does, or 0 if any
	// number can. It is known without asking a server.
	Capacity(ch *cmacme.Challenge) int
	// Place says where the proof will stand, in the same words for all challenges. It is asked only
	// where Capacity is limited.
	Place(ctx context.Context, ch *cmacme.Challenge) (string, error)
	// PresentAlong is Present, after which the proofs of others at that place, fewer than the
	// Capacity, stand as well.
	PresentAlong(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge, others []*cmacme.Challenge) error
}

// Sight is what Check saw.
type Sight struct {
	Visible bool
	// Why says what was seen instead, for people. Set if it is not visible.
	Why string
	// Lost says that none of those that answered has the proof, so that it may have been taken away by
	// others.
	Lost bool
	// Unseen says why the proof could not be seen from here. Set if it is taken as visible all the
	// same, for the ACME server to judge.
	Unseen string
	// Ask is what somebody has to do before it can be seen. Empty if nobody has to.
	Ask string
}

// Later is returned as an error by who has not failed, and is not done either: something is under
// way that was begun, or that another challenge began.
type Later struct {
	// After is when to come again.
	After time.Duration
	// Why says what is waited for, for people.
	Why string
	// Ask is set if somebody has to do it, and Tell if people should know before it goes on.
	Ask, Tell bool
}

func (l *Later) Error() string { return l.Why }

// A View is what one of the places shows that an ACME server may ask.
type View struct {
	// Where is the address of a site, or a name server. Empty if the site was reached by its name.
	Where string
	// Right says that it shows the proof.
	Right bool
	// Silent says that nothing was heard from there.
	Silent bool
	// Says is what it does instead of showing the proof: the end of a sentence that begins with Where.
	Says string
}

// Reads bounds how often strangers, who ask for challenges that nobody knows, can make us ask the
// API server. The zero value is ready.
type Reads struct {
	mu     sync.Mutex
	second int64
	n      int
}

// Asked are the options of such a read: the Challenges of a namespace, or of all if that is empty,
// for which an ACME server may ask a host.
func Asked(namespace, host string) []client.ListOption {
	return []client.ListOption{client.InNamespace(namespace),
		client.MatchingLabels{cmacme.DomainLabelKey: LabelOf(pki.ComparableDNSName(host))}}
}

// LabelOf is the value of the labels cmacme.DomainLabelKey and cmacme.TokenLabelKey. Several hosts,
// or tokens, may have the same.
func LabelOf(text string) string {
	return strconv.FormatUint(uint64(adler32.Checksum([]byte(text))), 10)
}

// readRate is how many reads there may be in a second.
const readRate = 5

// Allow reports whether one more read may be made now.
func (r *Reads) Allow(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second := now.Unix(); second != r.second {
		r.second, r.n = second, 0
	}
	r.n++
	return r.n <= readRate
}
