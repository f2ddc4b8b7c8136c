// Package http01_test issues certificates by HTTP-01 through the components that route requests to
// the controller in a cluster.
package http01_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestTheLessonsIngressIsIssuedThroughItsController(t *testing.T) {
	r := start(t)
	const namespace = "payments"
	if err := r.admin.Create(
		t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
	); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	r.issuer("letsencrypt-prod", byIngress("nginx"))
	content, err := os.ReadFile("../../examples/lesson/ingress-with-tls.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := &networkingv1.Ingress{}
	if err := yaml.UnmarshalStrict(content, o); err != nil {
		t.Fatal(err)
	}
	r.create(o)
	r.ready(namespace, "api-payments-tls")
	r.clean(namespace)
	after := &networkingv1.Ingress{}
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(o), after); err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(o.Spec, after.Spec) || !equality.Semantic.DeepEqual(o.Annotations, after.Annotations) {
		t.Errorf("the Ingress is now %+v", after)
	}
}

func TestAnIngressIsEditedInPlaceAndAfterwardsAsItWas(t *testing.T) {
	r := start(t)
	r.issuer("in-place", byIngress("other"))
	path := networkingv1.HTTPIngressPath{
		Path:     "/",
		PathType: ptr.To(networkingv1.PathTypePrefix),
		Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
	}
	o := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{
			"cert-manager.io/cluster-issuer": "in-place", "acme.cert-manager.io/http01-edit-in-place": "true",
		}},
		Spec: networkingv1.IngressSpec{
			IngressClassName: ptr.To("nginx"),
			// One of the hosts has a rule, the other has none.
			TLS: []networkingv1.IngressTLS{{Hosts: []string{"a.example.com", "b.example.com"}, SecretName: "tls"}},
			Rules: []networkingv1.IngressRule{
				{
					Host: "a.example.com",
					IngressRuleValue: networkingv1.IngressRuleValue{
						HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{path}},
					},
				},
			},
		},
	}
	apply := func(o *networkingv1.Ingress) {
		t.Helper()
		o = o.DeepCopy()
		o.Namespace, o.TypeMeta = r.namespace, metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			t.Fatal(err)
		}
		delete(content, "status")
		if err := r.admin.Apply(
			t.Context(),
			client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: content}),
			client.FieldOwner("pipeline"),
		); err != nil {
			t.Fatal(err)
		}
	}
	apply(o)
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
	after := &networkingv1.Ingress{}
	if err := r.admin.Get(t.Context(), types.NamespacedName{Namespace: r.namespace, Name: o.Name}, after); err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(o.Spec, after.Spec) {
		t.Errorf("the Ingress is now %+v", after.Spec)
	}
	// Its rules still belong to the user that applied it and can apply others.
	o.Spec.Rules[0].HTTP.Paths[0].Path = "/new"
	apply(o)
}

func TestAnIngressThatIsChangedMeanwhileIsAfterwardsAsItsOwnerWants(t *testing.T) {
	r := start(t)
	r.issuer("in-place", byIngress("other"))
	rule := func(host, path string) networkingv1.IngressRule {
		return networkingv1.IngressRule{
			Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{
				HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
					{
						Path:     path,
						PathType: ptr.To(networkingv1.PathTypePrefix),
						Backend: networkingv1.IngressBackend{
							Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
						},
					},
				}},
			},
		}
	}
	o := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{
			"cert-manager.io/cluster-issuer": "in-place", "acme.cert-manager.io/http01-edit-in-place": "true",
		}},
		Spec: networkingv1.IngressSpec{
			IngressClassName: ptr.To("missing"), // so it is not answered yet
			TLS:              []networkingv1.IngressTLS{{Hosts: []string{"a.example.com"}, SecretName: "tls"}},
			Rules:            []networkingv1.IngressRule{rule("a.example.com", "/")},
		},
	}
	r.create(o)
	is := &networkingv1.Ingress{}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(o), is); err != nil {
			return err
		}
		if len(is.Spec.Rules) != 1 || len(is.Spec.Rules[0].HTTP.Paths) != 2 {
			return cluster.NotYet("the rules are %+v", is.Spec.Rules)
		}
		return nil
	})
	// The owner applies what is in Git, where no challenges are known of.
	want := o.Spec.DeepCopy()
	want.IngressClassName, want.Rules = ptr.To(
		"nginx",
	), []networkingv1.IngressRule{
		rule("a.example.com", "/new"),
		rule("c.example.com", "/"),
	}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(o), is); err != nil {
			return err
		}
		is.Spec = *want.DeepCopy()
		return r.admin.Update(t.Context(), is)
	})
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(o), is); err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(is.Spec, *want) {
		t.Errorf("the Ingress is now %+v", is.Spec)
	}
}

func TestAGatewayIsIssuedThroughAnHTTPRoute(t *testing.T) {
	r := start(t)
	r.issuer(
		"by-route",
		cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{}},
	)
	l := gwapi.Listener{
		Name: "web", Port: 443, Protocol: gwapi.HTTPSProtocolType, Hostname: ptr.To(gwapi.Hostname("gw.example.com")),
		TLS: &gwapi.ListenerTLSConfig{CertificateRefs: []gwapi.SecretObjectReference{{Name: "tls"}}},
	}
	r.create(&gwapi.Gateway{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "edge",
			Annotations: map[string]string{"cert-manager.io/cluster-issuer": "by-route"},
		},
		Spec: gwapi.GatewaySpec{GatewayClassName: "test", Listeners: []gwapi.Listener{l}},
	})
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
}

func TestTheExampleOfAGatewayNamesTheParentOfItsHTTPRoutes(t *testing.T) {
	r := start(t)
	routes, err := r.admin.Watch(t.Context(), &gwapi.HTTPRouteList{}, client.InNamespace(r.namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Stop()
	r.ready(r.namespace, r.example("gateway.yaml"))
	made, is := (<-routes.ResultChan()).Object.(*gwapi.HTTPRoute)
	if !is || len(made.Spec.ParentRefs) != 1 || made.Spec.ParentRefs[0].Name != "edge" ||
		ptr.Deref(made.Spec.ParentRefs[0].SectionName, "") != "http" ||
		made.Labels["team"] != "shop" {
		t.Errorf("the HTTPRoute was %+v", made)
	}
	r.clean(r.namespace)
}

func TestEveryReplicaAnswersFromTheMomentThatAChallengeIsThere(t *testing.T) {
	r := start(t)
	cluster.Eventually(t, func() error { // it listens before its caches are full
		if status, _ := read(t, r.listens, "", "/healthz"); status != http.StatusOK {
			return cluster.NotYet("status %d", status)
		}
		return nil
	})
	token := "a-token-that-is-long-enough-of-" + r.namespace
	path := "/.well-known/acme-challenge/" + token
	if status, _ := read(t, r.listens, "www.example.com", path); status == http.StatusOK {
		t.Error("an unknown token is answered")
	}
	r.challenge("one", "www.example.com", token)
	if status, body := read(
		t,
		r.listens,
		"www.example.com",
		path,
	); status != http.StatusOK ||
		body != token+".thumbprint" {
		t.Errorf("right after it was made: %d %q", status, body)
	}
	for host, want := range map[string]int{
		"WWW.example.com:80": http.StatusOK, "other.example.com": http.StatusNotFound, "": http.StatusNotFound,
	} {
		if status, _ := read(t, r.listens, host, path); status != want {
			t.Errorf("host %q gets %d", host, status)
		}
	}
	if status, _ := read(t, r.listens, "anything", "/"); status != http.StatusOK {
		t.Errorf("a load balancer that looks at / gets %d", status)
	}
	if status, _ := read(
		t,
		r.listens,
		"www.example.com",
		"/.well-known/acme-challenge/../"+token,
	); status == http.StatusOK {
		t.Error("another path is answered")
	}
}

func TestAnAddressIsCertified(t *testing.T) {
	r := start(t)
	r.issuer("addresses", byIngress("nginx"))
	r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
		SecretName:  "tls",
		IPAddresses: []string{"127.0.0.1"},
		IssuerRef:   cmmeta.IssuerReference{Name: "addresses", Kind: "ClusterIssuer"},
	}})
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
}

// sixth makes the edge listen on IPv6, too.
func (r *rig) sixth(handler http.Handler) {
	r.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort("::1", r.edge[strings.LastIndex(r.edge, ":")+1:]))
	if err != nil {
		r.Fatalf(
			"this test needs the IPv6 loopback address ::1 (sysctl net.ipv6.conf.lo.disable_ipv6=0; docker run --sysctl "+
				"net.ipv6.conf.all.disable_ipv6=0): %v",
			err,
		)
	}
	serve(r.T, listener, handler)
}

func TestHostsThatHaveIPv6AloneAreCertified(t *testing.T) {
	r := start(t)
	r.sixth(r.edgeAt)
	r.names.Set("six.example.com", dns.TypeA)
	r.names.Set("six.example.com", dns.TypeAAAA, "::1")
	// So has the controller.
	var slices discoveryv1.EndpointSliceList
	if err := r.admin.List(
		t.Context(),
		&slices,
		client.InNamespace(replicas.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: replicas.Name},
	); err != nil {
		t.Fatal(err)
	}
	for i := range slices.Items {
		if s := &slices.Items[i]; s.AddressType == discoveryv1.AddressTypeIPv4 {
			if err := r.admin.Delete(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			r.network.route(net.JoinHostPort(s.Endpoints[0].Addresses[0], fmt.Sprint(*s.Ports[0].Port)), "127.0.0.1:1")
		}
	}
	r.issuer("six", byIngress("nginx"))
	r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
		SecretName:  "tls",
		DNSNames:    []string{"six.example.com"},
		IPAddresses: []string{"::1"},
		IssuerRef:   cmmeta.IssuerReference{Name: "six", Kind: "ClusterIssuer"},
	}})
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
	chain, _ := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "tls"})
	if len(chain[0].IPAddresses) != 1 || !chain[0].IPAddresses[0].Equal(net.IPv6loopback) ||
		chain[0].DNSNames[0] != "six.example.com" {
		t.Errorf("the certificate is for %v and %v", chain[0].DNSNames, chain[0].IPAddresses)
	}
}

func TestAnAddressThatAnswersOtherwiseIsNamedBeforeTheCAIsAsked(t *testing.T) {
	r := start(t)
	r.sixth(http.NotFoundHandler())
	r.names.Set("both.example.com", dns.TypeAAAA, "::1")
	r.issuer("both", byIngress("nginx"))
	r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
		SecretName: "tls",
		DNSNames:   []string{"both.example.com"},
		IssuerRef:  cmmeta.IssuerReference{Name: "both", Kind: "ClusterIssuer"},
	}})
	cluster.Eventually(t, func() error {
		if story := r.story(
			r.namespace,
		); !strings.Contains(story, "at ::1 answers with status 404") ||
			strings.Contains(story, "127.0.0.1") {
			return cluster.NotYet("%s", story)
		}
		return nil
	})
	r.names.Set("both.example.com", dns.TypeAAAA)
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
}

func TestASolverPodAnswersWhereTheMeshReachesNoOther(t *testing.T) {
	r := start(t, func(o *controller.Options) {
		o.HTTP01.Pods, o.HTTP01.Labels = http01.PodSettings{
			Image: "registry.example/perennial:1",
		}, map[string]string{
			"cost": "edge",
		}
	})
	crt := r.example("solver-pod.yaml")

	// What the kubelet does.
	var pods corev1.PodList
	cluster.Eventually(t, func() error {
		if err := r.admin.List(t.Context(), &pods, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		if len(pods.Items) == 0 {
			return cluster.NotYet("there is no pod: %s", r.story(r.namespace))
		}
		return nil
	})
	pod := &pods.Items[0]
	for _, list := range []client.ObjectList{&corev1.PodList{}, &corev1.ServiceList{}, &networkingv1.IngressList{}} {
		cluster.Eventually(t, func() error {
			if err := r.admin.List(
				t.Context(),
				list,
				client.InNamespace(r.namespace),
				client.MatchingLabels{"cost": "edge"},
			); err != nil {
				return err
			}
			if empty(list) {
				return cluster.NotYet("no %T has the label", list)
			}
			return nil
		})
	}
	if pod.Labels["team"] != "shop" || pod.Annotations["sidecar.istio.io/inject"] != "true" ||
		pod.Spec.NodeSelector["disk"] != "ssd" ||
		pod.Spec.NodeSelector["kubernetes.io/os"] != "linux" ||
		!slices.ContainsFunc(
			pod.Spec.Tolerations,
			func(t corev1.Toleration) bool { return t.Key == "dedicated" && t.Value == "edge" },
		) ||
		pod.Spec.Containers[0].Resources.Limits.Memory().String() != "48Mi" ||
		pod.Spec.Containers[0].Image != "registry.example/perennial:1" ||
		*pod.Spec.AutomountServiceAccountToken {
		t.Errorf("the pod is %+v", pod)
	}
	address := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	run := exec.CommandContext(
		t.Context(),
		cluster.Program(t),
		append(slices.Clone(pod.Spec.Containers[0].Args), "--listen-address="+address)...)
	run.Stderr = os.Stderr
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run.Process.Kill(); _ = run.Wait() })
	r.network.route("192.0.2.77:8089", address)
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, "192.0.2.77", []corev1.PodIP{
		{IP: "192.0.2.77"},
	}
	if err := r.admin.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	r.ready(r.namespace, crt)
	// There is no kubelet to say that the pod has ended.
	if err := client.IgnoreNotFound(r.admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0))); err != nil {
		t.Fatal(err)
	}
	r.clean(r.namespace)
}

func TestAWebServerAnswersFromAWebroot(t *testing.T) {
	webroot := t.TempDir()
	r := start(t, func(o *controller.Options) {
		o.HTTP01Address, o.HTTP01 = "", controller.HTTP01{Webroot: webroot}
	})
	r.site.Store(ptr.To(http.FileServer(http.Dir(webroot))))
	r.issuer("by-webroot", byIngress("nginx"))
	r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
		SecretName: "tls",
		DNSNames:   []string{"root.example.com"},
		IssuerRef:  cmmeta.IssuerReference{Name: "by-webroot", Kind: "ClusterIssuer"},
	}})
	r.ready(r.namespace, "tls")
	r.clean(r.namespace)
	cluster.Eventually(t, func() error {
		files, err := os.ReadDir(filepath.Join(webroot, ".well-known", "acme-challenge"))
		if err == nil && len(files) > 0 {
			err = cluster.NotYet("there are %v", files)
		}
		return err
	})
}

// TestACertificateSaysThroughWhatItsChallengesAreAnswered uses issuers whose own solver setting
// routes nowhere.
func TestACertificateSaysThroughWhatItsChallengesAreAnswered(t *testing.T) {
	r := start(t)
	r.create(&networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: networkingv1.IngressSpec{
		IngressClassName: ptr.To("nginx"),
		Rules: []networkingv1.IngressRule{
			{
				Host: "name.example.com",
				IngressRuleValue: networkingv1.IngressRuleValue{
					HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
						{
							Path:     "/",
							PathType: ptr.To(networkingv1.PathTypePrefix),
							Backend: networkingv1.IngressBackend{
								Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
							},
						},
					}},
				},
			},
		},
	}})
	r.create(&gwapi.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "edge"}, Spec: gwapi.GatewaySpec{
		GatewayClassName: "test", Listeners: []gwapi.Listener{{Name: "web", Port: 80, Protocol: gwapi.HTTPProtocolType}},
	}})
	r.issuer("nowhere", byIngress("missing"))
	r.issuer(
		"parentless",
		cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{}},
	)
	for name, test := range map[string]struct {
		issuer      string
		annotations map[string]string
	}{
		"name":       {"nowhere", map[string]string{"acme.cert-manager.io/http01-override-ingress-name": "web"}},
		"class":      {"nowhere", map[string]string{"acme.cert-manager.io/http01-override-ingress-class": "nginx"}},
		"class-name": {"nowhere", map[string]string{"acme.cert-manager.io/http01-override-ingress-ingressclassname": "nginx"}},
		"parent": {"parentless", map[string]string{
			"acme.cert-manager.io/http01-parentrefname": "edge", "acme.cert-manager.io/http01-parentrefkind": "Gateway", "acme.cert-manager.io/http01-parentrefnamespace": r.namespace,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r.create(
				&cmapi.Certificate{
					ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: test.annotations},
					Spec: cmapi.CertificateSpec{
						SecretName: name,
						DNSNames:   []string{name + ".example.com"},
						IssuerRef:  cmmeta.IssuerReference{Name: test.issuer, Kind: "ClusterIssuer"},
						PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
					},
				},
			)
			r.ready(r.namespace, name)
			r.clean(r.namespace)
		})
	}
}
