package shim

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

var (
	kindGateway     = schema.GroupVersionKind{Group: gwapi.GroupName, Version: "v1", Kind: "Gateway"}
	kindListenerSet = schema.GroupVersionKind{Group: gwapi.GroupName, Version: "v1", Kind: "ListenerSet"}
)

// grantFunc reports whether ReferenceGrants let an object of a kind in a namespace refer to a
// Secret of another.
type grantFunc func(kind, from string, secret types.NamespacedName) bool

// ofGateway reads a Gateway.
func ofGateway(o *gwapi.Gateway, extra []string, may grantFunc) *certificateSource {
	s := &certificateSource{
		Object:      o,
		kind:        kindGateway,
		annotations: o.Annotations,
		parent:      &parent{kindGateway.Kind, o.Namespace, o.Name},
	}
	s.listen(o.Spec.Listeners, extra, may)
	return s
}

// ofListenerSet reads a ListenerSet with its Gateway, which may be missing. The issuer is that of
// the Gateway if it names none itself.
func ofListenerSet(o *gwapi.ListenerSet, gateway *gwapi.Gateway, extra []string, may grantFunc) *certificateSource {
	s := &certificateSource{
		Object:      o,
		kind:        kindListenerSet,
		annotations: o.Annotations,
		parent:      &parent{kindListenerSet.Kind, o.Namespace, o.Name},
	}
	own := func(key string) bool { _, found := o.Annotations[key]; return found }
	if gateway != nil && !own(cmapi.IngressIssuerNameAnnotationKey) && !own(cmapi.IngressClusterIssuerNameAnnotationKey) {
		s.annotations = map[string]string{}
		for _, key := range issuerAnnotations {
			if v, found := gateway.Annotations[key]; found {
				s.annotations[key] = v
			}
		}
		for k, v := range o.Annotations {
			s.annotations[k] = v
		}
	}
	if o.Annotations[parentFallback] == "true" {
		of := gatewayOf(o)
		s.parent = &parent{kindGateway.Kind, of.Namespace, of.Name}
	}
	var listeners []gwapi.Listener
	for _, l := range o.Spec.Listeners {
		listeners = append(
			listeners,
			gwapi.Listener{Name: l.Name, Hostname: l.Hostname, Port: l.Port, Protocol: l.Protocol, TLS: l.TLS},
		)
	}
	s.listen(listeners, extra, may)
	return s
}

// issuerAnnotations say which issuer signs.
var issuerAnnotations = []string{
	cmapi.IngressIssuerNameAnnotationKey,
	cmapi.IngressClusterIssuerNameAnnotationKey,
	cmapi.IssuerKindAnnotationKey,
	cmapi.IssuerGroupAnnotationKey,
}

// gatewayOf returns the name of the Gateway that a ListenerSet belongs to.
func gatewayOf(o *gwapi.ListenerSet) types.NamespacedName {
	ref := o.Spec.ParentRef
	name := types.NamespacedName{Namespace: o.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil && *ref.Namespace != "" {
		name.Namespace = string(*ref.Namespace)
	}
	return name
}

// listen reads the listeners that terminate TLS.
func (s *certificateSource) listen(listeners []gwapi.Listener, extra []string, may grantFunc) {
	ignored := s.ignoredListeners(listeners)
	for i, l := range listeners {
		serves := l.Protocol == gwapi.HTTPSProtocolType || l.Protocol == gwapi.TLSProtocolType ||
			slices.Contains(extra, string(l.Protocol))
		passthrough := l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode != gwapi.TLSModeTerminate
		if serves && !ignored[string(l.Name)] && !passthrough {
			s.addListener(fmt.Sprintf("spec.listeners[%d]", i), l, may)
		}
	}
}

// ignoredListeners are the names of listeners that an annotation leaves out.
func (s *certificateSource) ignoredListeners(listeners []gwapi.Listener) map[string]bool {
	ignored := map[string]bool{}
	if value, found := s.annotations[cmapi.CertificateIgnoreTLSListeners]; found {
		for name := range strings.SplitSeq(value, ",") {
			name = strings.TrimSpace(name)
			if name != "" && !slices.ContainsFunc(listeners, func(l gwapi.Listener) bool { return string(l.Name) == name }) {
				s.mistake(
					cmapi.CertificateIgnoreTLSListeners,
					"there is no listener %q: choose of %s",
					short(name),
					names(listeners),
				)
			}
			ignored[name] = true
		}
	}
	return ignored
}

// addListener reads a listener that terminates TLS. path is its field path in the object.
func (s *certificateSource) addListener(path string, l gwapi.Listener, may grantFunc) {
	if l.TLS == nil || len(l.TLS.CertificateRefs) == 0 {
		s.mistake(path+".tls.certificateRefs",
			"is missing: name the Secret that the certificate is to be stored in, or add %q to the annotation %s",
			l.Name, cmapi.CertificateIgnoreTLSListeners)
		return
	}
	host := ""
	if l.Hostname != nil {
		host = string(*l.Hostname)
	}
	if host == "" {
		s.mistake(path+".hostname", "is missing: name the host that the certificate is for, or add %q to the annotation %s",
			l.Name, cmapi.CertificateIgnoreTLSListeners)
	}
	for j, ref := range l.TLS.CertificateRefs {
		at := fmt.Sprintf("%s.tls.certificateRefs[%d]", path, j)
		secret, ok := secretOf(ref, s.GetNamespace())
		switch {
		case !ok:
			s.mistake(at, "is no Secret: only Secrets get certificates; name one, or add %q to the annotation %s",
				l.Name, cmapi.CertificateIgnoreTLSListeners)
		case secret.Namespace != s.GetNamespace() && !may(s.kind.Kind, s.GetNamespace(), secret):
			s.mistake(
				at,
				"is in namespace %q, where no ReferenceGrant lets a %s of namespace %q refer to Secret %q: create one there",
				secret.Namespace,
				s.kind.Kind,
				s.GetNamespace(),
				secret.Name,
			)
		case host == "":
			s.kept = append(s.kept, secret)
		default:
			s.add(secret, host)
		}
	}
}

// add adds a host to the certificate of a Secret.
func (s *certificateSource) add(secret types.NamespacedName, host string) {
	for i := range s.tls {
		if w := &s.tls[i]; w.secret == secret {
			if !slices.Contains(w.hosts, host) {
				w.hosts = append(w.hosts, host)
			}
			return
		}
	}
	s.tls = append(s.tls, tlsSecret{secret, []string{host}})
}

func names(listeners []gwapi.Listener) string {
	var all []string
	for _, l := range listeners {
		all = append(all, string(l.Name))
	}
	return strings.Join(all, ", ")
}

// secretOf returns the Secret that a reference names, if it is one.
func secretOf(ref gwapi.SecretObjectReference, namespace string) (types.NamespacedName, bool) {
	if ref.Group != nil && *ref.Group != "" && *ref.Group != "core" || ref.Kind != nil && *ref.Kind != "Secret" ||
		ref.Name == "" {
		return types.NamespacedName{}, false
	}
	secret := types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}
	if ref.Namespace != nil && *ref.Namespace != "" {
		secret.Namespace = string(*ref.Namespace)
	}
	return secret, true
}

// secretsOf returns all Secrets that the listeners of a Gateway or ListenerSet name. The field
// index uses it.
func secretsOf(o client.Object) []string {
	var all []string
	add := func(tls *gwapi.ListenerTLSConfig) {
		if tls == nil {
			return
		}
		for _, ref := range tls.CertificateRefs {
			if secret, ok := secretOf(ref, o.GetNamespace()); ok && !slices.Contains(all, secret.String()) {
				all = append(all, secret.String())
			}
		}
	}
	switch o := o.(type) {
	case *gwapi.Gateway:
		for _, l := range o.Spec.Listeners {
			add(l.TLS)
		}
	case *gwapi.ListenerSet:
		for _, l := range o.Spec.Listeners {
			add(l.TLS)
		}
	}
	return all
}

// grants reports whether a ReferenceGrant, in the namespace of a Secret, lets a Gateway or
// ListenerSet refer to it.
func grants(g gwapi.ReferenceGrantSpec, kind, from, secret string) bool {
	return slices.ContainsFunc(g.From, func(f gwapi.ReferenceGrantFrom) bool {
		return f.Group == gwapi.GroupName && string(f.Kind) == kind && string(f.Namespace) == from
	}) && slices.ContainsFunc(g.To, func(t gwapi.ReferenceGrantTo) bool {
		return t.Group == "" && t.Kind == "Secret" && (t.Name == nil || *t.Name == "" || string(*t.Name) == secret)
	})
}
