package account

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

// Gone explains an error that means that the CA does not have an order, or an authorization, for
// the account that asks. It is empty for other errors. CAs forget what has expired, and never had
// what was created at another server, which was the issuer's before.
func Gone(err error) string {
	var p *acme.Problem
	var foreign *acme.ForeignURLError
	switch {
	case errors.As(err, &foreign) && foreign.Action != "certificate": // which the CA has named just now
		return "the issuer has another server by now: " + foreign.Reason
	case fault.Of(err).Class != fault.Refused, !errors.As(err, &p), p.Action != "order" && p.Action != "authorization":
		return ""
	case p.Type == acme.ProblemUnauthorized:
		return fmt.Sprintf("the %s was made by another account, or has expired: %s", p.Action, p)
	case p.Type == acme.ProblemMalformed, p.Status == http.StatusNotFound:
		return fmt.Sprintf("the CA no longer knows the %s: %s", p.Action, p)
	}
	return ""
}

// RereadFor is for how long a reply that cannot be read is fetched again. What has become of an
// order stays at its URLs.
const RereadFor = time.Hour

// Unreadable reports whether a reply is none that an ACME server gives: a proxy may have given it,
// or it was truncated.
func Unreadable(err error) bool {
	var wrong *acme.ProtocolError
	var p *acme.Problem
	return errors.As(err, &wrong) ||
		errors.As(err, &p) && p.Type == "" && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests
}
