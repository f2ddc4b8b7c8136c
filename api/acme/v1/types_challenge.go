package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Challenge tracks one challenge at an ACME server (RFC 8555 section 7.1.5) and the proof that is
// presented for it. The controller creates it.
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

	// The name to prove control of, and how.
	Spec ChallengeSpec `json:"spec"`

	// Progress of the challenge.
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

// ChallengeSpec describes the name to prove control of, and how.
//
// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,message=`spec of a Challenge cannot be changed`
type ChallengeSpec struct {
	// URL of the challenge at the server.
	URL string `json:"url"`

	// URL of the authorization that the challenge belongs to.
	AuthorizationURL string `json:"authorizationURL"`

	// The DNS name or IP address to prove control of. For a wildcard name, without "*.".
	DNSName string `json:"dnsName"`

	// Whether the challenge is for a wildcard name.
	// +optional
	Wildcard bool `json:"wildcard"`

	// Type of the challenge.
	Type ACMEChallengeType `json:"type"`

	// Token of the challenge, as the server gave it.
	Token string `json:"token"`

	// The proof to present. HTTP-01: the key authorization (RFC 8555 section 8.1). DNS-01: the value
	// of the TXT record, the digest of the key authorization (section 8.4).
	Key string `json:"key"`

	// The key authorization of a DNS-01 challenge. The field key holds its digest. Some providers need
	// the key authorization itself, which cannot be computed again once the account has another key.
	// Perennial's own.
	// +optional
	KeyAuthorization string `json:"keyAuthorization,omitempty"`

	// Perennial's own. The name of the TXT record, if it is not the DNS name with the prefix
	// "_acme-challenge.".
	// +optional
	RecordName string `json:"recordName,omitempty"`

	// How the proof is presented.
	Solver ACMEChallengeSolver `json:"solver"`

	// The ACME issuer. The challenge belongs to its account.
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

// ChallengeStatus is the progress of a challenge.
type ChallengeStatus struct {
	// Whether the controller works on the challenge: set when its turn comes, unset when it is
	// finished.
	// +optional
	Processing bool `json:"processing"`

	// Whether the proof is presented: a DNS record, or a response over HTTP or TLS. The server may not
	// see it yet.
	// +optional
	Presented bool `json:"presented"`

	// When the proof was presented.
	// +optional
	PresentedAt *metav1.Time `json:"presentedAt,omitempty"`

	// Perennial's own. The name of the record, after following CNAMEs, with a trailing dot; for
	// TLS-ALPN-01, host:port of the site. Set where only a few proofs can exist at once: challenges
	// with the same name take turns.
	// +optional
	EffectiveName string `json:"effectiveName,omitempty"`

	// Why the challenge is in this state.
	// +optional
	Reason string `json:"reason,omitempty"`

	// State of the challenge. Unknown if not set.
	// +optional
	State State `json:"state,omitempty"`

	// Perennial's own. Time since which the server does not answer, or answers that it accepts no
	// requests for now. Not set while it answers.
	// +optional
	UnreachableSince *metav1.Time `json:"unreachableSince,omitempty"`
}
