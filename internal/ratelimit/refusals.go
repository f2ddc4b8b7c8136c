package ratelimit

import (
	"slices"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/pki"
)

// Sizes of texts that are kept.
const (
	maxFailureDetail = 160
	maxRefusalDetail = 6 << 10
	// maxNamespaces is the number of namespaces for which the failures of one name are counted
	// separately.
	maxNamespaces = 16
)

// refusal is something that the CA has refused.
type refusal struct {
	At    int64 `json:"at"`
	Until int64 `json:"until"`
	// By is the ID of the order that was refused.
	By     string `json:"by,omitempty"`
	Detail string `json:"why,omitempty"`
}

var (
	closedKey   = keyOf(string(Refused), string(Unavailable))
	accountsKey = keyOf(string(Refused), string(Accounts))
)

// refuse remembers a refusal.
func (l *Ledger) refuse(k key, by, detail string, until, at time.Time) {
	l.refusals[k] = &refusal{
		At: at.UnixMilli(), Until: until.UnixMilli(), By: by, Detail: egress.Truncate(detail, maxRefusalDetail),
	}
	l.changes++
}

// refusal returns the record of a refusal, or nil. It corrects a refusal in the future, or one that
// holds longer than longestRefused.
func (l *Ledger) refusal(k key, now int64) *refusal {
	r := l.refusals[k]
	if r == nil {
		return nil
	}
	at := min(r.At, now)
	if until := at + min(r.Until-r.At, longestRefused.Milliseconds()); until != r.Until {
		r.At, r.Until = at, until
		l.changes++
	}
	return r
}

// refusedUntil returns until when the CA refuses something for all, and what the CA said.
func (l *Ledger) refusedUntil(k key, at time.Time) (until time.Time, detail string) {
	if r := l.refusal(k, at.UnixMilli()); r != nil && r.Until > at.UnixMilli() {
		return time.UnixMilli(r.Until).UTC(), r.Detail
	}
	return time.Time{}, ""
}

// Refused learns from the refusal of an order, and returns the decision that follows from it. A
// refusal holds for all orders under the limit that the CA names, or for the same request if the CA
// names none.
func (l *Ledger) Refused(r Request, problem *acme.Problem, until, at time.Time) Decision {
	c := newCandidate(r)
	kind, names := limitOf(problem.Detail)
	d := Decision{
		Kind: Refused, Until: until, RefusedFor: kind, Since: at,
		Detail: egress.Truncate(problem.Detail, maxRefusalDetail),
	}
	if kind == Paused {
		// The owner of the account may end it at any time. Try once a day, as with our own pauses.
		if problem.RetryAfter.IsZero() {
			until = at.Add(pauseLength)
		}
		d.Kind, d.Until = Paused, until
	}
	keys, subject := c.refused(kind, names)
	d.Subject = subject
	// The same request is not sent again, even if the CA should not have counted it.
	if now := at.UnixMilli(); c.exempt(now) {
		keys = append(keys, c.refusals.request)
	} else if l.renewal(c, now) {
		keys = append(keys, c.refusals.renewal)
	}
	for _, k := range keys {
		l.refuse(k, r.ID, problem.Detail, until, at)
	}
	if o := l.open[r.ID]; o != nil && !o.Accepted {
		l.drop(r.ID)
	}
	return d
}

// refused returns the keys that a refusal holds for, and the subject that the limit counts by.
func (c *candidate) refused(kind Reason, names []string) (keys []key, subject string) {
	match := func(known []string, of []key) {
		for _, name := range names {
			name = strings.TrimPrefix(pki.ComparableDNSName(name), "*.")
			if i := slices.Index(known, name); i >= 0 {
				keys, subject = append(keys, of[i]), name
			}
		}
	}
	switch kind {
	case NewOrders:
		return []key{c.refusals.orders}, c.Account
	case ExactSet:
		return []key{c.refusals.set}, ""
	case Domain:
		match(domains(c.Identifiers), c.refusals.domains)
	case Validations:
		match(c.names, c.refusals.names)
	case Paused:
		match(c.names, c.refusals.pauses)
	}
	if len(keys) == 0 {
		keys = []key{c.refusals.request}
	}
	return keys, subject
}

// limitOf returns which limit a refusal is about, and the names in it, by the texts of Let's
// Encrypt. Other CAs run the same software, or have other texts: such refusals have no kind.
func limitOf(detail string) (kind Reason, names []string) {
	text := strings.ToLower(detail)
	quoted := func() []string {
		_, rest, _ := strings.Cut(text, `"`)
		if name, _, found := strings.Cut(rest, `"`); found {
			return []string{name}
		}
		return nil
	}
	switch has := func(s string) bool { return strings.Contains(text, s) }; {
	case has("prevented from requesting certificates"):
		_, rest, _ := strings.Cut(text, "certificates for ")
		list, _, _ := strings.Cut(rest, " and possibly others")
		return Paused, strings.Split(list, ", ")
	case has("exact set of"), has("#new-certificates-per-exact-set"):
		return ExactSet, nil
	case has("too many new orders"), has("#new-orders-per-account"):
		return NewOrders, nil
	case has("too many certificates"), has("#new-certificates-per-registered-domain"):
		return Domain, quoted()
	case has("too many failed authorizations"), has("#authorization-failures-per"):
		return Validations, quoted()
	}
	return "", nil
}
