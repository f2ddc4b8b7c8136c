package revocation

import (
	"net/http"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/account"
)

func TestWhatTheCASaysThatEndsARevocation(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"no":                           {&acme.Problem{Type: acme.ProblemUnauthorized, Status: http.StatusForbidden}, true},
		"it revokes nothing":           {&acme.UnsupportedError{}, true},
		"it is broken":                 {&acme.Problem{Type: acme.ProblemServerInternal, Status: http.StatusInternalServerError}, false},
		"it does not know the account": {&acme.Problem{Type: acme.ProblemAccountDoesNotExist, Status: http.StatusBadRequest}, false},
		"it has had enough for now":    {&acme.Problem{Type: acme.ProblemRateLimited, Status: http.StatusTooManyRequests}, false},
		"what it says makes no sense":  {&acme.ProtocolError{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&Reconciler{}).IsPermanent(
				t.Context(),
				"ns",
				account.Classify("RevocationError", time.Now(), test.err),
			); got != test.want {
				t.Errorf("final: %v", got)
			}
		})
	}
}
