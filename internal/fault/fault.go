// Package fault gives every error that leaves our process a class, so that whoever retries decides
// by the class and never by the text. The class is made where the error arises.
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
	// Refused is the other side's final no: a long back-off, ended at once by a change of the
	// specification or the issuer, or by hand.
	Refused Class = "Refused"
	// Misconfigured waits for somebody to change something, and says what. It is not retried by time.
	Misconfigured Class = "Misconfigured"
)

// Busy is the reason of a Limited error of a server that answers nobody for now. Other limits are
// an answer to who asked.
const Busy = "Busy"

// Error is an error with a class. Reason is a CamelCase word for conditions and events; it may be
// empty.
type Error struct {
	Class  Class
	Reason string
	// Until is the earliest time of the next attempt of Limited. Of Misconfigured it is when the fault
	// passes by itself, zero if it does not.
	Until time.Time
	// Missing says, of Misconfigured, that an object is missing which may be on its way: until
	// MissingGrace has passed a person is not needed.
	Missing bool
	Err     error
}

// MissingGrace is how long an object that is missing counts as one that is on its way.
const MissingGrace = time.Minute

// Stalled returns from when on only a person can end the fault, which has lasted since then: zero
// if it may end by itself.
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

// Wait is how long it is until the next attempt of a Limited error. It is never zero, which would
// mean never: the time may have come meanwhile.
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
