package order

import (
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// Action is what a pass does next. After each, it is decided again.
type Action string

// The actions of a pass.
const (
	// Wait ends the pass.
	Wait Action = ""
	// Admit asks whether the limits of the CA allow the order.
	Admit Action = "Admit"
	// FindDuplicate looks for an Order that is to be finalized before.
	FindDuplicate Action = "FindDuplicate"
	// Send asks the CA for the order.
	Send Action = "Send"
	// CheckServer sees whether the order is one of the issuer's server, without asking it.
	CheckServer Action = "CheckServer"
	// ReadOrder reads the order at the CA.
	ReadOrder Action = "ReadOrder"
	// ReadAuthorizations reads what the authorizations are about.
	ReadAuthorizations Action = "ReadAuthorizations"
	// CheckAuthorizations sees whether one is of no use any more.
	CheckAuthorizations Action = "CheckAuthorizations"
	// MakeChallenges creates those that are missing.
	MakeChallenges Action = "MakeChallenges"
	// CheckWanted sees whether the certificate is still wanted.
	CheckWanted Action = "CheckWanted"
	// Finalize asks the CA for the certificate.
	Finalize Action = "Finalize"
	// Fetch reads the certificate.
	Fetch Action = "Fetch"
	// ExplainCAA reads the CAA records that a refusal is about.
	ExplainCAA Action = "ExplainCAA"
	// CountFailures adds the failed validations to what is known of the CA's limits.
	CountFailures Action = "CountFailures"
)

// Decision is what to do about an Order now.
type Decision struct {
	Action Action
	// Status is what the status is to be.
	Status cmacme.OrderStatus
	Memory Memory
	// Again is when to look again if nothing happens before, zero for never. If Err is set it is for
	// the work queue to say.
	Again time.Duration
	Err   error
	// Events are reported when the status is written: a pass that could not write it is followed by
	// one that decides the same.
	Events []Event
}

// Event is an event about an Order.
type Event struct{ Type, Reason, Message string }
