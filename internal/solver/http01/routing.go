package http01

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

const (
	// port is the port of the Services and of solver pods, as in cert-manager.
	port = 8089

	ingressClassAnnotation = "kubernetes.io/ingress.class"
)

// nameOf returns the name of all objects that are made for a Challenge.
func nameOf(ch *cmacme.Challenge) string {
	h := fnv.New64a()
	h.Write([]byte(ch.UID))
	return fmt.Sprintf("cm-acme-http-solver-%x", h.Sum64())
}

// metadata returns the metadata of an object that is made for a Challenge. The Challenge owns the
// object.
func metadata(ch *cmacme.Challenge) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: ch.Namespace,
		Name:      nameOf(ch),
		Labels: map[string]string{
			cmacme.DomainLabelKey:               solver.HashLabelValue(ch.Spec.DNSName),
			cmacme.TokenLabelKey:                solver.HashLabelValue(ch.Spec.Token),
			cmacme.SolverIdentificationLabelKey: "true",
		},
		OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(ch, cmacme.SchemeGroupVersion.WithKind("Challenge")),
		},
	}
}

// serviceOf returns the Service of a Challenge. Without a selector, its endpoints are those of
// slicesOf.
func serviceOf(ch *cmacme.Challenge, selector map[string]string) *corev1.Service {
	o := &corev1.Service{ObjectMeta: metadata(ch), Spec: corev1.ServiceSpec{
		Type:     corev1.ServiceTypeNodePort, // most cloud load balancers need it
		Selector: selector,
		Ports: []corev1.ServicePort{
			{Name: "http", Port: port, TargetPort: intstr.FromInt32(port), Protocol: corev1.ProtocolTCP},
		},
		// The endpoints may lack an address of the cluster's first family.
		IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
	}}
	o.Annotations = map[string]string{"auth.istio.io/8089": "NONE"}
	asked := corev1.ServiceType("")
	if i := ch.Spec.Solver.HTTP01.Ingress; i != nil {
		asked = i.ServiceType
	} else if r := ch.Spec.Solver.HTTP01.GatewayHTTPRoute; r != nil {
		asked = r.ServiceType
	}
	if asked != "" {
		o.Spec.Type = asked
	}
	return o
}

// slicesOf returns the EndpointSlices of a Service: the controller's replicas, from the slices of
// its own Service. Each endpoint has one address, and each family has one slice, because all
// ingress controllers understand that.
func slicesOf(
	ch *cmacme.Challenge,
	replicas []discoveryv1.EndpointSlice,
	withoutPods bool,
) []*discoveryv1.EndpointSlice {
	families := map[discoveryv1.AddressType]*discoveryv1.EndpointSlice{}
	for _, from := range replicas {
		i := slices.IndexFunc(
			from.Ports,
			func(p discoveryv1.EndpointPort) bool { return p.Port != nil && ptr.Deref(p.Name, "") == "http" },
		)
		if i < 0 && len(from.Ports) == 1 && from.Ports[0].Port != nil {
			i = 0
		}
		if i < 0 || from.AddressType != discoveryv1.AddressTypeIPv4 && from.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		to := families[from.AddressType]
		if to == nil {
			to = &discoveryv1.EndpointSlice{ObjectMeta: metadata(ch), AddressType: from.AddressType}
			to.Name += "-" + strings.ToLower(string(from.AddressType))
			to.Labels[discoveryv1.LabelServiceName] = nameOf(ch)
			to.Labels[discoveryv1.LabelManagedBy] = "perennial"
			to.Ports = []discoveryv1.EndpointPort{
				{Name: ptr.To("http"), Port: from.Ports[i].Port, Protocol: ptr.To(corev1.ProtocolTCP)},
			}
			families[from.AddressType] = to
		}
		to.Endpoints = append(to.Endpoints, readyEndpoints(from, withoutPods)...)
	}
	var all []*discoveryv1.EndpointSlice
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		if s := families[family]; s != nil && len(s.Endpoints) > 0 {
			slices.SortFunc(s.Endpoints, func(a, b discoveryv1.Endpoint) int {
				return netip.MustParseAddr(a.Addresses[0]).Compare(netip.MustParseAddr(b.Addresses[0]))
			})
			all = append(all, s)
		}
	}
	return all
}

// readyEndpoints returns the ready endpoints of a slice, one for each address.
func readyEndpoints(from discoveryv1.EndpointSlice, withoutPods bool) []discoveryv1.Endpoint {
	var all []discoveryv1.Endpoint
	for _, e := range from.Endpoints {
		if !ptr.Deref(e.Conditions.Ready, true) {
			continue
		}
		for _, address := range e.Addresses {
			endpoint := discoveryv1.Endpoint{
				Addresses: []string{address},
				Conditions: discoveryv1.EndpointConditions{
					Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false),
				},
				NodeName: e.NodeName, Zone: e.Zone,
			}
			if !withoutPods {
				endpoint.TargetRef = e.TargetRef
			}
			all = append(all, endpoint)
		}
	}
	return all
}

// ingressPath routes the requests for a token to the Service of its Challenge.
func ingressPath(ch *cmacme.Challenge) networkingv1.HTTPIngressPath {
	return networkingv1.HTTPIngressPath{
		Path:     acme.HTTP01Path(ch.Spec.Token),
		PathType: ptr.To(networkingv1.PathTypeExact),
		Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: nameOf(ch), Port: networkingv1.ServiceBackendPort{Number: port}},
		},
	}
}

// hostOf returns the host of a rule. It is empty for an IP address, because a host cannot be one.
func hostOf(ch *cmacme.Challenge) string {
	if _, err := netip.ParseAddr(ch.Spec.DNSName); err == nil {
		return ""
	}
	return ch.Spec.DNSName
}

// ingressOf returns the Ingress of a Challenge.
func ingressOf(ch *cmacme.Challenge) *networkingv1.Ingress {
	solver := ch.Spec.Solver.HTTP01.Ingress
	o := &networkingv1.Ingress{ObjectMeta: metadata(ch), Spec: networkingv1.IngressSpec{
		IngressClassName: solver.IngressClassName,
		Rules: []networkingv1.IngressRule{{Host: hostOf(ch), IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{ingressPath(ch)}},
		}}},
	}}
	o.Annotations = map[string]string{"nginx.ingress.kubernetes.io/whitelist-source-range": "0.0.0.0/0,::/0"}
	if solver.Class != nil {
		o.Annotations[ingressClassAnnotation] = *solver.Class
	}
	if t := solver.IngressTemplate; t != nil {
		maps.Copy(o.Annotations, t.Annotations)
		maps.Copy(o.Labels, t.Labels)
	}
	return o
}

// withPath returns the rules of an Ingress with the path of a Challenge, and whether that changed
// them.
func withPath(rules []networkingv1.IngressRule, ch *cmacme.Challenge) ([]networkingv1.IngressRule, bool) {
	path, host := ingressPath(ch), hostOf(ch)
	if hasPath(rules, host, path) {
		return rules, false
	}
	next, _ := withoutPath(rules, ch)
	into := slices.IndexFunc(next, func(r networkingv1.IngressRule) bool { return r.Host == host && r.HTTP != nil })
	if into < 0 {
		next = append(
			next,
			networkingv1.IngressRule{
				Host:             host,
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}},
			},
		)
		into = len(next) - 1
	}
	next[into].HTTP.Paths = append(next[into].HTTP.Paths, path)
	return next, !equality.Semantic.DeepEqual(next, rules)
}

// hasPath reports whether a path is in a rule of the host, unchanged, and nowhere else. The
// position does not matter: otherwise challenges that each move their path to the end would change
// an Ingress forever.
func hasPath(rules []networkingv1.IngressRule, host string, path networkingv1.HTTPIngressPath) (there bool) {
	for _, r := range rules {
		if r.HTTP == nil {
			continue
		}
		for _, p := range r.HTTP.Paths {
			switch {
			case p.Path != path.Path:
			case there || r.Host != host || !equality.Semantic.DeepEqual(p, path):
				return false
			default:
				there = true
			}
		}
	}
	return there
}

// withoutPath returns the rules of an Ingress as they were before withPath, and whether that
// changed them. The path contains the Challenge's token, so it belongs to the Challenge whatever
// its backend is: cert-manager may have added it.
func withoutPath(rules []networkingv1.IngressRule, ch *cmacme.Challenge) ([]networkingv1.IngressRule, bool) {
	path, changed := acme.HTTP01Path(ch.Spec.Token), false
	next := copyRules(rules)
	for i := range next {
		if next[i].HTTP == nil {
			continue
		}
		n := len(next[i].HTTP.Paths)
		next[i].HTTP.Paths = slices.DeleteFunc(
			next[i].HTTP.Paths,
			func(p networkingv1.HTTPIngressPath) bool { return p.Path == path },
		)
		changed = changed || len(next[i].HTTP.Paths) < n
	}
	// A rule without paths is left over: a user cannot write one, because it is not valid.
	next = slices.DeleteFunc(
		next,
		func(r networkingv1.IngressRule) bool { return r.HTTP != nil && len(r.HTTP.Paths) == 0 },
	)
	return next, changed
}

func copyRules(rules []networkingv1.IngressRule) []networkingv1.IngressRule {
	return (&networkingv1.IngressSpec{Rules: rules}).DeepCopy().Rules
}

// routeOf returns the HTTPRoute of a Challenge.
func routeOf(ch *cmacme.Challenge) *gwapi.HTTPRoute {
	solver := ch.Spec.Solver.HTTP01.GatewayHTTPRoute
	o := &gwapi.HTTPRoute{ObjectMeta: metadata(ch)}
	maps.Copy(o.Labels, solver.Labels)
	for _, p := range solver.ParentRefs {
		o.Spec.ParentRefs = append(o.Spec.ParentRefs, gwapi.ParentReference{
			Group: (*gwapi.Group)(
				p.Group,
			),
			Kind:        (*gwapi.Kind)(p.Kind),
			Namespace:   (*gwapi.Namespace)(p.Namespace),
			Name:        gwapi.ObjectName(p.Name),
			SectionName: (*gwapi.SectionName)(p.SectionName),
			Port:        (*gwapi.PortNumber)(p.Port),
		})
	}
	if host := hostOf(ch); host != "" {
		o.Spec.Hostnames = []gwapi.Hostname{gwapi.Hostname(host)}
	}
	backend := gwapi.HTTPBackendRef{}
	backend.Name, backend.Port = gwapi.ObjectName(nameOf(ch)), ptr.To(gwapi.PortNumber(port))
	o.Spec.Rules = []gwapi.HTTPRouteRule{
		{
			Matches: []gwapi.HTTPRouteMatch{
				{Path: &gwapi.HTTPPathMatch{Type: ptr.To(gwapi.PathMatchExact), Value: ptr.To(acme.HTTP01Path(ch.Spec.Token))}},
			},
			BackendRefs: []gwapi.HTTPBackendRef{backend},
		},
	}
	return o
}
