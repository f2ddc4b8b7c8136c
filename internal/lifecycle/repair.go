package lifecycle

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/fault"
)

// repair restores what a Secret with a good key pair lacks otherwise, such as labels, annotations
// and keystores. That needs no new certificate.
func (d *decider) repair() {
	if d.delayed == earlyissuance.SecretOverwritten {
		return // what another client has put there does not become ours
	}
	if d.Apply != nil || d.Secret == nil || d.present.reason != "" || d.Secret.Annotations[temporaryAnnotation] == "true" {
		return
	}
	annotations := d.Secret.Annotations
	content := &Content{
		Key: d.present.key, Chain: d.present.chain, CA: d.Secret.Data[cmmeta.TLSCAKey],
		// A repair must not change which issuer the Secret names: only issuance does.
		Issuer:          issuerOf(d.Secret),
		CertificateName: annotations[cmapi.CertificateNameKey],
	}
	if content.Issuer.Name != "" && sameIssuer(content.Issuer, d.Certificate.Spec.IssuerRef) {
		content.CA = d.trust(d.present.chain, content.CA)
	}
	drift := driftOf(d.Observation, content)
	if drift == "" {
		d.noteKeystores(content)
		return
	}
	if d.withhold(d.secretWrite()) {
		if f := d.withheld[d.secretWrite()]; f.Reason == reasonKeystore && f.Class == fault.Misconfigured &&
			d.violation == nil {
			d.violation = &violation{f.Reason, f.Message}
		}
		return
	}
	if problem := d.problemOfPasswords(); problem != "" {
		since := d.Now
		if ready := d.condition(cmapi.CertificateConditionReady); ready == nil || !strings.Contains(ready.Message, problem) {
			d.event(corev1.EventTypeWarning, reasonKeystorePassword, problem)
		} else if ready.Status == cmmeta.ConditionFalse && ready.LastTransitionTime != nil {
			since = ready.LastTransitionTime.Time
		}
		if d.failure == nil {
			d.stallWithoutPassword(since, problem)
		}
		if d.violation == nil {
			d.violation = &violation{reasonKeystorePassword, problem}
		}
		return
	}
	d.Apply = content
	d.noteKeystores(content)
}

// noteKeystores writes into the status a digest of what the keystores of the Secret are made from.
func (d *decider) noteKeystores(c *Content) {
	d.Status.KeystoreDigest = ""
	if spec := &d.Certificate.Spec; d.problemOfPasswords() == "" && (jksOf(spec) != nil || pkcs12Of(spec) != nil) {
		d.Status.KeystoreDigest = keystoreDigest(d.Observation, c)
	}
	if is := d.Status.KeystoreDigest; is == "" || is == d.Certificate.Status.KeystoreDigest {
		return // nothing new was made of the passwords
	}
	for _, warning := range passwordWarnings(d.Observation) {
		d.event(corev1.EventTypeWarning, reasonPassword, warning)
	}
}
