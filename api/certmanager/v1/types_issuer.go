package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ClusterIssuer is a certificate authority for the Certificates of all namespaces. The Secrets that
// it refers to are in the cluster resource namespace of the controller.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`,description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Cluster,shortName=ciss,categories=cert-manager
// +kubebuilder:subresource:status
type ClusterIssuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Which authority signs, and how to reach it.
	Spec IssuerSpec `json:"spec"`

	// Whether the authority can be used. Written by the controller.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status IssuerStatus `json:"status"`
}

// ClusterIssuerList is a list of ClusterIssuers.
//
// +kubebuilder:object:root=true
type ClusterIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []ClusterIssuer `json:"items"`
}

// Issuer is a certificate authority for the Certificates of its own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`,description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Namespaced,shortName=iss,categories=cert-manager
// +kubebuilder:subresource:status
type Issuer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Which authority signs, and how to reach it.
	Spec IssuerSpec `json:"spec"`

	// Whether the authority can be used. Written by the controller.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status IssuerStatus `json:"status"`
}

// IssuerList is a list of Issuers.
//
// +kubebuilder:object:root=true
type IssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Issuer `json:"items"`
}

// IssuerSpec says which authority signs.
type IssuerSpec struct {
	IssuerConfig `json:",inline"`
}

// IssuerConfig has the settings of an issuer. Exactly one type is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.acme), has(self.ca), has(self.selfSigned), has(self.vault), has(self.venafi)].filter(set, set).size() == 1`,message=`exactly one of acme, ca, selfSigned, vault and venafi must be set`
type IssuerConfig struct {
	// A public or private CA that speaks ACME (RFC 8555), such as Let's Encrypt.
	// +optional
	ACME *acmev1.ACMEIssuer `json:"acme,omitempty"`

	// A CA whose certificate and private key are in a Secret. The controller itself signs.
	// +optional
	CA *CAIssuer `json:"ca,omitempty"`

	// The PKI secrets engine of a HashiCorp Vault or OpenBao server.
	// +optional
	Vault *VaultIssuer `json:"vault,omitempty"`

	// No authority: each certificate is signed with its own private key, like a root.
	// +optional
	SelfSigned *SelfSignedIssuer `json:"selfSigned,omitempty"`

	// CyberArk Certificate Manager, formerly Venafi, or Palo Alto Networks NGTS.
	// +optional
	Venafi *VenafiIssuer `json:"venafi,omitempty"`
}

// VenafiIssuer says where a zone of CyberArk Certificate Manager is. Exactly one of tpp, cloud
// and ngts is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.tpp), has(self.cloud), has(self.ngts)].filter(set, set).size() == 1`,message=`exactly one of tpp, cloud and ngts must be set`
type VenafiIssuer struct {
	// The zone. Its policy applies to every request.
	// +kubebuilder:validation:MinLength=1
	Zone string `json:"zone"`

	// Certificate Manager, Self-Hosted, formerly Trust Protection Platform.
	// +optional
	TPP *VenafiTPP `json:"tpp,omitempty"`

	// Certificate Manager, SaaS.
	// +optional
	Cloud *VenafiCloud `json:"cloud,omitempty"`

	// Next Generation Trust Services of Palo Alto Networks.
	// +optional
	NGTS *VenafiNGTS `json:"ngts,omitempty"`
}

// VenafiNGTS says how to reach Next Generation Trust Services of Palo Alto Networks.
type VenafiNGTS struct {
	// Base URL of the API. https://api.strata.paloaltonetworks.com/ngts if left out.
	// +optional
	URL string `json:"url,omitempty"`

	// URL of the OAuth 2.0 token endpoint. https://auth.apps.paloaltonetworks.com/oauth2/access_token
	// if left out.
	// +optional
	TokenEndpoint string `json:"tokenEndpoint,omitempty"`

	// ID of the tenant service group that the token is for, without the prefix tsg_id:.
	// +kubebuilder:validation:MinLength=1
	TSGID string `json:"tsgID"`

	// The Secret with the OAuth 2.0 client, in the entries client-id and client-secret.
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message=`credentialsRef must name a Secret`,fieldPath=`.name`
	CredentialsRef cmmeta.LocalObjectReference `json:"credentialsRef"`
}

// VenafiTPP says how to reach Certificate Manager, Self-Hosted.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !has(self.caBundleSecretRef)`,message=`caBundle and caBundleSecretRef exclude each other: remove one`,fieldPath=`.caBundle`
type VenafiTPP struct {
	// URL of its vedsdk endpoint: https://tpp.example.com/vedsdk.
	// +kubebuilder:validation:MinLength=1
	URL string `json:"url"`

	// The Secret with the credentials: an entry access-token, or username and password.
	CredentialsRef cmmeta.LocalObjectReference `json:"credentialsRef"`

	// CA certificates to verify the server with, PEM. The system's CA certificates if neither this nor
	// caBundleSecretRef is set.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`

	// The Secret and its entry that hold the CA certificates, PEM. ca.crt if the key is left
	// out. Not together with caBundle.
	// +optional
	CABundleSecretRef *cmmeta.SecretKeySelector `json:"caBundleSecretRef,omitempty"`
}

// VenafiCloud says how to reach Certificate Manager, SaaS.
type VenafiCloud struct {
	// Base URL of the API. https://api.venafi.cloud/ if left out.
	// +optional
	URL string `json:"url,omitempty"`

	// The Secret and its entry that hold the API key.
	APITokenSecretRef cmmeta.SecretKeySelector `json:"apiTokenSecretRef"`
}

// SelfSignedIssuer has the data that a selfSigned issuer adds to certificates.
type SelfSignedIssuer struct {
	// URLs of the revocation list for the certificate (RFC 5280 section 4.2.1.13).
	// +optional
	// +listType=atomic
	CRLDistributionPoints []string `json:"crlDistributionPoints,omitempty"`
}

// VaultIssuer says where a PKI secrets engine of Vault is.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !has(self.caBundleSecretRef)`,message=`caBundle and caBundleSecretRef exclude each other: remove one`,fieldPath=`.caBundle`
// +kubebuilder:validation:XValidation:rule=`has(self.clientCertSecretRef) || !has(self.clientKeySecretRef)`,message=`clientKeySecretRef needs clientCertSecretRef beside it`,fieldPath=`.clientCertSecretRef`
// +kubebuilder:validation:XValidation:rule=`!has(self.clientCertSecretRef) || has(self.clientKeySecretRef)`,message=`clientCertSecretRef needs clientKeySecretRef beside it`,fieldPath=`.clientKeySecretRef`
type VaultIssuer struct {
	// How the controller authenticates to Vault.
	Auth VaultAuth `json:"auth"`

	// URL of the server: https://vault.example.com:8200.
	// +kubebuilder:validation:MinLength=1
	Server string `json:"server"`

	// Name that the server's certificate must have, if it is not the host of server.
	// +optional
	ServerName string `json:"serverName,omitempty"`

	// Path of the engine's sign endpoint: pki/sign/my-role.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches('(^|/)[.][.](/|$)')`,message=`must not have '..' between slashes`
	Path string `json:"path"`

	// Namespace in Vault, if Vault has namespaces.
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// CA certificates to verify the server with, PEM. The system's CA certificates if neither this nor
	// caBundleSecretRef is set.
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	// +kubebuilder:validation:XValidation:rule=`string(self).contains('-----BEGIN CERTIFICATE-----')`,message=`caBundle must hold certificates, PEM, in base64`
	CABundle []byte `json:"caBundle,omitempty"`

	// The Secret and its entry that hold the CA certificates, PEM. ca.crt if the key is left
	// out. Not together with caBundle.
	// +optional
	CABundleSecretRef *cmmeta.SecretKeySelector `json:"caBundleSecretRef,omitempty"`

	// The Secret and its entry that hold the controller's client certificate, PEM. tls.crt if
	// the key is left out. Only together with clientKeySecretRef.
	// +optional
	ClientCertSecretRef *cmmeta.SecretKeySelector `json:"clientCertSecretRef,omitempty"`

	// The Secret and its entry that hold the private key of the client certificate, PEM. tls.key
	// if the key is left out. Only together with clientCertSecretRef.
	// +optional
	ClientKeySecretRef *cmmeta.SecretKeySelector `json:"clientKeySecretRef,omitempty"`
}

// VaultAuth says how the controller authenticates to Vault. At least one method is set; of several,
// the first in the order of the fields is used.
//
// +kubebuilder:validation:XValidation:rule=`has(self.tokenSecretRef) || has(self.appRole) || has(self.clientCertificate) || has(self.kubernetes) || has(self.aws)`,message=`auth must have one of tokenSecretRef, appRole, clientCertificate, kubernetes and aws`
type VaultAuth struct {
	// A token. The entry is token if the key is left out.
	// +optional
	TokenSecretRef *cmmeta.SecretKeySelector `json:"tokenSecretRef,omitempty"`

	// The AppRole auth method.
	// +optional
	AppRole *VaultAppRole `json:"appRole,omitempty"`

	// The TLS certificate auth method.
	// +optional
	ClientCertificate *VaultClientCertificateAuth `json:"clientCertificate,omitempty"`

	// The Kubernetes auth method.
	// +optional
	Kubernetes *VaultKubernetesAuth `json:"kubernetes,omitempty"`

	// The AWS auth method, type IAM.
	// +optional
	AWS *VaultAWSAuth `json:"aws,omitempty"`
}

// VaultAppRole has the settings of Vault's AppRole auth method.
type VaultAppRole struct {
	// Where the method is mounted: approle.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches('(^|/)[.][.](/|$)')`,message=`must not have '..' between slashes`
	Path string `json:"path"`

	// ID of the role.
	// +kubebuilder:validation:MinLength=1
	RoleId string `json:"roleId"`

	// The Secret and its entry that hold the secret ID.
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message=`secretRef must name a Secret`,fieldPath=`.name`
	SecretRef cmmeta.SecretKeySelector `json:"secretRef"`
}

// VaultClientCertificateAuth has the settings of Vault's TLS certificate auth method.
type VaultClientCertificateAuth struct {
	// Where the method is mounted. /v1/auth/cert if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches('(^|/)[.][.](/|$)')`,message=`must not have '..' between slashes`
	Path string `json:"mountPath,omitempty"`

	// The Secret of type kubernetes.io/tls with the client certificate.
	// +optional
	SecretName string `json:"secretName,omitempty"`

	// The certificate role to log in with. Any that matches if left out.
	// +optional
	Name string `json:"name,omitempty"`
}

// VaultKubernetesAuth has the settings of Vault's Kubernetes auth method. Exactly one of
// secretRef and serviceAccountRef is set.
//
// +kubebuilder:validation:XValidation:rule=`has(self.serviceAccountRef) != (has(self.secretRef) && self.secretRef.name != "")`,message=`exactly one of secretRef and serviceAccountRef must be set`
type VaultKubernetesAuth struct {
	// Where the method is mounted. /v1/auth/kubernetes if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches('(^|/)[.][.](/|$)')`,message=`must not have '..' between slashes`
	Path string `json:"mountPath,omitempty"`

	// The Secret and its entry that hold a token of a ServiceAccount. The entry is token if
	// the key is left out.
	// +optional
	SecretRef cmmeta.SecretKeySelector `json:"secretRef,omitempty"`

	// The ServiceAccount to request a short-lived token for.
	// +optional
	ServiceAccountRef *ServiceAccountRef `json:"serviceAccountRef,omitempty"`

	// The role to log in with.
	// +kubebuilder:validation:MinLength=1
	Role string `json:"role"`
}

// ServiceAccountRef names the ServiceAccount that a token is requested for. The token is valid for
// ten minutes. Its audiences are the URL of the Vault server and vault://namespace/issuer, or
// vault://issuer for a ClusterIssuer.
type ServiceAccountRef struct {
	// Name of the ServiceAccount.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`

	// Additional audiences of the token.
	// +optional
	// +listType=atomic
	TokenAudiences []string `json:"audiences,omitempty"`
}

// VaultAWSAuth has the settings of Vault's AWS auth method, type IAM.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceAccountRef) || (has(self.iamRoleArn) && self.iamRoleArn != "")`,message=`iamRoleArn must be set with serviceAccountRef: the ARN of the role that its token is exchanged for`,fieldPath=`.iamRoleArn`
type VaultAWSAuth struct {
	// Where the method is mounted. /v1/auth/aws if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`!self.matches('(^|/)[.][.](/|$)')`,message=`must not have '..' between slashes`
	MountPath string `json:"mountPath,omitempty"`

	// The role to log in with.
	// +required
	// +kubebuilder:validation:MinLength=1
	Role string `json:"role"`

	// AWS region to sign requests for. If left out, that of the environment (AWS_REGION,
	// AWS_DEFAULT_REGION), or else us-east-1.
	// +optional
	Region string `json:"region,omitempty"`

	// The ServiceAccount. Its token is exchanged for AWS credentials. The credentials of the
	// environment are used if left out.
	// +optional
	ServiceAccountRef *ServiceAccountRef `json:"serviceAccountRef,omitempty"`

	// ARN of the IAM role that the token is exchanged for. Needed with serviceAccountRef.
	// +optional
	IAMRoleARN string `json:"iamRoleArn,omitempty"`

	// Value of the header X-Vault-AWS-IAM-Server-ID, if the server requires it.
	// +optional
	VaultHeaderValue string `json:"vaultHeaderValue,omitempty"`
}

// CAIssuer says where the key pair of a CA is, and what the issuer adds to certificates.
type CAIssuer struct {
	// The Secret with the CA's certificate and private key, in the entries tls.crt and tls.key.
	// +kubebuilder:validation:MinLength=1
	SecretName string `json:"secretName"`

	// URLs of the revocation list of the CA (RFC 5280 section 4.2.1.13).
	// +optional
	// +listType=atomic
	CRLDistributionPoints []string `json:"crlDistributionPoints,omitempty"`

	// URLs of OCSP responders of the CA (RFC 5280 section 4.2.2.1).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:items:MinLength=1
	OCSPServers []string `json:"ocspServers,omitempty"`

	// URLs of the certificate of the CA (RFC 5280 section 4.2.2.1).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:items:MinLength=1
	IssuingCertificateURLs []string `json:"issuingCertificateURLs,omitempty"`
}

// IssuerStatus says whether an issuer can be used.
type IssuerStatus struct {
	// The generation of the spec that the status describes. Perennial's own.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready: the issuer can be used.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []IssuerCondition `json:"conditions,omitempty"`

	// The account at the ACME server, of an issuer of that type.
	// +optional
	ACME *acmev1.ACMEIssuerStatus `json:"acme,omitempty"`

	// The CA in use and those before it, of an issuer of type ca. Perennial's own.
	// +optional
	CA *CAIssuerStatus `json:"ca,omitempty"`
}

// CAIssuerStatus lists the CA in use and the CAs that it replaced, so that clients can trust the
// certificates of both during a change of CA. Perennial's own.
type CAIssuerStatus struct {
	// The certificate that clients are to trust, PEM: the root above the CA if the Secret has it,
	// otherwise the CA's own certificate.
	// +kubebuilder:validation:MaxLength=65536
	Certificate string `json:"certificate"`

	// SHA-256 of the signing certificate's DER form, in lower-case hexadecimal digits.
	// +kubebuilder:validation:MaxLength=64
	Fingerprint string `json:"fingerprint"`

	// SHA-256 of the certificates that follow the signing certificate in the Secret, in lower-case
	// hexadecimal digits. Empty if there are none.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ChainDigest string `json:"chainDigest,omitempty"`

	// When this signing certificate came into use.
	Since metav1.Time `json:"since"`

	// When the CA, or a certificate above it, expires. No certificate that it signs is valid longer.
	NotAfter metav1.Time `json:"notAfter"`

	// Earlier CAs whose certificates may still be in use, the latest first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Previous []PreviousCA `json:"previous,omitempty"`
}

// PreviousCA is a CA that another one replaced. Perennial's own.
type PreviousCA struct {
	// The certificate that clients are to trust as long as a certificate of this CA is in use, PEM.
	// +kubebuilder:validation:MaxLength=65536
	Certificate string `json:"certificate"`

	// SHA-256 of the signing certificate's DER form, in lower-case hexadecimal digits.
	// +kubebuilder:validation:MaxLength=64
	Fingerprint string `json:"fingerprint"`

	// When it was replaced.
	ReplacedAt metav1.Time `json:"replacedAt"`

	// When the CA expires, and with it all certificates that it signed.
	NotAfter metav1.Time `json:"notAfter"`
}

// IssuerCondition is one aspect of an issuer's state.
type IssuerCondition struct {
	// Which aspect: Ready, Unreachable, SolversValid or Unprotected.
	Type IssuerConditionType `json:"type"`

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

// IssuerConditionType is an aspect of an issuer's state.
type IssuerConditionType string

const (
	// IssuerConditionReady is True when the issuer can be used. Unless it is True, the issuer signs
	// nothing.
	IssuerConditionReady IssuerConditionType = "Ready"

	// IssuerConditionUnreachable is Perennial's own. It means that the issuer's server did not answer
	// the last request, or answered that it accepts no requests now. It is removed when it is no
	// longer True. An issuer with a known account stays ready.
	IssuerConditionUnreachable IssuerConditionType = "Unreachable"

	// IssuerConditionUnprotected is Perennial's own, for ClusterIssuers. It means that the controller
	// cannot confirm that the admission policies are enforced which keep users of a namespace from the
	// issuer's credentials. The issuer is then not used. The condition is removed when it is no longer
	// True.
	IssuerConditionUnprotected IssuerConditionType = "Unprotected"

	// IssuerConditionSolversValid is Perennial's own. It is False when the settings or Secrets of a
	// solver are wrong, as far as this shows without a request to a DNS service, and is removed
	// otherwise. The issuer is still ready if one of its solvers can be used.
	IssuerConditionSolversValid IssuerConditionType = "SolversValid"

	// IssuerConditionStalled is Perennial's own and follows the rules of kstatus. It means that the
	// issuer is not ready and only a person can change that. It is removed when it is no longer True.
	IssuerConditionStalled IssuerConditionType = "Stalled"
)
