package order

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// Observation is everything that a decision follows from. It holds values only.
type Observation struct {
	Now time.Time
	// Order has the status that was decided so far.
	Order *cmacme.Order
	// Challenges are those of the Order.
	Challenges []cmacme.Challenge
	Memory     Memory
	// Blocked is why nothing can be done: there is no issuer, or no account.
	Blocked error
	// LimitedFor is how long nothing is to be asked, as the CA said.
	LimitedFor time.Duration

	// Done is the action that was just carried out, Wait at first, and Err its error.
	Done Action
	Err  error
	// What the actions of this pass brought:

	// Duplicate is the Order that is to be finalized before, nil if there is none.
	Duplicate *types.NamespacedName
	// CA is the order at the CA, as Send, ReadOrder or Finalize brought it.
	CA acme.Order
	// Authorizations are those of the Order, with what they are about.
	Authorizations []cmacme.ACMEAuthorization
	// Lapse says which authorization is of no use any more, empty if none is, and Expiry is when the
	// first one expires, zero if none does.
	Lapse  string
	Expiry time.Time
	// Made is what MakeChallenges brought, nil before.
	Made *Made
	// Wanted reports whether the certificate is still wanted, and may be asked for now.
	Wanted Wanted
	// FinalizeErr is the error of Finalize.
	FinalizeErr error
	// Finalized says that the CA was asked to finalize in this pass.
	Finalized bool
	Fetched   Fetched
	// CAA says which CAA records keep the CA from issuing, empty if that is not the problem.
	CAA string
	// Paused are names of the Order that are paused since the failure was counted, and until when.
	Paused      []string
	PausedUntil time.Time
}

// Made is what became of the Challenges of an Order.
type Made struct {
	// Open reports whether one is not finished, or is being deleted, and Created whether one was
	// created.
	Open, Created bool
}

// Wanted is whether the certificate of an order is still wanted.
type Wanted struct {
	// Deleted says that the Certificate is gone.
	Deleted bool
	// Later says that the Order was written, which causes the next pass.
	Later bool
}

// Fetched is what the CA issued.
type Fetched struct {
	Certificate []byte
	// OtherKey says that the certificate is for the key of another request.
	OtherKey bool
	// Warnings are events about the certificate.
	Warnings []Event
}

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
