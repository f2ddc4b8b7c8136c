package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Reasons of a CertificateRequest's Ready condition. External issuers set and read exactly these.
const (
	// CertificateRequestReasonPending means that the issuer has not answered yet.
	CertificateRequestReasonPending = "Pending"
	// CertificateRequestReasonFailed means that the request failed permanently; status.failureTime
	// says when.
	CertificateRequestReasonFailed = "Failed"
	// CertificateRequestReasonIssued means that status.certificate holds the certificate.
	CertificateRequestReasonIssued = "Issued"
	// CertificateRequestReasonDenied means that the request was denied and is never signed;
	// status.failureTime says when.
	CertificateRequestReasonDenied = "Denied"
)

// CertificateRequest asks an issuer once for a signature. It is approved or denied, then
// signed or refused, and cannot be used again. Its spec does not change.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Approved",type="string",JSONPath=`.status.conditions[?(@.type == "Approved")].status`
// +kubebuilder:printcolumn:name="Denied",type="string",JSONPath=`.status.conditions[?(@.type == "Denied")].status`
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Issuer",type="string",JSONPath=`.spec.issuerRef.name`
// +kubebuilder:printcolumn:name="Requester",type="string",JSONPath=`.spec.username`
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`,description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Namespaced,shortName={cr,crs},categories=cert-manager
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.group
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.kind
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.name
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule=`!has(oldSelf.status) || !has(oldSelf.status.conditions) || oldSelf.status.conditions.all(old, !(old.type in ['Approved', 'Denied']) || (has(self.status) && has(self.status.conditions) && self.status.conditions.exists(new, new == old)))`,message=`the conditions Approved and Denied are final: they can be neither changed nor removed`,fieldPath=`.status.conditions`
// +kubebuilder:validation:XValidation:rule=`has(self.spec) || oldSelf.hasValue() && !has(oldSelf.value().spec)`,optionalOldSelf=true,message=`the spec is missing: write request and issuerRef below spec, indented`,fieldPath=`.spec`
type CertificateRequest struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The certificate to sign, the issuer, and the user that requested it.
	// +optional
	Spec CertificateRequestSpec `json:"spec"`

	// The result of the request.
	// +optional
	Status CertificateRequestStatus `json:"status"`
}

// CertificateRequestList is a list of CertificateRequests.
//
// +kubebuilder:object:root=true
type CertificateRequestList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CertificateRequest `json:"items"`
}

// CertificateRequestSpec describes the certificate to sign. The issuer decides what it signs, and
// may change or leave out any attribute.
//
// +kubebuilder:validation:XValidation:rule=`self == oldSelf`,message=`spec cannot be changed once the CertificateRequest exists: create another one`
type CertificateRequestSpec struct {
	// Requested lifetime of the certificate. 2160h (90 days) if left out. The issuer may choose
	// another.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s')`,message=`duration must be a number with the unit h, m or s, such as 2160h for 90 days`
	Duration *metav1.Duration `json:"duration,omitempty"`

	// The issuer that is to sign. An Issuer must be in the namespace of the request.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`

	// The certificate signing request (RFC 2986), PEM. If it has the extensions for basic constraints
	// and key usages, they must agree with isCA and usages.
	Request []byte `json:"request"`

	// Whether to request a CA certificate. Adds "cert sign" to the usages.
	// +optional
	IsCA bool `json:"isCA,omitempty"`

	// What the key may be used for. "digital signature" and "key encipherment" if left out.
	// +optional
	// +listType=atomic
	Usages []KeyUsage `json:"usages,omitempty"`

	// Name of the user that created the request. Set by the API server.
	// +optional
	Username string `json:"username,omitempty"`

	// UID of the user that created the request. Set by the API server.
	// +optional
	UID string `json:"uid,omitempty"`

	// Groups of the user that created the request. Set by the API server.
	// +optional
	// +listType=atomic
	Groups []string `json:"groups,omitempty"`

	// Further attributes from the authentication of the user that created the request. Set by the API
	// server.
	// +optional
	Extra map[string][]string `json:"extra,omitempty"`
}

// CertificateRequestStatus is the result of a request.
type CertificateRequestStatus struct {
	// Approved, Denied: the decision on the request, which is final. Ready: whether the request is
	// signed. InvalidRequest: the request itself is invalid.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule=`self.all(c, !(c.type in ['Approved', 'Denied']) || c.status == 'True')`,message=`the conditions Approved and Denied can only be True`
	// +kubebuilder:validation:XValidation:rule=`!self.exists(c, c.type == 'Approved') || !self.exists(c, c.type == 'Denied')`,message=`a request cannot be Approved and Denied: remove one of the conditions`
	Conditions []CertificateRequestCondition `json:"conditions,omitempty"`

	// The certificate, PEM, followed by the intermediate certificates. Without the root.
	// +optional
	Certificate []byte `json:"certificate,omitempty"`

	// The certificate of the CA, PEM, if the issuer knows it.
	// +optional
	CA []byte `json:"ca,omitempty"`

	// When the request failed or was denied.
	// +optional
	FailureTime *metav1.Time `json:"failureTime,omitempty"`
}

// CertificateRequestCondition is one aspect of a request's state.
type CertificateRequestCondition struct {
	// Which aspect: Ready, InvalidRequest, Checked, Approved, Denied or Unreachable.
	Type CertificateRequestConditionType `json:"type"`

	// True, False or Unknown. Approved and Denied are always True.
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
}

// CertificateRequestConditionType is an aspect of a request's state.
type CertificateRequestConditionType string

const (
	// CertificateRequestConditionReady is True when status.certificate holds the certificate.
	CertificateRequestConditionReady CertificateRequestConditionType = "Ready"

	// CertificateRequestConditionInvalidRequest means that the issuer will not sign the request
	// because the request is invalid. The message says why.
	CertificateRequestConditionInvalidRequest CertificateRequestConditionType = "InvalidRequest"

	// CertificateRequestConditionApproved means that the request may be signed. It is always True,
	// excludes Denied, and is final.
	CertificateRequestConditionApproved CertificateRequestConditionType = "Approved"

	// CertificateRequestConditionChecked is Perennial's own. It means that the CSR requests no more
	// than the spec. Only the controller sets it, and approval waits for it.
	CertificateRequestConditionChecked CertificateRequestConditionType = "Checked"

	// CertificateRequestConditionUnreachable is Perennial's own. It means that the issuer does not
	// answer, or answers that it accepts no requests for now. Its transition time says since when. It
	// is removed when it is no longer True.
	CertificateRequestConditionUnreachable CertificateRequestConditionType = "Unreachable"

	// CertificateRequestConditionDenied means that the request must not be signed. It is always True,
	// excludes Approved, and is final.
	CertificateRequestConditionDenied CertificateRequestConditionType = "Denied"
)
