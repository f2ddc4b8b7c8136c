package lifecycle

import (
	"time"
)

// Settings are those of the controller that concern the life of a Certificate.
type Settings struct {
	// OwnSecrets makes a Certificate without a deletion policy the owner of its Secret, so that both
	// are deleted together.
	OwnSecrets bool
	// MinBackoff and MaxBackoff bound the time between a failed issuance and the next. It doubles with
	// each. Zero means 1 hour and 32 hours.
	MinBackoff, MaxBackoff time.Duration
	// CopiedAnnotations chooses the annotations that a request gets from its Certificate: prefixes,
	// "*" for all, and with a minus sign those that are left out. Nil means the default.
	CopiedAnnotations []string
	// ApprovedByOthers says that requests wait for an approval that is not this controller's.
	ApprovedByOthers bool
}

// Defaults of Settings.
const (
	DefaultMinBackoff = time.Hour
	DefaultMaxBackoff = 32 * time.Hour
)

// DefaultCopiedAnnotations leaves out annotations that tools write on the objects that they manage.
func DefaultCopiedAnnotations() []string {
	return []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"}
}

// settleTime is how long an in-process signer may take before its request is treated as one that
// takes long: the status then says that issuance is under way, and the private key is stored.
const settleTime = 2 * time.Second
