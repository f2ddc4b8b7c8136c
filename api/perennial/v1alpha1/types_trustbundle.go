package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrustBundleKind is the kind of a TrustBundle.
const TrustBundleKind = "TrustBundle"

const (
	// TrustBundleLabelKey labels the ConfigMaps and Secrets that a TrustBundle writes, with its name.
	// An object that has the label already is taken over, any other is left alone.
	TrustBundleLabelKey = "perennial.dev/trust-bundle"

	// TrustHashAnnotationKey is on what a TrustBundle writes: a hash that changes with its content, to
	// put into the template of a Deployment for example.
	TrustHashAnnotationKey = "perennial.dev/trust-hash"
)

// TrustBundle collects CA certificates and puts them into a ConfigMap or Secret of each selected
// namespace, for programs to verify others with: as PEM and, for Java, as PKCS #12 or JKS
// truststores.
//
// While a CA is replaced, the old one stays in the bundle as long as certificates of it may be in
// use. What is in the bundle, why, and until when is in the status.
//
// It belongs to no namespace and is for administrators: who may write a TrustBundle decides whom
// others trust. Deleting it deletes what it wrote.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Cluster,shortName=tb,categories=perennial
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Certificates",type="integer",JSONPath=`.status.certificateCount`
// +kubebuilder:printcolumn:name="Retained",type="integer",JSONPath=`.status.retainedCount`
// +kubebuilder:printcolumn:name="Namespaces",type="integer",JSONPath=`.status.namespaceCount`
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule=`self.metadata.name.size() <= 63`,message=`metadata.name must not be longer than 63 characters, because it becomes the value of a label`
type TrustBundle struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Which CA certificates are put where.
	Spec TrustBundleSpec `json:"spec"`

	// What is in the bundle. Written by the controller.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status TrustBundleStatus `json:"status,omitempty"`
}

// TrustBundleList is a list of TrustBundles.
//
// +kubebuilder:object:root=true
type TrustBundleList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []TrustBundle `json:"items"`
}

// TrustBundleSpec says which CA certificates are put where.
type TrustBundleSpec struct {
	// Where the CA certificates come from. What cannot be used of a source, such as a certificate that
	// is not a CA's or is expired, is left out and named in the condition SourcesValid; the rest is
	// used.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	Sources []TrustSource `json:"sources"`

	// Where they are put.
	Target TrustTarget `json:"target"`

	// How long a CA certificate stays in the bundle after it vanished from its Secret or ConfigMap, or
	// the Secret or ConfigMap itself did: at least as long as the longest-lived certificate that the
	// CA signed. It stays longer while a certificate of it is alive in a Secret that this system
	// wrote, and never after it expired. At most 32 are kept.
	//
	// Issuers know themselves when a CA that they replaced is no longer needed; this is not about
	// them. Nor is it about what you take out of this spec: that leaves the bundle at once.
	//
	// With 0s it leaves at once if no such certificate is known. Default 2160h, which is 90 days.
	// +optional
	// +kubebuilder:default="2160h"
	// +kubebuilder:validation:XValidation:rule=`duration(self) >= duration('0s') && duration(self) <= duration('87600h')`,message=`keepReplacedFor must be from 0s to 87600h`
	KeepReplacedFor *metav1.Duration `json:"keepReplacedFor,omitempty"`

	// Certificates that must not be in the bundle, wherever they come from, by the SHA-256 of their
	// DER form in hexadecimal digits, with or without colons, as `openssl x509 -fingerprint -sha256`
	// prints it. For a CA whose key was stolen.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +listType=set
	Distrust []TrustFingerprint `json:"distrust,omitempty"`
}

// TrustFingerprint is the SHA-256 of a certificate's DER form.
//
// +kubebuilder:validation:MaxLength=95
// +kubebuilder:validation:XValidation:rule=`self.matches('^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$')`,message=`must be a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons`
type TrustFingerprint string

// TrustSource is one place where CA certificates come from.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.issuer), has(self.secret), has(self.configMap), has(self.inLine)].filter(x, x).size() == 1`,message=`a source must have exactly one of issuer, secret, configMap and inLine`
type TrustSource struct {
	// An Issuer or ClusterIssuer of type ca: the CA in use and those that it replaced and of which a
	// certificate is alive.
	// +optional
	Issuer *TrustIssuerSource `json:"issuer,omitempty"`

	// Secrets of the namespace in which also the Secrets of ClusterIssuers are (flag
	// --cluster-resource-namespace).
	// +optional
	Secret *TrustObjectSource `json:"secret,omitempty"`

	// ConfigMaps of the namespace in which also the Secrets of ClusterIssuers are (flag
	// --cluster-resource-namespace).
	// +optional
	ConfigMap *TrustObjectSource `json:"configMap,omitempty"`

	// The certificates themselves, PEM.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=330000
	InLine string `json:"inLine,omitempty"`
}

// TrustIssuerKind is the kind of an issuer.
// +kubebuilder:validation:Enum=Issuer;ClusterIssuer
type TrustIssuerKind string

// TrustIssuerSource names an issuer.
//
// +kubebuilder:validation:XValidation:rule=`(self.?kind.orValue('ClusterIssuer') == 'Issuer') == has(self.namespace)`,message=`namespace must be set if kind is Issuer, and not if it is ClusterIssuer`
type TrustIssuerSource struct {
	// Issuer or ClusterIssuer.
	// +optional
	// +kubebuilder:default=ClusterIssuer
	Kind TrustIssuerKind `json:"kind,omitempty"`

	// Namespace of an Issuer.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// Name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// TrustObjectSource selects Secrets or ConfigMaps and says which of their entries hold the
// certificates, PEM.
//
// +kubebuilder:validation:XValidation:rule=`has(self.name) != has(self.selector)`,message=`exactly one of name and selector must be set`
// +kubebuilder:validation:XValidation:rule=`!(has(self.key) && self.?allKeys.orValue(false))`,message=`key must not be set together with allKeys`
type TrustObjectSource struct {
	// Name of the one object.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// All objects with these labels, at most 100.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// Which entry holds the certificates: ca.crt if left out. The Secret of a CA has its own
	// certificate in tls.crt and that of the CA above it in ca.crt.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// All entries hold certificates. Not for Secrets that hold a private key, too.
	// +optional
	AllKeys bool `json:"allKeys,omitempty"`
}

// TrustTarget says where the bundle is put.
//
// +kubebuilder:validation:XValidation:rule=`has(self.configMap) || has(self.secret)`,message=`target must have configMap or secret, or both`
type TrustTarget struct {
	// In which namespaces, by their labels. {} selects all. From a namespace that is no longer
	// selected the bundle is removed.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`

	// A ConfigMap with the bundle.
	// +optional
	ConfigMap *TrustTargetObject `json:"configMap,omitempty"`

	// A Secret with the bundle, for programs that can read nothing else: CA certificates are not
	// secret.
	// +optional
	Secret *TrustTargetObject `json:"secret,omitempty"`
}

// TrustTargetObject is a ConfigMap or Secret that is written. Entries that others put into it stay.
//
// +kubebuilder:validation:XValidation:rule=`[[self.?pem.?key.orValue('1'), self.?pkcs12.?key.orValue('2'), self.?jks.?key.orValue('3')]].all(keys, keys.all(key, keys.exists_one(other, other == key)))`,message=`pem, pkcs12 and jks must not have the same key`
type TrustTargetObject struct {
	// Its name: that of the TrustBundle if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`!format.dns1123Subdomain().validate(self).hasValue()`,message=`must be a name of lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`
	Name string `json:"name,omitempty"`

	// The certificates one after another. So it is if none of pem, pkcs12 and jks is set, too.
	// +optional
	PEM *TrustPEM `json:"pem,omitempty"`

	// A PKCS #12 truststore.
	// +optional
	PKCS12 *TrustPKCS12 `json:"pkcs12,omitempty"`

	// A JKS truststore, for versions of Java before 8u60.
	// +optional
	JKS *TrustJKS `json:"jks,omitempty"`

	// Labels for it.
	// +optional
	// +kubebuilder:validation:MaxProperties=100
	// +kubebuilder:validation:XValidation:rule=`self.all(key, !key.startsWith('perennial.dev/') && !key.startsWith('controller.cert-manager.io/'))`,message=`labels of the controller are its own: remove those whose name begins with perennial.dev/ or controller.cert-manager.io/`
	Labels map[string]string `json:"labels,omitempty"`

	// Annotations for it.
	// +optional
	// +kubebuilder:validation:MaxProperties=100
	// +kubebuilder:validation:XValidation:rule=`self.all(key, !key.startsWith('perennial.dev/'))`,message=`annotations of perennial.dev are the controller's own: remove those whose name begins with perennial.dev/`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// TrustKey is the name of an entry of a ConfigMap or Secret.
//
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule=`self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')`,message=`must be a key of letters, digits, '-', '_' and '.', other than . and those that begin with ..`
type TrustKey string

// TrustPassword is the password of a truststore. It keeps nothing secret, as the content is public.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`self.matches('^[ -~]*$')`,message=`must consist of ASCII characters that can be printed`
type TrustPassword string

// TrustPEM is the bundle as PEM.
type TrustPEM struct {
	// The entry that holds it.
	// +optional
	// +kubebuilder:default=ca.crt
	Key TrustKey `json:"key,omitempty"`
}

// TrustPKCS12Profile says with which algorithms a PKCS #12 file is written.
// +kubebuilder:validation:Enum=LegacyRC2;LegacyDES;Modern2023;Modern2026
type TrustPKCS12Profile string

// TrustPKCS12 is the bundle as a PKCS #12 truststore.
type TrustPKCS12 struct {
	// The entry that holds it.
	// +optional
	// +kubebuilder:default=truststore.p12
	Key TrustKey `json:"key,omitempty"`

	// With what it is opened. Java wants one.
	// +optional
	// +kubebuilder:default=changeit
	Password *TrustPassword `json:"password,omitempty"`

	// The algorithms: Modern2023 is read by Java since 8u301, 11.0.12 and 12; Modern2026 by Java 26;
	// LegacyDES and LegacyRC2 by all, the latter not by OpenSSL 3.
	// +optional
	// +kubebuilder:default=Modern2023
	Profile TrustPKCS12Profile `json:"profile,omitempty"`
}

// TrustJKS is the bundle as a JKS truststore.
type TrustJKS struct {
	// The entry that holds it.
	// +optional
	// +kubebuilder:default=truststore.jks
	Key TrustKey `json:"key,omitempty"`

	// With what it is opened.
	// +optional
	// +kubebuilder:default=changeit
	Password *TrustPassword `json:"password,omitempty"`
}

// Types of a TrustBundle's conditions. Ready is True when SourcesValid and Distributed are.
const (
	// ConditionSourcesValid is True when every source could be read and all in it is in the bundle.
	ConditionSourcesValid = "SourcesValid"

	// ConditionDistributed is True when all selected namespaces have the bundle.
	ConditionDistributed = "Distributed"
)

// TrustBundleStatus is what is in the bundle.
type TrustBundleStatus struct {
	// The generation of the spec that the rest of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready, SourcesValid and Distributed. Stalled is there while only a person can end that Ready is
	// not True.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// How many certificates are in the bundle.
	// +optional
	CertificateCount int32 `json:"certificateCount,omitempty"`

	// How many of them are retained.
	// +optional
	RetainedCount int32 `json:"retainedCount,omitempty"`

	// In how many namespaces the bundle is.
	// +optional
	NamespaceCount int32 `json:"namespaceCount,omitempty"`

	// The certificates in the bundle, in its order.
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	Certificates []TrustedCertificate `json:"certificates,omitempty"`
}

// TrustedCertificate is a certificate in the bundle.
type TrustedCertificate struct {
	// Whose it is.
	// +kubebuilder:validation:MaxLength=1024
	Subject string `json:"subject"`

	// SHA-256 of its DER form, in lower-case hexadecimal digits.
	// +kubebuilder:validation:MaxLength=64
	Fingerprint string `json:"fingerprint"`

	// When it expires, and with that leaves the bundle.
	NotAfter metav1.Time `json:"notAfter"`

	// The source that it comes from, as it stands in the spec.
	// +kubebuilder:validation:MaxLength=8192
	Source string `json:"source"`

	// The certificate itself, PEM: so it can be kept when its source loses it. Absent if it stands in
	// the spec.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Certificate string `json:"certificate,omitempty"`

	// Set if the source has it no more.
	// +optional
	Retained *TrustRetention `json:"retained,omitempty"`
}

// TrustRetention says why a certificate is in the bundle though its source has it no more.
type TrustRetention struct {
	// When the source was first seen without it.
	Since metav1.Time `json:"since"`

	// When it leaves the bundle, unless a certificate of it is found to be alive then.
	Until metav1.Time `json:"until"`

	// What makes it stay until then.
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason"`

	// A Secret, namespace/name, with a certificate of this CA that is alive, if that is what makes it
	// stay.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	UsedBy string `json:"usedBy,omitempty"`
}
