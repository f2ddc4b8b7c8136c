package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrustBundleKind is the kind of a TrustBundle.
const TrustBundleKind = "TrustBundle"

const (
	// TrustBundleLabelKey labels the ConfigMaps and Secrets that a TrustBundle writes, with its name.
	// An existing object with the label is taken over; an object without it is never changed.
	TrustBundleLabelKey = "perennial.dev/trust-bundle"

	// TrustHashAnnotationKey annotates the ConfigMaps and Secrets that a TrustBundle writes. Its value
	// is a hash of the content, for use in the pod template of a Deployment, for example.
	TrustHashAnnotationKey = "perennial.dev/trust-hash"
)

// TrustBundle collects CA certificates and writes them to a ConfigMap or Secret in each selected
// namespace, so that programs can verify their peers: as PEM and, for Java, as PKCS #12 or JKS
// truststores.
//
// When a CA is replaced, the old CA stays in the bundle as long as its certificates may be in use.
// The status says which certificates are in the bundle, why, and until when.
//
// A TrustBundle is cluster-scoped and for administrators: write access to it controls what programs
// in all namespaces trust. Deleting it deletes the objects that it wrote.
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

	// Which CA certificates are distributed, and where.
	Spec TrustBundleSpec `json:"spec"`

	// The content of the bundle. Written by the controller.
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

// TrustBundleSpec says which CA certificates are distributed, and where.
type TrustBundleSpec struct {
	// Where the CA certificates come from. The controller leaves out unusable certificates, such as
	// expired ones or those that are not a CA's, lists them in the condition SourcesValid, and uses
	// the rest.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	Sources []TrustSource `json:"sources"`

	// Where the bundle is written.
	Target TrustTarget `json:"target"`

	// How long a CA certificate stays in the bundle after it is removed from its Secret or ConfigMap,
	// or after that object is deleted. Choose at least the lifetime of the longest-lived certificate
	// that the CA signed. The CA stays longer while a Secret that this controller wrote holds an
	// unexpired certificate of it, but never after its own expiry. At most 32 are kept.
	//
	// This does not apply to issuers, which record themselves how long a replaced CA is needed. Nor
	// does it apply to what you remove from this spec, which leaves the bundle at once.
	//
	// With 0s, the CA leaves at once if no unexpired certificate of it is known. Default 2160h, which
	// is 90 days.
	// +optional
	// +kubebuilder:default="2160h"
	// +kubebuilder:validation:XValidation:rule=`duration(self) >= duration('0s') && duration(self) <= duration('87600h')`,message=`keepReplacedFor must be from 0s to 87600h`
	KeepReplacedFor *metav1.Duration `json:"keepReplacedFor,omitempty"`

	// Certificates that must not be in the bundle, whatever their source, by the SHA-256 of their DER
	// form in hexadecimal digits, with or without colons, as `openssl x509 -fingerprint -sha256`
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

// TrustSource is one source of CA certificates.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.issuer), has(self.secret), has(self.configMap), has(self.inLine)].filter(x, x).size() == 1`,message=`a source must have exactly one of issuer, secret, configMap and inLine`
type TrustSource struct {
	// An Issuer or ClusterIssuer of type ca: the CA in use, and the replaced CAs that still have an
	// unexpired certificate.
	// +optional
	Issuer *TrustIssuerSource `json:"issuer,omitempty"`

	// Secrets in the namespace for the Secrets of ClusterIssuers (flag --cluster-resource-namespace).
	// +optional
	Secret *TrustObjectSource `json:"secret,omitempty"`

	// ConfigMaps in the namespace for the Secrets of ClusterIssuers (flag
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
	// Name of a single object.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// All objects with these labels, at most 100.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// Which entry holds the certificates: ca.crt if left out. The Secret of a CA has the CA's own
	// certificate in tls.crt and the certificate of the CA above it in ca.crt.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// Whether all entries hold certificates. Not for Secrets that also hold a private key.
	// +optional
	AllKeys bool `json:"allKeys,omitempty"`
}

// TrustTarget says where the bundle is written.
//
// +kubebuilder:validation:XValidation:rule=`has(self.configMap) || has(self.secret)`,message=`target must have configMap or secret, or both`
type TrustTarget struct {
	// Selects the namespaces by their labels. {} selects all. The bundle is removed from a namespace
	// that is no longer selected.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`

	// A ConfigMap with the bundle.
	// +optional
	ConfigMap *TrustTargetObject `json:"configMap,omitempty"`

	// A Secret with the bundle, for programs that can read only Secrets. CA certificates are not
	// secret.
	// +optional
	Secret *TrustTargetObject `json:"secret,omitempty"`
}

// TrustTargetObject is a ConfigMap or Secret to write. The controller keeps entries of other
// writers.
//
// +kubebuilder:validation:XValidation:rule=`[[self.?pem.?key.orValue('1'), self.?pkcs12.?key.orValue('2'), self.?jks.?key.orValue('3')]].all(keys, keys.all(key, keys.exists_one(other, other == key)))`,message=`pem, pkcs12 and jks must not have the same key`
type TrustTargetObject struct {
	// Name of the object. That of the TrustBundle if left out.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`!format.dns1123Subdomain().validate(self).hasValue()`,message=`must be a name of lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`
	Name string `json:"name,omitempty"`

	// The certificates in PEM form, one after another. This is the default if none of pem, pkcs12 and
	// jks is set.
	// +optional
	PEM *TrustPEM `json:"pem,omitempty"`

	// A PKCS #12 truststore.
	// +optional
	PKCS12 *TrustPKCS12 `json:"pkcs12,omitempty"`

	// A JKS truststore, for versions of Java before 8u60.
	// +optional
	JKS *TrustJKS `json:"jks,omitempty"`

	// Labels for the object.
	// +optional
	// +kubebuilder:validation:MaxProperties=100
	// +kubebuilder:validation:XValidation:rule=`self.all(key, !key.startsWith('perennial.dev/') && !key.startsWith('controller.cert-manager.io/'))`,message=`labels of the controller are its own: remove those whose name begins with perennial.dev/ or controller.cert-manager.io/`
	Labels map[string]string `json:"labels,omitempty"`

	// Annotations for the object.
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

// TrustPassword is the password of a truststore. It need not be secret, because the content is
// public.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule=`self.matches('^[ -~]*$')`,message=`must consist of ASCII characters that can be printed`
type TrustPassword string

// TrustPEM is the bundle as PEM.
type TrustPEM struct {
	// The entry that holds the bundle.
	// +optional
	// +kubebuilder:default=ca.crt
	Key TrustKey `json:"key,omitempty"`
}

// TrustPKCS12Profile is a set of algorithms for a PKCS #12 file.
// +kubebuilder:validation:Enum=LegacyRC2;LegacyDES;Modern2023;Modern2026
type TrustPKCS12Profile string

// TrustPKCS12 is the bundle as a PKCS #12 truststore.
type TrustPKCS12 struct {
	// The entry that holds the bundle.
	// +optional
	// +kubebuilder:default=truststore.p12
	Key TrustKey `json:"key,omitempty"`

	// Password of the truststore. Java requires one.
	// +optional
	// +kubebuilder:default=changeit
	Password *TrustPassword `json:"password,omitempty"`

	// The algorithms. Modern2023: Java 8u301, 11.0.12, 12 or later. Modern2026: Java 26. LegacyDES:
	// all programs. LegacyRC2: all programs except OpenSSL 3.
	// +optional
	// +kubebuilder:default=Modern2023
	Profile TrustPKCS12Profile `json:"profile,omitempty"`
}

// TrustJKS is the bundle as a JKS truststore.
type TrustJKS struct {
	// The entry that holds the bundle.
	// +optional
	// +kubebuilder:default=truststore.jks
	Key TrustKey `json:"key,omitempty"`

	// Password of the truststore.
	// +optional
	// +kubebuilder:default=changeit
	Password *TrustPassword `json:"password,omitempty"`
}

// Types of a TrustBundle's conditions. Ready is True when SourcesValid and Distributed are.
const (
	// ConditionSourcesValid is True when every source was read and all its certificates are in the
	// bundle.
	ConditionSourcesValid = "SourcesValid"

	// ConditionDistributed is True when all selected namespaces have the bundle.
	ConditionDistributed = "Distributed"
)

// TrustBundleStatus describes the content of the bundle.
type TrustBundleStatus struct {
	// The generation of the spec that the status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready, SourcesValid and Distributed. Stalled is present while Ready is not True and only a
	// person can change that.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// How many certificates are in the bundle.
	// +optional
	CertificateCount int32 `json:"certificateCount,omitempty"`

	// How many of the certificates are retained although their source no longer has them.
	// +optional
	RetainedCount int32 `json:"retainedCount,omitempty"`

	// Number of namespaces that have the bundle.
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
	// Subject of the certificate.
	// +kubebuilder:validation:MaxLength=1024
	Subject string `json:"subject"`

	// SHA-256 of its DER form, in lower-case hexadecimal digits.
	// +kubebuilder:validation:MaxLength=64
	Fingerprint string `json:"fingerprint"`

	// When the certificate expires and leaves the bundle.
	NotAfter metav1.Time `json:"notAfter"`

	// The source of the certificate, as written in the spec.
	// +kubebuilder:validation:MaxLength=8192
	Source string `json:"source"`

	// The certificate itself, PEM, so that it can be retained when its source loses it. Absent if the
	// spec contains it.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Certificate string `json:"certificate,omitempty"`

	// Set if the source no longer has the certificate.
	// +optional
	Retained *TrustRetention `json:"retained,omitempty"`
}

// TrustRetention says why a certificate is in the bundle although its source no longer has it.
type TrustRetention struct {
	// When the controller first found the source without the certificate.
	Since metav1.Time `json:"since"`

	// When the CA leaves the bundle, unless an unexpired certificate of it is known then.
	Until metav1.Time `json:"until"`

	// Why the CA stays until then.
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason"`

	// A Secret, namespace/name, with an unexpired certificate of this CA, if that is why the CA stays.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	UsedBy string `json:"usedBy,omitempty"`
}
