package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Certificate requests a signed X.509 certificate. The certificate and its private key are stored
// in the Secret that spec.secretName names, and renewed before expiry.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Secret",type="string",JSONPath=`.spec.secretName`
// +kubebuilder:printcolumn:name="Issuer",type="string",JSONPath=`.spec.issuerRef.name`,priority=1
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Expiration",type="string",JSONPath=`.status.notAfter`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`,description="The time since the object was created."
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Namespaced,shortName={cert,certs},categories=cert-manager
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.group
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.kind
// +kubebuilder:selectablefield:JSONPath=.spec.issuerRef.name
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule=`has(self.spec) || oldSelf.hasValue() && !has(oldSelf.value().spec)`,optionalOldSelf=true,message=`the spec is missing: write secretName, issuerRef and the names of the certificate below spec, indented`,fieldPath=`.spec`
type Certificate struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The desired certificate.
	// +optional
	Spec CertificateSpec `json:"spec"`

	// The current state of the certificate. Written by the controller.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CertificateStatus `json:"status"`
}

// CertificateList is a list of Certificates.
//
// +kubebuilder:object:root=true
type CertificateList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Certificate `json:"items"`
}

// PrivateKeyAlgorithm is the algorithm of a private key.
// +kubebuilder:validation:Enum=RSA;ECDSA;Ed25519
type PrivateKeyAlgorithm string

const (
	RSAKeyAlgorithm     PrivateKeyAlgorithm = "RSA"
	ECDSAKeyAlgorithm   PrivateKeyAlgorithm = "ECDSA"
	Ed25519KeyAlgorithm PrivateKeyAlgorithm = "Ed25519"
)

// PrivateKeyEncoding is the form in which a private key is written to the Secret.
// +kubebuilder:validation:Enum=PKCS1;PKCS8
type PrivateKeyEncoding string

const (
	// PKCS1 is the older form, which differs for each algorithm: "RSA PRIVATE KEY" (RFC 8017) or "EC
	// PRIVATE KEY" (RFC 5915). Ed25519 has none and is written as PKCS8.
	PKCS1 PrivateKeyEncoding = "PKCS1"

	// PKCS8 is the form that all algorithms share, "PRIVATE KEY" (RFC 5958).
	PKCS8 PrivateKeyEncoding = "PKCS8"
)

// SignatureAlgorithm is how a CertificateRequest is signed. The issuer chooses how it signs the
// certificate; a selfSigned issuer follows this.
// +kubebuilder:validation:Enum=SHA256WithRSA;SHA384WithRSA;SHA512WithRSA;ECDSAWithSHA256;ECDSAWithSHA384;ECDSAWithSHA512;PureEd25519
type SignatureAlgorithm string

const (
	SHA256WithRSA   SignatureAlgorithm = "SHA256WithRSA"
	SHA384WithRSA   SignatureAlgorithm = "SHA384WithRSA"
	SHA512WithRSA   SignatureAlgorithm = "SHA512WithRSA"
	ECDSAWithSHA256 SignatureAlgorithm = "ECDSAWithSHA256"
	ECDSAWithSHA384 SignatureAlgorithm = "ECDSAWithSHA384"
	ECDSAWithSHA512 SignatureAlgorithm = "ECDSAWithSHA512"
	PureEd25519     SignatureAlgorithm = "PureEd25519"
)

// CertificateSpec describes the desired certificate. The issuer decides what it signs, and may
// change or leave out any attribute.
//
// The certificate must have a name: commonName, literalSubject, or at least one subject alternative
// name.
//
// +kubebuilder:validation:XValidation:rule=`(has(self.commonName) && self.commonName != "") || (has(self.dnsNames) && self.dnsNames.size() > 0) || (has(self.ipAddresses) && self.ipAddresses.size() > 0) || (has(self.uris) && self.uris.size() > 0) || (has(self.emailAddresses) && self.emailAddresses.size() > 0) || (has(self.otherNames) && self.otherNames.size() > 0) || (has(self.literalSubject) && self.literalSubject.matches('(^|[,+;]) *([cC][nN]|2[.]5[.]4[.]3) *='))`,message=`the certificate must name something: set commonName, literalSubject with a CN, dnsNames, ipAddresses, uris, emailAddresses or otherNames`
// +kubebuilder:validation:XValidation:rule=`!has(self.literalSubject) || self.literalSubject == "" || ((!has(self.commonName) || self.commonName == "") && (!has(self.subject) || (self.subject.?serialNumber.orValue("") == "" && [self.subject.?organizations, self.subject.?countries, self.subject.?organizationalUnits, self.subject.?localities, self.subject.?provinces, self.subject.?streetAddresses, self.subject.?postalCodes].all(values, values.orValue([]).size() == 0))))`,message=`literalSubject is the whole subject: remove commonName and subject, or remove literalSubject`,fieldPath=`.literalSubject`
// +kubebuilder:validation:XValidation:rule=`!has(self.signatureAlgorithm) || (has(self.privateKey) && has(self.privateKey.algorithm) && self.privateKey.algorithm != 'RSA' ? (self.privateKey.algorithm == 'ECDSA' ? self.signatureAlgorithm.startsWith('ECDSA') : self.signatureAlgorithm == 'PureEd25519') : self.signatureAlgorithm.endsWith('RSA'))`,message=`signatureAlgorithm must fit privateKey.algorithm: SHA256WithRSA, SHA384WithRSA or SHA512WithRSA for RSA (the default), ECDSAWithSHA256, ECDSAWithSHA384 or ECDSAWithSHA512 for ECDSA, PureEd25519 for Ed25519`,fieldPath=`.signatureAlgorithm`
// +kubebuilder:validation:XValidation:rule=`!has(self.nameConstraints) || (has(self.isCA) && self.isCA)`,message=`nameConstraints are for CAs: set isCA to true, or remove them`,fieldPath=`.nameConstraints`
// +kubebuilder:validation:XValidation:rule=`!has(self.rehearsalIssuerRef) || self.rehearsalIssuerRef.name != self.issuerRef.name || [self.rehearsalIssuerRef.?kind.orValue(""), 'Issuer'].filter(k, k != "")[0] != [self.issuerRef.?kind.orValue(""), 'Issuer'].filter(k, k != "")[0] || [self.rehearsalIssuerRef.?group.orValue(""), 'cert-manager.io'].filter(g, g != "")[0] != [self.issuerRef.?group.orValue(""), 'cert-manager.io'].filter(g, g != "")[0]`,message=`rehearsalIssuerRef must not be the issuer itself: name a staging issuer, or remove it`,fieldPath=`.rehearsalIssuerRef`
type CertificateSpec struct {
	// Attributes of the subject (RFC 5280 section 4.1.2.6), apart from the common name.
	// Not together with literalSubject.
	// +optional
	Subject *X509Subject `json:"subject,omitempty"`

	// The whole subject as a string (RFC 4514), for subjects with a certain order of attributes or
	// with attributes that the field subject does not have: CN=foo,DC=corp,DC=example,DC=com. Not
	// together with subject or commonName.
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	LiteralSubject string `json:"literalSubject,omitempty"`

	// Common name of the subject, at most 64 bytes. TLS clients ignore it when there are subject
	// alternative names. Not together with literalSubject.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`bytes(self).size() <= 64`,message=`commonName must be at most 64 bytes: put a longer name into dnsNames`
	CommonName string `json:"commonName,omitempty"`

	// Requested lifetime of the certificate, such as 2160h. At least 1m; 2160h (90 days) if left out.
	// The issuer may choose another.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('1m')`,message=`duration must be at least 1m, and a number with the unit h, m or s, such as 2160h for 90 days`
	Duration *metav1.Duration `json:"duration,omitempty"`

	// How long before its expiry the certificate is renewed, such as 720h. The renewal time is counted
	// back from the expiry of the issued certificate. If left out, or if not less than the lifetime,
	// it is a third of the lifetime. The certificate is never renewed before a tenth of its lifetime
	// has passed. If renewBefore and renewBeforePercentage are both set, renewBefore takes precedence,
	// unless it is not less than the lifetime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) <= duration('2562047h')`,message=`renewBefore must be a number with the unit h, m or s, such as 720h for 30 days`
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// Percentage of its lifetime that is left when the certificate is renewed: with 25, a certificate
	// that is valid for 60 minutes is renewed after 45. From 1 to 90; a value from 91 to 99 counts as
	// 90; any other value is ignored. Also ignored if renewBefore is set and less than the lifetime.
	// +optional
	RenewBeforePercentage *int32 `json:"renewBeforePercentage,omitempty"`

	// Whether and at which times the certificate is renewed. At any time if left out.
	// +optional
	Renewal *CertificateRenewal `json:"renewal,omitempty"`

	// Perennial's own. Certificate profile of the ACME server, from those that its directory lists,
	// such as shortlived. It overrides the profile of the issuer. Only with an ACME issuer.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ACMEProfile string `json:"acmeProfile,omitempty"`

	// What happens to the Secret when the Certificate is deleted: Retain keeps it, Delete deletes it.
	// If left out, the flag --enable-certificate-owner-ref of the controller decides.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// Perennial's own. Whether the certificate is revoked when the Certificate is deleted. Only with
	// an ACME issuer.
	// +optional
	Revocation *CertificateRevocation `json:"revocation,omitempty"`

	// DNS names that the certificate is for. Names that differ only in case, in a trailing dot, or in
	// their form (Unicode or xn--) are the same name, and it is in the certificate once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MaxLength=254
	// +kubebuilder:validation:items:XValidation:rule=`!self.contains('/')`,message=`must be a DNS name alone: write www.example.com instead of https://www.example.com/, and a URI into uris`
	// +kubebuilder:validation:items:XValidation:rule=`self.contains('/') || !self.matches('[[:space:][:cntrl:]]')`,message=`must be one DNS name without spaces: write each name as an entry of its own`
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('[/[:space:][:cntrl:]]') || !self.contains(':')`,message=`must be a DNS name without a port: write www.example.com instead of www.example.com:443, and an IPv6 address into ipAddresses`
	// +kubebuilder:validation:items:XValidation:rule=`self.contains(':') || !isIP(self.endsWith('.') ? self.substring(0, self.size() - 1) : self)`,message=`must be a DNS name, not an IP address: write the address into ipAddresses`
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('[/:[:space:][:cntrl:]]') || (self.size() > 0 && !self.startsWith('.') && !self.contains('..'))`,message=`must have no empty label: write www.example.com instead of .example.com or www..example.com, and *.example.com for all names of a domain`
	DNSNames []string `json:"dnsNames,omitempty"`

	// IP addresses that the certificate is for.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule=`isIP(self) || isIP(self.lowerAscii().replace('::ffff:', '::'))`,message=`must be an IP address such as 10.0.0.1 or 2001:db8::1`
	IPAddresses []string `json:"ipAddresses,omitempty"`

	// URIs that the certificate is for, such as spiffe://cluster.local/ns/app/sa/web.
	// +optional
	// +listType=atomic
	URIs []string `json:"uris,omitempty"`

	// Names of other types that the certificate is for, by object identifier. The value is
	// encoded as a UTF8String, as a user principal name (1.3.6.1.4.1.311.20.2.3) is.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	OtherNames []OtherName `json:"otherNames,omitempty"`

	// Email addresses that the certificate is for.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	// +kubebuilder:validation:items:MaxLength=320
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[^[:cntrl:] ()<>[\\]:;@\\\\,".]+([.][^[:cntrl:] ()<>[\\]:;@\\\\,".]+)*@([^[:cntrl:] ()<>[\\]:;@\\\\,".]+([.][^[:cntrl:] ()<>[\\]:;@\\\\,".]+)*|\\[[^[\\]\\\\]+\\])$')`,message=`must be an email address alone, such as jane@example.com`
	EmailAddresses []string `json:"emailAddresses,omitempty"`

	// Name of the Secret, in the same namespace, for the private key and the certificate. It is
	// created if it does not exist.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`secretName must be the name of a Secret: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`
	SecretName string `json:"secretName"`

	// Labels and annotations for the Secret. If you remove one here, the controller removes it from
	// the Secret.
	// +optional
	SecretTemplate *CertificateSecretTemplate `json:"secretTemplate,omitempty"`

	// Keystores to write to the Secret in addition to the PEM entries.
	// +optional
	Keystores *CertificateKeystores `json:"keystores,omitempty"`

	// The issuer that is to sign. An Issuer must be in the namespace of the Certificate.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`

	// Perennial's own. An issuer for a trial run, such as one for the CA's staging server. It must
	// sign a new or changed specification before the controller sends it to issuerRef. The controller
	// discards the certificate that it signs. Plain renewals have no trial run. If this issuer is
	// unreachable for 30 minutes, the controller goes on with issuerRef.
	// +optional
	RehearsalIssuerRef *cmmeta.IssuerReference `json:"rehearsalIssuerRef,omitempty"`

	// Whether to request a CA certificate. Adds "cert sign" to the usages.
	// +optional
	IsCA bool `json:"isCA,omitempty"`

	// What the key may be used for. "digital signature" and "key encipherment" if left out.
	// +optional
	// +listType=atomic
	Usages []KeyUsage `json:"usages,omitempty"`

	// How the private key is generated and stored.
	// +optional
	PrivateKey *CertificatePrivateKey `json:"privateKey,omitempty"`

	// How the certificate request is signed. It must match privateKey.algorithm: SHA256WithRSA,
	// SHA384WithRSA or SHA512WithRSA for RSA; ECDSAWithSHA256, ECDSAWithSHA384 or ECDSAWithSHA512 for
	// ECDSA; PureEd25519 for Ed25519. If left out, the usual one for the key.
	// +optional
	SignatureAlgorithm SignatureAlgorithm `json:"signatureAlgorithm,omitempty"`

	// Whether the usages are written into the certificate request itself. true if left
	// out; false is for issuers that refuse requests with these extensions.
	// +optional
	EncodeUsagesInRequest *bool `json:"encodeUsagesInRequest,omitempty"`

	// How many CertificateRequests of this Certificate are kept; the oldest are deleted
	// first. At least 1; 1 if left out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`

	// Additional forms of the key and the certificate to write to the Secret.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(format, self.exists_one(other, other.type == format.type))`,message=`additionalOutputFormats must not name a type twice`
	AdditionalOutputFormats []CertificateAdditionalOutputFormat `json:"additionalOutputFormats,omitempty"`

	// Names that the CA may or may not sign for (RFC 5280 section 4.2.1.10). Only with isCA.
	// +optional
	NameConstraints *NameConstraints `json:"nameConstraints,omitempty"`
}

// OtherName is a subject alternative name of a type that is identified by an object identifier.
//
// +kubebuilder:validation:XValidation:rule=`has(self.oid) && self.oid.matches('^[0-2]([.][0-9]+)+$')`,message=`oid must be an object identifier such as 1.3.6.1.4.1.311.20.2.3`,fieldPath=`.oid`
// +kubebuilder:validation:XValidation:rule=`has(self.utf8Value) && self.utf8Value != ""`,message=`utf8Value must not be empty`,fieldPath=`.utf8Value`
type OtherName struct {
	// Object identifier of the type, dotted: 1.3.6.1.4.1.311.20.2.3.
	// +kubebuilder:validation:MaxLength=256
	OID string `json:"oid,omitempty"`

	// The name, encoded as a UTF8String.
	UTF8Value string `json:"utf8Value,omitempty"`
}

// CertificatePrivateKey says how the private key of a Certificate is generated and stored.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.size) || self.size == 0 || (has(self.algorithm) && self.algorithm != 'RSA') || (self.size >= 2048 && self.size <= 8192)`,message=`size of an RSA key must be from 2048 to 8192`,fieldPath=`.size`
// +kubebuilder:validation:XValidation:rule=`!has(self.size) || self.size == 0 || !has(self.algorithm) || self.algorithm != 'ECDSA' || self.size in [256, 384, 521]`,message=`size of an ECDSA key must be 256, 384 or 521`,fieldPath=`.size`
type CertificatePrivateKey struct {
	// Whether each issuance gets a new key. Always (the default): it does. Never: the controller
	// reuses the key in the Secret. If that key no longer matches algorithm and size, nothing is
	// issued until you delete it.
	// +optional
	RotationPolicy PrivateKeyRotationPolicy `json:"rotationPolicy,omitempty"`

	// Form of the key in the Secret: PKCS1 (the default) or PKCS8.
	// +optional
	Encoding PrivateKeyEncoding `json:"encoding,omitempty"`

	// Algorithm of the key: RSA (the default), ECDSA or Ed25519.
	// +optional
	Algorithm PrivateKeyAlgorithm `json:"algorithm,omitempty"`

	// Size of the key in bits. RSA: 2048 to 8192, 2048 if left out. ECDSA: 256, 384 or 521, 256 if
	// left out. Ignored for Ed25519, which has one size.
	// +optional
	// +kubebuilder:validation:Maximum=2147483647
	Size int `json:"size,omitempty"`
}

// PrivateKeyRotationPolicy says whether each issuance gets a new private key.
// +kubebuilder:validation:Enum=Never;Always
type PrivateKeyRotationPolicy string

const (
	// RotationPolicyNever keeps the key that is in the Secret.
	RotationPolicyNever PrivateKeyRotationPolicy = "Never"
	// RotationPolicyAlways generates a new key for each issuance.
	RotationPolicyAlways PrivateKeyRotationPolicy = "Always"
)

// CertificateOutputFormatType is an additional form of key and certificate.
// +kubebuilder:validation:Enum=DER;CombinedPEM
type CertificateOutputFormatType string

const (
	// CertificateOutputFormatDER writes the private key, DER, to CertificateOutputFormatDERKey.
	CertificateOutputFormatDER CertificateOutputFormatType = "DER"
	// CertificateOutputFormatDERKey is the entry of the Secret for CertificateOutputFormatDER.
	CertificateOutputFormatDERKey string = "key.der"

	// CertificateOutputFormatCombinedPEM writes the private key, an empty line and the chain,
	// PEM, to CertificateOutputFormatCombinedPEMKey.
	CertificateOutputFormatCombinedPEM CertificateOutputFormatType = "CombinedPEM"
	// CertificateOutputFormatCombinedPEMKey is the entry of the Secret for
	// CertificateOutputFormatCombinedPEM.
	CertificateOutputFormatCombinedPEMKey string = "tls-combined.pem"
)

// CertificateAdditionalOutputFormat requests an additional form of key and certificate.
type CertificateAdditionalOutputFormat struct {
	// DER writes the private key to the entry key.der; CombinedPEM writes private key and chain
	// to the entry tls-combined.pem.
	Type CertificateOutputFormatType `json:"type"`
}

// X509Subject holds the attributes of a subject (RFC 5280 section 4.1.2.6), apart from the common
// name.
type X509Subject struct {
	// Organizations (O).
	// +optional
	// +listType=atomic
	Organizations []string `json:"organizations,omitempty"`

	// Countries (C), as two-letter codes.
	// +optional
	// +listType=atomic
	Countries []string `json:"countries,omitempty"`

	// Organizational units (OU).
	// +optional
	// +listType=atomic
	OrganizationalUnits []string `json:"organizationalUnits,omitempty"`

	// Localities (L), such as cities.
	// +optional
	// +listType=atomic
	Localities []string `json:"localities,omitempty"`

	// States or provinces (ST).
	// +optional
	// +listType=atomic
	Provinces []string `json:"provinces,omitempty"`

	// Street addresses (STREET).
	// +optional
	// +listType=atomic
	StreetAddresses []string `json:"streetAddresses,omitempty"`

	// Postal codes.
	// +optional
	// +listType=atomic
	PostalCodes []string `json:"postalCodes,omitempty"`

	// Serial number of the subject, which is not that of the certificate.
	// +optional
	SerialNumber string `json:"serialNumber,omitempty"`
}

// DeletionPolicy says what happens to the Secret of a Certificate that is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

const (
	// DeletionPolicyRetain keeps the Secret.
	DeletionPolicyRetain DeletionPolicy = "Retain"
	// DeletionPolicyDelete deletes the Secret together with the Certificate.
	DeletionPolicyDelete DeletionPolicy = "Delete"
)

// CertificateRevocation says whether and why a certificate is revoked.
type CertificateRevocation struct {
	// Whether the unexpired certificates are revoked when the Certificate is deleted. The Certificate
	// stays until they are revoked, but for 10 minutes at most.
	// +optional
	OnDelete bool `json:"onDelete,omitempty"`

	// Reason for the revocation (RFC 5280 section 5.3.1). cessationOfOperation (the default): the
	// names are no longer used. After keyCompromise the private key is never used again, also with
	// rotationPolicy Never.
	// +optional
	Reason RevocationReason `json:"reason,omitempty"`
}

// RevocationReason is the reason of a revocation, from those that subscribers may give.
// +kubebuilder:validation:Enum=unspecified;keyCompromise;affiliationChanged;superseded;cessationOfOperation
type RevocationReason string

const (
	// RevocationReasonUnspecified gives no reason.
	RevocationReasonUnspecified RevocationReason = "unspecified"
	// RevocationReasonKeyCompromise means that the private key is or may be disclosed.
	RevocationReasonKeyCompromise RevocationReason = "keyCompromise"
	// RevocationReasonAffiliationChanged means that the subject's name or organization changed.
	RevocationReasonAffiliationChanged RevocationReason = "affiliationChanged"
	// RevocationReasonSuperseded means that another certificate replaces this one.
	RevocationReasonSuperseded RevocationReason = "superseded"
	// RevocationReasonCessationOfOperation means that the names are no longer used.
	RevocationReasonCessationOfOperation RevocationReason = "cessationOfOperation"
)

// CertificateRenewal says whether and at which times a certificate is renewed.
//
// +kubebuilder:validation:XValidation:rule=`has(self.policy)`,message=`policy must be RenewBefore or Disabled`,fieldPath=`.policy`
// +kubebuilder:validation:XValidation:rule=`!has(self.policy) || self.policy != 'Disabled' || !has(self.windows) || self.windows.size() == 0`,message=`windows have no meaning with the policy Disabled: remove them, or set policy to RenewBefore`,fieldPath=`.windows`
type CertificateRenewal struct {
	// RenewBefore: the certificate is renewed at the time that renewBefore or renewBeforePercentage
	// sets. Disabled: the certificate is not renewed, and expires.
	// +kubebuilder:validation:Enum=RenewBefore;Disabled
	Policy CertificateRenewalPolicy `json:"policy,omitempty"`

	// Times at which renewal may begin; any time if left out. Not with policy Disabled.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Windows []CertificateRenewalWindows `json:"windows,omitempty"`
}

// CertificateRenewalPolicy says whether a certificate is renewed.
type CertificateRenewalPolicy string

const (
	// CertificateRenewalPolicyRenewBefore renews before expiry.
	CertificateRenewalPolicyRenewBefore CertificateRenewalPolicy = "RenewBefore"
	// CertificateRenewalPolicyDisabled lets the certificate expire.
	CertificateRenewalPolicyDisabled CertificateRenewalPolicy = "Disabled"
)

// CertificateRenewalWindows is a recurring period in which renewal may begin.
type CertificateRenewalWindows struct {
	// Time zone of cron, by its IANA name: Europe/Berlin. UTC if left out.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Timezone string `json:"timezone,omitempty"`

	// How long the window stays open, such as 4h30m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern="^([0-9]+(\\.[0-9]+)?(s|m|h))+$"
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`!self.matches('^[0-9.smh]+$') || duration(self) > duration('0s')`,message=`windowDuration must be more than nothing`
	// +required
	WindowDuration *metav1.Duration `json:"windowDuration,omitempty"`

	// When the window opens, in the five fields of cron: minute, hour, day of the month, month,
	// day of the week. "0 2 * * 6" is every Saturday at 2:00.
	// +kubebuilder:validation:MinLength=1
	// +required
	Cron string `json:"cron,omitempty"`
}

// CertificateSecretTemplate has metadata for a Certificate's Secret.
type CertificateSecretTemplate struct {
	// Annotations for the Secret. Of those with the prefix cert-manager.io/, only
	// cert-manager.io/allow-direct-injection is allowed.
	// +optional
	// +kubebuilder:validation:MaxProperties=1000
	// +kubebuilder:validation:XValidation:rule=`self.all(key, !key.startsWith('cert-manager.io/') || key == 'cert-manager.io/allow-direct-injection')`,message=`annotations of cert-manager.io are the controller's own: remove those whose name begins with cert-manager.io/, except cert-manager.io/allow-direct-injection`
	Annotations map[string]string `json:"annotations,omitempty"`

	// Labels for the Secret.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// NameConstraints says for which names a CA may sign (RFC 5280 section 4.2.1.10).
//
// +kubebuilder:validation:XValidation:rule=`has(self.permitted) || has(self.excluded)`,message=`nameConstraints must have permitted, excluded or both`
type NameConstraints struct {
	// Whether clients that do not know the extension must refuse the certificate.
	// +optional
	Critical bool `json:"critical,omitempty"`

	// Names that may be signed for.
	// +optional
	Permitted *NameConstraintItem `json:"permitted,omitempty"`

	// Names that may not be signed for, even if they are permitted.
	// +optional
	Excluded *NameConstraintItem `json:"excluded,omitempty"`
}

// NameConstraintItem is a set of names.
type NameConstraintItem struct {
	// DNS domains; a domain includes its subdomains.
	// +optional
	// +listType=atomic
	DNSDomains []string `json:"dnsDomains,omitempty"`

	// IP networks in CIDR notation: 10.0.0.0/8.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5000
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule=`isCIDR(self)`,message=`must be an IP network such as 10.0.0.0/8 or 2001:db8::/32`
	IPRanges []string `json:"ipRanges,omitempty"`

	// Mailboxes, or hosts or domains, which include all their mailboxes.
	// +optional
	// +listType=atomic
	EmailAddresses []string `json:"emailAddresses,omitempty"`

	// Hosts or, with a leading dot, domains of URIs.
	// +optional
	// +listType=atomic
	URIDomains []string `json:"uriDomains,omitempty"`
}
