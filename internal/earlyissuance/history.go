// Package earlyissuance limits how often a Certificate is issued before its renewal time, for any
// reason. An issuance counts when it starts before the certificate before it is due. Counted
// issuances are spaced by a time that doubles with each in a row.
//
// The rule is a pure function of a History. Store keeps the histories in ConfigMaps in the
// controller's own namespace, where tenants cannot write. Their key is the name of the Certificate,
// so that they outlive it.
package earlyissuance

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
	// Triggered: a user set the condition Issuing.
	Triggered Cause = "ManuallyTriggered"
	// Revoked: the certificate was revoked. The condition Issuing says so by this reason.
	Revoked Cause = "Revoked"
	// RequestLost: the request, or its private key, was deleted before the certificate was stored.
	RequestLost Cause = "RequestLost"
	// DueAtOnce: the certificate was due soon after it was issued, by the clock of the CA or of the
	// controller.
	DueAtOnce Cause = "DueAtOnce"
)

// kind is a group of causes. It decides how many issuances of the group start at once; each kind is
// counted separately.
type kind int

const (
	// other causes are acted on at once the first time in a row.
	other kind = iota
	// edited causes are changes of objects by users: acted on at once the first two times in an hour.
	edited
	// triggered causes are manual triggers: acted on at once the first two times in an hour.
	triggered
	// revoked causes are revocations: clients refuse the certificate until it is replaced. They are
	// acted on at once the first four times in an hour.
	revoked
)

func (c Cause) kind() kind {
	switch c {
	case SecretMissing, SpecChanged, IssuerChanged:
		return edited
	case Triggered:
		return triggered
	case Revoked:
		return revoked
	}
	return other
}

// ByUser reports whether the cause is an action of a user: a change of an object, or a trigger.
func (c Cause) ByUser() bool { return c.kind() != other }

// ByHand reports whether a user has asked for the issuance, by the condition Issuing.
func (c Cause) ByHand() bool { return c.kind() == triggered || c.kind() == revoked }

const (
	// window is the time in which two actions of users of a kind, and four revocations, are acted on
	// at once.
	window = time.Hour
	// firstFloor is the shortest time between a counted issuance and the next. It doubles with each in
	// a row,
	firstFloor = 2 * time.Minute
	// up to this.
	maxFloor = 24 * time.Hour
)

// History is what is known of the counted issuances of a Certificate. The zero value has none.
type History struct {
	// Counted is how many there were in a row, of all causes, and Last when the last one started.
	Counted int       `json:"n"`
	Last    time.Time `json:"last"`
	// Edited, Triggered and Revoked are when the last ones of these kinds started, the last one first.
	// Other is when the last of the other causes did. Zero means that there was none in the row.
	Edited    [2]time.Time `json:"edited,omitzero"`
	Triggered [2]time.Time `json:"triggered,omitzero"`
	Revoked   [4]time.Time `json:"revoked,omitzero"`
	Other     time.Time    `json:"other,omitzero"`
}

// times are all the times of the history.
func (h *History) times() []*time.Time {
	all := []*time.Time{&h.Last, &h.Other}
	for _, kind := range [][]time.Time{h.Edited[:], h.Triggered[:], h.Revoked[:]} {
		for i := range kind {
			all = append(all, &kind[i])
		}
	}
	return all
}

// At returns the history as it counts now. It is empty after some time without a counted issuance,
// and times in the future, which a clock that was ahead has left, become now.
func (h History) At(now time.Time) History {
	if h.Counted <= 0 || now.Sub(h.Last) > max(window, 2*h.floor()) {
		return History{}
	}
	for _, t := range h.times() {
		if t.After(now) {
			*t = now
		}
	}
	return h
}

// Next returns when the next issuance for the cause may start. It is not after now if that is at
// once.
func (h History) Next(cause Cause, now time.Time) time.Time {
	h = h.At(now)
	if h.Counted == 0 {
		return now
	}
	next := h.Last.Add(h.floor())
	switch cause.kind() {
	case edited: // the window of a zero time is long past
		return earlier(next, h.Edited[1].Add(window))
	case triggered:
		return earlier(next, h.Triggered[1].Add(window))
	case revoked:
		return earlier(next, h.Revoked[3].Add(window))
	}
	if h.Other.IsZero() {
		return now
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Count returns the history with an issuance for the cause that starts now.
func (h History) Count(cause Cause, now time.Time) History {
	h = h.At(now)
	h.Counted++
	h.Last = now
	switch cause.kind() {
	case edited:
		h.Edited = [2]time.Time{now, h.Edited[0]}
	case triggered:
		h.Triggered = [2]time.Time{now, h.Triggered[0]}
	case revoked:
		h.Revoked = [4]time.Time{now, h.Revoked[0], h.Revoked[1], h.Revoked[2]}
	default:
		h.Other = now
	}
	return h
}

// floor returns the shortest time between the last counted issuance and the next.
func (h History) floor() time.Duration {
	floor := firstFloor
	for i := 1; i < h.Counted && floor < maxFloor; i++ {
		floor *= 2
	}
	return min(floor, maxFloor)
}

// Latest is what this process knows of the last issuance of a Certificate. It is only in memory.
type Latest struct {
	// Started is when its request was made. Zero if this process made none.
	Started time.Time
	// Due is when its certificate is to be renewed. Zero if there is none yet, or it is not renewed by
	// time.
	Due time.Time
	// Rehearsed says that only its rehearsal was started. The issuance is counted already, if it
	// counts.
	Rehearsed bool
}

// Record is all that is known of the issuances of a Certificate.
type Record struct {
	History
	Latest
}
