package tenants_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
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
	"github.com/perennial-pki/perennial/test/dnsserver"
)

// inside is an address that only programs of the controller's machine can reach. The addresses of
// the CA, the DNS server and the sites are allowed.
const inside = "127.0.0.2"

// internal is a server of the controller's machine. It counts connections and datagrams.
type internal struct {
	port  string
	heard atomic.Int32
}

func listenInside(t *testing.T) *internal {
	t.Helper()
	s := &internal{}
	tcp, err := net.Listen("tcp", net.JoinHostPort(inside, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	_, s.port, _ = net.SplitHostPort(tcp.Addr().String())
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			s.heard.Add(1)
			conn.Close()
		}
	}()
	go func() {
		for {
			if _, _, err := udp.ReadFrom(make([]byte, 1)); err != nil {
				return
			}
			s.heard.Add(1)
		}
	}()
	return s
}

func (s *internal) at(format string) string {
	return fmt.Sprintf(format, net.JoinHostPort(inside, s.port))
}

// acmeServer is a tenant's own ACME server, which has only a directory.
func acmeServer(t *testing.T, directory http.HandlerFunc) *cmacme.ACMEIssuer {
	t.Helper()
	server := httptest.NewTLSServer(directory)
	t.Cleanup(server.Close)
	return &cmacme.ACMEIssuer{Server: server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: server.Certificate().Raw})}
}

// issuerSays waits until a condition that is False has the words.
func issuerSays(t *testing.T, user client.Client, issuer *cmapi.Issuer, words string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if err := user.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		for _, c := range issuer.Status.Conditions {
			if c.Status == cmmeta.ConditionFalse && strings.Contains(c.Message, words) {
				return nil
			}
		}
		return cluster.NotYet("its conditions are %+v", issuer.Status.Conditions)
	})
}

// challengeSays waits until the Challenge for a name has the words.
func challengeSays(t *testing.T, user client.Client, namespace, name, words string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		var list cmacme.ChallengeList
		if err := user.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		reason := ""
		for i := range list.Items {
			if list.Items[i].Spec.DNSName == name {
				reason = list.Items[i].Status.Reason
			}
		}
		if strings.Contains(reason, words) {
			return nil
		}
		return cluster.NotYet("its Challenge says %q", reason)
	})
}

// TestATenantsIssuersDoNotLeadIntoTheMachine makes a tenant write issuers, and sites, that lead to
// an address of the controller's machine in each way that there is.
func TestATenantsIssuersDoNotLeadIntoTheMachine(t *testing.T) {
	machine := listenInside(t)
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	names.CNAME("_acme-challenge.acme-dns.example.com", "x.example.com") // as a user of acme-dns delegates it
	site := httptest.NewServer(http.RedirectHandler("http://"+inside+"/latest/meta-data/", http.StatusFound))
	t.Cleanup(site.Close)
	var server cmacme.ACMEIssuer // one that issuers may use
	s := share(t, func(o *controller.Options, issuer *cmacme.ACMEIssuer) {
		server = cmacme.ACMEIssuer{Server: issuer.Server, CABundle: issuer.CABundle}
		o.AllowedAddresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		o.HTTP01.Nameservers = []string{names.Addr}
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) { // the tenant's site has port 80
			to := site.Listener.Addr().String()
			if strings.HasPrefix(address, inside+":") {
				to = machine.at("%s")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		}
	})
	user, namespace := tenant(t)

	create := func(t *testing.T, name string, spec *cmacme.ACMEIssuer) *cmapi.Issuer {
		t.Helper()
		spec.PrivateKey.Name = name
		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: spec}}}
		try(t, user, issuer)
		return issuer
	}
	const words = "is an address of this machine, its link or its cloud's metadata service"
	quiet := func(t *testing.T) {
		t.Helper()
		if n := machine.heard.Swap(0); n > 0 {
			t.Errorf("the server of the machine was reached %d times", n)
		}
	}
	directory := func(w http.ResponseWriter, _ *http.Request) {
		urls := map[string]string{}
		for _, name := range []string{"newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"} {
			urls[name] = machine.at("https://%s/") + name
		}
		_ = json.NewEncoder(w).Encode(urls)
	}
	for name, test := range map[string]struct {
		spec *cmacme.ACMEIssuer
		says string
	}{
		"server":        {&cmacme.ACMEIssuer{Server: machine.at("https://%s/dir")}, words},
		"server-mapped": {&cmacme.ACMEIssuer{Server: "https://[::ffff:127.0.0.2]:" + machine.port + "/dir"}, words},
		"server-link":   {&cmacme.ACMEIssuer{Server: "https://[fe80::1]/dir"}, words},
		"server-meta":   {&cmacme.ACMEIssuer{Server: "https://169.254.169.254/latest/meta-data"}, words},
		"server-urls":   {acmeServer(t, directory), words},
		"server-redirect": {acmeServer(t, http.RedirectHandler(machine.at("https://%s/dir"), http.StatusFound).ServeHTTP),
			"302"},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := create(t, name, test.spec)
			issuerSays(t, user, issuer, test.says)
			quiet(t)
		})
	}

	try(t, user, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "credentials"},
		StringData: map[string]string{"key": "c2VjcmV0", "accounts": `{"acme-dns.example.com": {"username": "u",
			"password": "p", "fulldomain": "x.example.com", "subdomain": "x", "allowfrom": []}}`}})
	try(t, user, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pdns"},
		StringData: map[string]string{"apiKey": "k"}})
	of := func(key string) cmmeta.SecretKeySelector {
		return cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "credentials"}, Key: key}
	}
	update := &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: names.Addr}
	good := []string{names.Addr}
	for name, solver := range map[string]cmacme.ACMEChallengeSolver{
		"nameserver": {DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: update,
			Nameservers: []string{machine.at("%s")}}},
		"nameserver-https": {DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: update,
			Nameservers: []string{machine.at("https://%s/dns-query")}}},
		"rfc2136": {DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: good,
			RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: machine.at("%s"), TSIGKeyName: "k",
				TSIGAlgorithm: "HMACSHA256", TSIGSecret: of("key")}}},
		"acme-dns": {DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: good,
			AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{Host: machine.at("http://%s"), AccountSecret: of("accounts")}}},
		"provider": {DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: good,
			Provider: &cmacme.ACMEIssuerDNS01ProviderLego{Name: "pdns", SecretRef: &cmmeta.LocalObjectReference{Name: "pdns"},
				Config: &apiextensionsv1.JSON{Raw: []byte(machine.at(`{"host": "http://%s"}`))}}}},
		"redirect": {HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := server
			spec.Solvers = []cmacme.ACMEChallengeSolver{solver}
			create(t, name, &spec)
			crt := s.certificate(namespace, name)
			crt.Spec.IssuerRef = cmmeta.IssuerReference{Name: name}
			try(t, user, crt)
			challengeSays(t, user, namespace, name+".example.com", words)
			quiet(t)
		})
	}
}
