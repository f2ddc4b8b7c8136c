package challenge

import (
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

// Observation is everything that a decision follows from. It holds values only.
type Observation struct {
	Now time.Time
	// Challenge has the status that was decided so far.
	Challenge *cmacme.Challenge
	Memory    Memory
	// Blocked is why nothing can be done: there is no issuer, solver or account, or the Challenge is
	// not what its Order asks for.
	Blocked error
	// LimitedFor is how long the CA, or the service of the solver, takes no requests.
	LimitedFor time.Duration
	// Capacity is how many proofs can be presented at once at the place of the challenge, zero for any
	// number.
	Capacity int

	// Siblings are the other challenges with values in the same record.
	Siblings []Sibling

	// Done is the action that was just carried out, Wait at first, and Err its error.
	Done Action
	Err  error
	// What the actions of this pass brought:
	Slot          Slot
	Authorization acme.Authorization
	// Sight is what Check saw, nil before.
	Sight *solver.CheckResult
	// Refusal is the error of Accept, if the CA refused to look.
	Refusal error
	// RetryAfter is when the CA wants to be asked what came of Accept, if it says so.
	RetryAfter time.Time
	// Diagnosis explains why the CA refused the proof.
	Diagnosis string
}

// Slot is what the scheduler says of a challenge.
type Slot struct {
	// Free reports whether it may be presented now.
	Free bool
	// Place is where the proof will stand, if there are few slots.
	Place string
	// Ahead are the challenges that get a slot there before.
	Ahead []*cmacme.Challenge
	// Again is when to check again, in case that the scheduler does not call.
	Again time.Duration
}
