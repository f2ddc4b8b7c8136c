package v1

// Finalizers that keep a Challenge until the proof that was presented for it is removed.
const (
	ACMEDomainQualifiedFinalizer = "acme.cert-manager.io/finalizer"
	// ACMELegacyFinalizer is the finalizer that old releases of cert-manager wrote. It is removed,
	// never added.
	ACMELegacyFinalizer = "finalizer.acme.cert-manager.io"
)

// Annotations of a Certificate, copied to its Orders and Challenges, that change the HTTP-01 solver
// of its issuer for this certificate.
const (
	// ACMECertificateHTTP01IngressNameOverride sets the Ingress that is edited.
	ACMECertificateHTTP01IngressNameOverride = "acme.cert-manager.io/http01-override-ingress-name"
	// ACMECertificateHTTP01IngressClassOverride sets the class, as an annotation, of the Ingress that
	// is created.
	ACMECertificateHTTP01IngressClassOverride = "acme.cert-manager.io/http01-override-ingress-class"
	// ACMECertificateHTTP01IngressClassNameOverride sets the ingressClassName of the Ingress that is
	// created.
	ACMECertificateHTTP01IngressClassNameOverride = "acme.cert-manager.io/http01-override-ingress-ingressclassname"

	// ACMECertificateHTTP01ParentRefName sets the name of the HTTPRoute's parent.
	ACMECertificateHTTP01ParentRefName = "acme.cert-manager.io/http01-parentrefname"
	// ACMECertificateHTTP01ParentRefKind sets the kind of the HTTPRoute's parent.
	ACMECertificateHTTP01ParentRefKind = "acme.cert-manager.io/http01-parentrefkind"
	// ACMECertificateHTTP01ParentRefNamespace sets the namespace of the HTTPRoute's parent.
	ACMECertificateHTTP01ParentRefNamespace = "acme.cert-manager.io/http01-parentrefnamespace"
	// ACMECertificateHTTP01ParentRefFallback on a ListenerSet makes the ListenerSet's own Gateway
	// the HTTPRoute's parent.
	ACMECertificateHTTP01ParentRefFallback = "acme.cert-manager.io/http01-parentreffallback"
)

// IngressEditInPlaceAnnotationKey on an Ingress, "true", makes the controller add its rules for
// HTTP-01 challenges to that Ingress instead of creating a second one.
const IngressEditInPlaceAnnotationKey = "acme.cert-manager.io/http01-edit-in-place"

// Labels of the objects that are created to solve an HTTP-01 challenge.
const (
	// DomainLabelKey holds the hash of the domain.
	DomainLabelKey = "acme.cert-manager.io/http-domain"
	// TokenLabelKey holds the hash of the token.
	TokenLabelKey = "acme.cert-manager.io/http-token"
	// SolverIdentificationLabelKey is "true".
	SolverIdentificationLabelKey = "acme.cert-manager.io/http01-solver"
)
