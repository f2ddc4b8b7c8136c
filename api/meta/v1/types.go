// Package v1 holds the small types that every other API package refers to: references to
// issuers and Secrets, and the status of a condition.
//
// It has no kinds of its own, so nothing in it is registered with a scheme.
//
// +kubebuilder:object:generate=true
package v1

// GroupName is the API group of these types. It serves no resources.
const GroupName = "meta.cert-manager.io"

// TLSCAKey is the entry of a Secret of type kubernetes.io/tls that holds the certificates of the
// signing CA, PEM.
const TLSCAKey = "ca.crt"

// Defaults for the kind and group of an issuer reference.
const (
	DefaultIssuerKind  = "Issuer"
	DefaultIssuerGroup = "cert-manager.io"
)

// ConditionStatus says whether a condition holds.
// +kubebuilder:validation:Enum=True;False;Unknown
type ConditionStatus string

const (
	// ConditionTrue means that the condition holds.
	ConditionTrue ConditionStatus = "True"
	// ConditionFalse means that the condition does not hold.
	ConditionFalse ConditionStatus = "False"
	// ConditionUnknown means that the controller cannot determine the condition at present.
	ConditionUnknown ConditionStatus = "Unknown"
)

// LocalObjectReference names an object in the namespace of the object that refers to it. For a
// reference of a ClusterIssuer, the namespace is the cluster resource namespace of the controller.
type LocalObjectReference struct {
	// Name of the object.
	Name string `json:"name"`
}

// IssuerReference names the issuer that is to sign.
//
// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message=`name must be the name of the issuer`,fieldPath=`.name`
// +kubebuilder:validation:XValidation:rule=`!has(self.kind) || self.kind in ["", 'Issuer', 'ClusterIssuer'] || (has(self.group) && !(self.group in ["", 'cert-manager.io']))`,message=`kind must be Issuer or ClusterIssuer; for an external issuer also write its API group into issuerRef.group`,fieldPath=`.kind`
type IssuerReference struct {
	// Name of the issuer.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Kind of the issuer: Issuer for one in the same namespace, ClusterIssuer for one that
	// serves all namespaces, or a kind of an external issuer's group.
	// Issuer if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`

	// API group of the issuer. cert-manager.io if left out; external issuers have
	// a group of their own.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`
}

// KindOrDefault returns the kind of the issuer, Issuer if the reference has none.
func (r IssuerReference) KindOrDefault() string {
	if r.Kind == "" {
		return DefaultIssuerKind
	}
	return r.Kind
}

// GroupOrDefault returns the API group of the issuer, cert-manager.io if the reference has none.
func (r IssuerReference) GroupOrDefault() string {
	if r.Group == "" {
		return DefaultIssuerGroup
	}
	return r.Group
}

// SecretKeySelector names one entry of a Secret.
type SecretKeySelector struct {
	LocalObjectReference `json:",inline"`

	// Key of the entry in the Secret's data. If it can be left out, the field that holds the selector
	// says which key is the default.
	// +optional
	Key string `json:"key,omitempty"`
}
