package issuer

import (
	"crypto/x509"
	"slices"
	"time"

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
