package order_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
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

func TestHostsThatHaveIPv6AloneAreCertifiedByTLSALPN01(t *testing.T) {
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	names.Set("six.example.com", dns.TypeA)
	names.Set("six.example.com", dns.TypeAAAA, "::1")
	port := cluster.FreePort(t)
	address := fmt.Sprintf("[::1]:%d", port)
	if l, err := net.Listen("tcp", address); err != nil {
		t.Fatalf(
			"this test needs the IPv6 loopback address ::1 (sysctl net.ipv6.conf.lo.disable_ipv6=0; docker run --sysctl "+
				"net.ipv6.conf.all.disable_ipv6=0): %v",
			err,
		)
	} else {
		l.Close()
	}
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, TLSPort: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	r := &rig{t: t, ca: ca, names: names, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}
	cluster.Run(t, controller.Options{
		Namespace: r.namespace, TLSALPN01Address: address, HTTP01: controller.HTTP01{Nameservers: []string{names.Addr}},
		Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, strings.TrimSuffix(to, ":443")+fmt.Sprintf(":%d", port))
		},
	})
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = []cmacme.ACMEChallengeSolver{{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}}}
	})
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName:  "site",
		DNSNames:    []string{"six.example.com"},
		IPAddresses: []string{"::1"},
		IssuerRef:   cmmeta.IssuerReference{Name: "pebble"},
	}}
	r.create(crt)
	r.ready(crt)
	chain, _ := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	if len(chain[0].IPAddresses) != 1 || !chain[0].IPAddresses[0].Equal(net.IPv6loopback) {
		t.Errorf("the certificate is for %v", chain[0].IPAddresses)
	}
}

// TestOneNameIsProvenByTLSALPN01ForSeveralOrdersInTurn uses orders that share a name, where a
// handshake can have only one answer.
func TestOneNameIsProvenByTLSALPN01ForSeveralOrdersInTurn(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = []cmacme.ACMEChallengeSolver{{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}}}
	})
	var all []*cmapi.Certificate
	for i := range 5 {
		all = append(all, r.certificate(fmt.Sprintf("site-%d", i), "www.example.com", fmt.Sprintf("site-%d.example.com", i)))
	}
	r.own(all...)
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, o := range orders.Items {
		if o.Status.State != cmacme.Valid {
			t.Errorf("the order %s is %s: %s", o.Name, o.Status.State, o.Status.Reason)
		}
	}
	if len(orders.Items) != len(all) {
		t.Errorf("there were %d orders for %d certificates", len(orders.Items), len(all))
	}
}
