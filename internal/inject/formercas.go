package inject

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"github.com/perennial-pki/perennial/pki"
)

// maxFormer is how many certificates that the source no longer has stay in a bundle. A CA that is
// replaced every day for a year must not fill the object that holds the bundle.
const maxFormer = 8

// merge returns the new bundle of an object, from its current bundle and the CAs of its source. The
// certificates of current come first, in their order, so that clients that read only the first
// certificate keep the one that they know. New CAs follow. merge leaves out expired certificates,
// and all but the latest of those that the source no longer has.
//
// It also returns when the first certificate of the bundle expires, because the bundle must be made
// anew then. The bundle is nil if all of cas are expired.
func merge(
	current []byte,
	cas []*x509.Certificate,
	limits pki.Limits,
	now time.Time,
) (merged []byte, expiry time.Time) {
	// Unreadable data is ignored. Charts often put a line break there, for example.
	old := limits.ReadableCertificates(current)
	cas, old = valid(cas, now), valid(old, now)
	if len(cas) == 0 {
		return nil, time.Time{}
	}
	kept := former(old, cas)
	var bundle []*x509.Certificate
	for _, cert := range old {
		if slices.ContainsFunc(cas, cert.Equal) || slices.ContainsFunc(kept, cert.Equal) {
			bundle = append(bundle, cert)
		}
	}
	for _, cert := range cas {
		if !slices.ContainsFunc(bundle, cert.Equal) {
			bundle = append(bundle, cert)
		}
	}
	for _, cert := range bundle {
		if expiry.IsZero() || cert.NotAfter.Before(expiry) {
			expiry = cert.NotAfter
		}
	}
	if all, err := limits.DecodeBundlePEM(current); err == nil && slices.EqualFunc(all, bundle,
		(*x509.Certificate).Equal) {
		return current, expiry // as it is written there
	}
	return pki.EncodeCertificatePEM(bundle...), expiry
}

// valid returns the certificates that have not expired, each once.
func valid(certs []*x509.Certificate, now time.Time) (out []*x509.Certificate) {
	for _, cert := range certs {
		if now.Before(cert.NotAfter) && !slices.ContainsFunc(out, cert.Equal) {
			out = append(out, cert)
		}
	}
	return out
}

// former returns the latest certificates of a bundle that its source no longer has.
func former(old, cas []*x509.Certificate) []*x509.Certificate {
	out := slices.DeleteFunc(slices.Clone(old),
		func(cert *x509.Certificate) bool { return slices.ContainsFunc(cas, cert.Equal) })
	slices.SortStableFunc(out, func(a, b *x509.Certificate) int { return b.NotBefore.Compare(a.NotBefore) })
	return out[:min(len(out), maxFormer)]
}

func same(a, b []bundle) bool {
	return slices.EqualFunc(a, b, func(a, b bundle) bool { return a.webhook == b.webhook && bytes.Equal(a.pem, b.pem) })
}
