package renewal

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// SuggestedWindow returns the window that a CA suggests, nil if there is none or it is not valid.
func SuggestedWindow(suggested *cmapi.CertificateACMEARIStatus) *cmapi.ACMERenewalWindow {
	if suggested == nil {
		return nil
	}
	w := suggested.SuggestedWindow
	if w == nil || w.Start == nil || w.End == nil || !w.End.After(w.Start.Time) {
		return nil
	}
	return w
}

// AtOnce returns what the status records of a certificate that is replaced now, if the CA wanted it
// to be renewed at once: its window was over when the CA suggested it, or ends soon after the
// certificate's NotBefore. It returns nil otherwise. was is the status before, and life is how long
// the new certificate lives. Times are by our clock, as a wrong clock of the CA may be the cause.
func AtOnce(
	was *cmapi.CertificateStatus,
	suggested *cmapi.CertificateACMEARIStatus,
	life time.Duration,
	now time.Time,
) *cmapi.ACMERenewalAtOnce {
	w := SuggestedWindow(suggested)
	if w == nil {
		return nil
	}
	over := suggested.LastChecked != nil && !suggested.LastChecked.Before(w.End)
	soon := was.NotBefore != nil && was.NotAfter != nil &&
		w.End.Sub(was.NotBefore.Time) < 2*min(MaxHold, was.NotAfter.Sub(was.NotBefore.Time)/holdFraction)
	if !over && !soon {
		return nil
	}
	next := &cmapi.ACMERenewalAtOnce{Renewals: 1, Since: metav1.NewTime(now.Truncate(time.Second))}
	// A certificate that was in use for long ends the row: then the CA wanted only that one replaced.
	if once := suggested.AtOnce; once != nil && now.Before(once.NotBefore.Add(MaxHold)) {
		next.Renewals, next.Since = once.Renewals+1, once.Since
	}
	hold := MaxHold
	if doubled := next.Renewals - 1; doubled < 5 { // 16 hours; the next is more than MaxHold
		hold = FirstHold << doubled
	}
	next.NotBefore = metav1.NewTime(now.Add(min(hold, life/holdFraction)).Truncate(time.Second))
	return next
}

// chosen returns a random time in a window (RFC 9773 section 4.2), which changes only with the
// window. If the middle of the certificate's life lies in the window, only the part after it
// counts: some CAs suggest all of a short life, and its first moments are too early.
func chosen(w *cmapi.ACMERenewalWindow, middle time.Time, uid, serial string) time.Time {
	from := w.Start.Time
	if from.Before(middle) && middle.Before(w.End.Time) {
		from = middle
	}
	fraction := Fraction(uid, serial, stamp(w.Start.Time), stamp(w.End.Time))
	return from.Add(time.Duration(fraction * float64(w.End.Sub(from))))
}
