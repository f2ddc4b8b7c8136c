package renewal

import (
	"fmt"
	"time"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// beforeExpiry is how long before its expiry a certificate is renewed, without jitter: as long as
// the spec asks for, if that is a part of its life, and a third of its life otherwise.
func beforeExpiry(life time.Duration, spec *cmapi.CertificateSpec) time.Duration {
	if before := asksFor(life, spec); partOf(life, before) {
		return min(before, life-life/soonestFraction)
	}
	return life / 3
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

func partOf(life, before time.Duration) bool { return before > 0 && before < life }

// followed reports whether a certificate is renewed when the spec asks for it.
func followed(life time.Duration, spec *cmapi.CertificateSpec) bool {
	if spec.RenewBefore == nil && spec.RenewBeforePercentage == nil {
		return true
	}
	if spec.RenewBefore != nil && spec.RenewBeforePercentage != nil {
		return false // one of the two is not
	}
	return (asksFor(life, spec) - beforeExpiry(life, spec)).Abs() < time.Second
}

// ExplainBefore says which of renewBefore and renewBeforePercentage is not followed, and why.
func ExplainBefore(life time.Duration, spec *cmapi.CertificateSpec) string {
	if spec.RenewBefore != nil && spec.RenewBeforePercentage != nil {
		one := *spec
		counts, ignored := "spec.renewBefore", "spec.renewBeforePercentage"
		if partOf(life, spec.RenewBefore.Duration) {
			one.RenewBeforePercentage = nil
		} else {
			one.RenewBefore = nil
			counts, ignored = ignored, counts
		}
		message := fmt.Sprintf("%s and %s are both set: %s does not count. Remove it", counts, ignored, ignored)
		if !followed(life, &one) {
			message += ". " + ExplainBefore(life, &one)
		}
		return message
	}
	field, value := "spec.renewBefore", ""
	if spec.RenewBefore != nil {
		value = spec.RenewBefore.Duration.String()
	} else {
		field, value = "spec.renewBeforePercentage", fmt.Sprintf("%d", *spec.RenewBeforePercentage)
	}
	why := fmt.Sprintf("is not between 0 and the certificate's life of %s, and does not count: a third of the life is "+
		"left when it is renewed", life)
	if partOf(life, asksFor(life, spec)) {
		why = fmt.Sprintf("asks for renewal before a tenth of the certificate's life of %s has passed: it is renewed after "+
			"a tenth", life)
	}
	most := fmt.Sprintf("%s at most", life-life/soonestFraction)
	if spec.RenewBefore == nil {
		most = "from 1 to 90"
	}
	return fmt.Sprintf("%s %s %s. Set %s", field, value, why, most)
}
