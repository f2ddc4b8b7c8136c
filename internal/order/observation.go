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
	// LimitedFor is how long the CA takes no requests.
	LimitedFor time.Duration

	// Done is the action that was just carried out, Wait at first, and Err its error.
	Done Action
	Err  error
	// What the actions of this pass brought:

	// Duplicate is the Order that must be finalized before this one is sent, nil if there is none.
	Duplicate *types.NamespacedName
	// CA is the order at the CA, as Send, ReadOrder or Finalize brought it.
	CA acme.Order
	// Authorizations are those of the Order, with what they are about.
	Authorizations []cmacme.ACMEAuthorization
	// Lapse says which authorization has become useless, empty if none has. Expiry is when the first
	// one expires, zero if none does.
	Lapse  string
	Expiry time.Time
	// Made is what MakeChallenges brought, nil before.
	Made *MadeChallenges
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

// MadeChallenges is the outcome of MakeChallenges.
type MadeChallenges struct {
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
