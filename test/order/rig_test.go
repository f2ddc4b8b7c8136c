package order_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// The TSIG key for updates of the DNS server.
const tsigKey, tsigSecret = "updates", "c2VjcmV0LW9mLXRoZS10c2lnLWtleS1mb3ItdGVzdHM="

// rig is a CA, the site that it validates, and a controller that answers there.
type rig struct {
	t     *testing.T
	ca    *pebble.Server
	names *dnsserver.Server
	port  int // where HTTP-01 challenges are answered
	// handshakes is where TLS-ALPN-01 challenges are answered, in front of the site behind.
	handshakes string
	behind     *httptest.Server
	admin      client.WithWatch
	namespace  string
}

func start(t *testing.T, o pebble.Options, change ...func(*controller.Options)) *rig {
	t.Helper()
	port := cluster.FreePort(t)
	names, err := dnsserver.Start(
		dnsserver.Options{Zones: []string{"example.com", "delegated.example"}, KeyName: tsigKey, Secret: tsigSecret},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	o.Resolver, o.HTTPPort, o.TLSPort = names.Addr, port, cluster.FreePort(t)
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	site, handshakes := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", o.TLSPort)
	behind := httptest.NewTLSServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the site") }),
	)
	t.Cleanup(behind.Close)
	options := controller.Options{
		HTTP01Address: site, TLSALPN01Address: handshakes, PassthroughTo: behind.Listener.Addr().String(),
		// Ports 80 and 443 of every name lead to the controller.
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			var d net.Dialer
			if strings.HasSuffix(address, ":443") {
				return d.DialContext(ctx, network, handshakes)
			}
			return d.DialContext(ctx, network, site)
		},
	}
	for _, f := range change {
		f(&options)
	}
	cluster.Run(t, options)
	return &rig{
		t:          t,
		port:       port,
		handshakes: handshakes,
		behind:     behind,
		ca:         ca,
		names:      names,
		admin:      cluster.Admin(t),
		namespace:  cluster.Namespace(t),
	}
}

func (r *rig) create(o client.Object) {
	r.t.Helper()
	o.SetNamespace(r.namespace)
	if err := r.admin.Create(r.t.Context(), o); err != nil {
		r.t.Fatal(err)
	}
}

// issuer creates an issuer of the CA that solves HTTP-01 challenges.
func (r *rig) issuer(change ...func(*cmacme.ACMEIssuer)) {
	r.t.Helper()
	spec := &cmacme.ACMEIssuer{
		Server:     r.ca.Directory,
		CABundle:   r.ca.CABundle,
		Email:      "ops@example.org",
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		},
	}
	for _, f := range change {
		f(spec)
	}
	r.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "pebble"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: spec}},
		},
	)
}

func (r *rig) certificate(name string, dnsNames ...string) *cmapi.Certificate {
	r.t.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, DNSNames: dnsNames, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	r.create(crt)
	return crt
}

func (r *rig) ready(crt *cmapi.Certificate) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s is not Ready:\n%s", crt.Name, r.story())
		}
		return nil
	})
}

// story returns the objects that a person would look at to find a failure.
func (r *rig) story() string {
	var b strings.Builder
	var orders cmacme.OrderList
	var challenges cmacme.ChallengeList
	var requests cmapi.CertificateRequestList
	for _, list := range []client.ObjectList{&orders, &challenges, &requests} {
		if err := r.admin.List(r.t.Context(), list, client.InNamespace(r.namespace)); err != nil {
			return err.Error()
		}
	}
	for _, cr := range requests.Items {
		fmt.Fprintf(&b, "request %s: %+v\n", cr.Name, cr.Status.Conditions)
	}
	for _, o := range orders.Items {
		fmt.Fprintf(&b, "order %s: %q %s\n", o.Name, o.Status.State, o.Status.Reason)
	}
	for _, c := range challenges.Items {
		fmt.Fprintf(&b, "challenge %s: %q %s\n", c.Name, c.Status.State, c.Status.Reason)
	}
	return b.String()
}
