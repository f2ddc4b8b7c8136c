package lifecycle

import (
	"crypto/x509"
	"errors"
	"fmt"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/pki"
)

// answer returns the certificate that the issuer gave to the request, or why it cannot be used. It is judged by the
// request alone, so that it is the same in each pass: the private key may be gone after the first.
func (d *decider) answer(next *cmapi.CertificateRequest, csr *x509.CertificateRequest) ([]*x509.Certificate, *failure) {
	chain, err := d.Limits.DecodeChainPEM(next.Status.Certificate)
	if err == nil && !pki.SamePublicKey(chain[0].PublicKey, csr.PublicKey) {
		err = errors.New("it is for another private key than that of the request. The issuer may have answered an earlier request again")
	}
	if err == nil {
		return chain, nil
	}
	at := next.CreationTimestamp
	if ready := cmapi.GetCertificateRequestCondition(&next.Status, cmapi.CertificateRequestConditionReady); ready.LastTransitionTime != nil {
		at = *ready.LastTransitionTime
	}
	return nil, &failure{intro: requestFailed, reason: reasonInvalidCertificate, at: at, message: fmt.Sprintf(
		"the issuer returned a certificate in status.certificate of CertificateRequest %q that cannot be used: %v", next.Name, err)}
}
