package account

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
)

// ErrRecovered is the error of an exchange that the CA refused because it had forgotten the
// account, which has been registered again meanwhile. The exchange is repeated in RetryRecovered,
// when the cache has the account.
var ErrRecovered = errors.New("the CA had forgotten the account, which was registered again")

// RetryRecovered is when an exchange that ended with ErrRecovered is repeated.
const RetryRecovered = time.Second

// Session speaks with the server of an issuer for its account, in a pass about one object. Each
// method makes one exchange. It holds a slot of the server until Release, another place, or the end
// of the pass; if there is none its error is a limiter.ErrBusy. All other errors have a class.
type Session struct {
	// Account is the account of the issuer.
	Account acme.Account

	accounts *Accounts
	issuer   *signer.Issuer
	client   *acme.Client

	mu    sync.Mutex // exchanges may be made at once
	notes *Notes
	// since points to the time from which the server has not answered; before was its first value.
	since  **metav1.Time
	before *metav1.Time
}

// Notes is what is remembered of the exchanges about an object. The zero value is ready.
type Notes struct {
	// Limit is the time until which no request is sent.
	Limit Limit
	// unread is the time, by URL, from which the reply has been unreadable.
	unread map[string]time.Time
}

// Session begins a session for an issuer. Its exchanges update the notes and unreachableSince, the
// time from which the server has not answered. Either may be nil.
func (a *Accounts) Session(ctx context.Context, issuer *signer.Issuer, notes *Notes,
	unreachableSince **metav1.Time) (*Session, error) {
	c, account, err := a.clientOf(ctx, issuer)
	if err != nil {
		return nil, err
	}
	if notes == nil {
		notes = &Notes{}
	}
	if unreachableSince == nil {
		unreachableSince = new(*metav1.Time)
	}
	return &Session{Account: account, accounts: a, issuer: issuer, client: c, notes: notes, since: unreachableSince,
		before: *unreachableSince}, nil
}

// Wait returns how long the CA takes no requests. It is not positive if there is no wait.
func (s *Session) Wait() time.Duration {
	return s.notes.Limit.Wait(s.Account.URL, s.accounts.Clock.Now())
}

// NoteLimit remembers the time that an error names that is not of an exchange of the session.
func (s *Session) NoteLimit(err error) {
	s.notes.Limit.Note(s.Account.URL, s.accounts.Clock.Now(), err)
}

// NoteReachability updates the time since when the server does not answer with an outcome that is
// not of an exchange of the session. If several exchanges of a pass differ, the last one counts.
func (s *Session) NoteReachability(err error) {
	switch asked, answers := reachable(s.accounts.Clock.Now(), err); {
	case !asked:
	case answers:
		*s.since = nil
	default:
		*s.since = s.before
		NoteReachability(s.since, s.accounts.Clock.Now(), err)
	}
}

// Enter takes a slot of the server for the exchanges.
func (s *Session) Enter(ctx context.Context) error {
	return limiter.Acquire(ctx, caTarget(s.issuer.GetSpec().ACME))
}

// Release gives the slot back.
func (s *Session) Release(ctx context.Context) { limiter.Release(ctx) }

// Directory returns the directory of the server.
func (s *Session) Directory(ctx context.Context) (acme.Directory, error) {
	return exchange(ctx, s, cached, func() (acme.Directory, error) { return s.client.FetchDirectory(ctx) })
}

// Owns returns an error with an *acme.ForeignURLError in its chain if a URL cannot be one of the
// server.
func (s *Session) Owns(ctx context.Context, url string) error {
	_, err := exchange(ctx, s, cached, func() (struct{}, error) { return struct{}{}, s.client.Owns(ctx, url) })
	return err
}

// NewOrder asks for an order.
func (s *Session) NewOrder(ctx context.Context, r acme.OrderRequest) (acme.Order, error) {
	return exchange(ctx, s, created, func() (acme.Order, error) { return s.client.NewOrder(ctx, s.Account, r) })
}

// Order reads an order.
func (s *Session) Order(ctx context.Context, url string) (acme.Order, error) {
	return exchange(ctx, s, url, func() (acme.Order, error) { return s.client.Order(ctx, s.Account, url) })
}

// Finalize asks for the certificate of an order.
func (s *Session) Finalize(ctx context.Context, o acme.Order, csrDER []byte) (acme.Order, error) {
	return exchange(ctx, s, o.Finalize, func() (acme.Order, error) {
		return s.client.Finalize(ctx, s.Account, o, csrDER)
	})
}

// Authorization reads an authorization.
func (s *Session) Authorization(ctx context.Context, url string) (acme.Authorization, error) {
	return exchange(ctx, s, url, func() (acme.Authorization, error) {
		return s.client.Authorization(ctx, s.Account, url)
	})
}

// AcceptChallenge asks the CA to look at the proof of a challenge.
func (s *Session) AcceptChallenge(ctx context.Context, url string) (acme.Challenge, error) {
	return exchange(ctx, s, url, func() (acme.Challenge, error) {
		return s.client.AcceptChallenge(ctx, s.Account, url)
	})
}

// Certificate reads a certificate. Check reports what makes its chain unreadable; it may be nil.
func (s *Session) Certificate(
	ctx context.Context,
	url string,
	check func(chainPEM []byte) error,
) (acme.Certificate, error) {
	return exchange(ctx, s, url, func() (acme.Certificate, error) {
		got, err := s.client.Certificate(ctx, s.Account, url)
		if err == nil && check != nil {
			if e := check(got.ChainPEM); e != nil {
				err = &acme.ProtocolError{Action: "certificate", URL: url, Reason: e.Error()}
			}
		}
		return got, err
	})
}

// RenewalInfo asks when a certificate is to be renewed, unless the server wants to be left alone
// with that. Its error has a class only if the server was not asked.
func (s *Session) RenewalInfo(ctx context.Context, certID string) (acme.RenewalInfo, error) {
	if err := s.Enter(ctx); err != nil {
		return acme.RenewalInfo{}, err
	}
	if err := s.accounts.RateLimits.For(s.issuer.GetSpec().ACME.Server).RenewalInfoAvailable(); err != nil {
		return acme.RenewalInfo{}, err
	}
	return s.client.RenewalInfo(ctx, certID)
}

// Revoke revokes a certificate.
func (s *Session) Revoke(ctx context.Context, der []byte, reason acme.RevocationReason) error {
	_, err := exchange(ctx, s, revoked, func() (struct{}, error) {
		return struct{}{}, s.client.Revoke(ctx, s.Account, der, reason)
	})
	return err
}

// RevokeWithKey revokes a certificate by its own key, for which no account is needed.
func (a *Accounts) RevokeWithKey(ctx context.Context, issuer *signer.Issuer, key crypto.Signer, der []byte,
	reason acme.RevocationReason) error {
	c, err := a.Server(issuer.GetSpec().ACME, issuer.Kind)
	if err != nil {
		return err
	}
	if err := limiter.Acquire(ctx, caTarget(issuer.GetSpec().ACME)); err != nil {
		return err
	}
	return Classify("", a.Clock.Now(), c.RevokeWithKey(ctx, key, der, reason))
}

const (
	// cached stands for what may be known without an exchange: success says nothing of the server.
	cached = "cached"
	// created stands for what has no URL yet, so that it cannot be read again.
	created = "created"
	// revoked stands for a revocation, for which an account that the CA has forgotten is not
	// registered again: it could not revoke what the former one had issued.
	revoked = "revoked"
)

// exchange makes one with a slot of the server, and classes its error. A reply at a
// URL that cannot be read is fetched again for a while.
func exchange[T any](ctx context.Context, s *Session, url string, call func() (T, error)) (T, error) {
	if err := s.Enter(ctx); err != nil {
		return *new(T), err
	}
	asked := s.accounts.Clock.Now()
	got, err := call()
	return got, s.outcome(ctx, url, asked, s.accounts.afterRejection(ctx, s.issuer, s.Account, err))
}

// outcome notes what became of an exchange, and returns its error with a class.
func (s *Session) outcome(ctx context.Context, url string, asked time.Time, err error) error {
	now := s.accounts.Clock.Now()
	s.mu.Lock()
	if err != nil || url != cached {
		s.NoteReachability(err)
	}
	if url != created { // package ratelimit keeps the limits of new orders
		s.notes.Limit.Note(s.Account.URL, now, err)
	}
	if url != cached && url != created && url != revoked && Unreadable(err) {
		err = s.notes.reread(url, now, err)
	} else {
		delete(s.notes.unread, url)
	}
	s.mu.Unlock()
	forgotten := acme.IsProblem(err, acme.ProblemAccountDoesNotExist)
	if url != revoked && (forgotten || doubtful(err)) {
		switch e := s.accounts.Recover(ctx, s.issuer, asked, forgotten); {
		case e == nil && forgotten:
			return ErrRecovered
		case e != nil && (forgotten || fault.Of(e).Class == fault.Misconfigured):
			return Classify("", now, e)
		}
	}
	var foreign *acme.ForeignURLError
	if errors.As(err, &foreign) && (foreign.Action == "authorization" || foreign.Action == "challenge") {
		return &fault.Error{Class: fault.Refused, Err: err}
	}
	return Classify("", now, err)
}

// reread classes a reply that cannot be read: it is fetched again, until that has been tried for
// too long.
func (n *Notes) reread(url string, now time.Time, err error) error {
	since, found := n.unread[url]
	if !found {
		if n.unread == nil {
			n.unread = map[string]time.Time{}
		}
		since, n.unread[url] = now, now
	}
	var wrong *acme.ProtocolError
	switch {
	case now.Sub(since) < RereadFor:
		return fault.Transientf("UnreadableReply", "%w", err)
	case errors.As(err, &wrong) && wrong.Action == "certificate":
		return fault.Refusedf("InvalidCertificate", "the CA sent no certificate that can be read for %s: %w", RereadFor, err)
	}
	return err
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
