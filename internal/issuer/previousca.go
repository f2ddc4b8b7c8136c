package issuer

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// maxPrevious is how many replaced CAs are remembered. The API has the same limit.
const maxPrevious = 8

// rotate returns the status of the CA. A new CA is in use from now on, and the one before it
// becomes a replaced one. Replaced CAs are dropped when they expire, or when inUse reports that
// they are no longer used.
func rotate(
	old *cmapi.CAIssuerStatus,
	ca *signer.CA,
	now time.Time,
	inUse func(cmapi.PreviousCA) bool,
) *cmapi.CAIssuerStatus {
	status := &cmapi.CAIssuerStatus{
		Certificate: string(pki.EncodeCertificatePEM(ca.Anchor)),
		Fingerprint: pki.Fingerprint(ca.Signing),
		Since:       metav1.NewTime(now),
		NotAfter:    metav1.NewTime(earlier(ca.Signing.NotAfter, ca.Anchor.NotAfter)),
	}
	if old == nil {
		return status
	}
	status.Previous = slices.Clone(old.Previous)
	switch {
	case old.Fingerprint == status.Fingerprint && old.Certificate == status.Certificate:
		status.Since = old.Since
	default:
		if old.Fingerprint == status.Fingerprint { // only the root above it changed; leaves stay valid
			status.Since = old.Since
		}
		status.Previous = slices.Insert(status.Previous, 0, cmapi.PreviousCA{
			Certificate: old.Certificate, Fingerprint: old.Fingerprint, NotAfter: old.NotAfter, ReplacedAt: metav1.NewTime(now),
		})
	}
	seen := map[string]bool{status.Fingerprint + status.Certificate: true}
	status.Previous = slices.DeleteFunc(status.Previous, func(p cmapi.PreviousCA) bool {
		again := seen[p.Fingerprint+p.Certificate] // an old CA may come back
		seen[p.Fingerprint+p.Certificate] = true
		return again || !p.NotAfter.After(now) || !inUse(p)
	})
	if len(status.Previous) > maxPrevious {
		status.Previous = status.Previous[:maxPrevious]
	}
	if len(status.Previous) == 0 {
		status.Previous = nil
	}
	return status
}

// chainDigest returns a digest of the certificates that come with each certificate that a CA signs,
// without its own. It is empty if there are none. The Secret was read a moment ago.
func (r *Reconciler) chainDigest(ctx context.Context, issuer *signer.Issuer) string {
	secret, err := r.Secrets.Get(ctx, issuer.SecretNamespace, issuer.GetSpec().CA.SecretName)
	if err != nil {
		return "" // its next change is another pass
	}
	chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil || len(chain) < 2 {
		return ""
	}
	h := sha256.New()
	for _, c := range chain[1:] {
		h.Write(c.Raw)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// SignedBy reports whether the CA with the fingerprint and anchor signed a certificate. If
// intermediates follow the certificate, the first one must have the fingerprint; otherwise the
// anchor must have signed it.
func SignedBy(chain []*x509.Certificate, fingerprint string, anchor *x509.Certificate) bool {
	if len(chain) > 1 {
		return pki.Fingerprint(chain[1]) == fingerprint
	}
	return pki.SignedBy(chain[0], anchor)
}
