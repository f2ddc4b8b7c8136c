package challenge

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

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
	// LimitedFor is how long nothing is to be asked, as the CA or the service of the solver said.
	LimitedFor time.Duration
	// Capacity is how many proofs can stand at once where that of the challenge does, zero for any
	// number.
	Capacity int

	// Siblings are the challenges whose values belong in the same record.
	Siblings []Sibling

	// Done is the action that was just carried out, Wait at first, and Err its error.
	Done Action
	Err  error
	// What the actions of this pass brought:
	Slot          Slot
	Authorization acme.Authorization
	// Sight is what Check saw, nil before.
	Sight *solver.Sight
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

// Action is what a pass does next. After each, it is decided again.
type Action string

// The actions of a pass.
const (
	// Wait ends the pass.
	Wait Action = ""
	// Admit asks the scheduler for a slot.
	Admit Action = "Admit"
	// ReadAuthorization reads the authorization at the CA.
	ReadAuthorization Action = "ReadAuthorization"
	// Present sets the proof up.
	Present Action = "Present"
	// Check looks whether the proof can be seen from outside.
	Check Action = "Check"
	// Restore sets a proof up again that was lost.
	Restore Action = "Restore"
	// Accept asks the CA to look at the proof.
	Accept Action = "Accept"
	// Count adds the CA's verdict to what is known of its limits.
	Count Action = "Count"
	// Diagnose finds out why the CA refused the proof.
	Diagnose Action = "Diagnose"
)

// Decision is what to do about a challenge now.
type Decision struct {
	Action Action
	// Status is what the status is to be.
	Status cmacme.ChallengeStatus
	Memory Memory
	// Verdict is the final state that Count counts, and its reason.
	Verdict Verdict
	// Again is when to look again if nothing happens before, zero for never. If Err is set it is for
	// the work queue to say.
	Again time.Duration
	Err   error
	// Slot is what becomes of the slot of a challenge that is not presented.
	Slot SlotUse
	// Wake are siblings that may have waited for this challenge.
	Wake []types.NamespacedName
	// Done are events about what was done with others, and are reported at once: if the status cannot
	// be written, the next pass may find no trace of it. Events are reported when the status is
	// written.
	Done, Events []Event
}

// Verdict is how a challenge ended.
type Verdict struct {
	State  cmacme.State
	Reason string
}

// SlotUse is what becomes of the slot of a challenge at the end of a pass.
type SlotUse int

const (
	// Release gives it to others.
	Release SlotUse = iota
	// Keep holds it, as the proof is being presented.
	Keep
	// Yield gives it to others, which go first from now on: presenting failed.
	Yield
)

// Event is an event about a Challenge.
type Event struct{ Type, Reason, Message string }
