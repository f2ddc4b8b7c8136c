package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Challenge follows one challenge at an ACME server (RFC 8555 section 7.1.5), and what is set up
// to meet it. It is made by the controller.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="State",type="string",JSONPath=".status.state"
// +kubebuilder:printcolumn:name="Domain",type="string",JSONPath=".spec.dnsName"
// +kubebuilder:printcolumn:name="Reason",type="string",JSONPath=".status.reason",description="",priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Namespaced,categories={cert-manager,cert-manager-acme}
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.group
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.kind
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.name
// +kubebuilder:subresource:status
type Challenge struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	// What is to be proven, and how.
	Spec ChallengeSpec `json:"spec"`

	// How far the challenge is.
	// +optional
	// +kubebuilder:default={"state":"pending"}
	Status ChallengeStatus `json:"status"`
}

// ChallengeList is a list of Challenges.
//
// +kubebuilder:object:root=true
type ChallengeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Challenge `json:"items"`
}

// ChallengeSpec says what is to be proven, and how.
//
// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,message=`spec of a Challenge cannot be changed`
type ChallengeSpec struct {
	// URL of the challenge at the server.
	URL string `json:"url"`

	// URL of the authorization that the challenge belongs to.
	AuthorizationURL string `json:"authorizationURL"`

	// The DNS name or IP address to prove control of, without "*." of a wildcard.
	DNSName string `json:"dnsName"`

	// Whether it is for a wildcard.
	// +optional
	Wildcard bool `json:"wildcard"`

	// Type of the challenge.
	Type ACMEChallengeType `json:"type"`

	// Token of the challenge, as the server gave it.
	Token string `json:"token"`

	// What is to be presented. HTTP-01: the key authorization (RFC 8555 section 8.1). DNS-01: the
	// value of the TXT record, which is the digest of the key authorization (section 8.4).
	Key string `json:"key"`

	// The key authorization of a DNS-01 challenge, which key is the digest of, for providers that want
	// it: it cannot be had any more when the account has another key. Perennial's own.
	// +optional
	KeyAuthorization string `json:"keyAuthorization,omitempty"`

	// Perennial's own. The name of the TXT record if it is not _acme-challenge. and the DNS name.
	// +optional
	RecordName string `json:"recordName,omitempty"`

	// How it is presented.
	Solver ACMEChallengeSolver `json:"solver"`

	// The ACME issuer whose account takes the challenge.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`
}

// ACMEChallengeType is a type of challenge.
// +kubebuilder:validation:Enum=HTTP-01;DNS-01;TLS-ALPN-01
type ACMEChallengeType string

const (
	// ACMEChallengeTypeHTTP01 is proven by an HTTP resource (RFC 8555 section 8.3).
	ACMEChallengeTypeHTTP01 ACMEChallengeType = "HTTP-01"
	// ACMEChallengeTypeDNS01 is proven by a DNS record (RFC 8555 section 8.4).
	ACMEChallengeTypeDNS01 ACMEChallengeType = "DNS-01"
	// ACMEChallengeTypeTLSALPN01 is proven in a TLS handshake (RFC 8737).
	ACMEChallengeTypeTLSALPN01 ACMEChallengeType = "TLS-ALPN-01"
)

// ChallengeStatus says how far a challenge is.
type ChallengeStatus struct {
	// Whether the controller works on the challenge: set when its turn comes, unset when
	// it is over.
	// +optional
	Processing bool `json:"processing"`

	// Whether the DNS record, or what answers over HTTP, is set up. It need not be visible to
	// the server yet.
	// +optional
	Presented bool `json:"presented"`

	// When it was set up.
	// +optional
	PresentedAt *metav1.Time `json:"presentedAt,omitempty"`

	// Perennial's own. The name of the record, after CNAMEs, with a dot at its end, or host:port of a
	// site for TLS-ALPN-01. Set where only a few proofs can stand at once: challenges with the same
	// one take turns.
	// +optional
	EffectiveName string `json:"effectiveName,omitempty"`

	// Why the challenge is in this state.
	// +optional
	Reason string `json:"reason,omitempty"`

	// State of the challenge. Unknown if not set.
	// +optional
	State State `json:"state,omitempty"`

	// Perennial's own. Since when the server does not answer, or answers nobody for now. Not set when
	// it answers.
	// +optional
	UnreachableSince *metav1.Time `json:"unreachableSince,omitempty"`
}
