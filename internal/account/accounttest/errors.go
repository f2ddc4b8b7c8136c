// Package accounttest has what tests of several packages need to play an ACME server that fails.
package accounttest

import (
	"errors"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
)

// PassingFaults returns an error of each kind that passes by itself or when a setting is corrected,
// so that it must not end an Order or a Challenge. The keys are names of subtests.
func PassingFaults(now time.Time) map[string]error {
	return map[string]error{
		"no answer":               fault.Transientf("", "%w", errors.New("connection refused")),
		"500":                     account.Classify("", now, &acme.Problem{Status: 500}),
		"502 of a proxy":          account.Classify("", now, &acme.Problem{Status: 502}),
		"503":                     account.Classify("", now, &acme.Problem{Status: 503, RetryAfter: now.Add(time.Minute)}),
		"429":                     account.Classify("", now, &acme.Problem{Status: 429, RetryAfter: now.Add(time.Minute)}),
		"a nonce that is refused": account.Classify("", now, &acme.Problem{Type: acme.ProblemBadNonce, Status: 400}),
		"a page to visit": account.Classify(
			"",
			now,
			&acme.Problem{Type: acme.ProblemUserActionRequired, Status: 403},
		),
		"a reply that is cut": account.Classify("", now, &acme.NoReply{Action: "authorization", Err: errors.New("EOF")}),
		"a reply that is no ACME": fault.Transientf(
			"UnreadableReply",
			"%w",
			&acme.ProtocolError{Action: "authorization"},
		),
		"a key that was changed": fault.Transientf(
			"AccountChanged",
			"%w",
			&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403},
		),
		"an account that was lost":  account.ErrRecovered,
		"a CA that knows no more":   fault.Limitedf("ErrVerifyACMEAccount", now.Add(time.Minute), "it knows no account"),
		"no place in the limiter":   &limiter.ErrBusy{After: time.Second},
		"an issuer that is changed": fault.Misconfiguredf("IssuerNotReady", "it was changed"),
	}
}
