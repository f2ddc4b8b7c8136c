package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ACMEIssuer says which ACME server (RFC 8555) signs, with which account, and how control of names
// is proven to it.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !has(self.skipTLSVerify) || !self.skipTLSVerify`,message=`caBundle and skipTLSVerify exclude each other: remove skipTLSVerify`,fieldPath=`.skipTLSVerify`
type ACMEIssuer struct {
	// Address that the server may write to about the account and its certificates. May be changed.
	// +optional
	Email string `json:"email,omitempty"`

	// URL of the server's directory: https://acme-v02.api.letsencrypt.org/directory.
	// +kubebuilder:validation:MinLength=1
	Server string `json:"server"`

	// Common name of the root to prefer where the server offers several chains: "ISRG Root X1".
	// The server's default chain is used if none ends in it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PreferredChain string `json:"preferredChain,omitempty"`

	// CA certificates that the server is verified with, PEM. Those of the system if left out.
	// Not together with skipTLSVerify.
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	// +kubebuilder:validation:XValidation:rule=`string(self).contains('-----BEGIN CERTIFICATE-----')`,message=`caBundle must hold certificates, PEM, in base64`
	CABundle []byte `json:"caBundle,omitempty"`

	// Whether the server is not verified. Insecure: for trials only; prefer caBundle.
	// Not together with caBundle.
	// +optional
	SkipTLSVerify bool `json:"skipTLSVerify,omitempty"`

	// Account outside of ACME that the server binds the ACME account to (RFC 8555 section 7.3.4).
	// +optional
	ExternalAccountBinding *ACMEExternalAccountBinding `json:"externalAccountBinding,omitempty"`

	// The Secret and its entry for the private key of the account, which is made if it does not
	// exist. The entry is tls.key if the key is left out.
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message=`privateKeySecretRef must name the Secret for the key of the account`,fieldPath=`.name`
	PrivateKey cmmeta.SecretKeySelector `json:"privateKeySecretRef"`

	// Perennial's own. The kind of the account's private key where that is made: ECDSA (P-256), if
	// left out, or RSA (2048 bits). A key that exists is kept, of whatever kind it is.
	// +optional
	PrivateKeyAlgorithm ACMEAccountKeyAlgorithm `json:"privateKeyAlgorithm,omitempty"`

	// How control of names is proven. For each name the solver whose selector fits best is used.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Solvers []ACMEChallengeSolver `json:"solvers,omitempty"`

	// Whether the account must exist already: then its key must be in the Secret.
	// +optional
	DisableAccountKeyGeneration bool `json:"disableAccountKeyGeneration,omitempty"`

	// Whether the duration of a Certificate is sent to the server. Many servers, such as Let's
	// Encrypt, refuse orders that have one.
	// +optional
	EnableDurationFeature bool `json:"enableDurationFeature,omitempty"`

	// The server's certificate profile to use, from those that its directory lists.
	// +optional
	Profile string `json:"profile,omitempty"`

	// Where the time of renewal comes from. ARI: from the server (RFC 9773), where it has an
	// opinion. None: from the Certificate alone.
	// +optional
	// +kubebuilder:default=ARI
	RenewalInformationSource ACMERenewalInformationSource `json:"renewalInformationSource,omitempty"`

	// Perennial's own. What the entry ca.crt of the Secrets holds. None, if left out: there is no such
	// entry. FromChain: the highest certificate of the chain that the server sends, which is its root
	// where it sends that, and else the highest intermediate; truststores hold the same.
	// +optional
	IncludeCA ACMEIncludeCA `json:"includeCA,omitempty"`

	// The limits of the server, which are kept to without being refused first. Those of Let's Encrypt
	// are known; set here what it granted you beyond them, or the limits of another server. Give all
	// issuers of one server the same: what they spend is counted together. Perennial's own.
	// +optional
	RateLimits *ACMERateLimits `json:"rateLimits,omitempty"`
}

// ACMERateLimits are limits of an ACME server. One that is left out is what is known of the server,
// if anything. Perennial's own.
type ACMERateLimits struct {
	// Orders of one account. Renewals do not count.
	// +optional
	NewOrdersPerAccount *ACMERateLimit `json:"newOrdersPerAccount,omitempty"`

	// Certificates with names of one registered domain, such as example.co.uk, or of one IPv4 address
	// or IPv6 network of 64 bits. Renewals do not count.
	// +optional
	CertificatesPerRegisteredDomain *ACMERateLimit `json:"certificatesPerRegisteredDomain,omitempty"`

	// Certificates with exactly the same names.
	// +optional
	CertificatesPerExactSet *ACMERateLimit `json:"certificatesPerExactSet,omitempty"`

	// Failed validations of one name by one account.
	// +optional
	FailedValidationsPerIdentifier *ACMERateLimit `json:"failedValidationsPerIdentifier,omitempty"`
}

// ACMERateLimit is so many in a period. What was spent comes back evenly: of 50 in a week, one
// every 202 minutes. Perennial's own.
//
// +kubebuilder:validation:XValidation:rule=`self.count == 0 || has(self.period)`,message=`period must be set, such as 168h; a count of 0 alone means that there is no limit`,fieldPath=`.period`
type ACMERateLimit struct {
	// How many. 0 means that there is no limit.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Count int32 `json:"count"`

	// In which time.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')`,message=`period must be a number with the unit h, m or s, from 1s to 8760h, such as 168h for a week`
	Period *metav1.Duration `json:"period,omitempty"`
}

// ACMEAccountKeyAlgorithm is a kind of key that accounts can have.
// +kubebuilder:validation:Enum=ECDSA;RSA
type ACMEAccountKeyAlgorithm string

const (
	// ACMEAccountKeyECDSA is P-256. It is also what an empty value means.
	ACMEAccountKeyECDSA ACMEAccountKeyAlgorithm = "ECDSA"
	// ACMEAccountKeyRSA is RSA with 2048 bits, for servers that take no other.
	ACMEAccountKeyRSA ACMEAccountKeyAlgorithm = "RSA"
)

// ACMEIncludeCA says what ca.crt of an ACME certificate holds.
// +kubebuilder:validation:Enum=None;FromChain
type ACMEIncludeCA string

const (
	// ACMEIncludeCANone leaves ca.crt out. It is also what an empty value means.
	ACMEIncludeCANone ACMEIncludeCA = "None"
	// ACMEIncludeCAFromChain takes the highest certificate of the chain.
	ACMEIncludeCAFromChain ACMEIncludeCA = "FromChain"
)

// ACMERenewalInformationSource says where the time of renewal comes from.
// +kubebuilder:validation:Enum=ARI;None
type ACMERenewalInformationSource string

const (
	// ACMERenewalInformationSourceARI asks the server. It is also what an empty value means.
	ACMERenewalInformationSourceARI ACMERenewalInformationSource = "ARI"
	// ACMERenewalInformationSourceNone does not ask the server.
	ACMERenewalInformationSourceNone ACMERenewalInformationSource = "None"
)

// ACMEExternalAccountBinding names an account outside of ACME (RFC 8555 section 7.3.4).
type ACMEExternalAccountBinding struct {
	// ID that the CA gave for the key.
	// +kubebuilder:validation:MinLength=1
	KeyID string `json:"keyID"`

	// The Secret and its entry that hold the key, base64url without padding.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	Key cmmeta.SecretKeySelector `json:"keySecretRef"`

	// Not used: it is always HS256.
	//
	// Deprecated: leave it out.
	// +optional
	KeyAlgorithm HMACKeyAlgorithm `json:"keyAlgorithm,omitempty"`
}

// HMACKeyAlgorithm is an algorithm of RFC 7518 section 3.2.
// +kubebuilder:validation:Enum=HS256;HS384;HS512
type HMACKeyAlgorithm string

const (
	HS256 HMACKeyAlgorithm = "HS256"
	HS384 HMACKeyAlgorithm = "HS384"
	HS512 HMACKeyAlgorithm = "HS512"
)

// ACMEIssuerStatus tells of the account at the ACME server.
type ACMEIssuerStatus struct {
	// URL of the account.
	// +optional
	URI string `json:"uri,omitempty"`

	// Address that the account was last registered with.
	// +optional
	LastRegisteredEmail string `json:"lastRegisteredEmail,omitempty"`

	// Hash of the private key that the account was last registered with.
	// +optional
	LastPrivateKeyHash string `json:"lastPrivateKeyHash,omitempty"`

	// URL of the directory of the server that the account is registered at. Perennial's own.
	// +optional
	Server string `json:"server,omitempty"`
}
