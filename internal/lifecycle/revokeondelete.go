package lifecycle

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
)

// conditionNotRevocable is set if a Certificate asks for a revocation that its issuer does not
// offer. cert-manager does not have it.
const conditionNotRevocable cmapi.CertificateConditionType = "NotRevocable"

// provideRevocation sets the finalizer and the status that a revocation needs when the Certificate
// is deleted.
func (d *decider) provideRevocation() {
	spec := d.Certificate.Spec.Revocation
	if spec == nil || !spec.OnDelete {
		d.Finalizer, d.Status.Revocable = false, nil
		cmapi.RemoveCertificateCondition(&d.Status, conditionNotRevocable)
		return
	}
	ref := d.Certificate.Spec.IssuerRef
	external := signer.External(ref)
	if d.Issuer == nil && !external {
		return // it is not there yet, or no longer
	}
	acme := !external && d.Issuer.GetSpec().ACME != nil
	if d.holds(ref) {
		d.Status.Revocable = nil
		if acme {
			d.Status.Revocable = &cmapi.RevocableCertificate{Certificate: d.present.chain[0].Raw, IssuerRef: ref}
		}
	}
	d.Finalizer = acme || d.Status.Revocable != nil
	if acme {
		cmapi.RemoveCertificateCondition(&d.Status, conditionNotRevocable)
		return
	}
	message := fmt.Sprintf(
		"spec.revocation.onDelete asks for a revocation, which %s %q does not offer, as it is not an ACME issuer of "+
			"Perennial: name one, or remove spec.revocation",
		ref.KindOrDefault(),
		ref.Name,
	)
	if cmapi.GetCertificateCondition(&d.Status, conditionNotRevocable) == nil && !d.HoldStatus {
		d.event(corev1.EventTypeWarning, "NotRevocable", message)
	}
	d.set(conditionNotRevocable, cmmeta.ConditionTrue, "NotRevocable", message)
}

// withholdFinalizer leaves the finalizer as it is if its write was refused. Without the finalizer
// it requests no certificate, as that could not be revoked on deletion.
func (d *decider) withholdFinalizer() {
	has := slices.Contains(d.Certificate.Finalizers, revocation.Finalizer)
	if d.Finalizer == has || !d.withhold(finalizerWrite(d.Certificate)) {
		return
	}
	if d.Finalizer = has; !has {
		d.Request, d.Rehearse, d.StoreKey = nil, nil, nil
	}
}

// holds reports whether the Secret holds, or is about to, a certificate of the issuer.
func (d *decider) holds(by cmmeta.IssuerReference) bool {
	switch {
	case d.present.reason != "" || d.Apply != nil && d.Apply.Temporary:
		return false
	case d.Apply != nil:
		return sameIssuer(d.Apply.Issuer, by)
	}
	return d.Secret != nil && d.Secret.Annotations[temporaryAnnotation] != "true" && signer.SecretNamesIssuer(by, d.Secret)
}

// compromised reports whether the private key that is present must not be used again.
func (d *decider) compromised() bool { return revocation.Compromised(d.Secret, d.present.key) }
