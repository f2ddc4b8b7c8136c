// Package reissue bounds how often a Certificate is issued before its renewal time, whatever the reason. An issuance
// counts when it starts before the certificate before it is due. Counted issuances are spaced by a time that doubles
// with each in a row.
//
// The rule is a pure function of a History. Store keeps the histories in ConfigMaps in the controller's own namespace,
// where tenants cannot write, by the name of the Certificate, so that they outlive it.
package reissue

import "time"

// Cause is why a certificate is issued before its renewal time.
type Cause string

const (
	// SecretMissing: the Secret was deleted.
	SecretMissing Cause = "SecretMissing"
	// SecretOverwritten: the Secret holds something else than what was issued.
	SecretOverwritten Cause = "SecretOverwritten"
	// SpecChanged: the Certificate asks for something else.
	SpecChanged Cause = "SpecChanged"
	// IssuerChanged: the issuer is another than the one that refused, or than the one that issued.
	IssuerChanged Cause = "IssuerChanged"
	// Triggered: the condition Issuing was set by hand.
	Triggered Cause = "ManuallyTriggered"
	// RequestLost: the request, or its private key, was deleted before the certificate was stored.
	RequestLost Cause = "RequestLost"
	// DueAtOnce: the certificate was due soon after it was issued, by the clock of the CA or of the controller.
	DueAtOnce Cause = "DueAtOnce"
)

// prompt reports whether the cause is acted on at once the first promptly times in an hour: what a user does.
func (c Cause) prompt() bool {
	switch c {
	case SecretMissing, SpecChanged, IssuerChanged, Triggered:
		return true
	}
	return false
}

const (
	// window is the time in which two prompt causes are acted on at once.
	window = time.Hour
	// firstFloor is the least time between a counted issuance and the next. It doubles with each in a row,
	firstFloor = 2 * time.Minute
	// up to this.
	maxFloor = 24 * time.Hour
)

// History is what is known of the counted issuances of a Certificate. The zero value has none.
type History struct {
	// Counted is how many there were in a row.
	Counted int `json:"n"`
	// Last and Before are when the last two started. Before is zero if there was one only.
	Last   time.Time `json:"last"`
	Before time.Time `json:"before,omitzero"`
}

// At is the history as it is to be read now: forgotten after a time without a counted issuance, and with no times in the
// future, which a clock that was ahead has left.
func (h History) At(now time.Time) History {
	if h.Counted <= 0 || now.Sub(h.Last) > max(window, 2*h.floor()) {
		return History{}
	}
	if h.Last.After(now) {
		h.Last = now
	}
	if h.Before.After(now) {
		h.Before = now
	}
	return h
}

// Next returns when the next issuance for the cause may start. It is not after now if that is at once.
func (h History) Next(cause Cause, now time.Time) time.Time {
	h = h.At(now)
	if h.Counted == 0 {
		return now
	}
	next := h.Last.Add(h.floor())
	if cause.prompt() {
		// The zero time, of a history of one, is long past.
		if free := h.Before.Add(window); free.Before(next) {
			return free
		}
	}
	return next
}

// Count returns the history with an issuance that starts now.
func (h History) Count(now time.Time) History {
	h = h.At(now)
	return History{Counted: h.Counted + 1, Last: now, Before: h.Last}
}

// floor is the least time between the last counted issuance and the next.
func (h History) floor() time.Duration {
	floor := firstFloor
	for i := 1; i < h.Counted && floor < maxFloor; i++ {
		floor *= 2
	}
	return min(floor, maxFloor)
}

// Latest is what this process knows of the last issuance of a Certificate, of which nothing is written.
type Latest struct {
	// Started is when its request was made. Zero if this process made none.
	Started time.Time
	// Due is when its certificate is to be renewed. Zero if there is none yet, or it is not renewed by time.
	Due time.Time
	// Rehearsed says that only its rehearsal was started, and that it was counted, if it had to be.
	Rehearsed bool
}

// Record is all that is known of the issuances of a Certificate.
type Record struct {
	History
	Latest
}
