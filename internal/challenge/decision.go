package challenge

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

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
