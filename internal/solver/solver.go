// Package solver says what proves control of a name to an ACME server. The packages below it are the kinds of proof, one each.
package solver

import (
	"context"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// A Solver gives the proof of one type of challenge. Every method makes one attempt, within a deadline of its own, and may be called
// again after a crash. Errors are classified by internal/fault.
type Solver interface {
	// Present sets up what the challenge asks for. If it is there, nothing changes.
	Present(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
	// Check looks once whether the ACME server would see it.
	Check(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) (Sight, error)
	// CleanUp takes away what Present has set up, and nothing else. If it is gone, nothing changes.
	CleanUp(ctx context.Context, issuer *signer.Issuer, ch *cmacme.Challenge) error
}

// Sight is what Check saw.
type Sight struct {
	Visible bool
	// Why says what was seen instead, for people. Set if it is not visible.
	Why string
}
