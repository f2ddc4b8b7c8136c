package order

import (
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/poll"
)

// remembered is what this process remembers of an order.
type remembered struct {
	Memory
	// logged is the last reason for a long wait that is in the log.
	logged string
	// notes are of the exchanges with the CA.
	notes account.Notes
	// unreplaced is since when the CA rejects the replaces field of the order (RFC 9773 section 5).
	unreplaced memory.Timestamp
	// left is since when the Certificate is known to be gone.
	left memory.Timestamp
	// revoked says that the revocation after that is over. Only the finalizer is left.
	revoked bool
}

// Memory is what a decision knows of the passes before. A restart forgets it.
type Memory struct {
	Poll poll.Backoff
	// Finalized is when the CA was asked to finalize. After a restart it is unknown; the state
	// Processing then says that the CA was asked.
	Finalized memory.Timestamp
	// Reported is since when the status has its present reason.
	Reported memory.Timestamp
	// Due is when to ask the CA about an order with open challenges.
	Due memory.Timestamp
	// Behind is since when the order waits for a duplicate.
	Behind memory.Timestamp
	// NoSolver is the last report about a name without a solver.
	NoSolver string
}
