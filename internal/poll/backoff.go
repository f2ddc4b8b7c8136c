// Package poll decides when an ACME server is asked again about an object that it is working on.
package poll

import (
	"time"
)

const (
	// First and longest are the bounds of the delay if the server names no time.
	First   = time.Second
	longest = time.Minute
	// latest bounds the time that a server names.
	latest = time.Hour
	// WorthReporting is the shortest wait that a status mentions: each mention costs a write.
	WorthReporting = time.Minute
)

// Backoff is the state of polling for one object. The zero value asks at once. It is not kept
// across a restart, which costs one request.
type Backoff struct {
	delay time.Duration
	again time.Time
	named bool
}

// Next returns the delay before the next request: until the server's Retry-After if there is one,
// else 1 s, and half as much again each time, up to a minute. A result is thus seen at most half
// as long again after the server needed. A server that wants to be asked at once, again and again,
// is asked after a tenth of that.
func (b *Backoff) Next(now, retryAfter time.Time) time.Duration {
	d := min(max(b.delay*3/2, First), longest)
	wait, least := d, d/10
	if !retryAfter.IsZero() {
		wait = min(max(retryAfter.Sub(now), least), latest)
	}
	*b = Backoff{d, now.Add(wait), !retryAfter.IsZero() && wait > least}
	return wait
}

// Wait returns how long it is until the next request. It is not positive if that may be sent.
func (b *Backoff) Wait(now time.Time) time.Duration { return b.again.Sub(now) }

// NamedWait is Wait if the server named the time, else zero.
func (b *Backoff) NamedWait(now time.Time) time.Duration {
	if b.named {
		return b.again.Sub(now)
	}
	return 0
}

// Slow reports whether the server is asked as rarely as possible, without a result so far.
func (b *Backoff) Slow() bool { return b.delay >= longest }

// Whether a user has corrected what an object needs is checked between these.
const soonestCorrection, latestCorrection = 15 * time.Second, 5 * time.Minute

// RecheckInterval is when to check whether a user has corrected what an object of this age needs:
// users do it soon, or not for long.
func RecheckInterval(age time.Duration) time.Duration {
	return min(max(age/10, soonestCorrection), latestCorrection)
}
