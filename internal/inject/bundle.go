package inject

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"github.com/perennial-pki/perennial/pki"
)

// maxFormer is how many certificates stay in a bundle that its source no longer has. A CA that is replaced every
// day for a year must not fill the object that holds the bundle.
const maxFormer = 8

// merge returns the bundle of an object whose bundle was current and whose source has cas: cas, and after them what
// current has besides, the latest first. Expired ones are left out. If current has the same certificates in another
// order, it is returned as it is.
//
// It also returns when the first certificate of the bundle expires: then the bundle must be made anew. The bundle is nil
// if all of cas are expired.
func merge(current []byte, cas []*x509.Certificate, limits pki.Limits, now time.Time) (merged []byte, expiry time.Time) {
	// What cannot be read, such as the line break that charts like to put there, is nobody's CA.
	old := limits.ReadableCertificates(current)

	var bundle []*x509.Certificate
	add := func(cert *x509.Certificate) {
		if !now.Before(cert.NotAfter) || slices.ContainsFunc(bundle, cert.Equal) {
			return
		}
		bundle = append(bundle, cert)
		if expiry.IsZero() || cert.NotAfter.Before(expiry) {
			expiry = cert.NotAfter
		}
	}
	for _, ca := range cas {
		add(ca)
	}
	wanted := len(bundle)
	if wanted == 0 {
		return nil, time.Time{}
	}
	former := slices.Clone(old)
	slices.SortStableFunc(former, func(a, b *x509.Certificate) int { return b.NotBefore.Compare(a.NotBefore) })
	for _, cert := range former {
		if len(bundle) < wanted+maxFormer {
			add(cert)
		}
	}
	inCurrent := func(cert *x509.Certificate) bool { return slices.ContainsFunc(old, cert.Equal) }
	if len(old) == len(bundle) && !slices.ContainsFunc(bundle, func(cert *x509.Certificate) bool { return !inCurrent(cert) }) {
		return current, expiry
	}
	return pki.EncodeCertificatePEM(bundle...), expiry
}

func same(a, b []bundle) bool {
	return slices.EqualFunc(a, b, func(a, b bundle) bool { return a.webhook == b.webhook && bytes.Equal(a.pem, b.pem) })
}
