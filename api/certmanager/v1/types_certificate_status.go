package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// CertificateStatus is the current state of a certificate.
type CertificateStatus struct {
	// The generation of the spec that the status describes. Perennial's own.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready: the Secret holds a certificate that is valid and fits the spec. Issuing: a certificate is
	// being requested, or the last attempt failed. Stalled: the Certificate is not ready, and only a
	// person can change that.
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

	// The Secret with the private key for the certificate that is being requested.
	// +optional
	NextPrivateKeySecretName *string `json:"nextPrivateKeySecretName,omitempty"`

	// A digest, keyed with the private key, of the inputs of the keystores in the Secret: password,
	// alias, profile, certificates. It shows a change of any of them without opening the keystores.
	// +optional
	KeystoreDigest string `json:"keystoreDigest,omitempty"`

	// How many attempts in a row failed. Not set after a success.
	// +optional
	FailedIssuanceAttempts *int `json:"failedIssuanceAttempts,omitempty"`

	// What the ACME server says about the certificate.
	// +optional
	ACME *CertificateACMEStatus `json:"acme,omitempty"`

	// Perennial's own. What is revoked when the Certificate is deleted. Set with
	// spec.revocation.onDelete, because the Secret may be deleted before the Certificate.
	// +optional
	Revocable *RevocableCertificate `json:"revocable,omitempty"`
}

// RevocableCertificate is a certificate, and the issuer that can revoke it.
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

	// Reason in one word, for programs.
	// +optional
	Reason string `json:"reason,omitempty"`

	// Explanation in sentences, for people.
	// +optional
	Message string `json:"message,omitempty"`

	// The metadata.generation that the condition describes. If it is less than the current one, the
	// controller has not processed the latest change of the spec yet.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// CertificateConditionType is an aspect of a Certificate's state.
type CertificateConditionType string

const (
	// CertificateConditionReady is True when the Secret holds a certificate that is valid, matches its
	// private key and the spec, and comes from the issuer that the spec names.
	CertificateConditionReady CertificateConditionType = "Ready"

	// CertificateConditionIssuing is True when a certificate is to be requested or is being requested.
	// A client may set it to True to request a certificate at once.
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
	// Period in which the server wants the certificate to be renewed.
	// +optional
	SuggestedWindow *ACMERenewalWindow `json:"suggestedWindow,omitempty"`

	// Web page that explains the window.
	// +optional
	ExplanationURL string `json:"explanationURL,omitempty"`

	// When the server was last asked.
	// +optional
	LastChecked *metav1.Time `json:"lastChecked,omitempty"`

	// When the server will be asked again.
	// +optional
	NextCheck *metav1.Time `json:"nextCheck,omitempty"`

	// Error of the last query. Empty if it succeeded.
	// +optional
	LastError string `json:"lastError,omitempty"`

	// Perennial's own. URL of the account that the certificate was issued to. Only an order of this
	// account can name the certificate as the one it replaces.
	// +optional
	Account string `json:"account,omitempty"`

	// Perennial's own. Counts consecutive certificates that were renewed because the server asked for
	// immediate renewal. Not set if the previous certificate was not renewed for that reason.
	// +optional
	AtOnce *ACMERenewalAtOnce `json:"atOnce,omitempty"`
}

// ACMERenewalAtOnce describes consecutive certificates that were renewed because the server asked
// for immediate renewal.
type ACMERenewalAtOnce struct {
	// How many such renewals preceded this certificate.
	// +required
	Renewals int32 `json:"renewals"`

	// When the first of them happened.
	// +required
	Since metav1.Time `json:"since"`

	// Time before which no suggestion of the server renews this certificate.
	// +required
	NotBefore metav1.Time `json:"notBefore"`
}

// ACMERenewalWindow is the period that an ACME server suggests for renewal.
type ACMERenewalWindow struct {
	// Start of the window.
	// +required
	Start *metav1.Time `json:"start"`

	// End of the window.
	// +required
	End *metav1.Time `json:"end"`
}
