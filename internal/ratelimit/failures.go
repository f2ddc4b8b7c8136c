package ratelimit

import (
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/outside"
)

// failure is what is remembered of a name whose validation failed.
type failure struct {
	// InARow counts the failures since the last success.
	InARow int   `json:"inARow"`
	At     int64 `json:"at"`
	// Authorization is a digest of the URL of the last one that failed, so that each counts once.
	Authorization key    `json:"authorization"`
	Detail        string `json:"why,omitempty"`
}

// paused reports whether a name has failed so often that it is tried once a day only. It may be nil.
func (f *failure) paused() bool { return f != nil && f.InARow >= pauseAfter }

func failureKey(account, name string) key { return keyOf("failure", account, name) }

// ValidationFailed counts a failed validation, and returns the number of failures in a row.
func (l *Ledger) ValidationFailed(
	account string, id acme.Identifier, limit Limit, authorization, detail string, at time.Time,
) int {
	now, name := at.UnixMilli(), base(id)
	k := failureKey(account, name)
	f := l.failures[k]
	if f == nil {
		f = &failure{}
		l.failures[k] = f
	}
	digest := keyOf(authorization)
	if f.InARow > 0 && f.Authorization == digest {
		return f.InARow
	}
	f.InARow++
	f.At, f.Authorization, f.Detail = now, digest, outside.Short(detail, maxFailureDetail)
	if !limit.None() {
		b := limit.key(Validations, account+" "+name)
		l.full[b] = limit.take(l.full[b], now)
	}
	l.changes++
	return f.InARow
}

// Validated records that the CA has validated a name.
func (l *Ledger) Validated(account string, id acme.Identifier, at time.Time) {
	k := failureKey(account, base(id))
	f := l.failures[k]
	if f == nil {
		return
	}
	delete(l.failures, k)
	l.changes++
	if f.paused() {
		l.admitWaiting("", at)
	}
}

// PausedUntil returns those names of an order that are paused, and until when.
func (l *Ledger) PausedUntil(
	account string, ids []acme.Identifier, at time.Time,
) (names []string, until time.Time) {
	for _, id := range ids {
		f := l.failures[failureKey(account, base(id))]
		if !f.paused() {
			continue
		}
		if end := time.UnixMilli(f.At).Add(pauseLength).UTC(); end.After(at) {
			names = append(names, base(id))
			if end.After(until) {
				until = end
			}
		}
	}
	return names, until
}

// endPauses ends the pauses of the names of an order: the controller's own, and those that the CA
// gave as the reason to refuse another order. It reports whether there was one.
func (l *Ledger) endPauses(c *candidate) bool {
	was := l.changes
	for _, k := range c.failures {
		if l.failures[k].paused() {
			delete(l.failures, k)
			l.changes++
		}
	}
	for _, k := range c.refusals.pauses {
		if r := l.refusals[k]; r != nil && r.By != c.ID {
			delete(l.refusals, k)
			l.changes++
		}
	}
	return l.changes > was
}
