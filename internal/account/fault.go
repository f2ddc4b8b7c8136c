package account

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// defaultLimitWait is the wait after a rate limit for which the CA names no time.
	defaultLimitWait = time.Hour
	// atLeast is the shortest wait after a refusal that names a time. atOnce is the wait if that time
	// has passed already: a CA may name a past time again and again, and must not be asked every
	// second.
	atLeast, pastTimeWait = time.Second, 10 * time.Second
	// atMost is the longest wait: no known limit of a CA takes longer to refill. If the CA, or a proxy
	// in front of it, names a later time, the next request still comes after atMost.
	atMost = 7 * 24 * time.Hour
	// userActionWait is the wait if the CA wants the user to visit a page and names no time. The CA
	// does not report the visit, so it is asked again.
	userActionWait = 10 * time.Minute
)

const (
	// actionDirectory is the action of the exchange that reads the directory.
	actionDirectory = "directory"
	// notADirectory says what to do if there is something else at its URL.
	notADirectory = "correct spec.acme.server, which must be the URL of the CA's directory"
)

// Classify classifies an error of an ACME client. A final refusal of the CA is Refused. A rate
// limit is Limited until the time that the CA names. If the user has to act first, the error is
// Limited, too: the CA does not report that the user has acted, so it is asked again. Errors inside
// the CA and in the network are Transient.
func Classify(reason string, now time.Time, err error) error {
	var classified *fault.Error
	if err == nil || errors.As(err, &classified) {
		return err
	}
	var p *acme.Problem
	if !errors.As(err, &p) {
		if inside := new(egress.BlockedAddressError); errors.As(err, &inside) {
			return fault.Misconfiguredf("InvalidConfig", "spec.acme.server leads to %s: %w: %s", inside.Address, inside,
				egress.BlockedAddressAdvice)
		}
		if protocol := new(acme.ProtocolError); errors.As(err, &protocol) && protocol.Action == actionDirectory {
			err = fmt.Errorf("%w: %s", err, notADirectory)
		}
		return &fault.Error{Class: fault.Transient, Reason: reason, Err: unanswered(err)}
	}
	switch {
	case limited(p),
		p.Status == http.StatusServiceUnavailable && !p.RetryAfter.IsZero():
		until := p.RetryAfter
		if until.IsZero() && ratelimit.CountedByAddress(p.Action) {
			until = now.Add(ratelimit.DefaultRetryAfter)
		} else if until.IsZero() {
			until = now.Add(defaultLimitWait)
		} else if !until.After(now) {
			until = now.Add(pastTimeWait)
		}
		last := now.Add(atMost)
		if p.Status == http.StatusServiceUnavailable {
			reason, last = fault.Busy, now.Add(ratelimit.MaxRetryAfter)
		}
		until = within(until, now, last)
		return fault.Limitedf(reason, until, "%w; it will be asked again at %s", err, until.UTC().Format(time.RFC3339))
	case p.Status >= 500, p.Type == acme.ProblemServerInternal, p.Type == acme.ProblemBadNonce:
		return &fault.Error{Class: fault.Transient, Reason: reason, Err: err}
	case p.Type == acme.ProblemUserActionRequired:
		where := p.Instance
		if where == "" {
			where = p.TermsOfService
		}
		if where == "" {
			where = "the page that the CA has sent to you"
		}
		until := within(p.RetryAfter, now, now.Add(atMost))
		if p.RetryAfter.IsZero() {
			until = now.Add(userActionWait)
		}
		return fault.Limitedf(reason, until, "%w: visit %s; it will be asked again at %s", err, where,
			until.UTC().Format(time.RFC3339))
	}
	err = fmt.Errorf("the CA refuses: %w", err)
	if p.Action == actionDirectory {
		err = fmt.Errorf("%w: %s", err, notADirectory)
	}
	return &fault.Error{Class: fault.Refused, Reason: reason, Err: err}
}

// noAnswer is an exchange to which no reply came. Its text says what was tried, where, and what to
// do.
type noAnswer struct {
	text string
	error
}

func (n noAnswer) Error() string { return n.text }
func (n noAnswer) Unwrap() error { return n.error }

// unanswered explains an error of the network. All others stay as they are.
func unanswered(err error) error {
	var tried *url.Error
	if !errors.As(err, &tried) {
		return err
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var lookup *net.DNSError
	next := "see whether the controller can connect there (firewall, NetworkPolicy, HTTPS_PROXY) and the server is up"
	switch {
	case errors.As(err, &unknown):
		next = "if the server has its certificate from a CA of your own, put that into spec.acme.caBundle"
	case errors.As(err, &name):
		next = "correct spec.acme.server, or the server's certificate"
	case errors.As(err, &invalid):
		next = "correct the server's certificate, or the controller's clock"
	case errors.As(err, &lookup) && lookup.IsNotFound:
		next = "correct spec.acme.server, or the DNS that the controller asks"
	}
	return noAnswer{fmt.Sprintf("the ACME server does not answer: %s %s: %s: %s", tried.Op, tried.URL, tried.Err, next),
		err}
}

// UnreachableReason returns the reason of the condition Unreachable if a classified error means
// that the CA did not answer, or answers no client, or limits us. Another answer of the CA, or an
// error of the Kubernetes API, is none.
func UnreachableReason(err error) (reason string) {
	var api apierrors.APIStatus
	var protocol *acme.ProtocolError
	var p *acme.Problem
	if err == nil || errors.As(err, &api) || errors.As(err, &protocol) {
		return ""
	}
	switch failure := fault.Of(err); {
	case failure.Class == fault.Transient, failure.Class == fault.Limited && failure.Reason == fault.Busy:
		return signer.ReasonUnreachable
	case failure.Class == fault.Limited && (!errors.As(err, &p) || limited(p)):
		return signer.ReasonRateLimited
	}
	return ""
}

// Limited returns the problem if it says that a limit of the request is spent. It may come from the
// CA or from a proxy in front of it. Limited returns nil for a busy server and for a limit by
// address: these stop all requests to the server anyway.
func Limited(err error) *acme.Problem {
	var p *acme.Problem
	if !errors.As(err, &p) || p.Status == http.StatusServiceUnavailable || ratelimit.CountedByAddress(p.Action) ||
		!limited(p) {
		return nil
	}
	return p
}

// limited reports whether a problem, or each of its subproblems, says that a limit is spent.
func limited(p *acme.Problem) bool {
	other := func(sub acme.Problem) bool { return sub.Type != acme.ProblemRateLimited }
	return p.Type == acme.ProblemRateLimited || p.Status == http.StatusTooManyRequests ||
		len(p.Subproblems) > 0 && !slices.ContainsFunc(p.Subproblems, other)
}

// within returns the time that a CA names, but not before atLeast has passed, and not after last.
func within(until, now, last time.Time) time.Time {
	if first := now.Add(atLeast); until.Before(first) {
		return first
	}
	if until.After(last) {
		return last
	}
	return until
}

// doubtful reports whether an error may mean that the CA no longer accepts the account: it refused
// a new order as unauthorized, which it has no other reason for.
func doubtful(err error) bool {
	var p *acme.Problem
	return errors.As(err, &p) && p.Type == acme.ProblemUnauthorized && p.Action == "newOrder"
}

// ExplainNotFound explains an error that means that the CA does not have an order, or an
// authorization, for the account that asks. It is empty for other errors. CAs forget what has
// expired, and never had what was created at another server, which was the issuer's before.
func ExplainNotFound(err error) string {
	var p *acme.Problem
	var foreign *acme.ForeignURLError
	switch {
	case errors.As(err, &foreign) && foreign.Action != "certificate":
		// The URL of a certificate cannot be meant: the CA has just named it.
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
