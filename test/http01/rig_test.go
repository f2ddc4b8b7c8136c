package http01_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/internet"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// replicas is the Service of the controller's replicas: that of deploy/perennial.yaml.
var replicas = types.NamespacedName{Namespace: deploy.Namespace, Name: "perennial-http01"}

// rig is a CA that sees a cluster from outside: port 80 of all names leads to its edge.
type rig struct {
	*testing.T
	ca        *pebble.Server
	names     *dnsserver.Server
	edgeAt    http.Handler // what listens at edge
	admin     client.WithWatch
	network   *network
	site      atomic.Pointer[http.Handler] // what the edge shows where no rule leads elsewhere
	edge      string                       // host:port
	listens   string                       // host:port of the controller
	namespace string
}

func start(t *testing.T, change ...func(*controller.Options)) *rig {
	t.Helper()
	return startAs(t, cluster.Config(t), change...)
}

// startAs is start with another connection of the controller to the API server.
func startAs(t *testing.T, cfg *rest.Config, change ...func(*controller.Options)) *rig {
	t.Helper()
	cluster.InstallGatewayAPI(t)
	r := &rig{T: t, admin: cluster.Admin(t), network: &network{}, namespace: cluster.Namespace(t)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.edge = listener.Addr().String()
	r.site.Store(ptr.To(http.NotFoundHandler()))
	site := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { (*r.site.Load()).ServeHTTP(w, q) })
	r.edgeAt = &edge{api: r.admin, network: r.network, site: site}
	serve(t, listener, r.edgeAt)

	if r.names, err = dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.names.Close)
	names := r.names
	if r.ca, err = pebble.Start(
		pebble.Options{Resolver: names.Addr, HTTPPort: listener.Addr().(*net.TCPAddr).Port},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ca.Close() })

	r.listens = fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	o := controller.Options{
		HTTP01Address: r.listens, HTTP01: controller.HTTP01{Service: replicas, Nameservers: []string{names.Addr}},
		// Port 80 of each address leads to the edge's.
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := r.edge
			if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) != nil {
				to = net.JoinHostPort(host, r.edge[strings.LastIndex(r.edge, ":")+1:])
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		},
	}
	for _, f := range change {
		f(&o)
	}
	r.deploy()
	cluster.RunAs(t, cfg, o)
	return r
}

func serve(t *testing.T, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
}

// deploy creates the shipped Service of the controller, and its EndpointSlices as
// kube-controller-manager would.
func (r *rig) deploy() {
	r.Helper()
	shipped, err := deploy.HTTP01Service()
	if err != nil {
		r.Fatal(err)
	}
	if err := r.admin.Create(r.Context(), shipped); client.IgnoreAlreadyExists(err) != nil {
		r.Fatal(err)
	}
	service := &corev1.Service{}
	if err := r.admin.Get(r.Context(), replicas, service); err != nil {
		r.Fatal(err)
	}
	if len(service.Spec.Ports) != 1 {
		r.Fatalf("the Service has the ports %v", service.Spec.Ports)
	}
	port := int32(0)
	if _, err := fmt.Sscan(r.listens[strings.LastIndex(r.listens, ":")+1:], &port); err != nil {
		r.Fatal(err)
	}
	for family, address := range map[discoveryv1.AddressType]string{
		discoveryv1.AddressTypeIPv4: "192.0.2.10", discoveryv1.AddressTypeIPv6: "2001:db8::10",
	} {
		o := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:    replicas.Namespace,
				GenerateName: replicas.Name + "-",
				Labels:       map[string]string{discoveryv1.LabelServiceName: replicas.Name},
			},
			AddressType: family,
			Ports: []discoveryv1.EndpointPort{
				{Name: &service.Spec.Ports[0].Name, Port: &port, Protocol: ptr.To(corev1.ProtocolTCP)},
			},
			Endpoints: []discoveryv1.Endpoint{
				{
					Addresses: []string{
						address,
					},
					NodeName:   ptr.To("node-1"),
					Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
					TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: replicas.Namespace, Name: "perennial-0"},
				},
			},
		}
		if err := r.admin.Create(r.Context(), o); err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { _ = r.admin.Delete(context.Background(), o) })
		r.network.route(net.JoinHostPort(address, fmt.Sprint(port)), r.listens)
	}
}

func (r *rig) create(o client.Object) {
	r.Helper()
	if o.GetNamespace() == "" {
		o.SetNamespace(r.namespace)
	}
	if err := r.admin.Create(r.Context(), o); err != nil {
		r.Fatal(err)
	}
}

// issuer creates a ClusterIssuer of the CA.
func (r *rig) issuer(name string, solver cmacme.ACMEChallengeSolverHTTP01) {
	r.Helper()
	o := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
	o.Spec.ACME = &cmacme.ACMEIssuer{
		Server:   r.ca.Directory,
		CABundle: r.ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{
			LocalObjectReference: cmmeta.LocalObjectReference{Name: r.namespace + "-account"},
		},
		Solvers: []cmacme.ACMEChallengeSolver{{HTTP01: &solver}},
	}
	if err := r.admin.Create(r.Context(), o); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = r.admin.Delete(context.Background(), o) })
}

// example creates what a file of the examples has, in the namespace of the rig and with issuers of
// its CA, and returns the name of its Certificate.
func (r *rig) example(file string) string {
	r.Helper()
	return internet.Apply(
		r,
		r.admin,
		string(must(os.ReadFile(filepath.Join("../../examples/acme-options", file)))),
		func(u *unstructured.Unstructured) {
			u.SetNamespace(r.namespace)
			internet.At(r.ca, u)
		},
	).Name
}

func byIngress(class string) cmacme.ACMEChallengeSolverHTTP01 {
	return cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: &class}}
}

// ready waits for a Certificate, and checks its Secret.
func (r *rig) ready(namespace, name string) {
	r.Helper()
	crt := &cmapi.Certificate{}
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKey{Namespace: namespace, Name: name}, crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s is not Ready: %s", name, r.story(namespace))
		}
		return nil
	})
	secret := &corev1.Secret{}
	if err := r.admin.Get(
		r.Context(),
		client.ObjectKey{Namespace: namespace, Name: crt.Spec.SecretName},
		secret,
	); err != nil {
		r.Fatal(err)
	}
	if secret.Type != corev1.SecretTypeTLS || len(secret.Data["tls.crt"]) == 0 || len(secret.Data["tls.key"]) == 0 {
		r.Errorf("the Secret is of type %s", secret.Type)
	}
}

func (r *rig) story(namespace string) string {
	var challenges cmacme.ChallengeList
	if err := r.admin.List(r.Context(), &challenges, client.InNamespace(namespace)); err != nil {
		return err.Error()
	}
	var all []string
	for _, c := range challenges.Items {
		all = append(all, fmt.Sprintf("%s %s %s", c.Spec.DNSName, c.Status.State, c.Status.Reason))
	}
	return strings.Join(all, "; ")
}

// clean waits until a namespace has no objects of challenges.
func (r *rig) clean(namespace string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		for _, list := range []client.ObjectList{
			&cmacme.ChallengeList{}, &corev1.ServiceList{}, &corev1.PodList{}, &discoveryv1.EndpointSliceList{}, &gwapi.HTTPRouteList{},
		} {
			if err := r.admin.List(r.Context(), list, client.InNamespace(namespace)); err != nil {
				return err
			}
			if n := fmt.Sprintf("%T", list); !empty(list) {
				return cluster.NotYet("there are %s", n)
			}
		}
		var ingresses networkingv1.IngressList
		if err := r.admin.List(r.Context(), &ingresses, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, o := range ingresses.Items {
			if strings.HasPrefix(o.Name, "cm-acme-http-solver-") {
				return cluster.NotYet("there is Ingress %s", o.Name)
			}
		}
		return nil
	})
}

func empty(list client.ObjectList) bool {
	return list.GetRemainingItemCount() == nil && !bytes.Contains(must(yaml.Marshal(list)), []byte("\n- "))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// challenge creates a Challenge of an issuer that does not exist, so that the controller does not
// process it.
func (r *rig) challenge(name, host, token string) *cmacme.Challenge {
	r.Helper()
	class := "nginx"
	labels := map[string]string{
		cmacme.DomainLabelKey: solver.HashLabelValue(host),
	} // by which a replica finds one that its cache does not have yet
	ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: cmacme.ChallengeSpec{
		URL:              "https://ca.example/c",
		AuthorizationURL: "https://ca.example/z",
		DNSName:          host,
		Type:             cmacme.ACMEChallengeTypeHTTP01,
		Token:            token,
		Key:              token + ".thumbprint",
		Solver: cmacme.ACMEChallengeSolver{
			HTTP01: &cmacme.ACMEChallengeSolverHTTP01{
				Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: &class},
			},
		},
		IssuerRef: cmmeta.IssuerReference{Name: "missing"},
	}}
	r.create(ch)
	return ch
}
