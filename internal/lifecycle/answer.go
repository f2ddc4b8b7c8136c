package lifecycle

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// answer returns the certificate that the issuer gave to the request, or why it cannot be used. It
// checks the certificate against the request alone, as of the time of the answer. So the result is
// the same in each pass, though the private key may be gone after the first.
func (d *decider) answer(next *cmapi.CertificateRequest, csr *x509.CertificateRequest) ([]*x509.Certificate, *failure) {
	f := &failure{intro: requestFailed, at: next.CreationTimestamp}
	now := d.Now
	if ready := cmapi.GetCertificateRequestCondition(&next.Status,
		cmapi.CertificateRequestConditionReady); ready.LastTransitionTime != nil {
		f.at = *ready.LastTransitionTime
		now = f.at.Time
	}
	chain, differences, err := d.judge(next, csr, now)
	if err == nil {
		d.differences = differences
		return chain, nil
	}
	f.reason = cmp.Or(string(pki.DefectOf(err)), reasonInvalidCertificate)
	f.message = fmt.Sprintf("the issuer returned a certificate in status.certificate of CertificateRequest %q that "+
		"cannot be used: %v", next.Name, err)
	if pki.DefectOf(err) == pki.KeyMismatch {
		f.message += ". The issuer may have answered an earlier request again"
	}
	return nil, f
}

// judge returns an error if clients would not accept what the issuer returned. Otherwise it returns
// how the certificate differs from the request.
func (d *decider) judge(next *cmapi.CertificateRequest, csr *x509.CertificateRequest,
	now time.Time) ([]*x509.Certificate, pki.Differences, error) {
	var none pki.Differences
	chain, err := d.Limits.DecodeChainPEM(next.Status.Certificate)
	if err != nil {
		return nil, none, err
	}
	issued := pki.Issued{Chain: chain}
	issuer := ""
	if d.Issuer != nil {
		issuer = d.Issuer.Type()
	}
	// The CA of an ACME issuer is the top of the chain, which package order has checked. It may be an
	// expired root that an older root has cross-signed.
	if issuer != signer.TypeACME && len(bytes.TrimSpace(next.Status.CA)) > 0 {
		if issued.CAs, err = d.Limits.DecodeBundlePEM(next.Status.CA); err != nil {
			return nil, none, fmt.Errorf("status.ca: %w", err)
		}
	}
	asked := pki.Asked{CSR: csr, IsCA: next.Spec.IsCA}
	for _, usage := range next.Spec.Usages {
		asked.Usages = append(asked.Usages, string(usage))
	}
	asked.UsagesByCA = issuer == signer.TypeACME
	if next.Spec.Duration != nil && issuer != signer.TypeCA { // the condition LifetimeCapped covers it
		asked.Duration = next.Spec.Duration.Duration
	}
	differences, err := pki.Judge(asked, issued, now)
	return chain, differences, err
}

// tellDifferences reports how the stored certificate differs from the request.
func (d *decider) tellDifferences() {
	if text := d.differences.String(); text != "" {
		d.event(corev1.EventTypeWarning, "CertificateDiffers", "The certificate is not as it was asked for: "+text)
	}
}
