package v1

// PartOfCertManagerControllerLabelKey with the value "true" on a Secret makes the controller cache
// its content. The Secrets of Certificates and next private keys have it. Set it on the credentials
// of issuers to save a live read of each.
const PartOfCertManagerControllerLabelKey = "controller.cert-manager.io/fao"

// IsNextPrivateKeySecretLabelKey with the value "true" marks a Secret with the private key of a
// certificate that is not issued yet.
const IsNextPrivateKeySecretLabelKey = "cert-manager.io/next-private-key"

// Annotations that describe a certificate. On its Secret, they record what was issued. On an
// Ingress, Gateway or ListenerSet, most of them request it. Several values are separated by commas
// and quoted as in CSV if necessary.
const (
	CommonNameAnnotationKey = "cert-manager.io/common-name"
	AltNamesAnnotationKey   = "cert-manager.io/alt-names"
	IPSANAnnotationKey      = "cert-manager.io/ip-sans"
	URISANAnnotationKey     = "cert-manager.io/uri-sans"
	EmailsAnnotationKey     = "cert-manager.io/email-sans"

	SubjectOrganizationsAnnotationKey       = "cert-manager.io/subject-organizations"
	SubjectOrganizationalUnitsAnnotationKey = "cert-manager.io/subject-organizationalunits"
	SubjectCountriesAnnotationKey           = "cert-manager.io/subject-countries"
	SubjectProvincesAnnotationKey           = "cert-manager.io/subject-provinces"
	SubjectLocalitiesAnnotationKey          = "cert-manager.io/subject-localities"
	SubjectStreetAddressesAnnotationKey     = "cert-manager.io/subject-streetaddresses"
	SubjectPostalCodesAnnotationKey         = "cert-manager.io/subject-postalcodes"
	SubjectSerialNumberAnnotationKey        = "cert-manager.io/subject-serialnumber"
)

// Annotations that say where the certificate in a Secret comes from.
const (
	// CertificateNameKey names the Certificate. CertificateRequests carry it too.
	CertificateNameKey = "cert-manager.io/certificate-name"
	// IssuerNameAnnotationKey names the issuer that signed.
	IssuerNameAnnotationKey = "cert-manager.io/issuer-name"
	// IssuerKindAnnotationKey holds the kind of the issuer that signed. On an Ingress, Gateway or
	// ListenerSet it says what kind of issuer IngressIssuerNameAnnotationKey names.
	IssuerKindAnnotationKey = "cert-manager.io/issuer-kind"
	// IssuerGroupAnnotationKey holds the API group of that issuer.
	IssuerGroupAnnotationKey = "cert-manager.io/issuer-group"
)

// Annotations of a CertificateRequest.
const (
	// CertificateRequestPrivateKeyAnnotationKey names the Secret with the private key of the
	// request. A selfSigned issuer signs with it; other issuers do not read it.
	CertificateRequestPrivateKeyAnnotationKey = "cert-manager.io/private-key-secret-name"
	// CertificateRequestRevisionAnnotationKey holds the revision of the Certificate that the request
	// is for, a decimal number of 1 or more.
	CertificateRequestRevisionAnnotationKey = "cert-manager.io/certificate-revision"
)

// IssueTemporaryCertificateAnnotation with the value "true" on a Certificate puts a temporary
// self-signed certificate into the Secret until the issuer answers, for servers that do not start
// without a certificate.
const IssueTemporaryCertificateAnnotation = "cert-manager.io/issue-temporary-certificate"

// Annotations of an Ingress, Gateway or ListenerSet that choose its issuer.
const (
	// IngressIssuerNameAnnotationKey names an Issuer of the same namespace.
	IngressIssuerNameAnnotationKey = "cert-manager.io/issuer"
	// IngressClusterIssuerNameAnnotationKey names a ClusterIssuer.
	IngressClusterIssuerNameAnnotationKey = "cert-manager.io/cluster-issuer"
)

// Annotations of an Ingress, Gateway or ListenerSet that set the field of the same name in the
// Certificates that are created for it.
const (
	DurationAnnotationKey              = "cert-manager.io/duration"
	RenewBeforeAnnotationKey           = "cert-manager.io/renew-before"
	RenewBeforePercentageAnnotationKey = "cert-manager.io/renew-before-percentage"
	// UsagesAnnotationKey lists usages, separated by commas.
	UsagesAnnotationKey                   = "cert-manager.io/usages"
	RevisionHistoryLimitAnnotationKey     = "cert-manager.io/revision-history-limit"
	PrivateKeyAlgorithmAnnotationKey      = "cert-manager.io/private-key-algorithm"
	PrivateKeyEncodingAnnotationKey       = "cert-manager.io/private-key-encoding"
	PrivateKeySizeAnnotationKey           = "cert-manager.io/private-key-size"
	PrivateKeyRotationPolicyAnnotationKey = "cert-manager.io/private-key-rotation-policy"
	// IngressSecretTemplate holds the secretTemplate as JSON without unknown fields.
	IngressSecretTemplate = "cert-manager.io/secret-template"
)

// Annotations of an Ingress, Gateway or ListenerSet that change how its certificates are obtained.
const (
	// CertificateIgnoreTLSListeners lists, separated by commas, the listeners that get no Certificate.
	CertificateIgnoreTLSListeners = "cert-manager.io/ignore-tls-listeners"
	// IngressACMEIssuerHTTP01IngressClassAnnotationKey sets the class of Ingresses that solve HTTP-01
	// challenges, as an annotation on them.
	IngressACMEIssuerHTTP01IngressClassAnnotationKey = "acme.cert-manager.io/http01-ingress-class"
	// IngressACMEIssuerHTTP01IngressClassNameAnnotationKey sets the ingressClassName of Ingresses
	// that solve HTTP-01 challenges.
	IngressACMEIssuerHTTP01IngressClassNameAnnotationKey = "acme.cert-manager.io/http01-ingress-ingressclassname"
	// IngressClassAnnotationKey is Kubernetes' old way to choose an ingress controller.
	IngressClassAnnotationKey = "kubernetes.io/ingress.class"
)

// Annotations that put CA certificates into webhooks, APIServices and CRDs.
const (
	// WantInjectAnnotation names a Certificate, namespace/name, whose ca.crt is injected.
	WantInjectAnnotation = "cert-manager.io/inject-ca-from"
	// WantInjectAPIServerCAAnnotation, "true", injects the CA of the Kubernetes API server.
	WantInjectAPIServerCAAnnotation = "cert-manager.io/inject-apiserver-ca"
	// WantInjectFromSecretAnnotation names a Secret, namespace/name, whose ca.crt is injected.
	// The Secret must allow it by AllowsInjectionFromSecretAnnotation.
	WantInjectFromSecretAnnotation = "cert-manager.io/inject-ca-from-secret"
	// AllowsInjectionFromSecretAnnotation on a Secret, "true", allows the injection of its ca.crt.
	AllowsInjectionFromSecretAnnotation = "cert-manager.io/allow-direct-injection"
)

// Annotations of the Venafi issuer.
const (
	// VenafiCustomFieldsAnnotationKey holds custom fields for the request, JSON: [{"name": …, "value":
	// …}].
	VenafiCustomFieldsAnnotationKey = "venafi.cert-manager.io/custom-fields"
	// VenafiPickupIDAnnotationKey holds the server's ID of a pending request.
	VenafiPickupIDAnnotationKey = "venafi.cert-manager.io/pickup-id"
)
