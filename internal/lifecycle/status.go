package lifecycle

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
)

// passwordWarnings returns warnings about passwords that work for the keystores and may not work
// for their readers.
func passwordWarnings(o *Observation) (warnings []string) {
	spec := &o.Certificate.Spec
	warn := func(p Password, format string, args ...any) {
		warnings = append(warnings, p.Source+" "+fmt.Sprintf(format, args...))
	}
	jks, p12 := jksOf(spec) != nil, pkcs12Of(spec) != nil
	const lineBreak = "ends with a line break, which is part of the keystore's password: what reads the password " +
		"without it cannot open the keystore. " +
		"Write it without a line break, as by printf or echo -n"
	if jks && strings.ContainsAny(lastOf(o.JKSPassword.Value), "\r\n") {
		warn(o.JKSPassword, lineBreak)
	}
	switch {
	case p12 && strings.ContainsAny(lastOf(o.PKCS12Password.Value), "\r\n"):
		if !jks || o.JKSPassword.Source != o.PKCS12Password.Source {
			warn(o.PKCS12Password, lineBreak)
		}
	case p12 && !pki.JavaTakesPKCS12Password(o.PKCS12Password.Value):
		warn(o.PKCS12Password, "has characters beyond printable ASCII: Java does not open a PKCS #12 keystore with such a "+
			"password, and OpenSSL does. Write one of ASCII if Java is to open it")
	}
	return warnings
}

// lastOf is the last byte of s, or nothing.
func lastOf(s string) string { return s[max(len(s)-1, 0):] }

// describe writes into the status what the Secret holds.
func (d *decider) describe() {
	if d.present.reason != "" {
		d.Status.NotBefore, d.Status.NotAfter, d.Status.RenewalTime = nil, nil, nil
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, d.violation.reason, d.because(d.violation.message))
		cmapi.RemoveCertificateCondition(&d.Status, conditionCapped)
		cmapi.RemoveCertificateCondition(&d.Status, conditionRenewBefore)
		return
	}
	leaf := d.present.chain[0]
	d.Status.NotBefore, d.Status.NotAfter = ptr.To(metav1.NewTime(leaf.NotBefore)), ptr.To(metav1.NewTime(leaf.NotAfter))
	d.Status.RenewalTime = nil
	if !d.plan.WithCA.IsZero() {
		d.Status.RenewalTime = ptr.To(metav1.NewTime(d.plan.WithCA))
	}
	if !d.plan.At.IsZero() {
		d.Status.RenewalTime = ptr.To(metav1.NewTime(d.plan.At))
		was := d.Certificate.Status.RenewalTime
		moved := was == nil || !was.Time.Equal(d.plan.At)
		switch {
		case d.plan.Held && moved:
			d.event(corev1.EventTypeWarning, "RenewalHeld", d.heldMessage())
		case d.plan.Backdated && moved:
			d.event(corev1.EventTypeWarning, "RenewalHeld", d.backdatedMessage())
		}
		ready := d.condition(cmapi.CertificateConditionReady)
		asked := ready == nil || ready.ObservedGeneration != d.Certificate.Generation
		if d.plan.Overruled && (moved || asked) {
			d.event(
				corev1.EventTypeWarning,
				"RenewBeforeIgnored",
				fmt.Sprintf("renewBefore asks for renewal in the first half of the certificate's life, and the ACME server "+
					"suggests when to renew: it is renewed at %s. Ask for less, or set renewalInformationSource: None "+
					"on the issuer", stamp(d.plan.At)),
			)
		}
		if d.Now.Before(d.plan.At) {
			d.recheckAt(d.plan.At, "the certificate is to be renewed")
		}
	}
	bad := d.violation
	if bad == nil {
		bad = expired(d.present, d.Now)
	}
	if d.Now.Before(leaf.NotAfter) {
		d.recheckAt(leaf.NotAfter.Add(time.Second), "the certificate expires")
	}
	if bad != nil {
		d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, bad.reason, d.because(bad.message))
	} else {
		d.set(
			cmapi.CertificateConditionReady,
			cmmeta.ConditionTrue,
			reasonReady,
			"Certificate is up to date and has not expired",
		)
	}
	d.warn()
}

// conditionCapped is set if the certificate will not live as long as the spec asks for.
// cert-manager does not have it.
const conditionCapped cmapi.CertificateConditionType = "LifetimeCapped"

// warn sets and removes the warnings about a certificate that is good.
func (d *decider) warn() {
	d.warnOfRenewBefore()
	reason, message := d.capped()
	if reason == "" {
		cmapi.RemoveCertificateCondition(&d.Status, conditionCapped)
		return
	}
	if was := cmapi.GetCertificateCondition(&d.Status, conditionCapped); was == nil || was.Reason != reason {
		d.event(corev1.EventTypeWarning, reason, message)
	}
	d.set(conditionCapped, cmmeta.ConditionTrue, reason, message)
}

// capped says why the certificate will not live as long as was asked for, or nothing if it will.
func (d *decider) capped() (reason, message string) {
	if d.plan.Capped {
		if !d.CARenewal.IsZero() {
			return "", ""
		}
		return "NotAfterCapped", fmt.Sprintf(
			"The certificate was asked for %s but ends with its CA at %s, and is not renewed "+
				"before the CA is: renew the CA of %s",
			d.Certificate.Spec.DurationOrDefault(),
			stamp(d.effective(d.present.chain).NotAfter),
			d.Issuer,
		)
	}
	if first := d.firstToExpire(d.present.chain); first != d.present.chain[0] && !d.plan.At.IsZero() {
		return "ChainEndsFirst", fmt.Sprintf("The certificate is valid until %s, but clients refuse it from %s on, when the "+
			"certificate of its CA %.200q expires, which came with it: it is renewed at %s, before that. "+
			"Have the issuer renew that CA",
			stamp(d.present.chain[0].NotAfter), stamp(first.NotAfter), first.Subject.String(), stamp(d.plan.At))
	}
	return "", ""
}
