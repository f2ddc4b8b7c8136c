package standalone_test

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// perenniald is the daemon, compiled once for all tests.
var perenniald struct {
	build sync.Once
	path  string
	err   error
}

func buildPerenniald(t *testing.T) string {
	t.Helper()
	perenniald.build.Do(func() {
		dir, err := os.MkdirTemp("", "perennial-standalone-")
		if err != nil {
			perenniald.err = err
			return
		}
		perenniald.path = filepath.Join(dir, "perenniald")
		out, err := exec.Command(
			"go", "build", "-o", perenniald.path, "github.com/perennial-pki/perennial/standalone/cmd/perenniald",
		).
			CombinedOutput()
		if err != nil {
			perenniald.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if perenniald.err != nil {
		t.Fatalf("build perenniald: %v", perenniald.err)
	}
	return perenniald.path
}

// daemon is a running perenniald.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error

	mu    sync.Mutex
	lines []string
	more  chan struct{} // has a value after a new line
}

func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	return startProgram(t, buildPerenniald(t), args...)
}

func startProgram(t *testing.T, path string, args ...string) *daemon {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	d := &daemon{t: t, cmd: cmd, done: make(chan error, 1), more: make(chan struct{}, 1)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		read := bufio.NewReader(out)
		for {
			line, err := read.ReadString('\n')
			if line != "" {
				d.mu.Lock()
				d.lines = append(d.lines, strings.TrimRight(line, "\n"))
				d.mu.Unlock()
				select {
				case d.more <- struct{}{}:
				default:
				}
			}
			if err != nil {
				_, _ = io.Copy(io.Discard, out)
				d.done <- cmd.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return d
}

func (d *daemon) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

// until waits for a line that has all of the words.
func (d *daemon) until(words ...string) {
	d.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		d.mu.Lock()
		for _, line := range d.lines {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				d.mu.Unlock()
				return
			}
		}
		d.mu.Unlock()
		select {
		case <-d.more:
		case err := <-d.done:
			d.t.Fatalf("perenniald ended with %v before it said %q:\n%s", err, words, d.output())
		case <-limit:
			d.t.Fatalf("perenniald does not say %q:\n%s", words, d.output())
		}
	}
}

// stop stops the process like systemd, and waits for its end.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := <-d.done; err != nil {
		d.t.Fatalf("perenniald ended with %v:\n%s", err, d.output())
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

const quickstart = "../../examples/quickstart"

func TestTheQuickstartIsIssuedAndGoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	data, manifests := filepath.Join(dir, "data"), filepath.Join(dir, "manifests")
	copyDir(t, quickstart, manifests)
	d := startDaemon(t, "--data-dir", data, "--manifests", manifests, "--table")
	d.until("kubeconfig: " + filepath.Join(data, "kubeconfig"))
	for _, name := range []string{
		"perennial-system/root", "default/web", "default/api-server", "default/api-client", "default/short-lived",
	} {
		d.until("certificate "+name+" issued: valid until ", "next renewal at ")
	}
	d.until("NAMESPACE", "CERTIFICATE", "READY", "EXPIRES IN")
	d.until("default", "web", "True", "ClusterIssuer ca")

	// A file that changes is applied again, and one that is broken stops no other.
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(manifests, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(
		"broken.yaml",
		"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: broken\nspec:\n  dnsNames: "+
			"[broken.example.com]\n  issuerRef:\n    name: ca\n",
	)
	d.until("broken.yaml:", "Certificate default/broken", "secretName")
	write(
		"more.yaml",
		"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: more\nspec:\n  secretName: more\n  "+
			"dnsNames: [more.example.com]\n  issuerRef:\n    name: ca\n    kind: ClusterIssuer\n",
	)
	d.until("certificate default/more issued")
	write(
		"more.yaml",
		"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: more\nspec:\n  secretName: more\n  "+
			"dnsNames: [yet.more.example.com]\n  issuerRef:\n    name: ca\n    kind: ClusterIssuer\n",
	)
	d.until("certificate default/more renewed, revision 2")
	d.stop()

	again := startDaemon(t, "--data-dir", data, "--manifests", manifests, "--table")
	again.until("default", "web", "True", "ClusterIssuer ca")
	if strings.Contains(again.output(), "certificate default/web issued") ||
		strings.Contains(again.output(), "certificate default/web renewed") {
		t.Errorf("a restart issued what was there:\n%s", again.output())
	}

	// Another process cannot have the same directory.
	second := startDaemon(t, "--data-dir", data)
	err := <-second.done
	if lines := strings.Split(second.output(), "\n"); err == nil || len(lines) != 1 || !strings.Contains(lines[0], data) {
		t.Errorf("a second perenniald on the directory ended with %v:\n%s", err, second.output())
	}
	again.stop()
}

func TestTheACMEQuickstartIssuesByEveryTypeOfChallenge(t *testing.T) {
	dir := t.TempDir()
	lab := filepath.Join(dir, "lab")
	if out, err := exec.Command("go", "build", "-o", lab, "../lab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := startProgram(
		t,
		lab,
		"-perenniald",
		buildPerenniald(t),
		"-manifests",
		"../../examples/acme",
		"-data-dir",
		filepath.Join(dir, "data"),
		"-fleeting",
		"30s",
	)
	for _, name := range []string{
		"ingress-nginx/wildcard-example-com", "payments/api-payments-tls", "default/www", "default/tls",
		"default/fleeting", "default/standing", "default/labelled",
	} {
		d.until("certificate "+name+" issued: valid until ", "next renewal at ")
	}
	d.until("certificate default/fleeting renewed, revision 2")
	d.stop()
}

func TestAWebServerProvesByTheWebrootOfPerenniald(t *testing.T) {
	dir := t.TempDir()
	webroot, manifests := filepath.Join(dir, "www"), filepath.Join(dir, "manifests")
	for _, d := range []string{webroot, manifests} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewServer(http.FileServer(http.Dir(webroot)))
	t.Cleanup(web.Close)
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	names.Set("inside.example.com", dns.TypeA, "127.77.77.77")
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: web.Listener.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	text := fmt.Sprintf(`apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca, namespace: default}
spec:
  acme:
    server: %s
    caBundle: %s
    privateKeySecretRef: {name: account}
    solvers:
    - http01: {ingress: {}}
      waitInsteadOfSelfCheck: 0s   # port 80 of this world is another one
    - http01: {ingress: {}}
      selector: {dnsNames: [inside.example.com]}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: inside, namespace: default}
spec: {secretName: inside, dnsNames: [inside.example.com], issuerRef: {name: ca}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: www, namespace: default}
spec: {secretName: www, dnsNames: [www.example.com], issuerRef: {name: ca}}
`, ca.Directory, base64.StdEncoding.EncodeToString(ca.CABundle))
	if err := os.WriteFile(filepath.Join(manifests, "www.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(
		t,
		"--data-dir",
		filepath.Join(dir, "data"),
		"--manifests",
		manifests,
		"--http01-webroot",
		webroot,
		"--acme-http01-solver-nameservers",
		names.Addr,
	)
	d.until("certificate default/www issued: valid until ")
	// perenniald connects to the address of a name that only these name servers have; no server
	// listens there.
	d.until("certificate default/inside in work", "at 127.77.77.77 ")
	eventually(t, func() error {
		files, err := os.ReadDir(filepath.Join(webroot, ".well-known", "acme-challenge"))
		if err == nil && len(files) != 1 { // that of the name that waits
			err = fmt.Errorf("%w: there are %v", errNotYet, files)
		}
		return err
	})
	d.stop()
}

func TestAStartThatCannotBeSaysWhyInOneLine(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.MkdirAll(filepath.Join(open, "manifests"), 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"manifests that all users can exchange": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--manifests", filepath.Join(open, "manifests")},
			"--manifests: all users can write to " + open + " (mode 0777): chmod go-w " + open},
		"a data directory that all can exchange": {
			[]string{"--data-dir", filepath.Join(open, "data")}, "all users can write to " + open + " (mode 0777): chmod go-w " +
				open},
		"an argument": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "manifests"}, `unexpected argument "manifests"`},
		"the version as a command":      {[]string{"version"}, `unexpected argument "version"`},
		"a value for the version":       {[]string{"--version=raw"}, "--version"},
		"a taken port":                  {[]string{"--data-dir", filepath.Join(dir, "data"), "--port", port}, port},
		"a data directory that is none": {[]string{"--data-dir", filepath.Join(file, "data")}, file},
		"manifests that are not there": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--manifests", filepath.Join(dir, "none")}, "--manifests"},
		"manifests that are a file": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--manifests", file}, "name the directory"},
		"a root that is not there": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--file-root", filepath.Join(dir, "none")}, "--file-root"},
		"a taken port for HTTP-01": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--http01-listen-address", "127.0.0.1:" + port},
			"--http01-listen-address: "},
		"a taken port for TLS-ALPN-01": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--tlsalpn01-listen-address", "127.0.0.1:" + port},
			"passes challenges on"},
		"a webroot that is not there": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--http01-webroot", filepath.Join(dir, "none")},
			"--http01-webroot: "},
		"a DNS server that is no URL": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--dns01-recursive-nameservers",
				"http://user:secret@dns.example.com/"},
			`--dns01-recursive-nameservers: the DNS server "http://dns.example.com/" must be host:port`},
		"a site behind no listener": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--tlsalpn01-passthrough-to", "127.0.0.1:" + port},
			"needs --tlsalpn01-listen-address"},
		"a name server without a port": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--acme-http01-solver-nameservers", "192.0.2.53"},
			"--acme-http01-solver-nameservers must be host:port, such as 192.0.2.53:53"},
		"no challenge at once": {
			[]string{"--data-dir", filepath.Join(dir, "data"), "--max-concurrent-challenges", "0"},
			"--max-concurrent-challenges must be 1 or more"},
		"an unknown flag": {[]string{"--frobnicate"}, "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, test.args...)
			err := <-d.done
			lines := strings.Split(d.output(), "\n")
			if err == nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "perenniald: ") ||
				!strings.Contains(lines[0], test.says) {
				t.Errorf("it ended with %v:\n%s\nwant one line with %q", err, d.output(), test.says)
			}
		})
	}
}

func TestPerennialdSaysItsVersionAndEnds(t *testing.T) {
	d := startDaemon(t, "--version")
	select {
	case err := <-d.done:
		if said := d.output(); err != nil || !strings.HasPrefix(said, "perenniald ") || !strings.Contains(said, "(go1.") ||
			strings.Contains(said, "\n") {
			t.Errorf("it ended with %v and said %q", err, said)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it goes on:\n%s", d.output())
	}
}

func TestManifestsThatOthersCanWriteAreNotApplied(t *testing.T) {
	dir := t.TempDir()
	manifests := filepath.Join(dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(manifests, name+".yaml")
		text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\n"
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("safe", 0o644)
	write("open", 0o666)
	d := startDaemon(t, "--data-dir", filepath.Join(dir, "data"), "--manifests", manifests)
	d.until("ConfigMap default/safe created")
	d.until("open.yaml: not applied: all users can write to ", "chmod go-w "+manifests+"/open.yaml")
	// While it runs, too.
	if err := os.Chmod(manifests, 0o777); err != nil {
		t.Fatal(err)
	}
	write("later", 0o644)
	d.until("all users can write to " + manifests + " (mode 0777): chmod go-w " + manifests)
	if err := os.Chmod(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	d.until("ConfigMap default/later created")
	if strings.Contains(d.output(), "default/open created") {
		t.Errorf("a manifest that all users can write was applied:\n%s", d.output())
	}
	d.stop()
}

// Two Certificates with one Secret: the files of the one that does not get it stay as they are.
func TestFilesOfACertificateHoldItsOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	manifests, root := filepath.Join(dir, "manifests"), filepath.Join(dir, "files")
	if err := errors.Join(os.Mkdir(manifests, 0o755), os.Mkdir(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	certificate := func(name, secret string) string {
		return "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: " + name + ", namespace: default}\n" +
			"spec: {secretName: " + secret + ", dnsNames: [" + name + ".example.com], issuerRef: {name: selfsigned}}\n---\n"
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(manifests, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: selfsigned, namespace: "+
		"default}\nspec: {selfSigned: {}}\n---\n"+certificate("one", "shared"))
	d := startDaemon(t, "--data-dir", filepath.Join(dir, "data"), "--manifests", manifests, "--file-root", root)
	d.until("certificate default/one issued")
	write("b.yaml", certificate("two", "shared")+"apiVersion: perennial.dev/v1alpha1\nkind: CertificateFile\nmetadata: "+
		"{name: two}\n"+
		"spec: {certificateRef: {namespace: default, name: two}, directory: "+root+"/two}\n")
	d.until("files of two: Certificate default/two is not ready: ", "shared")
	if _, err := os.Lstat(filepath.Join(root, "two")); !os.IsNotExist(err) {
		t.Errorf("there are files of a certificate that is not its own: %v", err)
	}
	write("b.yaml", certificate("two", "its-own"))
	d.until("files of two: certificate default/two is in " + root + "/two, valid until ")
	out, err := exec.Command("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in",
		filepath.Join(root, "two", "tls.crt")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "DNS:two.example.com") {
		t.Errorf("the files hold another certificate: %v\n%s", err, out)
	}
	d.stop()
}
