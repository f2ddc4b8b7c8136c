// Package revocation revokes the certificates of deleted Certificates that ask for it. If the
// Secret stays, it records the revocation there, so that another Certificate does not use the
// revoked one.
package revocation

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/pki"
)

// Finalizer keeps a Certificate until its certificates are revoked.
const Finalizer = "perennial.dev/revocation"

// RevokeForAnnotation on a request and its Order has the UID of the Certificate and the reason for
// the revocation. It is for a Certificate that is deleted before it has the certificate. Such an
// Order has the Finalizer, too.
const RevokeForAnnotation = "perennial.dev/revoke-for"

// RevokeForValue returns the value of RevokeForAnnotation, empty if the Certificate does not ask
// for a revocation.
func RevokeForValue(crt *cmapi.Certificate) string {
	if r := crt.Spec.Revocation; r == nil || !r.OnDelete {
		return ""
	}
	return string(crt.UID) + " " + string(reasonOf(crt))
}

// ParseRevokeFor reads RevokeForAnnotation. The UID is empty if there is none.
func ParseRevokeFor(o client.Object) (uid types.UID, reason cmapi.RevocationReason) {
	first, second, _ := strings.Cut(o.GetAnnotations()[RevokeForAnnotation], " ")
	return types.UID(first), cmapi.RevocationReason(second)
}

const (
	// revokedAnnotation on a Secret is the fingerprint of a certificate that was revoked when its
	// Certificate was deleted.
	revokedAnnotation = "perennial.dev/revoked"
	// compromisedAnnotation on a Secret is the digest of a public key. Its private key must not be
	// used again.
	compromisedAnnotation = "perennial.dev/compromised-key"
)

// Reasons are the revocation reasons (RFC 5280 section 5.3.1) that subscribers may give, by name.
var Reasons = map[cmapi.RevocationReason]acme.RevocationReason{
	cmapi.RevocationReasonUnspecified:          acme.ReasonUnspecified,
	cmapi.RevocationReasonKeyCompromise:        acme.ReasonKeyCompromise,
	cmapi.RevocationReasonAffiliationChanged:   acme.ReasonAffiliationChanged,
	cmapi.RevocationReasonSuperseded:           acme.ReasonSuperseded,
	cmapi.RevocationReasonCessationOfOperation: acme.ReasonCessationOfOperation,
}

// IssuedLeaf returns the leaf of a chain that was issued for a CSR, both in PEM: the leaf has the
// public key of the CSR. It is nil if the leaf has another key.
func IssuedLeaf(limits pki.Limits, request, chain []byte) *x509.Certificate {
	csr, err := limits.DecodeCSRPEM(request)
	if err != nil {
		return nil
	}
	certs, err := limits.DecodeChainPEM(chain)
	if err != nil || !pki.SamePublicKey(certs[0].PublicKey, csr.PublicKey) {
		return nil
	}
	return certs[0]
}

// reasonOf returns the revocation reason of a Certificate.
func reasonOf(crt *cmapi.Certificate) cmapi.RevocationReason {
	if r := crt.Spec.Revocation; r != nil && r.Reason != "" {
		return r.Reason
	}
	return cmapi.RevocationReasonCessationOfOperation
}

// Revoked reports whether the certificate in a Secret is noted as revoked.
func Revoked(secret *corev1.Secret, leaf *x509.Certificate) bool {
	noted := secret.Annotations[revokedAnnotation]
	return noted != "" && noted == pki.Fingerprint(leaf)
}

// Compromised reports whether a private key in a Secret is noted as one that must not be used
// again.
func Compromised(secret *corev1.Secret, key crypto.Signer) bool {
	if secret == nil || key == nil {
		return false
	}
	noted := secret.Annotations[compromisedAnnotation]
	return noted != "" && noted == digest(key.Public())
}

// NoteCompromised notes on a Secret that the private key of the certificate must not be used again,
// and reports whether that is new.
func NoteCompromised(secret *corev1.Secret, leaf *x509.Certificate) (changed bool) {
	return note(secret, compromisedAnnotation, digest(leaf.PublicKey))
}

// NoteRevoked notes on a Secret that its certificate is revoked, and reports whether that is new.
// If a Certificate is later created for the Secret, it gets a new certificate.
func NoteRevoked(secret *corev1.Secret, leaf *x509.Certificate) (changed bool) {
	return note(secret, revokedAnnotation, pki.Fingerprint(leaf))
}

func note(secret *corev1.Secret, annotation, value string) (changed bool) {
	if secret.Annotations[annotation] == value {
		return false
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[annotation] = value
	return true
}

func digest(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil { // cannot happen: the certificate was parsed
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
