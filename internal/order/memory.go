package order

import (
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/poll"
)

// remembered is what this process remembers of an order.
type remembered struct {
	Memory
	// notes are of the exchanges with the CA.
	notes account.Notes
	// unreplaced is since when the CA does not accept which certificate the order replaces.
	unreplaced memory.Timestamp
	// left is since when the Certificate is known to be gone.
	left memory.Timestamp
}

// Memory is what a decision knows of the passes before. A restart forgets it.
type Memory struct {
	Poll poll.Backoff
	// Finalized is when the CA was asked to finalize. Of an order that began before a restart the
	// state says it, a moment later.
	Finalized memory.Timestamp
	// Reported is since when the status has its present reason.
	Reported memory.Timestamp
	// Due is when the CA is to be asked about an order whose challenges are open.
	Due memory.Timestamp
	// Behind is since when the order waits for a duplicate.
	Behind memory.Timestamp
	// NoSolver is what was last reported to keep a name from having a solver.
	NoSolver string
}
