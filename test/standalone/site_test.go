package standalone_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/servers"
)

func TestTheSiteOfThisMachineIsThereWhileItsCertificateIsIssuedAndRenewed(t *testing.T) {
	dir := t.TempDir()
	manifests, root, pidFile := filepath.Join(dir, "manifests"), filepath.Join(dir, "tls"), filepath.Join(dir, "nginx.pid")
	for _, d := range []string{manifests, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := cluster.FreePort(t)
	front, behind := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	ca, held := servers.CA(t, port)
	text, err := os.ReadFile("../../examples/tlsalpn01/site.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer(
		"https://acme-v02.api.letsencrypt.org/directory",
		ca.Directory+"\n    caBundle: "+base64.StdEncoding.EncodeToString(ca.CABundle),
		"- tlsALPN01: {}",
		"- tlsALPN01: {}\n      waitInsteadOfSelfCheck: 0s   # port 443 of this world is another one",
		"/etc/nginx/tls/www",
		filepath.Join(root, "www"),
		"/run/nginx.pid",
		pidFile,
	).Replace(string(text))
	if err := os.WriteFile(filepath.Join(manifests, "site.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--data-dir", filepath.Join(dir, "data"), "--manifests", manifests, "--file-root", root,
		"--tlsalpn01-listen-address", front, "--tlsalpn01-passthrough-to", behind)

	// nginx starts with the stand-in, while the CA has not yet looked.
	release := held(t)
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(root, "www", "tls.crt"))
		return err
	})
	own := servers.Site(
		t,
		fmt.Sprintf(
			"listen %s ssl http2; ssl_certificate %s/www/tls.crt; ssl_certificate_key %[2]s/www/tls.key; location / { "+
				"return 200 \"the site\"; }",
			behind,
			root,
		),
		behind,
	)
	if err := os.Symlink(own, pidFile); err != nil {
		t.Fatal(err)
	}
	visit := func(protocol string) (*x509.Certificate, error) {
		page, leaf, err := servers.Visit(t.Context(), "www.example.com", front, "127.0.0.1", protocol)
		if err == nil && page != "the site" {
			err = fmt.Errorf("by %s the site says %q", protocol, page)
		}
		return leaf, err
	}
	serials := map[string]bool{}
	// during visits the site at a moment when the CA wants to look, and then until it shows another
	// certificate, of the CA.
	during := func(release func()) {
		t.Helper()
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			leaf, err := visit(protocol)
			if err != nil {
				t.Fatal(err)
			}
			serials[leaf.SerialNumber.String()] = true
		}
		release()
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			eventually(t, func() error {
				leaf, err := visit(protocol)
				if err == nil &&
					(serials[leaf.SerialNumber.String()] || !strings.HasPrefix(leaf.Issuer.CommonName, "Pebble Intermediate CA")) {
					err = fmt.Errorf("%w: the site has the certificate of %s", errNotYet, leaf.Issuer)
				}
				return err
			})
		}
	}
	during(release)
	d.until("certificate default/www issued: valid until ")

	var out bytes.Buffer
	p := &cli.Program{
		Name:  "perennial",
		In:    strings.NewReader(""),
		Out:   &out,
		Err:   &out,
		Clock: clocktesting.NewFakePassiveClock(time.Now()),
	}
	if code := p.Run(
		t.Context(),
		p.Command(),
		[]string{"renew", "www", "--kubeconfig", filepath.Join(dir, "data", "kubeconfig"), "-n", "default"},
	); code != 0 {
		t.Fatalf("perennial renew: %s", out.String())
	}
	during(held(t))
	d.until("certificate default/www renewed, revision 2")
	if len(serials) != 2 {
		t.Errorf("the site had %d certificates before the last one", len(serials))
	}
	d.stop()
}
