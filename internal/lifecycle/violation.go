package lifecycle

import (
	"fmt"
	"time"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/pki"
)

// Reasons why a certificate is issued, and why it is not ready. They are cert-manager's, as tools
// match on them.
const (
	reasonDoesNotExist              = "DoesNotExist"
	reasonMissingData               = "MissingData"
	reasonInvalidKeyPair            = "InvalidKeyPair"
	reasonInvalidCertificate        = "InvalidCertificate"
	reasonInvalidCertificateRequest = "InvalidCertificateRequest"
	reasonSecretMismatch            = "SecretMismatch"
	reasonIncorrectIssuer           = "IncorrectIssuer"
	reasonIncorrectCertificate      = "IncorrectCertificate"
	reasonRequestChanged            = "RequestChanged"
	reasonRenewing                  = "Renewing"
	reasonExpired                   = "Expired"
	reasonReady                     = "Ready"
	reasonCannotRegenerateKey       = "CannotRegenerateKey"
)

// ReasonWindowError: renewal.windows cannot be read, or none lies in the life of the certificate.
// The reason is cert-manager's.
const ReasonWindowError = "WindowError"

// Reasons of our own.
const (
	// reasonInvalidSpec: no request can be made of the spec.
	reasonInvalidSpec = "InvalidSpec"
	// reasonKeystorePassword: a password of a keystore is missing.
	reasonKeystorePassword = "KeystorePasswordSecretNotFound"
	// reasonPassword: a keystore was made with a password that its consumers may not be able to give.
	reasonPassword = "KeystorePasswordUnusual"
	// reasonRevoked: the certificate is revoked. perennial revoke sets Issuing with it.
	reasonRevoked = string(earlyissuance.Revoked)
	// reasonNameTaken: an object with another owner has the name that is needed.
	reasonNameTaken = "NameTaken"
)

// temporaryAnnotation marks a Secret with a temporary certificate, which stays until the issuer has
// answered.
const temporaryAnnotation = "perennial.dev/temporary-certificate"

// temporaryIssuer is the common name of the CA that cert-manager makes for each temporary
// certificate.
const temporaryIssuer = "cert-manager.local"

// byHand reports whether a reason of Issuing means that a user triggered the issuance.
func byHand(reason string) bool { return earlyissuance.Cause(reason).ByHand() }

// violation is the first thing that is wrong with what a Certificate has.
type violation struct{ reason, message string }

// violated looks for what is wrong with the Secret, in cert-manager's order, but for the age of the
// certificate.
func violated(o *Observation, p pair) *violation {
	if p.reason != "" {
		return &violation{p.reason, p.message}
	}
	spec := &o.Certificate.Spec
	annotations := o.Secret.Annotations
	if annotations[temporaryAnnotation] == "true" {
		return &violation{reasonMissingData, "Issuing certificate as Secret contains a temporary certificate"}
	}
	if p.chain[0].Issuer.CommonName == temporaryIssuer {
		return &violation{reasonMissingData, "Issuing certificate as Secret contains a temporary certificate of cert-manager"}
	}
	was := issuerOf(o.Secret)
	if was.Name == "" {
		return &violation{reasonIncorrectIssuer,
			fmt.Sprintf("Issuing certificate as the annotations of Secret %q name no issuer: "+
				"what it holds was not issued for this Certificate", spec.SecretName)}
	}
	if !sameIssuer(was, spec.IssuerRef) {
		return &violation{reasonIncorrectIssuer, fmt.Sprintf("Issuing certificate as Secret was previously issued by %q",
			was.KindOrDefault()+"."+was.GroupOrDefault()+"/"+was.Name)}
	}
	if other, ok := annotations[cmapi.CertificateNameKey]; ok && other != o.Certificate.Name {
		return &violation{reasonIncorrectCertificate, issuedForOther(other)}
	}
	if revocation.Revoked(o.Secret, p.chain[0]) {
		return &violation{
			reasonRevoked,
			"Issuing certificate as the one in the Secret was revoked when the Certificate that it was issued for was deleted",
		}
	}
	ks, _ := keySpec(spec)
	if differences := ks.Differences(p.key.Public()); len(differences) > 0 {
		return &violation{
			reasonSecretMismatch,
			fmt.Sprintf("Existing private key is not up to date for spec: %v", differences),
		}
	}
	if o.Current == nil {
		// The request of the certificate is gone. The certificate itself is a weaker basis, as issuers
		// change what they sign.
		if differences := o.undeferred(o.asks(spec).CertificateDifferences(p.chain[0])); len(differences) > 0 {
			return &violation{
				reasonSecretMismatch,
				fmt.Sprintf("Issuing certificate as Existing issued Secret is not up to date for spec: %v", differences),
			}
		}
		return nil
	}
	csr, err := o.Limits.DecodeCSRPEM(o.Current.Spec.Request)
	if err != nil {
		return &violation{
			reasonInvalidCertificateRequest,
			fmt.Sprintf("Failed to decode current CertificateRequest: %v", err),
		}
	}
	if !pki.SamePublicKey(csr.PublicKey, p.key.Public()) {
		return &violation{
			reasonSecretMismatch,
			"Secret contains a private key that does not match the current CertificateRequest",
		}
	}
	if differences := o.requestDifferences(o.Current, csr, spec); len(differences) > 0 {
		return &violation{
			reasonRequestChanged,
			fmt.Sprintf("Fields on existing CertificateRequest resource not up to date: %v", differences),
		}
	}
	return nil
}

func issuedForOther(name string) string {
	return fmt.Sprintf(
		"Secret was issued for %q. If this message is not transient, you might have two conflicting Certificates "+
			"pointing to the same secret.",
		name,
	)
}

// expired says that the certificate is past its end.
func expired(p pair, now time.Time) *violation {
	if now.After(p.chain[0].NotAfter) {
		return &violation{reasonExpired, expiredOn(p.chain[0].NotAfter)}
	}
	return nil
}

func expiredOn(end time.Time) string {
	return "Certificate expired on " + end.UTC().Format(time.RFC1123)
}

// rival returns the Certificate that has the Secret in this one's place, or nil. Of several that
// name the same Secret it is the one that the Secret was issued for and, before there is such a
// Secret, the oldest.
func rival(o *Observation) *cmapi.Certificate {
	if len(o.Rivals) == 0 {
		return nil
	}
	if o.Secret != nil {
		holder := o.Secret.Annotations[cmapi.CertificateNameKey]
		if holder == o.Certificate.Name {
			return nil
		}
		for _, r := range o.Rivals {
			if r.Name == holder {
				return r
			}
		}
	}
	oldest := o.Certificate
	for _, r := range o.Rivals {
		if r.CreationTimestamp.Before(&oldest.CreationTimestamp) ||
			r.CreationTimestamp.Equal(&oldest.CreationTimestamp) && r.Name < oldest.Name {
			oldest = r
		}
	}
	if oldest == o.Certificate {
		return nil
	}
	return oldest
}
