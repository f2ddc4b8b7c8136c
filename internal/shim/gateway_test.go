package shim

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// listener returns a listener that terminates TLS for a host with the certificates of Secrets, each
// NAME or NAMESPACE/NAME.
func listener(name, host string, secrets ...string) gwapi.Listener {
	l := gwapi.Listener{
		Name:     gwapi.SectionName(name),
		Port:     443,
		Protocol: gwapi.HTTPSProtocolType,
		TLS:      &gwapi.ListenerTLSConfig{},
	}
	if host != "" {
		l.Hostname = ptr.To(gwapi.Hostname(host))
	}
	for _, s := range secrets {
		ref := gwapi.SecretObjectReference{Name: gwapi.ObjectName(s)}
		if ns, name, found := strings.Cut(s, "/"); found {
			ref.Namespace, ref.Name = ptr.To(gwapi.Namespace(ns)), gwapi.ObjectName(name)
		}
		l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, ref)
	}
	return l
}

// gateway returns a Gateway in the namespace shop that names the ClusterIssuer ca.
func gateway(listeners ...gwapi.Listener) *gwapi.Gateway {
	return &gwapi.Gateway{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   "shop",
			Name:        "web",
			UID:         "1",
			Annotations: map[string]string{"cert-manager.io/cluster-issuer": "ca"},
		},
		Spec: gwapi.GatewaySpec{Listeners: listeners},
	}
}

func change(l gwapi.Listener, f func(*gwapi.Listener)) gwapi.Listener { f(&l); return l }

func noGrants(string, string, types.NamespacedName) bool { return false }

func TestListeners(t *testing.T) {
	onlyShared := func(kind, from string, secret types.NamespacedName) bool {
		return kind == "Gateway" && from == "shop" && secret.Namespace == "shared"
	}
	for name, test := range map[string]struct {
		gateway *gwapi.Gateway
		want    string // the Certificates: namespace/name=hosts
		says    string
	}{
		"one": {gateway(listener("a", "a.example.com", "tls")), "shop/tls=a.example.com", ""},
		"several that share a Secret": {
			gateway(listener("a", "a.example.com", "tls"), listener("b", "*.example.com", "tls"),
				listener("c", "a.example.com", "tls")), "shop/tls=*.example.com", ""},
		"one that a wildcard covers": {
			gateway(listener("a", "*.gw.example.com", "tls"), listener("b", "keycloak.gw.example.com", "tls"),
				listener("c", "gw.example.com", "tls")), "shop/tls=*.gw.example.com,gw.example.com", ""},
		"several Secrets of one":        {gateway(listener("a", "a.example.com", "rsa", "ecdsa")), "shop/rsa=a.example.com shop/ecdsa=a.example.com", ""},
		"TLS that is passed through":    {gateway(change(listener("a", "", "tls"), func(l *gwapi.Listener) { l.TLS.Mode = ptr.To(gwapi.TLSModePassthrough) })), "", ""},
		"HTTP":                          {gateway(change(listener("a", ""), func(l *gwapi.Listener) { l.Protocol = gwapi.HTTPProtocolType; l.TLS = nil })), "", ""},
		"a protocol of another project": {gateway(change(listener("a", "a.example.com", "tls"), func(l *gwapi.Listener) { l.Protocol = "example.com/quic" })), "shop/tls=a.example.com", ""},
		"a protocol that is not TLS":    {gateway(change(listener("a", "a.example.com", "tls"), func(l *gwapi.Listener) { l.Protocol = "TCP" })), "", ""},
		"no hostname":                   {gateway(listener("a", "", "tls"), listener("b", "b.example.com", "b")), "shop/b=b.example.com", "spec.listeners[0].hostname: is missing"},
		"no tls":                        {gateway(change(listener("a", "a.example.com"), func(l *gwapi.Listener) { l.TLS = nil })), "", `spec.listeners[0].tls.certificateRefs: is missing`},
		"no Secret":                     {gateway(listener("a", "a.example.com")), "", `add "a" to the annotation cert-manager.io/ignore-tls-listeners`},
		"something that is no Secret":   {gateway(change(listener("a", "a.example.com", "tls"), func(l *gwapi.Listener) { l.TLS.CertificateRefs[0].Kind = ptr.To(gwapi.Kind("ConfigMap")) })), "", "spec.listeners[0].tls.certificateRefs[0]: is no Secret"},
		"another namespace":             {gateway(listener("a", "a.example.com", "other/tls")), "", `no ReferenceGrant lets a Gateway of namespace "shop" refer to Secret "tls"`},
		"another namespace that lets":   {gateway(listener("a", "a.example.com", "shared/tls")), "shared/tls=a.example.com", ""},
		"one that is left out":          {withAnnotation(gateway(listener("a", "", "x"), listener("b", "b.example.com", "b")), "cert-manager.io/ignore-tls-listeners", "c, a"), "shop/b=b.example.com", `there is no listener "c": choose of a, b`},
		"an Issuer of another place":    {withAnnotation(withAnnotation(gateway(listener("a", "a.example.com", "shared/tls")), "cert-manager.io/cluster-issuer", ""), "cert-manager.io/issuer", "i"), "", "name a ClusterIssuer"},
		"a hostname, and none, shared":  {gateway(listener("a", "", "tls"), listener("b", "b.example.com", "tls")), "shop/tls=b.example.com", "hostname: is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			d := desiredBy(ofGateway(test.gateway, []string{"example.com/quic"}, onlyShared), Settings{})
			var got []string
			for _, c := range d.certificates {
				got = append(got, c.Namespace+"/"+c.Name+"="+strings.Join(c.Spec.DNSNames, ","))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v", got)
			}
			if says := text(d.mistakes); test.says == "" && says != "" || !strings.Contains(says, test.says) {
				t.Errorf("it says %q", says)
			}
		})
	}
}

func withAnnotation(g *gwapi.Gateway, key, value string) *gwapi.Gateway {
	if value == "" {
		delete(g.Annotations, key)
	} else {
		g.Annotations[key] = value
	}
	return g
}

func TestACertificateInAnotherNamespaceNamesItsGateway(t *testing.T) {
	d := desiredBy(
		ofGateway(
			gateway(listener("a", "a.example.com", "shared/tls")),
			nil,
			func(string, string, types.NamespacedName) bool { return true },
		),
		Settings{},
	)
	crt := d.certificates[0]
	if len(crt.OwnerReferences) > 0 || crt.Annotations[RequestedByAnnotation] != "Gateway/shop/web" ||
		crt.Annotations["acme.cert-manager.io/http01-parentrefnamespace"] != "shop" ||
		crt.Annotations["acme.cert-manager.io/http01-parentrefname"] != "web" {
		t.Errorf("it is %+v", crt.ObjectMeta)
	}
}

func TestAListenerSetInheritsTheIssuerOfItsGateway(t *testing.T) {
	set := &gwapi.ListenerSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   "shop",
			Name:        "set",
			Annotations: map[string]string{"cert-manager.io/duration": "240h"},
		},
	}
	set.Spec.ParentRef = gwapi.ParentGatewayReference{Name: "web", Namespace: ptr.To(gwapi.Namespace("infra"))}
	l := listener("a", "a.example.com", "tls")
	set.Spec.Listeners = []gwapi.ListenerEntry{
		{Name: l.Name, Hostname: l.Hostname, Protocol: l.Protocol, Port: 443, TLS: l.TLS},
	}
	of := gateway()
	of.Annotations["cert-manager.io/usages"] = "client auth" // not the issuer, so not inherited

	d := desiredBy(ofListenerSet(set, of, nil, noGrants), Settings{})
	if len(d.certificates) != 1 {
		t.Fatalf("got %+v", d)
	}
	crt := d.certificates[0]
	if crt.Spec.IssuerRef.Name != "ca" || crt.Spec.Duration == nil || len(crt.Spec.Usages) != 2 ||
		crt.OwnerReferences[0].Kind != "ListenerSet" ||
		crt.Annotations["acme.cert-manager.io/http01-parentrefkind"] != "ListenerSet" {
		t.Errorf("got %+v %+v", crt.ObjectMeta, crt.Spec)
	}

	set.Annotations["acme.cert-manager.io/http01-parentreffallback"] = "true"
	crt = desiredBy(ofListenerSet(set, of, nil, noGrants), Settings{}).certificates[0]
	if crt.Annotations["acme.cert-manager.io/http01-parentrefkind"] != "Gateway" ||
		crt.Annotations["acme.cert-manager.io/http01-parentrefnamespace"] != "infra" {
		t.Errorf("got %v", crt.Annotations)
	}

	set.Annotations["cert-manager.io/issuer"] = "own"
	if ref := desiredBy(
		ofListenerSet(set, of, nil, noGrants), Settings{},
	).certificates[0].Spec.IssuerRef; ref.Name != "own" ||
		ref.Kind != "Issuer" {
		t.Errorf("got %+v", ref)
	}
	if desiredBy(ofListenerSet(&gwapi.ListenerSet{}, nil, nil, noGrants), Settings{}).asks {
		t.Error("a ListenerSet without a Gateway asks for nothing")
	}
}

func FuzzListenerAnnotations(f *testing.F) {
	f.Add("a,b", "true")
	f.Add(" a , ,zz", "")
	f.Fuzz(func(t *testing.T, ignored, fallback string) {
		annotations := map[string]string{
			"cert-manager.io/cluster-issuer":       "ca",
			"cert-manager.io/ignore-tls-listeners": ignored,
			parentFallback:                         fallback,
		}
		g := gateway(listener("a", "a.example.com", "tls"), listener("b", "", "tls"))
		g.Annotations = annotations
		set := &gwapi.ListenerSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "set", Annotations: annotations}}
		for _, l := range g.Spec.Listeners {
			set.Spec.Listeners = append(
				set.Spec.Listeners,
				gwapi.ListenerEntry{Name: l.Name, Hostname: l.Hostname, Protocol: l.Protocol, Port: l.Port, TLS: l.TLS},
			)
		}
		for _, s := range []*certificateSource{ofGateway(g, nil, noGrants), ofListenerSet(set, g, nil, noGrants)} {
			for _, m := range desiredBy(s, Settings{}).mistakes {
				if len(m.Message) > 2000 {
					t.Errorf("a message of %d bytes", len(m.Message))
				}
			}
		}
	})
}

func TestGrants(t *testing.T) {
	from := gwapi.ReferenceGrantFrom{Group: gwapi.GroupName, Kind: "Gateway", Namespace: "shop"}
	for name, test := range map[string]struct {
		from gwapi.ReferenceGrantFrom
		to   gwapi.ReferenceGrantTo
		want bool
	}{
		"all Secrets":      {from, gwapi.ReferenceGrantTo{Kind: "Secret"}, true},
		"this Secret":      {from, gwapi.ReferenceGrantTo{Kind: "Secret", Name: ptr.To(gwapi.ObjectName("tls"))}, true},
		"another Secret":   {from, gwapi.ReferenceGrantTo{Kind: "Secret", Name: ptr.To(gwapi.ObjectName("x"))}, false},
		"Services":         {from, gwapi.ReferenceGrantTo{Kind: "Service"}, false},
		"another kind":     {gwapi.ReferenceGrantFrom{Group: gwapi.GroupName, Kind: "HTTPRoute", Namespace: "shop"}, gwapi.ReferenceGrantTo{Kind: "Secret"}, false},
		"another group":    {gwapi.ReferenceGrantFrom{Group: "example.com", Kind: "Gateway", Namespace: "shop"}, gwapi.ReferenceGrantTo{Kind: "Secret"}, false},
		"from other place": {gwapi.ReferenceGrantFrom{Group: gwapi.GroupName, Kind: "Gateway", Namespace: "evil"}, gwapi.ReferenceGrantTo{Kind: "Secret"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := grants(
				gwapi.ReferenceGrantSpec{From: []gwapi.ReferenceGrantFrom{test.from}, To: []gwapi.ReferenceGrantTo{test.to}},
				"Gateway",
				"shop",
				"tls",
			); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
