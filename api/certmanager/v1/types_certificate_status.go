package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// CertificateStatus says what a certificate is at present.
type CertificateStatus struct {
	// The generation of the spec that the rest of the status is about. Perennial's own.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready: the Secret holds a certificate that is valid and fits the spec. Issuing: a certificate
	// is being requested, or the last attempt failed. Stalled: it is not ready, and only a person can
	// change that.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []CertificateCondition `json:"conditions,omitempty"`

	// When the latest issuance failed. Not set after a success.
	// +optional
	LastFailureTime *metav1.Time `json:"lastFailureTime,omitempty"`

	// When the certificate in the Secret becomes or became valid.
	// +optional
	NotBefore *metav1.Time `json:"notBefore,omitempty"`

	// When the certificate in the Secret expires.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// When the certificate is to be renewed. Not set if no renewal is planned.
	// +optional
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`

	// How many certificates were issued for this object so far. The CertificateRequest of the
	// next one has this number plus one in its annotation
	// cert-manager.io/certificate-revision.
	// +optional
	Revision *int `json:"revision,omitempty"`

	// The Secret with the private key of the certificate that is being requested.
	// +optional
	NextPrivateKeySecretName *string `json:"nextPrivateKeySecretName,omitempty"`

	// A digest, keyed with the private key, of what the keystores in the Secret are made from:
	// password, alias, profile, certificates. A change of any of them is noticed by it without opening
	// the keystores.
	// +optional
	KeystoreDigest string `json:"keystoreDigest,omitempty"`

	// How many attempts failed one after the other. Not set after a success.
	// +optional
	FailedIssuanceAttempts *int `json:"failedIssuanceAttempts,omitempty"`

	// What the ACME server says about the certificate.
	// +optional
	ACME *CertificateACMEStatus `json:"acme,omitempty"`

	// Perennial's own. What is revoked when the Certificate is deleted. Set with
	// spec.revocation.onDelete, so that it is known although the Secret may go first.
	// +optional
	Revocable *RevocableCertificate `json:"revocable,omitempty"`
}

// RevocableCertificate is a certificate, and who can revoke it.
type RevocableCertificate struct {
	// The certificate, DER, without its chain.
	Certificate []byte `json:"certificate"`

	// The issuer that issued it.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`
}

// CertificateCondition is one aspect of a Certificate's state.
type CertificateCondition struct {
	// Which aspect: Ready or Issuing.
	Type CertificateConditionType `json:"type"`

	// True, False or Unknown.
	Status cmmeta.ConditionStatus `json:"status"`

	// When status last changed.
	// +optional
	LastTransitionTime *metav1.Time `json:"lastTransitionTime,omitempty"`

	// Why, in one word, for programs.
	// +optional
	Reason string `json:"reason,omitempty"`

	// Why, in sentences, for people.
	// +optional
	Message string `json:"message,omitempty"`

	// The metadata.generation that the condition speaks of. If it is less than the present one,
	// the latest change of the spec was not looked at yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// CertificateConditionType is an aspect of a Certificate's state.
type CertificateConditionType string

const (
	// CertificateConditionReady: the Secret holds a certificate that is valid, belongs to the key
	// beside it, fits the spec, and comes from the issuer that the spec names.
	CertificateConditionReady CertificateConditionType = "Ready"

	// CertificateConditionIssuing: a certificate is to be requested or is being requested. Others
	// may set it to True to have one issued at once.
	CertificateConditionIssuing CertificateConditionType = "Issuing"
)

// CertificateACMEStatus is what the ACME server says about a certificate.
type CertificateACMEStatus struct {
	// When the server wants the certificate to be renewed (RFC 9773).
	// +optional
	ARI *CertificateACMEARIStatus `json:"ari,omitempty"`
}

// CertificateACMEARIStatus is the ACME Renewal Information (RFC 9773) of a certificate.
type CertificateACMEARIStatus struct {
	// Stretch of time in which the server wants the certificate to be renewed.
	// +optional
	SuggestedWindow *ACMERenewalWindow `json:"suggestedWindow,omitempty"`

	// Page that explains to a person why the window is where it is.
	// +optional
	ExplanationURL string `json:"explanationURL,omitempty"`

	// When the server was last asked.
	// +optional
	LastChecked *metav1.Time `json:"lastChecked,omitempty"`

	// When the server will be asked again.
	// +optional
	NextCheck *metav1.Time `json:"nextCheck,omitempty"`

	// Why asking failed the last time. Empty if it did not.
	// +optional
	LastError string `json:"lastError,omitempty"`

	// Perennial's own. URL of the account that the certificate was issued to. Only that can say that
	// another replaces it.
	// +optional
	Account string `json:"account,omitempty"`

	// Perennial's own. That certificates in a row were renewed because the server wanted that at once.
	// Missing if it was not so with the one before this.
	// +optional
	AtOnce *ACMERenewalAtOnce `json:"atOnce,omitempty"`
}

// ACMERenewalAtOnce is what is remembered of certificates that the server wanted to be renewed at
// once, one after the other.
type ACMERenewalAtOnce struct {
	// How many there were before this certificate.
	// +required
	Renewals int32 `json:"renewals"`

	// When the first of them was renewed.
	// +required
	Since metav1.Time `json:"since"`

	// No suggestion has this certificate renewed earlier.
	// +required
	NotBefore metav1.Time `json:"notBefore"`
}

// ACMERenewalWindow is the stretch of time that an ACME server suggests for renewal.
type ACMERenewalWindow struct {
	// Its begin.
	// +required
	Start *metav1.Time `json:"start"`

	// Its end.
	// +required
	End *metav1.Time `json:"end"`
}
