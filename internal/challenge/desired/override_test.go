package desired

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestWhatTheAnnotationsOfACertificateChangeInASolver(t *testing.T) {
	const (
		name        = cmacme.ACMECertificateHTTP01IngressNameOverride
		class       = cmacme.ACMECertificateHTTP01IngressClassOverride
		className   = cmacme.ACMECertificateHTTP01IngressClassNameOverride
		parent      = cmacme.ACMECertificateHTTP01ParentRefName
		kind        = cmacme.ACMECertificateHTTP01ParentRefKind
		parentSpace = cmacme.ACMECertificateHTTP01ParentRefNamespace
	)
	type annotations = map[string]string
	ingress := func(i cmacme.ACMEChallengeSolverHTTP01Ingress) cmacme.ACMEChallengeSolver {
		return cmacme.ACMEChallengeSolver{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &i}}
	}
	route := func(parents ...cmacme.ParentReference) cmacme.ACMEChallengeSolver {
		return cmacme.ACMEChallengeSolver{
			HTTP01: &cmacme.ACMEChallengeSolverHTTP01{
				GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{ParentRefs: parents},
			},
		}
	}
	gateway := func(namespace, name string) cmacme.ParentReference {
		return cmacme.ParentReference{
			Group:     ptr.To("gateway.networking.k8s.io"),
			Name:      name,
			Kind:      ptr.To("Gateway"),
			Namespace: &namespace,
		}
	}
	infra := cmacme.ParentReference{Name: "edge", Namespace: ptr.To("infra")}
	listener, set := infra, gateway("infra", "edge")
	listener.SectionName, set.Kind = ptr.To("http"), ptr.To("ListenerSet")
	dns := cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{}}
	of := cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: ptr.To("public"), ServiceType: "ClusterIP"}
	for what, test := range map[string]struct {
		solver      cmacme.ACMEChallengeSolver
		annotations annotations
		want        cmacme.ACMEChallengeSolver
		says        string // an error, if not empty
	}{
		"without annotations an Ingress stays":      {ingress(of), nil, ingress(of), ""},
		"annotations of others change nothing":      {ingress(of), annotations{"example.com/class": "nginx"}, ingress(of), ""},
		"a name takes the place of the class":       {ingress(of), annotations{name: "web"}, ingress(cmacme.ACMEChallengeSolverHTTP01Ingress{Name: "web", ServiceType: "ClusterIP"}), ""},
		"a class takes the place of the class name": {ingress(of), annotations{class: "nginx"}, ingress(cmacme.ACMEChallengeSolverHTTP01Ingress{Class: ptr.To("nginx"), ServiceType: "ClusterIP"}), ""},
		"a class name takes the place of a name": {ingress(cmacme.ACMEChallengeSolverHTTP01Ingress{Name: "web"}),
			annotations{className: "nginx"},
			ingress(cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: ptr.To("nginx")}), ""},
		"two of them are a mistake":                  {ingress(of), annotations{name: "web", class: "nginx"}, dns, name + " and " + class + ": keep one of them"},
		"all three are a mistake":                    {ingress(of), annotations{name: "web", class: "nginx", className: "nginx"}, dns, "keep one of them"},
		"a parent changes no Ingress":                {ingress(of), annotations{parent: "edge", kind: "Gateway"}, ingress(of), ""},
		"nothing of it is for DNS-01":                {dns, annotations{name: "web", class: "nginx", parent: "edge"}, dns, ""},
		"a class changes no HTTPRoute":               {route(infra), annotations{class: "nginx"}, route(infra), ""},
		"without annotations the parents stay":       {route(infra), nil, route(infra), ""},
		"a parent is added, of the same namespace":   {route(infra), annotations{parent: "own", kind: "Gateway"}, route(infra, gateway("shop", "own")), ""},
		"a parent is added, of another namespace":    {route(infra), annotations{parent: "own", kind: "Gateway", parentSpace: "net"}, route(infra, gateway("net", "own")), ""},
		"a parent that is there stays the only one":  {route(infra), annotations{parent: "edge", kind: "Gateway", parentSpace: "infra"}, route(infra), ""},
		"also one of the own namespace":              {route(cmacme.ParentReference{Name: "own"}), annotations{parent: "own", kind: "Gateway"}, route(cmacme.ParentReference{Name: "own"}), ""},
		"and with the listener that it names":        {route(listener), annotations{parent: "edge", kind: "Gateway", parentSpace: "infra"}, route(listener), ""},
		"a parent of another kind is another":        {route(infra), annotations{parent: "edge", kind: "ListenerSet", parentSpace: "infra"}, route(infra, set), ""},
		"a parent without a kind is a mistake":       {route(infra), annotations{parent: "own"}, dns, "set both, or none"},
		"a kind without a parent is a mistake":       {route(infra), annotations{kind: "Gateway"}, dns, "set both, or none"},
		"an HTTPRoute needs a parent":                {route(), nil, dns, "has no parent"},
		"an HTTPRoute has its parent by annotations": {route(), annotations{parent: "own", kind: "Gateway"}, route(gateway("shop", "own")), ""},
	} {
		t.Run(what, func(t *testing.T) {
			got := test.solver.DeepCopy()
			err := override(got, &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Annotations: test.annotations}})
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(*got, test.want) {
				t.Errorf("got %+v %+v", got.HTTP01, got.DNS01)
			}
		})
	}
}
