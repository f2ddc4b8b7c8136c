package challenge

import (
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/poll"
)

// remembered is what this process remembers of a challenge.
type remembered struct {
	Memory
	// written is what the last write of this process returned, until the cache has it.
	written *cmacme.Challenge
	// logged is the last reason for a long wait that is in the log.
	logged string
	// notes are of the exchanges with the CA, and of the service of the solver.
	notes account.Notes
	// cleaning is since when this process tries to remove what was presented.
	cleaning memory.Timestamp
}

// Memory is what a decision knows of the passes before. A restart forgets it.
type Memory struct {
	Poll poll.Backoff
	// Presenting is since when presenting is in progress, or waits for the limiter.
	Presenting memory.Timestamp
	// Seen is since when the proof can be seen.
	Seen memory.Timestamp
	// Restored is when a lost proof was last presented again, and Restoring since when it is being.
	Restored, Restoring memory.Timestamp
	// Reported has the events that are not repeated, although another pass may find cause to.
	Reported Reported
	// Asked is what the user was last asked to do, and Delayed what was last reported to delay the
	// presentation.
	Asked, Delayed string
}

// Reported are the events of a challenge that are reported once.
type Reported struct{ Started, Presented, SelfCheckSkipped bool }
