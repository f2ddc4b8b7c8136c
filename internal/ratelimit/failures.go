package ratelimit

import (
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/egress"
)

// failure records the failed validations of a name.
type failure struct {
	// InARow counts the failures since the last success.
	InARow int   `json:"inARow"`
	At     int64 `json:"at"`
	// Authorization is a digest of the URL of the last authorization that failed, so that each counts
	// once.
	Authorization key    `json:"authorization"`
	Detail        string `json:"why,omitempty"`
	// By counts the failures in a row by namespace. The key is a digest of the namespace.
	By map[key]int `json:"by,omitempty"`
}

// paused reports whether a name has failed so often that it is tried only once a day. f may be nil.
func (f *failure) paused() bool { return f != nil && f.InARow >= pauseAfter }

// pausedBy reports whether the failures of a namespace alone pause the name. Failures that were
// stored without a namespace count for every namespace.
func (f *failure) pausedBy(namespace string) bool {
	return f.paused() && (f.By == nil || f.By[keyOf(namespace)] >= pauseAfter)
}

func failureKey(account, name string) key { return keyOf("failure", account, name) }

// FailedValidation is a validation that failed.
type FailedValidation struct {
	// Account is the URL of the ACME account, and Namespace that of the Order.
	Account, Namespace string
	// Identifier is the name that the CA did not validate.
	Identifier acme.Identifier
	// Limit is the limit of failed validations.
	Limit Limit
	// Authorization is the URL of the authorization. Each authorization counts once.
	Authorization string
	// Detail is what the CA said.
	Detail string
}

// ValidationFailed counts a failed validation, and returns the number of failures in a row.
func (l *Ledger) ValidationFailed(v FailedValidation, at time.Time) int {
	now, name := at.UnixMilli(), base(v.Identifier)
	k := failureKey(v.Account, name)
	f := l.failures[k]
	if f == nil {
		f = &failure{}
		l.failures[k] = f
	}
	digest := keyOf(v.Authorization)
	if f.InARow > 0 && f.Authorization == digest {
		return f.InARow
	}
	f.count(v.Namespace)
	f.At, f.Authorization, f.Detail = now, digest, egress.Truncate(v.Detail, maxFailureDetail)
	if !v.Limit.None() {
		b := v.Limit.key(Validations, v.Account+" "+name)
		l.full[b] = v.Limit.take(l.full[b], now)
	}
	l.changes++
	return f.InARow
}

// count counts a failure of a namespace.
func (f *failure) count(namespace string) {
	if f.InARow == 0 {
		f.By = map[key]int{}
	}
	f.InARow++
	if k := keyOf(namespace); f.By != nil && (f.By[k] > 0 || len(f.By) < maxNamespaces) {
		f.By[k]++
	}
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

// PausedUntil returns the names of an order that are paused, and until when.
func (l *Ledger) PausedUntil(r Request, at time.Time) (names []string, until time.Time) {
	c, now := newCandidate(r), at.UnixMilli()
	for i, k := range c.failures {
		w := &wait{Decision{Allowed: true}, now}
		if l.checkPause(w, c, k, c.names[i]); w.decision.Allowed || w.decision.Underway {
			continue
		}
		names = append(names, c.names[i])
		if w.decision.Until.After(until) {
			until = w.decision.Until
		}
	}
	return names, until
}

// endPauses ends the pauses of the names of an order: the controller's own pauses, and pauses that
// the CA gave as the reason to refuse another order. It reports whether there was one.
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
