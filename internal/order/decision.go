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
	// FindDuplicate looks for an Order that must be finalized before this one is sent.
	FindDuplicate Action = "FindDuplicate"
	// Send asks the CA for the order.
	Send Action = "Send"
	// CheckServer checks, without a request, that the order is at the issuer's server.
	CheckServer Action = "CheckServer"
	// ReadOrder reads the order at the CA.
	ReadOrder Action = "ReadOrder"
	// ReadAuthorizations reads what the authorizations are about.
	ReadAuthorizations Action = "ReadAuthorizations"
	// CheckAuthorizations checks whether an authorization has become useless.
	CheckAuthorizations Action = "CheckAuthorizations"
	// MakeChallenges creates those that are missing.
	MakeChallenges Action = "MakeChallenges"
	// CheckWanted checks whether the certificate is still wanted.
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
	// Events are reported when the status is written: if the write fails, the next pass decides the
	// same.
	Events []Event
}

// Event is an event about an Order.
type Event struct{ Type, Reason, Message string }
