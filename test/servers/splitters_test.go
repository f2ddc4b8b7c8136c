package servers_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/servers"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// visitor is the address of a visitor of the site.
const visitor = "127.0.0.9"

// example is a configuration of examples/tlsalpn01, with the addresses of a test in place of its
// own, and with more changes.
func example(t *testing.T, file string, change ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../examples/tlsalpn01", file))
	if err != nil {
		t.Fatal(err)
	}
	return with(t, string(text), change...)
}

// with replaces parts of a text, each of which must be there once.
func with(t *testing.T, text string, change ...string) string {
	t.Helper()
	for i := 0; i < len(change); i += 2 {
		if strings.Count(text, change[i]) != 1 {
			t.Fatalf("%q is not there once:\n%s", change[i], text)
		}
		text = strings.Replace(text, change[i], change[i+1], 1)
	}
	return text
}

// relay is what docs/acme/tls-alpn01.md says takes the PROXY protocol off in nginx.
func relay(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/acme/tls-alpn01.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 1 && strings.HasPrefix(block, "\nupstream perennial {") {
			return block
		}
	}
	t.Fatal("docs/acme/tls-alpn01.md does not say it")
	return ""
}

// files writes a placeholder certificate and its key, and returns their file names.
func files(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	leaf, err := pki.TemporaryCertificate(
		rand.Reader,
		pki.Request{CommonName: "the site", DNSNames: []string{"www.example.com"}},
		private,
		now,
		now.Add(time.Hour),
	)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKeyPEM(private, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, content := range map[string][]byte{certificate: pki.EncodeCertificatePEM(leaf), key: keyPEM} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestALiveSiteIsCertifiedBehindASplitter(t *testing.T) {
	type addresses struct{ splitter, controller, site, relay string }
	for name, test := range map[string]struct {
		start func(t *testing.T, a addresses)
		// proxied means that the site learns the visitor's address from the PROXY protocol.
		proxied bool
	}{
		"HAProxy": {start: func(t *testing.T, a addresses) {
			servers.HAProxy(
				t,
				example(
					t, "haproxy.cfg", "bind :443", "bind "+a.splitter, "perennial.perennial-system.svc:8443", a.controller,
					"site.shop.svc:443", a.site,
				),
				a.splitter,
			)
		}},
		"HAProxy that passes on the address of the visitor": {proxied: true, start: func(t *testing.T, a addresses) {
			servers.HAProxy(t, example(t, "haproxy.cfg", "bind :443", "bind "+a.splitter,
				"perennial.perennial-system.svc:8443", a.controller,
				"site.shop.svc:443", a.site+" send-proxy-v2"), a.splitter)
		}},
		"nginx": {start: func(t *testing.T, a addresses) {
			servers.Nginx(
				t,
				example(
					t, "nginx.conf", "listen 443;", "listen "+a.splitter+";", "perennial.perennial-system.svc:8443",
					a.controller, "site.shop.svc:443", a.site,
				),
				a.splitter,
			)
		}},
		"nginx that passes on the address of the visitor": {proxied: true, start: func(t *testing.T, a addresses) {
			off := with(
				t, relay(t), "server 127.0.0.1:8442;", "server "+a.relay+";", "listen 127.0.0.1:8442 ",
				"listen "+a.relay+" ", "perennial.perennial-system.svc:8443", a.controller,
			)
			servers.Nginx(t, example(t, "nginx.conf", "listen 443;", "listen "+a.splitter+"; proxy_protocol on;",
				"    upstream perennial {\n        server perennial.perennial-system.svc:8443;\n    }\n", off,
				"site.shop.svc:443", a.site), a.splitter)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := cluster.FreePort(t)
			at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
			a := addresses{at(port), at(cluster.FreePort(t)), at(cluster.FreePort(t)), at(cluster.FreePort(t))}
			listen, from := a.site+" ssl http2", "$remote_addr"
			want := "the site, for 127.0.0.1"
			if test.proxied {
				listen, from = listen+" proxy_protocol", "$proxy_protocol_addr"
				want = "the site, for " + visitor
			}
			certificate, key := files(t)
			servers.Site(
				t,
				fmt.Sprintf(
					"listen %s; ssl_certificate %s; ssl_certificate_key %s; location / { return 200 \"the site, for %s\"; }",
					listen,
					certificate,
					key,
					from,
				),
				a.site,
			)
			test.start(t, a)
			visit := func() {
				t.Helper()
				visits(t, a.splitter, want)
			}
			ca, held := servers.CA(t, port)
			namespace, admin := cluster.Namespace(t), cluster.Admin(t)
			cluster.Run(t, controller.Options{
				Namespace: namespace, TLSALPN01Address: a.controller,
				Dial: func(ctx context.Context, network, _ string) (net.Conn, error) { // port 443 of every name
					return new(net.Dialer).DialContext(ctx, network, a.splitter)
				},
			})
			visit()
			crt := &cmapi.Certificate{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "www"},
				Spec: cmapi.CertificateSpec{
					SecretName: "www", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
				},
			}
			for _, o := range []client.Object{crt, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: "pebble",
			}, Spec: cmapi.IssuerSpec{
				IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
					Server: ca.Directory, CABundle: ca.CABundle,
					PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
					Solvers:    []cmacme.ACMEChallengeSolver{{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}}},
				}},
			}}} {
				if err := admin.Create(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			release := held(t) // the controller has seen its own answer through the splitter
			visit()
			release()
			isReady(t, crt)
			visit()
			if chain, _ := cluster.Pair(t, client.ObjectKeyFromObject(crt)); chain[0].VerifyHostname("www.example.com") != nil {
				t.Errorf("the certificate is for %v", chain[0].DNSNames)
			}
		})
	}
}

// visits expects that the site answers through the splitter in both versions of HTTP.
func visits(t *testing.T, splitter, want string) {
	t.Helper()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		if page, _, err := servers.Visit(
			t.Context(),
			"www.example.com",
			splitter,
			visitor,
			protocol,
		); err != nil ||
			page != want {
			t.Errorf("by %s the site says %q, %v", protocol, page, err)
		}
	}
}

// isReady waits until a Certificate is ready.
func isReady(t *testing.T, crt *cmapi.Certificate) {
	t.Helper()
	admin := cluster.Admin(t)
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("%+v", crt.Status)
		}
		return nil
	})
}
