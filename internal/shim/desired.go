package shim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// DefaultAutoAnnotation is the annotation that asks for a certificate of the default issuer.
const DefaultAutoAnnotation = "kubernetes.io/tls-acme"

// RequestedByAnnotation is signer.RequestedByAnnotation.
const RequestedByAnnotation = signer.RequestedByAnnotation

// Settings configure which objects get Certificates, and what is copied to them.
type Settings struct {
	// AutoAnnotations are the annotations of an Ingress that, with the value "true", ask for a
	// certificate of DefaultIssuer. If nil, only DefaultAutoAnnotation does.
	AutoAnnotations []string
	// DefaultIssuer is the issuer for objects that name none. If its name is empty, there is no
	// default.
	DefaultIssuer cmmeta.IssuerReference
	// ExtraAnnotations are copied to the Certificates.
	ExtraAnnotations []string
	// ExtraProtocols are listener protocols, in addition to HTTPS and TLS, that use TLS.
	ExtraProtocols []string
	// ClusterScoped reports whether a kind of external issuer is cluster-scoped. The Reconciler asks
	// the API server.
	ClusterScoped func(schema.GroupKind) bool
}

// certificateSource is an object that may ask for certificates, of whatever kind.
type certificateSource struct {
	client.Object
	kind schema.GroupVersionKind
	// annotations are the effective annotations: its own, and inherited ones.
	annotations map[string]string
	// ingress says that it is an Ingress. Some annotations apply only to Ingresses.
	ingress bool
	// parent is the parent of the HTTPRoutes for its challenges. It is nil for an Ingress.
	parent *parent
	// tls are the Secrets that it wants.
	tls []tlsSecret
	// kept are Secrets that a mistake concerns, so that the desired Certificate is not known. Their
	// Certificates stay as they are.
	kept []types.NamespacedName
	// mistakes are the mistakes in the fields that tls is read from.
	mistakes []Mistake
}

// tlsSecret is a Secret that an object wants, for these hosts.
type tlsSecret struct {
	secret types.NamespacedName
	hosts  []string
}

// parent is a Gateway or ListenerSet.
type parent struct{ kind, namespace, name string }

func (s *certificateSource) mistake(field, format string, args ...any) {
	s.mistakes = append(s.mistakes, Mistake{Field: field, Message: fmt.Sprintf(format, args...)})
}

// named returns the name of the object in messages and annotations.
func (s *certificateSource) named() string {
	return s.kind.Kind + "/" + s.GetNamespace() + "/" + s.GetName()
}

var kindIngress = networkingv1.SchemeGroupVersion.WithKind("Ingress")

// ofIngress reads an Ingress.
func ofIngress(o *networkingv1.Ingress) *certificateSource {
	s := &certificateSource{Object: o, kind: kindIngress, annotations: o.Annotations, ingress: true}
	for i, tls := range o.Spec.TLS {
		path, secret := fmt.Sprintf("spec.tls[%d]", i), types.NamespacedName{Namespace: o.Namespace, Name: tls.SecretName}
		switch {
		case tls.SecretName == "":
			s.mistake(path+".secretName", "is missing: name the Secret that the certificate is to be stored in")
		case slices.ContainsFunc(s.tls, func(w tlsSecret) bool { return w.secret == secret }):
			s.mistake(path+".secretName", "%q is in an earlier entry, too: put the hosts into one entry", tls.SecretName)
		case len(tls.Hosts) == 0:
			s.mistake(path+".hosts", "is empty: name the hosts that the certificate is for")
			s.kept = append(s.kept, secret)
		default:
			s.tls = append(s.tls, tlsSecret{secret, tls.Hosts})
		}
	}
	return s
}

// desiredState is what an object asks for.
type desiredState struct {
	// asks says that the object asks for certificates.
	asks bool
	// broken says that a mistake hides what the object asks for. Then its Certificates stay as they
	// are.
	broken       bool
	certificates []*cmapi.Certificate
	// kept are Certificates that stay as they are.
	kept     []types.NamespacedName
	mistakes []Mistake
}

// desiredBy turns an object into the Certificates that it asks for. It is a pure function.
func desiredBy(s *certificateSource, settings Settings) desiredState {
	issuer, asks, mistakes := issuerOf(s, settings)
	if !asks {
		return desiredState{}
	}
	// The annotations are the same for all Certificates, so a mistake in them is reported once.
	alike := &cmapi.Certificate{}
	mistakes = append(mistakes, translate(alike, s.annotations)...)
	d := desiredState{asks: true, kept: s.kept, mistakes: append(mistakes, s.mistakes...), broken: len(mistakes) > 0}
	if d.broken {
		return d
	}
	for _, w := range s.tls {
		elsewhere := w.secret.Namespace != s.GetNamespace()
		if elsewhere {
			if mistakes := tooMuch(alike, issuer, w.secret, settings); len(mistakes) > 0 {
				d.mistakes = append(d.mistakes, mistakes...)
				d.kept = append(d.kept, w.secret)
				continue
			}
		}
		crt := &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: w.secret.Namespace, Name: w.secret.Name, Labels: signer.CopiedLabels(s.GetLabels()),
				Annotations: passedOn(s, settings),
			},
			Spec: cmapi.CertificateSpec{
				SecretName: w.secret.Name,
				IssuerRef:  issuer,
				Usages:     []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageKeyEncipherment},
			},
		}
		if elsewhere { // owners are in the namespace of what they own
			crt.Annotations[RequestedByAnnotation] = s.named()
			crt.Annotations[cmacme.ACMECertificateHTTP01ParentRefNamespace] = s.parent.namespace
		} else {
			crt.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s, s.kind)}
		}
		for _, host := range w.hosts {
			to := &crt.Spec.DNSNames
			if _, err := netip.ParseAddr(host); err == nil {
				to = &crt.Spec.IPAddresses
			}
			if !slices.Contains(*to, host) {
				*to = append(*to, host)
			}
		}
		translate(crt, s.annotations)
		crt.Spec.DNSNames = pki.WithoutCovered(crt.Spec.DNSNames)
		remember(crt, s.annotations)
		d.certificates = append(d.certificates, crt)
	}
	return d
}

// tooMuch returns the mistakes of a Certificate in another namespace. A ReferenceGrant lets the
// object refer to a Secret there. It does not let the object delete or label that Secret, or use an
// issuer of that namespace.
func tooMuch(crt *cmapi.Certificate, issuer cmmeta.IssuerReference, secret types.NamespacedName,
	settings Settings) (mistakes []Mistake) {
	switch {
	case clusterScoped(issuer, settings):
	case signer.External(issuer):
		mistakes = append(mistakes, Mistake{Field: cmapi.IssuerKindAnnotationKey, Message: fmt.Sprintf(
			"names the kind %s.%s, whose issuers are not known to be the same in every namespace, but Secret %q is in "+
				"another: name a kind of issuer that lives in no namespace",
			issuer.Kind, issuer.Group, secret)})
	default:
		mistakes = append(mistakes, Mistake{Field: cmapi.IngressIssuerNameAnnotationKey, Message: fmt.Sprintf(
			"names an Issuer of this namespace, but Secret %q is in another: name a ClusterIssuer by %s", secret,
			cmapi.IngressClusterIssuerNameAnnotationKey)})
	}
	if r := crt.Spec.RehearsalIssuerRef; r != nil && !clusterScoped(*r, settings) {
		mistakes = append(mistakes, Mistake{Field: RehearsalIssuerAnnotation, Message: fmt.Sprintf(
			"names an Issuer of this namespace, but Secret %q is in another: name a ClusterIssuer", secret)})
	}
	for _, own := range []struct {
		annotation string
		is         bool
	}{
		{DeletionPolicyAnnotation, crt.Spec.DeletionPolicy != ""},
		{cmapi.IngressSecretTemplate, crt.Spec.SecretTemplate != nil},
	} {
		if own.is {
			mistakes = append(mistakes,
				Mistake{Field: own.annotation,
					Message: fmt.Sprintf("is only for Secrets of this namespace, but Secret %q is in another: leave it out, or name "+
						"a Secret here", secret)})
		}
	}
	return mistakes
}

// clusterScoped reports whether an issuer is the same in every namespace.
func clusterScoped(ref cmmeta.IssuerReference, settings Settings) bool {
	if !signer.External(ref) {
		return ref.KindOrDefault() == signer.KindClusterIssuer
	}
	return settings.ClusterScoped != nil && settings.ClusterScoped(schema.GroupKind{Group: ref.Group,
		Kind: ref.KindOrDefault()})
}

// issuerOf returns the issuer that an object names, and whether it asks for certificates at all.
func issuerOf(s *certificateSource, settings Settings) (ref cmmeta.IssuerReference, asks bool, mistakes []Mistake) {
	mistake := func(field, message string) (cmmeta.IssuerReference, bool, []Mistake) {
		return cmmeta.IssuerReference{}, true, []Mistake{{Field: field, Message: message}}
	}
	name, byIssuer := s.annotations[cmapi.IngressIssuerNameAnnotationKey]
	cluster, byCluster := s.annotations[cmapi.IngressClusterIssuerNameAnnotationKey]
	_, byKind := s.annotations[cmapi.IssuerKindAnnotationKey]
	_, byGroup := s.annotations[cmapi.IssuerGroupAnnotationKey]
	switch {
	case byIssuer && byCluster:
		return mistake(cmapi.IngressClusterIssuerNameAnnotationKey,
			"must not be set together with "+cmapi.IngressIssuerNameAnnotationKey+": remove one of the two")
	case byCluster && byKind:
		return mistake(cmapi.IssuerKindAnnotationKey,
			"must not be set together with "+cmapi.IngressClusterIssuerNameAnnotationKey+", which says the kind: leave it out")
	case byCluster && byGroup:
		return mistake(cmapi.IssuerGroupAnnotationKey,
			"must not be set together with "+cmapi.IngressClusterIssuerNameAnnotationKey+", which says the group: leave it out")
	case byCluster && cluster == "":
		return mistake(cmapi.IngressClusterIssuerNameAnnotationKey, "is empty: name a ClusterIssuer")
	case byCluster:
		return cmmeta.IssuerReference{
			Name: cluster, Kind: signer.KindClusterIssuer, Group: cmmeta.DefaultIssuerGroup,
		}, true, nil
	case byIssuer && name == "":
		return mistake(cmapi.IngressIssuerNameAnnotationKey, "is empty: name an Issuer of this namespace")
	case byIssuer:
		return s.annotated(cmmeta.IssuerReference{Name: name}), true, nil
	}
	key, found := s.autoAnnotation(settings)
	switch {
	case !found:
		return ref, false, nil
	case settings.DefaultIssuer.Name == "":
		return mistake(key, "asks for a certificate of the default issuer, and there is none: name one with "+
			cmapi.IngressClusterIssuerNameAnnotationKey+" or the flag --default-issuer-name")
	}
	return s.annotated(settings.DefaultIssuer), true, nil
}

// annotated returns a reference with the kind and group that the annotations name, if they do.
func (s *certificateSource) annotated(ref cmmeta.IssuerReference) cmmeta.IssuerReference {
	ref.Kind = cmp.Or(s.annotations[cmapi.IssuerKindAnnotationKey], ref.Kind, signer.KindIssuer)
	ref.Group = cmp.Or(s.annotations[cmapi.IssuerGroupAnnotationKey], ref.Group, cmmeta.DefaultIssuerGroup)
	return ref
}

// autoAnnotation returns the annotation by which an Ingress asks for a certificate of the default
// issuer, if it does.
func (s *certificateSource) autoAnnotation(settings Settings) (key string, found bool) {
	if !s.ingress {
		return "", false
	}
	keys := settings.AutoAnnotations
	if keys == nil {
		keys = []string{DefaultAutoAnnotation}
	}
	for _, key := range keys {
		if s.annotations[key] == "true" {
			return key, true
		}
	}
	return "", false
}

// passedOn returns the annotations that the Certificates get.
func passedOn(s *certificateSource, settings Settings) map[string]string {
	from, to := s.annotations, map[string]string{}
	for _, key := range settings.ExtraAnnotations {
		if v, found := from[key]; found {
			to[key] = v
		}
	}
	if v, found := from[cmapi.VenafiCustomFieldsAnnotationKey]; found {
		to[cmapi.VenafiCustomFieldsAnnotationKey] = v
	}
	if s.ingress {
		if from[cmacme.IngressEditInPlaceAnnotationKey] == "true" {
			to[cmacme.ACMECertificateHTTP01IngressNameOverride] = s.GetName()
			// Some load balancers do not serve the challenge before there is a certificate.
			to[cmapi.IssueTemporaryCertificateAnnotation] = "true"
		}
		if v, found := from[cmapi.IngressACMEIssuerHTTP01IngressClassAnnotationKey]; found {
			to[cmacme.ACMECertificateHTTP01IngressClassOverride] = v
		}
		if v, found := from[cmapi.IngressACMEIssuerHTTP01IngressClassNameAnnotationKey]; found {
			to[cmacme.ACMECertificateHTTP01IngressClassNameOverride] = v
		}
	}
	if p := s.parent; p != nil {
		to[cmacme.ACMECertificateHTTP01ParentRefKind], to[cmacme.ACMECertificateHTTP01ParentRefName] = p.kind, p.name
		if p.namespace != s.GetNamespace() {
			to[cmacme.ACMECertificateHTTP01ParentRefNamespace] = p.namespace
		}
	}
	return to
}
