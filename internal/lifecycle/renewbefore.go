package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// conditionRenewBefore is set if a certificate is renewed at another time than renewBefore or
// renewBeforePercentage ask for. cert-manager does not have it.
const conditionRenewBefore cmapi.CertificateConditionType = "RenewBeforeCapped"

// beforeExpiry is how long before its expiry a certificate is renewed, without jitter: as long as
// the spec asks for, if that is a part of its life, and a third of its life otherwise.
func beforeExpiry(life time.Duration, spec *cmapi.CertificateSpec) time.Duration {
	if before := asksFor(life, spec); partOf(life, before) {
		return min(before, life-life/soonestFraction)
	}
	return life / 3
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

// warnOfRenewBefore sets and removes the condition.
func (d *decider) warnOfRenewBefore() {
	if !d.plan.early || d.plan.at.IsZero() {
		cmapi.RemoveCertificateCondition(&d.Status, conditionRenewBefore)
		return
	}
	spec, leaf := &d.Certificate.Spec, d.effective(d.present.chain)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	message := explainRenewBefore(life, spec)
	if cmapi.GetCertificateCondition(&d.Status, conditionRenewBefore) == nil {
		d.event(corev1.EventTypeWarning, string(conditionRenewBefore), message)
	}
	d.set(conditionRenewBefore, cmmeta.ConditionTrue, string(conditionRenewBefore), message)
}

// explainRenewBefore says which of renewBefore and renewBeforePercentage is not followed, and why.
func explainRenewBefore(life time.Duration, spec *cmapi.CertificateSpec) string {
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
			message += ". " + explainRenewBefore(life, &one)
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
