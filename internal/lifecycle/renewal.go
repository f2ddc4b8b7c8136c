package lifecycle

import (
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/renewal"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// conditionRenewBefore is set if a certificate is renewed at another time than renewBefore or
// renewBeforePercentage ask for. cert-manager does not have it.
const conditionRenewBefore cmapi.CertificateConditionType = "RenewBeforeCapped"

// schedule returns when a certificate of the Certificate is to be renewed.
func (d *decider) schedule(chain []*x509.Certificate) renewal.Schedule {
	var requested time.Time
	if d.from != nil {
		requested = d.from.CreationTimestamp.Time
	}
	if requested.After(d.Now.Add(renewal.FirstHold)) {
		// A clock that was ahead set the time. A hold that is counted from it would be too long.
		requested = time.Time{}
	}
	return renewal.Plan(renewal.Inputs{
		Leaf: d.effective(chain), Spec: &d.Certificate.Spec, UID: d.Certificate.UID, Requested: requested,
		CA: d.ca(), SignedByCA: d.signedByCA(chain), CARenewal: d.CARenewal, Suggested: d.suggested(),
	})
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
	if once := ari.AtOnce; once != nil && once.NotBefore.Sub(d.Now) > renewal.MaxHold {
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
	w := renewal.SuggestedWindow(d.suggested())
	return w != nil && !d.Now.Before(w.End.Time)
}

// rememberAtOnce records in the status of a new certificate whether the CA wanted the renewal at
// once.
func (d *decider) rememberAtOnce(next *x509.Certificate) {
	suggested := d.suggested()
	d.Status.ACME = nil // it was about the one before
	if suggested == nil || d.Secret == nil || !signer.SecretNamesIssuer(d.Certificate.Spec.IssuerRef, d.Secret) {
		return // or the one before was of another issuer
	}
	if once := renewal.AtOnce(&d.Status, suggested, next.NotAfter.Sub(next.NotBefore), d.Now); once != nil {
		ari := &cmapi.CertificateACMEARIStatus{AtOnce: once}
		if d.Issuer != nil && d.Issuer.GetStatus().ACME != nil {
			ari.Account = d.Issuer.GetStatus().ACME.URI
		}
		d.Status.ACME = &cmapi.CertificateACMEStatus{ARI: ari}
	}
}

// warnOfRenewBefore sets and removes the condition.
func (d *decider) warnOfRenewBefore() {
	if !d.plan.BeforeCapped || d.plan.At.IsZero() {
		cmapi.RemoveCertificateCondition(&d.Status, conditionRenewBefore)
		return
	}
	spec, leaf := &d.Certificate.Spec, d.effective(d.present.chain)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	message := renewal.ExplainBefore(life, spec)
	if cmapi.GetCertificateCondition(&d.Status, conditionRenewBefore) == nil {
		d.event(corev1.EventTypeWarning, string(conditionRenewBefore), message)
	}
	d.set(conditionRenewBefore, cmmeta.ConditionTrue, string(conditionRenewBefore), message)
}

func (d *decider) renewingMessage() string {
	message := "Renewing certificate as renewal was scheduled at " + d.plan.At.UTC().String()
	if ca := d.ca(); ca != nil && !d.signedByCA(d.present.chain) {
		message += ", as its CA was replaced at " + stamp(ca.Since.Time)
	}
	return message
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
		stamp(d.plan.At),
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
		stamp(d.plan.At),
	)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
