// Package fault gives errors a class, so that callers decide about retries by the class and never
// by the text. The code in which an error arises sets its class.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Class says what an error means for the next attempt.
type Class string

const (
	// Transient errors pass by themselves (a network fault, a 5xx): retry within seconds, with jitter.
	Transient Class = "Transient"
	// Limited means that the other side named the earliest time of the next attempt (429,
	// Retry-After).
	Limited Class = "Limited"
	// Refused means that the other side will not accept the same request later: a long back-off, which
	// a change of the specification or the issuer, or a manual trigger, ends at once.
	Refused Class = "Refused"
	// Misconfigured means that a user must change something; the error says what. It is not retried by
	// time.
	Misconfigured Class = "Misconfigured"
)

// Busy is the reason of a Limited error of a server that serves no client for now. Other limits
// apply to this client only.
const Busy = "Busy"

// Error is an error with a class. Reason is a CamelCase word for conditions and events; it may be
// empty.
type Error struct {
	Class  Class
	Reason string
	// Until is the earliest time of the next attempt if the class is Limited. If it is Misconfigured,
	// Until is when the fault passes by itself, or zero if it does not.
	Until time.Time
	// Missing says of a Misconfigured error that an object is missing which may still be created: a
	// user need not act before MissingGrace has passed.
	Missing bool
	Err     error
}

// MissingGrace is for how long a missing object counts as one that may still be created.
const MissingGrace = time.Minute

// Stalled returns the time from which only a user can end a fault that began at since. It is zero
// if the fault may end by itself.
func (e *Error) Stalled(since time.Time) time.Time {
	switch {
	case e.Class == Transient && RefusedByAPI(e.Err):
		return since
	case e.Class != Misconfigured && e.Class != Refused, !e.Until.IsZero():
		return time.Time{}
	case e.Missing:
		return since.Add(MissingGrace)
	}
	return since
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Wait returns the time until the next attempt of a Limited error. It is never zero, because a
// RequeueAfter of zero means never.
func (e *Error) Wait(now time.Time) time.Duration { return max(e.Until.Sub(now), time.Millisecond) }

// Transientf makes a Transient error.
func Transientf(reason, format string, args ...any) error {
	return &Error{Class: Transient, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Limitedf makes a Limited error that may be tried again at until.
func Limitedf(reason string, until time.Time, format string, args ...any) error {
	return &Error{Class: Limited, Reason: reason, Until: until, Err: fmt.Errorf(format, args...)}
}

// Refusedf makes a Refused error.
func Refusedf(reason, format string, args ...any) error {
	return &Error{Class: Refused, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Misconfiguredf makes a Misconfigured error. The text says what to change.
func Misconfiguredf(reason, format string, args ...any) error {
	return &Error{Class: Misconfigured, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// Missingf makes a Misconfigured error about an object that is missing.
func Missingf(reason, format string, args ...any) error {
	return &Error{Class: Misconfigured, Reason: reason, Missing: true, Err: fmt.Errorf(format, args...)}
}

// Of returns the classified error in err's chain. An error without a class is Transient:
// retrying an unknown fault is harmless, giving up on it is not.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: Transient, Err: err}
}

// Annotate adds a text to the end of an error, which keeps its class.
func Annotate(err error, text string) error {
	is := *Of(err)
	is.Err = fmt.Errorf("%w%s", err, text)
	return &is
}
