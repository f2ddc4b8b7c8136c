package order_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestAServerAtAnAddressOfTheMachineAloneIsNotAsked(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Server = "https://169.254.169.254/latest/meta-data" })
	r.issuerSays(cmmeta.ConditionFalse, "spec.acme.server leads to 169.254.169.254: ",
		"use a ClusterIssuer, or start the controller with --issuer-allowed-addresses")
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Server = "https://[fe80::1]/dir" })
	r.issuerSays(cmmeta.ConditionFalse, "spec.acme.server leads to fe80::1: ")
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Server = r.ca.Directory })
	r.issuerSays(cmmeta.ConditionTrue)
}

// TestANamespacedIssuerDoesNotLeadIntoThisMachine runs the CA and the DNS server at addresses to
// which a tenant must not make the controller connect.
func TestANamespacedIssuerDoesNotLeadIntoThisMachine(t *testing.T) {
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.AllowedAddresses = []netip.Prefix{} })
	const advice = "use a ClusterIssuer, or start the controller with --issuer-allowed-addresses"
	r.issuer()
	r.issuerSays(cmmeta.ConditionFalse,
		"127.0.0.1 is an address of this machine, its link or its cloud's metadata service", advice)

	// By a ClusterIssuer, which only administrators write, it is another matter.
	wide := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
	wide.Spec.ACME = &cmacme.ACMEIssuer{
		Server: r.ca.Directory, CABundle: r.ca.CABundle, PrivateKey: cmmeta.SecretKeySelector{
			LocalObjectReference: cmmeta.LocalObjectReference{Name: r.namespace}},
	}
	r.byDNS("")(wide.Spec.ACME)
	secret := &corev1.Secret{}
	if dns := wide.Spec.ACME.Solvers[0].DNS01; dns.RFC2136.TSIGSecret.Name != "" {
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: dns.RFC2136.TSIGSecret.Name},
			secret); err != nil {
			t.Fatal(err)
		}
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: "kube-system", Name: r.namespace + "-tsig"}
		dns.RFC2136.TSIGSecret.Name = secret.Name
		if err := r.admin.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.admin.Delete(context.Background(), secret) })
	}
	if err := r.admin.Create(t.Context(), wide); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.admin.Delete(context.Background(), wide) })
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Kind: "ClusterIssuer",
			Name: wide.Name},
	}}
	r.create(crt)
	r.ready(crt)
}

// TestANamespacedIssuersSolversDoNotLeadIntoThisMachine uses a CA that Issuers may use, and solvers
// with forbidden addresses.
func TestANamespacedIssuersSolversDoNotLeadIntoThisMachine(t *testing.T) {
	r := start(t, pebble.Options{}, func(o *controller.Options) {
		o.AllowedAddresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} // that of the CA
	})
	by := r.byDNS("")
	port := r.names.Addr[strings.LastIndex(r.names.Addr, ":"):]
	for name, change := range map[string]func(*cmacme.ACMEChallengeSolverDNS01){
		"nameserver": func(s *cmacme.ACMEChallengeSolverDNS01) { s.Nameservers = []string{"127.0.0.2" + port} },
		"nameserver-url": func(s *cmacme.ACMEChallengeSolverDNS01) {
			s.Nameservers = []string{"https://127.0.0.2" + port + "/dns-query"}
		},
		"nameserver-meta": func(s *cmacme.ACMEChallengeSolverDNS01) { s.Nameservers = []string{"169.254.169.254:53"} },
		"rfc2136":         func(s *cmacme.ACMEChallengeSolverDNS01) { s.RFC2136.Nameserver = "127.0.0.2" + port },
		"rfc2136-name":    func(s *cmacme.ACMEChallengeSolverDNS01) { s.RFC2136.Nameserver = "localhost" + port },
		"provider": func(s *cmacme.ACMEChallengeSolverDNS01) {
			s.RFC2136, s.Provider = nil, &cmacme.ACMEIssuerDNS01ProviderLego{
				Name: "pdns", Config: &apiextensionsv1.JSON{Raw: []byte(`{"host": "http://127.0.0.2"}`)},
				SecretRef: &cmmeta.LocalObjectReference{Name: "pdns"},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := r.issuerOf(r.namespace, name, by, func(spec *cmacme.ACMEIssuer) { change(spec.Solvers[0].DNS01) })
			if name == "provider" {
				r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pdns"}, StringData: map[string]string{"apiKey": "k"}})
			}
			crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
				SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: issuer.Name},
			}}
			r.create(crt)
			if name == "rfc2136-name" { // which leads to ::1 and 127.0.0.1, of which one is allowed
				r.ready(crt)
				return
			}
			r.eventually("the Challenge says what to do", func() bool {
				return strings.Contains(r.story(),
					"is an address of this machine, its link or its cloud's metadata service: a namespaced Issuer may not lead there")
			})
			if err := r.admin.Delete(t.Context(), crt); err != nil {
				t.Fatal(err)
			}
			r.eventually("the Challenges are gone", r.noChallenges)
		})
	}
}
