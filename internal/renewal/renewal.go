// Package renewal computes when a certificate is to be renewed, from its life, the spec of its
// Certificate, the suggestion of the CA (RFC 9773), the windows of the spec and the replacement of
// its CA. It is pure, and the result is the same at each call, so that it need not be stored.
package renewal

import (
	"crypto/x509"
	"hash/fnv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// Inputs are what the renewal time of a certificate follows from.
type Inputs struct {
	// Leaf is the certificate. Its NotAfter is when clients begin to refuse it: that is earlier than
	// its own if a certificate above it expires first.
	Leaf *x509.Certificate
	// Spec is that of its Certificate.
	Spec *cmapi.CertificateSpec
	// UID is that of its Certificate. With the serial number, it spreads the renewals.
	UID types.UID
	// Requested is when the certificate was requested by our clock, zero if that is not known.
	Requested time.Time
	// CA is the CA of an issuer of type ca, nil for other types.
	CA *cmapi.CAIssuerStatus
	// SignedByCA says whether CA signed the certificate.
	SignedByCA bool
	// CARenewal is when CA itself is renewed, zero if that is not known.
	CARenewal time.Time
	// Suggested is when the CA wants the certificate to be renewed, nil if it does not say.
	Suggested *cmapi.CertificateACMEARIStatus
}

// Schedule is when a certificate is to be renewed.
type Schedule struct {
	// At is zero if it is never renewed by time: renewal is disabled, or the certificate ends with its
	// CA, so that a new one would not live longer. It has whole seconds, as the status has.
	At time.Time
	// Capped says that the certificate ends with its CA, earlier than was asked for.
	Capped bool
	// WithCA is when it is renewed because its CA is, if it ends with that: an estimate, which nothing
	// waits for.
	WithCA time.Time
	// WindowErr says why no renewal window fits. At is then the time without windows.
	WindowErr error
	// Overruled says that renewBefore or its percentage is not followed, as the CA suggests when to
	// renew, and they ask for more than half of the life.
	Overruled bool
	// Held says that the renewal is delayed, as the CA wanted the certificates before to be renewed at
	// once, too.
	Held bool
	// BeforeCapped says that the spec asks for renewal so early, or not before the end of its life,
	// that it is not followed, see ExplainBefore.
	BeforeCapped bool
	// Backdated says that the certificate was near its end by our clock when it was issued. An earlier
	// renewal would not help.
	Backdated bool
}

const (
	// Renewals of certificates that were issued at the same time are spread over 1/jitterFraction of
	// their life, at most over maxJitter.
	jitterFraction = 50
	maxJitter      = 12 * time.Hour
	// The leaves of a replaced CA are issued anew over 1/rotationFraction of their life, at most over
	// maxRotation.
	rotationFraction = 10
	maxRotation      = 6 * time.Hour
	// A certificate is renewed outside of its windows when less than 1/backstopFraction of its life is
	// left.
	backstopFraction = 12
	// A certificate is not renewed before 1/soonestFraction of its life has passed, even if the spec
	// asks for that.
	soonestFraction = 10
	// A certificate is renewed when 1/suggestedFraction of its life is left, even if the CA suggests a
	// later time.
	suggestedFraction = 5
	// If the CA wanted the certificate before to be renewed at once, this one is not renewed at once
	// again: a CA with a wrong clock would be asked for certificates without end. It is held for
	// FirstHold; the time doubles with each in a row.
	FirstHold = time.Hour
	// MaxHold is the longest hold. A certificate that was issued in one of its windows is not renewed
	// in the same window: it stays in use for at least MaxHold, or 1/holdFraction of its life if that
	// is less.
	MaxHold = 24 * time.Hour
	// No hold is longer than 1/holdFraction of the life. A certificate that is due when it is issued
	// stays in use for at least FirstHold, or that part.
	holdFraction = 8
)

// Plan computes the schedule of a certificate.
func Plan(in Inputs) Schedule {
	life := in.Leaf.NotAfter.Sub(in.Leaf.NotBefore)
	if life <= 0 {
		return Schedule{At: in.Leaf.NotBefore}
	}
	var s Schedule
	l := lifetime{
		cert: in.Leaf, spec: in.Spec, uid: string(in.UID), requested: in.Requested, life: life,
		stable: Fraction(string(in.UID), in.Leaf.SerialNumber.String()),
	}
	var replaced time.Time // when to renew because the CA was replaced
	switch {
	case in.CA == nil:
	case in.SignedByCA:
		s.Capped = !in.Leaf.NotAfter.Before(in.CA.NotAfter.Time.Truncate(time.Second)) &&
			signer.Capped(in.Spec.DurationOrDefault(), life)
	default:
		replaced = in.CA.Since.Add(l.afterCA())
	}
	if in.Spec.Renewal != nil && in.Spec.Renewal.Policy == cmapi.CertificateRenewalPolicyDisabled {
		return s
	}
	if !s.Capped {
		l.plan(&s, in.Suggested)
	} else if !in.CARenewal.IsZero() {
		s.WithCA = in.CARenewal.Add(l.afterCA()).Truncate(time.Second)
		if in.Leaf.NotAfter.Before(s.WithCA) {
			s.WithCA = in.Leaf.NotAfter
		}
	}
	if !replaced.IsZero() && (s.At.IsZero() || replaced.Before(s.At)) {
		s.At = replaced
	}
	s.At = s.At.Truncate(time.Second)
	return s
}

// lifetime is what the renewal time of a certificate follows from.
type lifetime struct {
	cert      *x509.Certificate
	spec      *cmapi.CertificateSpec
	uid       string
	requested time.Time
	life      time.Duration
	stable    float64 // spreads the renewals of different certificates
}

// plan computes when to renew, from the spec, the suggestion of the CA and the windows for
// renewals.
func (l lifetime) plan(s *Schedule, suggested *cmapi.CertificateACMEARIStatus) {
	soonest := l.cert.NotBefore.Add(l.life / soonestFraction)
	s.At = l.bySpec(soonest)
	s.BeforeCapped = !followed(l.life, l.spec)
	earliest := l.requested.Add(min(s.At.Sub(l.cert.NotBefore), FirstHold, l.life/holdFraction))
	backdated := s.At.Before(earliest)
	if backdated {
		s.At = earliest
	}
	from, to := l.bySuggestion(s, suggested)
	// What is held is as urgent as before, and must not be moved to an earlier time.
	if !s.Held && l.spec.Renewal != nil && len(l.spec.Renewal.Windows) > 0 {
		l.intoWindow(s, soonest, from, to)
	}
	s.Backdated = backdated && s.At.Equal(earliest) && l.requested.Sub(l.cert.NotBefore) > signer.Backdate
}

// bySpec returns the time that the spec says, or soonest if that is too early, with jitter.
func (l lifetime) bySpec(soonest time.Time) time.Time {
	before := beforeExpiry(l.life, l.spec)
	jitter := min(l.life/jitterFraction, maxJitter, (l.life-before)/2)
	at := l.cert.NotAfter.Add(-before - time.Duration(l.stable*float64(jitter)))
	if at.Before(soonest) {
		at = soonest.Add(time.Duration(l.stable * float64(min(l.life/jitterFraction, maxJitter))))
	}
	return at
}

// bySuggestion moves the time into the window that the CA suggests, if it does. It returns from
// when, if the renewal is not earlier, and until when the CA suggests to renew.
func (l lifetime) bySuggestion(
	s *Schedule, suggested *cmapi.CertificateACMEARIStatus,
) (from, to time.Time) {
	w := SuggestedWindow(suggested)
	if w == nil {
		return from, to
	}
	own := s.At
	s.BeforeCapped = false
	s.At = chosen(w, l.cert.NotBefore.Add(l.life/2), l.uid, l.cert.SerialNumber.String())
	if backstop := l.cert.NotAfter.Add(-l.life / suggestedFraction); backstop.Before(s.At) {
		s.At = backstop
	}
	if early := asksFor(l.life, l.spec); early > 0 {
		s.Overruled = early >= l.life/2
		if !s.Overruled && own.Before(s.At) {
			s.At = own
		}
	}
	if once := suggested.AtOnce; once != nil && s.At.Before(once.NotBefore.Time) {
		s.At, s.Held = once.NotBefore.Time, true
	}
	if to = w.End.Time; !s.At.Before(w.Start.Time) {
		from = w.Start.Time
	}
	return from, to
}

// intoWindow moves the time into a window of the spec.
func (l lifetime) intoWindow(s *Schedule, soonest, from, to time.Time) {
	begins := l.cert.NotBefore
	if begins.Before(l.requested) {
		begins = l.requested
	}
	earliest := begins.Add(min(MaxHold, l.life/holdFraction))
	if earliest.Before(soonest) {
		earliest = soonest
	}
	inWindow, err := intoWindow(s.At, earliest, l.cert.NotAfter, from, to, l.spec.Renewal.Windows, l.stable)
	if err == nil {
		s.At = inWindow
		if !to.IsZero() && to.Before(inWindow) {
			s.At = to // the CA may revoke it then
		}
	}
	s.WindowErr = err
}

// afterCA is how long after its CA the certificate is renewed.
func (l lifetime) afterCA() time.Duration {
	return time.Duration(l.stable * float64(min(l.life/rotationFraction, maxRotation)))
}

// Fraction is a number in [0, 1) that depends on nothing but its arguments. It spreads what would
// else happen at once.
func Fraction(parts ...string) float64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	x := h.Sum64()
	// FNV's high bits hardly depend on the last bytes: mix them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
