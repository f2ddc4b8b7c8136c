package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ACMEIssuer has the settings of an ACME server (RFC 8555), of the account there, and of the
// solvers that prove control of names.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.caBundle) || !has(self.skipTLSVerify) || !self.skipTLSVerify`,message=`caBundle and skipTLSVerify exclude each other: remove skipTLSVerify`,fieldPath=`.skipTLSVerify`
type ACMEIssuer struct {
	// Address for email from the CA about the account and its certificates. Can be changed.
	// +optional
	Email string `json:"email,omitempty"`

	// URL of the server's directory: https://acme-v02.api.letsencrypt.org/directory.
	// +kubebuilder:validation:MinLength=1
	Server string `json:"server"`

	// Common name of the root to prefer if the server offers several chains: "ISRG Root X1". If no
	// chain ends in it, the server's default chain is used.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PreferredChain string `json:"preferredChain,omitempty"`

	// CA certificates to verify the server with, PEM. The system's CA certificates if left out. Not
	// together with skipTLSVerify.
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	// +kubebuilder:validation:XValidation:rule=`string(self).contains('-----BEGIN CERTIFICATE-----')`,message=`caBundle must hold certificates, PEM, in base64`
	CABundle []byte `json:"caBundle,omitempty"`

	// Whether to skip the verification of the server. Insecure: for testing only; prefer caBundle. Not
	// together with caBundle.
	// +optional
	SkipTLSVerify bool `json:"skipTLSVerify,omitempty"`

	// Account outside of ACME that the server binds the ACME account to (RFC 8555 section 7.3.4).
	// +optional
	ExternalAccountBinding *ACMEExternalAccountBinding `json:"externalAccountBinding,omitempty"`

	// The Secret and its entry for the private key of the account. The controller creates the key if
	// it does not exist. The entry is tls.key if key is left out.
	// +kubebuilder:validation:XValidation:rule=`self.name != ""`,message=`privateKeySecretRef must name the Secret for the key of the account`,fieldPath=`.name`
	PrivateKey cmmeta.SecretKeySelector `json:"privateKeySecretRef"`

	// Perennial's own. The algorithm for a new private key of the account: ECDSA (P-256, the default)
	// or RSA (2048 bits). An existing key is kept, whatever its algorithm.
	// +optional
	PrivateKeyAlgorithm ACMEAccountKeyAlgorithm `json:"privateKeyAlgorithm,omitempty"`

	// How control of names is proven. For each name, the solver with the best matching selector is
	// used.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Solvers []ACMEChallengeSolver `json:"solvers,omitempty"`

	// Whether the account must already exist. If so, the Secret must hold its key.
	// +optional
	DisableAccountKeyGeneration bool `json:"disableAccountKeyGeneration,omitempty"`

	// Whether the duration of a Certificate is sent to the server. Many servers, such as Let's
	// Encrypt, refuse orders with a duration.
	// +optional
	EnableDurationFeature bool `json:"enableDurationFeature,omitempty"`

	// Certificate profile of the server to use, from those that its directory lists.
	// +optional
	Profile string `json:"profile,omitempty"`

	// Where the renewal time comes from. ARI: from the server (RFC 9773), if it suggests one. None:
	// from the Certificate alone.
	// +optional
	// +kubebuilder:default=ARI
	RenewalInformationSource ACMERenewalInformationSource `json:"renewalInformationSource,omitempty"`

	// Perennial's own. What the entry ca.crt of the Secrets holds. None (the default): there is no
	// such entry. FromChain: the topmost certificate of the chain that the server sends, which is the
	// root if the server sends it, and otherwise the topmost intermediate. Truststores hold the same.
	// +optional
	IncludeCA ACMEIncludeCA `json:"includeCA,omitempty"`

	// The rate limits of the server. The controller slows down before it reaches them. The limits of
	// Let's Encrypt are built in; set here what it granted you beyond them, or the limits of another
	// server. Set the same limits on all issuers of one server, because their usage is counted
	// together. Perennial's own.
	// +optional
	RateLimits *ACMERateLimits `json:"rateLimits,omitempty"`
}

// ACMERateLimits are the rate limits of an ACME server. If a limit is left out, the built-in limit
// of the server applies, if there is one. Perennial's own.
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

// ACMERateLimit is a number of uses in a period. Uses become available again at an even rate: with
// 50 in a week, one every 202 minutes. Perennial's own.
//
// +kubebuilder:validation:XValidation:rule=`self.count == 0 || has(self.period)`,message=`period must be set, such as 168h; a count of 0 alone means that there is no limit`,fieldPath=`.period`
type ACMERateLimit struct {
	// How many uses the period allows. 0 means that there is no limit.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Count int32 `json:"count"`

	// Length of the period.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')`,message=`period must be a number with the unit h, m or s, from 1s to 8760h, such as 168h for a week`
	Period *metav1.Duration `json:"period,omitempty"`
}

// ACMEAccountKeyAlgorithm is the algorithm of an account key.
// +kubebuilder:validation:Enum=ECDSA;RSA
type ACMEAccountKeyAlgorithm string

const (
	// ACMEAccountKeyECDSA is P-256. An empty value means the same.
	ACMEAccountKeyECDSA ACMEAccountKeyAlgorithm = "ECDSA"
	// ACMEAccountKeyRSA is RSA with 2048 bits, for servers that accept no other.
	ACMEAccountKeyRSA ACMEAccountKeyAlgorithm = "RSA"
)

// ACMEIncludeCA says what ca.crt of an ACME certificate holds.
// +kubebuilder:validation:Enum=None;FromChain
type ACMEIncludeCA string

const (
	// ACMEIncludeCANone leaves ca.crt out. An empty value means the same.
	ACMEIncludeCANone ACMEIncludeCA = "None"
	// ACMEIncludeCAFromChain writes the topmost certificate of the chain.
	ACMEIncludeCAFromChain ACMEIncludeCA = "FromChain"
)

// ACMERenewalInformationSource says where the renewal time comes from.
// +kubebuilder:validation:Enum=ARI;None
type ACMERenewalInformationSource string

const (
	// ACMERenewalInformationSourceARI asks the server. An empty value means the same.
	ACMERenewalInformationSourceARI ACMERenewalInformationSource = "ARI"
	// ACMERenewalInformationSourceNone does not ask the server.
	ACMERenewalInformationSourceNone ACMERenewalInformationSource = "None"
)

// ACMEExternalAccountBinding names an account outside of ACME (RFC 8555 section 7.3.4).
type ACMEExternalAccountBinding struct {
	// ID that the CA assigned to the key.
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

// ACMEIssuerStatus describes the account at the ACME server.
type ACMEIssuerStatus struct {
	// URL of the account.
	// +optional
	URI string `json:"uri,omitempty"`

	// Email address that the account was last registered with.
	// +optional
	LastRegisteredEmail string `json:"lastRegisteredEmail,omitempty"`

	// Hash of the private key that the account was last registered with.
	// +optional
	LastPrivateKeyHash string `json:"lastPrivateKeyHash,omitempty"`

	// URL of the directory of the server that the account is registered at. Perennial's own.
	// +optional
	Server string `json:"server,omitempty"`
}
