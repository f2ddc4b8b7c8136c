package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Order tracks one order at an ACME server (RFC 8555 section 7.1.3). The controller creates it.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="State",type="string",JSONPath=".status.state"
// +kubebuilder:printcolumn:name="Issuer",type="string",JSONPath=".spec.issuerRef.name",priority=1
// +kubebuilder:printcolumn:name="Reason",type="string",JSONPath=".status.reason",description="",priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp",description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Namespaced,categories={cert-manager,cert-manager-acme}
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.group
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.kind
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.name
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule=`self.spec.request == oldSelf.spec.request`,message=`request of an Order cannot be changed: create another CertificateRequest`,fieldPath=`.spec.request`
// +kubebuilder:validation:XValidation:rule=`oldSelf.?status.?url.orValue("") in ["", self.?status.?url.orValue("")]`,message=`url of an Order cannot be changed once it is set`,fieldPath=`.status.url`
// +kubebuilder:validation:XValidation:rule=`oldSelf.?status.?finalizeURL.orValue("") in ["", self.?status.?finalizeURL.orValue("")]`,message=`finalizeURL of an Order cannot be changed once it is set`,fieldPath=`.status.finalizeURL`
// +kubebuilder:validation:XValidation:rule=`oldSelf.?status.?certificate.orValue(b"") in [b"", self.?status.?certificate.orValue(b"")]`,message=`certificate of an Order cannot be changed once it is set`,fieldPath=`.status.certificate`
// +kubebuilder:validation:XValidation:rule=`!has(oldSelf.status) || !has(oldSelf.status.authorizations) || oldSelf.status.authorizations.size() == 0 || (has(self.status) && has(self.status.authorizations) && self.status.authorizations.size() == oldSelf.status.authorizations.size() && oldSelf.status.authorizations.all(i, old, self.status.authorizations[i].url == old.url && (!has(old.initialState) || self.status.authorizations[i] == old)))`,message=`authorizations of an Order cannot be changed once they are set`,fieldPath=`.status.authorizations`
type Order struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	// The certificate to order.
	Spec OrderSpec `json:"spec"`

	// Progress of the order.
	// +optional
	Status OrderStatus `json:"status"`
}

// OrderList is a list of Orders.
//
// +kubebuilder:object:root=true
type OrderList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Order `json:"items"`
}

// OrderSpec describes the certificate to order.
type OrderSpec struct {
	// The certificate signing request (RFC 2986), exactly as in the CertificateRequest.
	Request []byte `json:"request"`

	// The ACME issuer. The order belongs to its account.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`

	// Common name in the request. It is also among dnsNames or ipAddresses.
	// +optional
	CommonName string `json:"commonName,omitempty"`

	// DNS names in the request, each of which is authorized.
	// +optional
	// +listType=atomic
	DNSNames []string `json:"dnsNames,omitempty"`

	// IP addresses in the request, each of which is authorized (RFC 8738).
	// +optional
	// +listType=atomic
	IPAddresses []string `json:"ipAddresses,omitempty"`

	// Requested lifetime of the certificate. If left out, the server decides.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s')`,message=`duration must be a number with the unit h, m or s, such as 2160h for 90 days`
	Duration *metav1.Duration `json:"duration,omitempty"`

	// Certificate profile of the server to use.
	// +optional
	Profile string `json:"profile,omitempty"`

	// The certificate that this order replaces, as its ACME Renewal Information identifier (RFC 9773
	// section 4.1).
	// +optional
	Replaces string `json:"replaces,omitempty"`
}

// OrderStatus is the progress of an order.
type OrderStatus struct {
	// URL of the order at the server. It does not change once it is set.
	// +optional
	URL string `json:"url,omitempty"`

	// URL where the order is finalized.
	// +optional
	FinalizeURL string `json:"finalizeURL,omitempty"`

	// Authorizations that the server requires, one for each identifier.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Authorizations []ACMEAuthorization `json:"authorizations,omitempty"`

	// The certificate with its chain, PEM.
	// +optional
	Certificate []byte `json:"certificate,omitempty"`

	// State of the order. valid, invalid, expired and errored are final.
	// +optional
	State State `json:"state,omitempty"`

	// Why the order is in this state.
	// +optional
	Reason string `json:"reason,omitempty"`

	// When the order failed.
	// +optional
	FailureTime *metav1.Time `json:"failureTime,omitempty"`

	// Perennial's own. Time since which the server does not answer, or answers that it accepts no
	// requests for now. Not set while it answers.
	// +optional
	UnreachableSince *metav1.Time `json:"unreachableSince,omitempty"`

	// Time until which names of the order are paused, because their validation failed repeatedly.
	// Perennial's own.
	// +optional
	PausedUntil *metav1.Time `json:"pausedUntil,omitempty"`
}

// ACMEAuthorization is the server's authorization for one identifier of an order (RFC 8555 section
// 7.1.4).
type ACMEAuthorization struct {
	// URL of the authorization.
	// +kubebuilder:validation:MaxLength=4096
	URL string `json:"url"`

	// The DNS name or IP address. For a wildcard name, without "*.".
	// +optional
	Identifier string `json:"identifier,omitempty"`

	// Whether the authorization is for a wildcard name.
	// +optional
	Wildcard *bool `json:"wildcard,omitempty"`

	// State of the authorization when the controller first read it. An authorization that was already
	// valid needs no Challenge. pending if not set.
	// +optional
	InitialState State `json:"initialState,omitempty"`

	// Challenges that the server offers for this authorization.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Challenges []ACMEChallenge `json:"challenges,omitempty"`
}

// ACMEChallenge is one way to prove control of an identifier, as the server offers it.
type ACMEChallenge struct {
	// URL of the challenge.
	URL string `json:"url"`

	// Token that the proof is computed from. Empty for dns-persist-01.
	Token string `json:"token"`

	// Perennial's own. Domain names of the CA. A dns-persist-01 record contains one of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MaxLength=253
	IssuerDomainNames []string `json:"issuerDomainNames,omitempty"`

	// Type as the server writes it: http-01, dns-01, dns-persist-01. The controller ignores unknown
	// types.
	Type string `json:"type"`
}

// State is the state of an order, authorization or challenge (RFC 8555 section 7.1.6), plus values
// that the controller adds. Clients must accept unknown values.
// +kubebuilder:validation:Enum=valid;ready;pending;processing;invalid;expired;errored
type State string

const (
	// Unknown means that the state is not known yet.
	Unknown State = ""
	// Valid means that the server has issued the certificate. Final.
	Valid State = "valid"
	// Ready means that all authorizations are valid and the order can be finalized.
	Ready State = "ready"
	// Pending means that an authorization or challenge is not valid yet.
	Pending State = "pending"
	// Processing means that the server validates or issues.
	Processing State = "processing"
	// Invalid means that the server refused. Final.
	Invalid State = "invalid"
	// Expired means that the server's time limit passed. Final.
	Expired State = "expired"
	// Errored means that the controller gave up, for a reason of its own. Final. ACME has no such
	// state.
	Errored State = "errored"
)
