package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Certificate asks for a signed X.509 certificate, which is kept in the Secret that
// spec.secretName names, with its private key, and renewed before it expires.
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

	// What the certificate is to be.
	// +optional
	Spec CertificateSpec `json:"spec"`

	// What the certificate is at present. Written by the controller.
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

// PrivateKeyAlgorithm is the kind of a private key.
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
	// PKCS1 is the older form, which each kind of key has its own of: "RSA PRIVATE KEY" (RFC 8017)
	// or "EC PRIVATE KEY" (RFC 5915). Ed25519 has none and is written as PKCS8.
	PKCS1 PrivateKeyEncoding = "PKCS1"

	// PKCS8 is the form that all kinds of keys share, "PRIVATE KEY" (RFC 5958).
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

// CertificateSpec says what a certificate is to be. It is a request: the issuer decides what it
// signs, and may change or leave out any attribute.
//
// There must be something for the certificate to name: commonName, literalSubject, or at least
// one subject alternative name.
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

	// The whole subject as a string (RFC 4514), where the order of its attributes or an
	// attribute that subject lacks matters: CN=foo,DC=corp,DC=example,DC=com.
	// Not together with subject or commonName.
	// +optional
	// +kubebuilder:validation:MaxLength=8192
	LiteralSubject string `json:"literalSubject,omitempty"`

	// Common name of the subject, at most 64 bytes. TLS clients do not look at it when there
	// are subject alternative names.
	// Not together with literalSubject.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`bytes(self).size() <= 64`,message=`commonName must be at most 64 bytes: put a longer name into dnsNames`
	CommonName string `json:"commonName,omitempty"`

	// How long the certificate is to be valid, such as 2160h. At least 1m; 2160h (90 days) if
	// left out. The issuer may decide otherwise.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('1m')`,message=`duration must be at least 1m, and a number with the unit h, m or s, such as 2160h for 90 days`
	Duration *metav1.Duration `json:"duration,omitempty"`

	// How long before it expires the certificate is renewed, such as 720h. The instant is
	// counted back from the end of the certificate that was really issued. If left out, or if it
	// is not less than the lifetime, a third of the lifetime. It is never renewed before a tenth
	// of the lifetime has passed.
	// It counts in place of renewBeforePercentage if both are set, unless it is not less than the
	// lifetime.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) <= duration('2562047h')`,message=`renewBefore must be a number with the unit h, m or s, such as 720h for 30 days`
	RenewBefore *metav1.Duration `json:"renewBefore,omitempty"`

	// How much of its lifetime is left, in per cent, when the certificate is renewed: with 25, one
	// that is valid for 60 minutes is renewed after 45. From 1 to 90; what is more is taken for 90,
	// and 100 or more, 0 or less as if it was left out.
	// It does not count if renewBefore is set and less than the lifetime.
	// +optional
	RenewBeforePercentage *int32 `json:"renewBeforePercentage,omitempty"`

	// Whether and in which hours the certificate is renewed. At any hour if left out.
	// +optional
	Renewal *CertificateRenewal `json:"renewal,omitempty"`

	// Perennial's own. Profile of the ACME server to use, from those that its directory lists, such as
	// shortlived, in place of that of the issuer. Only with an ACME issuer.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ACMEProfile string `json:"acmeProfile,omitempty"`

	// What becomes of the Secret when the Certificate is deleted: Retain keeps it, Delete deletes it,
	// too. Without it, the flag --enable-certificate-owner-ref of the controller decides.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// Perennial's own. Whether the certificate is revoked when the Certificate is deleted. Only with
	// an ACME issuer.
	// +optional
	Revocation *CertificateRevocation `json:"revocation,omitempty"`

	// DNS names that the certificate is for. Case, a dot at the end, and whether a name is written
	// in Unicode or in its xn-- form make no difference; each is certified once.
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

	// Name of the Secret in the same namespace that the private key and the certificate are
	// kept in. It is created if it does not exist.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`secretName must be the name of a Secret: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`
	SecretName string `json:"secretName"`

	// Labels and annotations for the Secret. One that is removed here is removed there.
	// +optional
	SecretTemplate *CertificateSecretTemplate `json:"secretTemplate,omitempty"`

	// Keystores to write to the Secret beside the PEM entries.
	// +optional
	Keystores *CertificateKeystores `json:"keystores,omitempty"`

	// The issuer that is to sign. An Issuer is looked for in the Certificate's namespace.
	IssuerRef cmmeta.IssuerReference `json:"issuerRef"`

	// Perennial's own. An issuer, such as that of the CA's staging server, that must sign a new or
	// changed specification first, before issuerRef is asked. What it signs is thrown away. Plain
	// renewals are not rehearsed. If it cannot be reached for 30 minutes, issuerRef is asked without
	// it.
	// +optional
	RehearsalIssuerRef *cmmeta.IssuerReference `json:"rehearsalIssuerRef,omitempty"`

	// Whether the certificate is to be that of a CA. Adds "cert sign" to the usages.
	// +optional
	IsCA bool `json:"isCA,omitempty"`

	// What the key may be used for. "digital signature" and "key encipherment" if left out.
	// +optional
	// +listType=atomic
	Usages []KeyUsage `json:"usages,omitempty"`

	// How the private key is made and kept.
	// +optional
	PrivateKey *CertificatePrivateKey `json:"privateKey,omitempty"`

	// How the certificate request is signed. It must fit privateKey.algorithm: SHA256WithRSA,
	// SHA384WithRSA or SHA512WithRSA for RSA; ECDSAWithSHA256, ECDSAWithSHA384 or
	// ECDSAWithSHA512 for ECDSA; PureEd25519 for Ed25519. What is usual for the key if left out.
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

	// Further forms of the key and the certificate to write to the Secret.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule=`self.all(format, self.exists_one(other, other.type == format.type))`,message=`additionalOutputFormats must not name a type twice`
	AdditionalOutputFormats []CertificateAdditionalOutputFormat `json:"additionalOutputFormats,omitempty"`

	// Names that a CA may or may not sign for (RFC 5280 section 4.2.1.10). Only with isCA.
	// +optional
	NameConstraints *NameConstraints `json:"nameConstraints,omitempty"`
}

// OtherName is a subject alternative name of a type that X.509 itself does not define.
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

// CertificatePrivateKey says how the private key of a Certificate is made and kept.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.size) || self.size == 0 || (has(self.algorithm) && self.algorithm != 'RSA') || (self.size >= 2048 && self.size <= 8192)`,message=`size of an RSA key must be from 2048 to 8192`,fieldPath=`.size`
// +kubebuilder:validation:XValidation:rule=`!has(self.size) || self.size == 0 || !has(self.algorithm) || self.algorithm != 'ECDSA' || self.size in [256, 384, 521]`,message=`size of an ECDSA key must be 256, 384 or 521`,fieldPath=`.size`
type CertificatePrivateKey struct {
	// Whether each issuance gets a new key. Always, if left out: it does. Never: the key in the
	// Secret is used again; one that no longer fits algorithm and size must be
	// deleted by hand, and until then nothing is issued.
	// +optional
	RotationPolicy PrivateKeyRotationPolicy `json:"rotationPolicy,omitempty"`

	// Form of the key in the Secret: PKCS1, if left out, or PKCS8.
	// +optional
	Encoding PrivateKeyEncoding `json:"encoding,omitempty"`

	// Kind of the key: RSA, if left out, ECDSA or Ed25519.
	// +optional
	Algorithm PrivateKeyAlgorithm `json:"algorithm,omitempty"`

	// Size of the key in bits. RSA: 2048 to 8192, 2048 if left out. ECDSA: 256, 384 or 521, 256
	// if left out. Ed25519 keys have one size, and this is not read.
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
	// RotationPolicyAlways makes a new key for each issuance.
	RotationPolicyAlways PrivateKeyRotationPolicy = "Always"
)

// CertificateOutputFormatType is a further form of key and certificate.
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

// CertificateAdditionalOutputFormat asks for a further form of key and certificate.
type CertificateAdditionalOutputFormat struct {
	// DER writes the private key to the entry key.der; CombinedPEM writes private key and chain
	// to the entry tls-combined.pem.
	Type CertificateOutputFormatType `json:"type"`
}

// X509Subject has the attributes of a subject (RFC 5280 section 4.1.2.6), apart from the
// common name.
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

// DeletionPolicy says what becomes of the Secret of a Certificate that is deleted.
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
	// Whether the certificates that are not expired are revoked when the Certificate is deleted. The
	// Certificate stays until that is done, but for 10 minutes at most.
	// +optional
	OnDelete bool `json:"onDelete,omitempty"`

	// Why (RFC 5280 section 5.3.1). cessationOfOperation, if left out: the names are given up. After
	// keyCompromise the private key is never used again, also with rotationPolicy Never.
	// +optional
	Reason RevocationReason `json:"reason,omitempty"`
}

// RevocationReason is why a certificate is revoked, of those that subscribers may give.
// +kubebuilder:validation:Enum=unspecified;keyCompromise;affiliationChanged;superseded;cessationOfOperation
type RevocationReason string

const (
	// RevocationReasonUnspecified says nothing.
	RevocationReasonUnspecified RevocationReason = "unspecified"
	// RevocationReasonKeyCompromise: somebody else has, or may have, the private key.
	RevocationReasonKeyCompromise RevocationReason = "keyCompromise"
	// RevocationReasonAffiliationChanged: the subject's name or organization changed.
	RevocationReasonAffiliationChanged RevocationReason = "affiliationChanged"
	// RevocationReasonSuperseded: there is another certificate in its place.
	RevocationReasonSuperseded RevocationReason = "superseded"
	// RevocationReasonCessationOfOperation: the names are given up.
	RevocationReasonCessationOfOperation RevocationReason = "cessationOfOperation"
)

// CertificateRenewal says whether and in which hours a certificate is renewed.
//
// +kubebuilder:validation:XValidation:rule=`has(self.policy)`,message=`policy must be RenewBefore or Disabled`,fieldPath=`.policy`
// +kubebuilder:validation:XValidation:rule=`!has(self.policy) || self.policy != 'Disabled' || !has(self.windows) || self.windows.size() == 0`,message=`windows have no meaning with the policy Disabled: remove them, or set policy to RenewBefore`,fieldPath=`.windows`
type CertificateRenewal struct {
	// RenewBefore: it is renewed as renewBefore or renewBeforePercentage say. Disabled: it is not
	// renewed, and expires.
	// +kubebuilder:validation:Enum=RenewBefore;Disabled
	Policy CertificateRenewalPolicy `json:"policy,omitempty"`

	// Hours in which renewal may begin; any if left out. Not with policy Disabled.
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

// CertificateRenewalWindows is a stretch of time that comes again and again, in which renewal
// may begin.
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
	// Annotations for the Secret. None of cert-manager.io but cert-manager.io/allow-direct-injection.
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
	// DNS domains; a domain stands for its subdomains too.
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

	// Mailboxes, or hosts or domains that stand for all their mailboxes.
	// +optional
	// +listType=atomic
	EmailAddresses []string `json:"emailAddresses,omitempty"`

	// Hosts or, with a leading dot, domains of URIs.
	// +optional
	// +listType=atomic
	URIDomains []string `json:"uriDomains,omitempty"`
}
