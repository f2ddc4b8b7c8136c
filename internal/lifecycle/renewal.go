package lifecycle

import (
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// schedule is when a certificate is to be renewed.
type schedule struct {
	// at is zero if it is never renewed by time: renewal is disabled, or the certificate ends with its
	// CA, so that a new one would not live longer.
	at time.Time
	// capped says that the certificate ends with its CA, earlier than was asked for.
	capped bool
	// withCA is when it is renewed because its CA is, if it ends with that: an estimate, which nothing
	// waits for.
	withCA time.Time
	// windowErr says why no renewal window fits. at is then the time without windows.
	windowErr error
	// overruled says that renewBefore or its percentage is not followed, as the CA suggests when to
	// renew, and they ask for more than half of the life.
	overruled bool
	// held says that the renewal is delayed, as the CA wanted the certificates before to be renewed at
	// once, too.
	held bool
	// earlyCause says that the spec asks for renewal so early, or not before the end of its life, that
	// it is not followed.
	early bool
	// backdated says that the certificate was near its end by our clock when it was issued. An earlier
	// renewal would not help.
	backdated bool
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
	// firstHold; the time doubles with each in a row.
	firstHold = time.Hour
	// maxHold is the longest hold. A certificate that was issued in one of its windows is not renewed
	// in the same window: it stays in use for at least maxHold, or 1/holdFraction of its life if that
	// is less.
	maxHold = 24 * time.Hour
	// No hold is longer than 1/holdFraction of the life. A certificate that is due when it is issued
	// stays in use for at least firstHold, or that part.
	holdFraction = 8
)

// renewal returns when the certificate is to be renewed. The result is the same in each pass: its
// random part follows from the UID of the Certificate and the serial number of the certificate. ca
// is the CA of an issuer of type ca, and signedByCA says whether it signed this certificate.
// suggested is when the CA wants it to be renewed (RFC 9773), nil if it does not say. asked is when
// the certificate was requested by our clock, zero if that is not known.
func renewal(
	cert *x509.Certificate,
	spec *cmapi.CertificateSpec,
	uid types.UID,
	asked time.Time,
	ca *cmapi.CAIssuerStatus,
	signedByCA bool,
	suggested *cmapi.CertificateACMEARIStatus,
) schedule {
	var s schedule
	life := cert.NotAfter.Sub(cert.NotBefore)
	if life <= 0 {
		return schedule{at: cert.NotBefore}
	}
	l := lifetime{cert: cert, spec: spec, uid: string(uid), asked: asked, life: life}
	l.stable = stableFraction(l.uid, cert.SerialNumber.String())
	disabled := spec.Renewal != nil && spec.Renewal.Policy == cmapi.CertificateRenewalPolicyDisabled

	var replaced time.Time // when to renew because the CA was replaced
	if ca != nil {
		switch {
		case signedByCA:
			s.capped = !cert.NotAfter.Before(ca.NotAfter.Time.Truncate(time.Second)) &&
				signer.Capped(spec.DurationOrDefault(), life)
		default:
			replaced = ca.Since.Add(afterCA(life, l.stable))
		}
	}
	if disabled {
		return s
	}
	if !s.capped {
		l.plan(&s, suggested)
	}
	if !replaced.IsZero() && (s.at.IsZero() || replaced.Before(s.at)) {
		s.at = replaced
	}
	// The status has whole seconds. What is compared with it must have no more.
	s.at = s.at.Truncate(time.Second)
	return s
}

// lifetime is what the renewal time of a certificate follows from.
type lifetime struct {
	cert   *x509.Certificate
	spec   *cmapi.CertificateSpec
	uid    string
	asked  time.Time
	life   time.Duration
	stable float64 // spreads the renewals of different certificates
}

// plan computes when to renew, from the spec, the suggestion of the CA and the windows for
// renewals.
func (l lifetime) plan(s *schedule, suggested *cmapi.CertificateACMEARIStatus) {
	soonest := l.cert.NotBefore.Add(l.life / soonestFraction)
	s.at = l.bySpec(soonest)
	s.early = !followed(l.life, l.spec)
	earliest := l.asked.Add(min(s.at.Sub(l.cert.NotBefore), firstHold, l.life/holdFraction))
	backdated := s.at.Before(earliest)
	if backdated {
		s.at = earliest
	}
	from, to := l.bySuggestion(s, suggested)
	// What is held is as urgent as before, and must not be moved to an earlier time.
	if !s.held && l.spec.Renewal != nil && len(l.spec.Renewal.Windows) > 0 {
		l.intoWindow(s, soonest, from, to)
	}
	s.backdated = backdated && s.at.Equal(earliest) && l.asked.Sub(l.cert.NotBefore) > signer.Backdate
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
	s *schedule, suggested *cmapi.CertificateACMEARIStatus,
) (from, to time.Time) {
	w := windowOf(suggested)
	if w == nil {
		return from, to
	}
	own := s.at
	s.early = false
	s.at = chosen(w, l.cert.NotBefore.Add(l.life/2), l.uid, l.cert.SerialNumber.String())
	if backstop := l.cert.NotAfter.Add(-l.life / suggestedFraction); backstop.Before(s.at) {
		s.at = backstop
	}
	if early := asksFor(l.life, l.spec); early > 0 {
		s.overruled = early >= l.life/2
		if !s.overruled && own.Before(s.at) {
			s.at = own
		}
	}
	if once := suggested.AtOnce; once != nil && s.at.Before(once.NotBefore.Time) {
		s.at, s.held = once.NotBefore.Time, true
	}
	if to = w.End.Time; !s.at.Before(w.Start.Time) {
		from = w.Start.Time
	}
	return from, to
}

// intoWindow moves the time into a window of the spec.
func (l lifetime) intoWindow(s *schedule, soonest, from, to time.Time) {
	begins := l.cert.NotBefore
	if begins.Before(l.asked) {
		begins = l.asked
	}
	earliest := begins.Add(min(maxHold, l.life/holdFraction))
	if earliest.Before(soonest) {
		earliest = soonest
	}
	inWindow, err := intoWindow(s.at, earliest, l.cert.NotAfter, from, to, l.spec.Renewal.Windows, l.stable)
	if err == nil {
		s.at = inWindow
		if !to.IsZero() && to.Before(inWindow) {
			s.at = to // the CA may revoke it then
		}
	}
	s.windowErr = err
}

// afterCA is how long after its CA a certificate is renewed.
func afterCA(life time.Duration, stable float64) time.Duration {
	return time.Duration(stable * float64(min(life/rotationFraction, maxRotation)))
}

func (d *decider) renewingMessage() string {
	message := "Renewing certificate as renewal was scheduled at " + d.plan.at.UTC().String()
	if ca := d.ca(); ca != nil && !d.signedByCA(d.present.chain) {
		message += ", as its CA was replaced at " + stamp(ca.Since.Time)
	}
	return message
}

func (d *decider) schedule(chain []*x509.Certificate) schedule {
	var asked time.Time
	if d.from != nil {
		asked = d.from.CreationTimestamp.Time
	}
	if asked.After(d.Now.Add(firstHold)) {
		// A clock that was ahead set the time. A hold that is counted from it would be too long.
		asked = time.Time{}
	}
	cert, spec := d.effective(chain), &d.Certificate.Spec
	s := renewal(cert, spec, d.Certificate.UID, asked, d.ca(), d.signedByCA(chain), d.suggested())
	disabled := spec.Renewal != nil && spec.Renewal.Policy == cmapi.CertificateRenewalPolicyDisabled
	if s.capped && !disabled && !d.CARenewal.IsZero() {
		stable := stableFraction(string(d.Certificate.UID), cert.SerialNumber.String())
		s.withCA = d.CARenewal.Add(afterCA(cert.NotAfter.Sub(cert.NotBefore), stable)).Truncate(time.Second)
		if cert.NotAfter.Before(s.withCA) {
			s.withCA = cert.NotAfter
		}
	}
	return s
}

// effective returns the leaf of a chain with the time at which clients begin to refuse it as its
// NotAfter. That is earlier than its own if a certificate above it expires first, in the chain or
// in the ca.crt that came with it.
func (d *decider) effective(chain []*x509.Certificate) *x509.Certificate {
	end := d.firstToExpire(chain).NotAfter
	if !end.Before(chain[0].NotAfter) {
		return chain[0]
	}
	leaf := *chain[0]
	leaf.NotAfter = end
	return &leaf
}

// firstToExpire is the certificate that expires first of a chain and the CA that came with it.
func (d *decider) firstToExpire(chain []*x509.Certificate) *x509.Certificate {
	var bundle []byte
	switch {
	case d.from != nil:
		bundle = d.from.Status.CA
	case d.Secret != nil:
		bundle = d.Secret.Data[cmmeta.TLSCAKey]
	}
	issued := pki.Issued{Chain: chain}
	if cas, err := d.Limits.DecodeBundlePEM(bundle); err == nil {
		issued.CAs = cas
	}
	return issued.FirstToExpire()
}

// windowOf returns the window that a CA suggests, nil if there is none or it is not valid.
func windowOf(suggested *cmapi.CertificateACMEARIStatus) *cmapi.ACMERenewalWindow {
	if suggested == nil {
		return nil
	}
	w := suggested.SuggestedWindow
	if w == nil || w.Start == nil || w.End == nil || !w.End.After(w.Start.Time) {
		return nil
	}
	return w
}

// atOnce returns what the status records of a certificate that is replaced now, if the CA wanted it
// to be renewed at once: its window was over when the CA suggested it, or ends soon after the
// certificate's NotBefore. It returns nil otherwise. was is the status before, and life is how long
// the new certificate lives. Times are by our clock, as a wrong clock of the CA may be the cause.
func atOnce(
	was *cmapi.CertificateStatus,
	suggested *cmapi.CertificateACMEARIStatus,
	life time.Duration,
	now time.Time,
) *cmapi.ACMERenewalAtOnce {
	w := windowOf(suggested)
	if w == nil {
		return nil
	}
	over := suggested.LastChecked != nil && !suggested.LastChecked.Before(w.End)
	soon := was.NotBefore != nil && was.NotAfter != nil &&
		w.End.Sub(was.NotBefore.Time) < 2*min(maxHold, was.NotAfter.Sub(was.NotBefore.Time)/holdFraction)
	if !over && !soon {
		return nil
	}
	next := &cmapi.ACMERenewalAtOnce{Renewals: 1, Since: metav1.NewTime(now.Truncate(time.Second))}
	// A certificate that was in use for long ends the row: then the CA wanted only that one replaced.
	if once := suggested.AtOnce; once != nil && now.Before(once.NotBefore.Add(maxHold)) {
		next.Renewals, next.Since = once.Renewals+1, once.Since
	}
	hold := maxHold
	if doubled := next.Renewals - 1; doubled < 5 { // 16 hours; the next is more than maxHold
		hold = firstHold << doubled
	}
	next.NotBefore = metav1.NewTime(now.Add(min(hold, life/holdFraction)).Truncate(time.Second))
	return next
}

// rememberAtOnce records in the status of a new certificate whether the CA wanted the renewal at
// once.
func (d *decider) rememberAtOnce(next *x509.Certificate) {
	suggested := d.suggested()
	d.Status.ACME = nil // it was about the one before
	if suggested == nil || d.Secret == nil || !signer.SecretNamesIssuer(d.Certificate.Spec.IssuerRef, d.Secret) {
		return // or the one before was of another issuer
	}
	if once := atOnce(&d.Status, suggested, next.NotAfter.Sub(next.NotBefore), d.Now); once != nil {
		ari := &cmapi.CertificateACMEARIStatus{AtOnce: once}
		if d.Issuer != nil && d.Issuer.GetStatus().ACME != nil {
			ari.Account = d.Issuer.GetStatus().ACME.URI
		}
		d.Status.ACME = &cmapi.CertificateACMEStatus{ARI: ari}
	}
}

// heldMessage says why a certificate is not renewed when the CA suggests it.
func (d *decider) heldMessage() string {
	ari := d.suggested()
	return fmt.Sprintf(
		"The ACME server suggests renewal between %s and %s, and has wanted the certificate before to be renewed at "+
			"once, too (%d in a row, since %s). This one is renewed "+
			"at %s. The clock of the server or what it says of renewals may be wrong: have it mended, or set "+
			"renewalInformationSource: None on the issuer",
		stamp(
			ari.SuggestedWindow.Start.Time,
		),
		stamp(ari.SuggestedWindow.End.Time),
		ari.AtOnce.Renewals,
		stamp(ari.AtOnce.Since.Time),
		stamp(d.plan.at),
	)
}

// backdatedMessage says why a certificate stays in use although it is due by its own NotBefore and
// NotAfter.
func (d *decider) backdatedMessage() string {
	leaf := d.present.chain[0]
	return fmt.Sprintf(
		"The certificate, asked for at %s, is valid from %s to %s and so was to be renewed when it was issued. The "+
			"clock of the CA is wrong, or that of this cluster: "+
			"mend it. Until then it is renewed again and again, next at %s",
		stamp(d.from.CreationTimestamp.Time),
		stamp(leaf.NotBefore),
		stamp(leaf.NotAfter),
		stamp(d.plan.at),
	)
}

// suggested returns when the CA wants the present certificate to be renewed. It is nil if the CA
// does not say, or is not to be asked. It stays while the issuer does not exist.
func (d *decider) suggested() *cmapi.CertificateACMEARIStatus {
	if d.Status.ACME == nil || d.Status.ACME.ARI == nil || signer.External(d.Certificate.Spec.IssuerRef) {
		return nil
	}
	if d.Issuer != nil {
		if spec := d.Issuer.GetSpec().ACME; spec == nil ||
			spec.RenewalInformationSource == cmacme.ACMERenewalInformationSourceNone {
			return nil
		}
	}
	ari := d.Status.ACME.ARI
	if once := ari.AtOnce; once != nil && once.NotBefore.Sub(d.Now) > maxHold {
		// It was set by a clock that was ahead.
		without := *ari
		without.AtOnce = nil
		return &without
	}
	return ari
}

// urgent reports whether the CA wanted the renewal to be over by now, as it does before it revokes
// a certificate.
func (d *decider) urgent() bool {
	w := windowOf(d.suggested())
	return w != nil && !d.Now.Before(w.End.Time)
}

// chosen returns a random time in a window (RFC 9773 section 4.2), which changes only with the
// window. If the middle of the certificate's life lies in the window, only the part after it
// counts: some CAs suggest all of a short life, and its first moments are too early.
func chosen(w *cmapi.ACMERenewalWindow, middle time.Time, uid, serial string) time.Time {
	from := w.Start.Time
	if from.Before(middle) && middle.Before(w.End.Time) {
		from = middle
	}
	fraction := stableFraction(uid, serial, stamp(w.Start.Time), stamp(w.End.Time))
	return from.Add(time.Duration(fraction * float64(w.End.Sub(from))))
}

// asksFor returns how long before the expiry the spec asks for the renewal, unchecked, or zero if
// it does not. If both fields are set, renewBefore counts if it is shorter than the life, as in
// cert-manager.
func asksFor(life time.Duration, spec *cmapi.CertificateSpec) time.Duration {
	switch {
	case spec.RenewBefore != nil && (spec.RenewBeforePercentage == nil || partOf(life, spec.RenewBefore.Duration)):
		return spec.RenewBefore.Duration
	case spec.RenewBeforePercentage != nil:
		return time.Duration(float64(life) * float64(*spec.RenewBeforePercentage) / 100)
	}
	return 0
}

// stableFraction is a number in [0, 1) that depends on nothing but its arguments.
func stableFraction(parts ...string) float64 {
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

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
