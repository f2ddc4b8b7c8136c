package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Order follows one order at an ACME server (RFC 8555 section 7.1.3). It is made by the controller.
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

	// What is ordered.
	Spec OrderSpec `json:"spec"`

	// How far the order is.
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

// OrderSpec says what is ordered.
type OrderSpec struct {
	// The certificate signing request (RFC 2986), in the form that the CertificateRequest has it in.
	Request []byte `json:"request"`

	// The ACME issuer whose account orders.
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

	// How long the certificate is to be valid. The server decides if left out.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s')`,message=`duration must be a number with the unit h, m or s, such as 2160h for 90 days`
	Duration *metav1.Duration `json:"duration,omitempty"`

	// The server's certificate profile to use.
	// +optional
	Profile string `json:"profile,omitempty"`

	// The certificate that this order replaces, as its ACME Renewal Information identifier (RFC 9773
	// section 4.1).
	// +optional
	Replaces string `json:"replaces,omitempty"`
}

// OrderStatus says how far an order is.
type OrderStatus struct {
	// URL of the order at the server. It does not change once it is set.
	// +optional
	URL string `json:"url,omitempty"`

	// URL where the order is finalized.
	// +optional
	FinalizeURL string `json:"finalizeURL,omitempty"`

	// What the server wants to be proven, for each identifier.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Authorizations []ACMEAuthorization `json:"authorizations,omitempty"`

	// The certificate, PEM, with its chain.
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

	// Perennial's own. Since when the server does not answer, or answers nobody for now. Not set when
	// it answers.
	// +optional
	UnreachableSince *metav1.Time `json:"unreachableSince,omitempty"`

	// Until when names of the order are paused, as their validation failed again and again.
	// Perennial's own.
	// +optional
	PausedUntil *metav1.Time `json:"pausedUntil,omitempty"`
}

// ACMEAuthorization is what the server wants to be proven for one identifier (RFC 8555 section
// 7.1.4).
type ACMEAuthorization struct {
	// URL of the authorization.
	// +kubebuilder:validation:MaxLength=4096
	URL string `json:"url"`

	// The DNS name or IP address, without "*." of a wildcard.
	// +optional
	Identifier string `json:"identifier,omitempty"`

	// Whether it is for a wildcard.
	// +optional
	Wildcard *bool `json:"wildcard,omitempty"`

	// State of the authorization when it was first seen. One that was valid already needs no
	// Challenge. pending if not set.
	// +optional
	InitialState State `json:"initialState,omitempty"`

	// The ways to prove it that the server offers.
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

	// Perennial's own. The names of the CA of which a record of dns-persist-01 has one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MaxLength=253
	IssuerDomainNames []string `json:"issuerDomainNames,omitempty"`

	// Type as the server writes it: http-01, dns-01, dns-persist-01. Unknown ones are not used.
	Type string `json:"type"`
}

// State is the state of an order, authorization or challenge (RFC 8555 section 7.1.6), with
// additions of the controller's. Readers must bear unknown ones.
// +kubebuilder:validation:Enum=valid;ready;pending;processing;invalid;expired;errored
type State string

const (
	// Unknown: nothing is known of the state yet.
	Unknown State = ""
	// Valid: done; the certificate can be had. Final.
	Valid State = "valid"
	// Ready: everything is proven; the order can be finalized.
	Ready State = "ready"
	// Pending: something is still to be proven.
	Pending State = "pending"
	// Processing: the server is at work.
	Processing State = "processing"
	// Invalid: the server refused. Final.
	Invalid State = "invalid"
	// Expired: it took too long. Final.
	Expired State = "expired"
	// Errored: the controller gave up, for a reason that is not the server's. Final. Not a state of
	// ACME.
	Errored State = "errored"
)
