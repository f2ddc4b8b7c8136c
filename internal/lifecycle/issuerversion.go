package lifecycle

import (
	"strings"
	"time"

	"github.com/perennial-pki/perennial/internal/signer"
)

// chainMark separates, in the version of an issuer, its generation from the certificates above its
// CA. Versions of older controllers, and of issuers without a CA, have none.
const chainMark = "+"

// issuerVersion identifies an issuer, its spec and, for type ca, the CA in use and the certificates
// above it. It changes with each of these.
func issuerVersion(issuer *signer.Issuer) string {
	version := issuer.Generation()
	if ca := issuer.GetStatus().CA; ca != nil && issuer.GetSpec().CA != nil {
		version += chainMark + ca.ChainDigest[:min(16, len(ca.ChainDigest))]
	}
	return version
}

// issuerChanged reports whether an issuer was replaced or changed since a request was made for it
// that failed at a time.
func issuerChanged(issuer *signer.Issuer, was string, failed time.Time) bool {
	generation, chain, marked := strings.Cut(was, chainMark)
	if issuer.ChangedSince(generation, failed) {
		return true
	}
	_, is, known := strings.Cut(issuerVersion(issuer), chainMark)
	return marked && known && chain != is
}
