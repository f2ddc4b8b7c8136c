package dist_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dist"
	"github.com/perennial-pki/perennial/test/image"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// source is a commit of this repository, with a version.
func source(t *testing.T, version string) image.Source {
	t.Helper()
	root, err := cluster.Root()
	if err != nil {
		t.Fatal(err)
	}
	return image.Source{Dir: root, Version: version, Revision: "0123456789abcdef", Time: time.Unix(1_700_000_000, 0)}
}

// programs returns the programs, compiled as for other tests, which takes no time.
func programs(t *testing.T) map[string][]byte {
	t.Helper()
	daemon, err := cluster.Compiled("perenniald", "standalone", "./cmd/perenniald")
	if err != nil {
		t.Fatal(err)
	}
	binaries := map[string][]byte{}
	for name, path := range map[string]string{"perennial": cluster.Program(t), "perenniald": daemon} {
		if binaries[name], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return binaries
}

// release returns the directory with the files of version v1.2.3, which tests share.
func release(t *testing.T) string {
	t.Helper()
	shared.make.Do(func() {
		binaries := programs(t)
		dir, err := os.MkdirTemp("", "perennial-dist-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		packaged(t, dir, "v1.2.3", binaries)
	})
	if shared.dir == "" {
		t.Fatal("the packages of another test failed")
	}
	return shared.dir
}

var shared struct {
	make sync.Once
	dir  string
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(shared.dir)
	os.Exit(code)
}

// packaged writes the files of a version into a directory, and returns their names.
func packaged(t *testing.T, dir, version string, programs map[string][]byte) []string {
	t.Helper()
	files, err := dist.Package(t.Context(), source(t, version), amd64, programs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheSameCommitMakesTheSameFiles(t *testing.T) {
	t.Parallel()
	small := map[string][]byte{"perennial": programs(t)["perennial"]} // compression takes long
	first, second := t.TempDir(), t.TempDir()
	files := packaged(t, first, "v1.2.3", small)
	packaged(t, second, "v1.2.3", small)
	want := []string{
		"perennial_v1.2.3_amd64.deb", "perennial_v1.2.3_linux_amd64.spdx.json", "perennial_v1.2.3_linux_amd64.tar.gz",
	}
	if !slices.Equal(files, want) {
		t.Errorf("the files are %v", files)
	}
	for _, name := range files {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestTheArchiveHasTheProgramsAndTheUnitAndTheSBOMTheModules(t *testing.T) {
	t.Parallel()
	dir := release(t)
	sbom, err := os.ReadFile(filepath.Join(dir, "perenniald_v1.2.3_linux_amd64.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(sbom) || !strings.Contains(string(sbom), "pkg:golang/k8s.io/kubernetes@") {
		t.Error("the SBOM of perenniald does not name k8s.io/kubernetes")
	}
	file, err := os.Open(filepath.Join(dir, "perennial_v1.2.3_linux_amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	uncompressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for r := tar.NewReader(uncompressed); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
	}
	for name, mode := range map[string]int64{"LICENSE": 0o644, "perennial": 0o755, "perenniald": 0o755,
		"perenniald.service": 0o644} {
		if modes["perennial-v1.2.3/"+name] != mode {
			t.Errorf("%s has the mode %o: %v", name, modes["perennial-v1.2.3/"+name], modes)
		}
	}
}

// machine is a directory that dpkg takes for the root of a machine.
type machine struct {
	*testing.T
	root string
}

// newMachine returns a machine on which nothing is installed.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{T: t, root: t.TempDir()}
	for _, dir := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "etc/ssl", "run"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"var/lib/dpkg/status", "var/lib/dpkg/available"} {
		if err := os.WriteFile(m.path(file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// dpkg runs dpkg. The scripts of packages run outside of the machine, with its root in DPKG_ROOT.
func (m *machine) dpkg(args ...string) string {
	m.Helper()
	cmd := exec.CommandContext(m.Context(), "dpkg", append([]string{"--root=" + m.root, "--force-script-chrootless",
		"--force-not-root", "--log=" + m.path("dpkg.log")}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// exists reports whether a file or directory is there.
func (m *machine) exists(name string) bool {
	m.Helper()
	_, err := os.Lstat(m.path(name))
	if err != nil && !os.IsNotExist(err) {
		m.Fatal(err)
	}
	return err == nil
}

// start runs what the unit starts, with its paths below the root of the machine, and returns a
// function that stops it.
func (m *machine) start() (stop func()) {
	m.Helper()
	_, command, found := strings.Cut(m.unit(), "\nExecStart=")
	command, _, _ = strings.Cut(command, "\n")
	command, flags := strings.CutSuffix(command, " $PERENNIALD_FLAGS")
	if !found || !flags {
		m.Fatalf("the unit starts %q", command)
	}
	args := strings.Fields(command)
	for i, arg := range args {
		if strings.HasPrefix(arg, "/") {
			args[i] = m.path(arg)
		}
	}
	args = append(args, "--data-dir", m.path("var/lib/perennial")) // the default of root
	log, err := os.Create(m.path("run/log"))
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	said := func() string {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			m.Fatal(err)
		}
		return string(text)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			m.Errorf("perenniald ended with %v: %s", err, said())
		}
	}
	m.Cleanup(stop)
	cluster.Eventually(m, func() error {
		if text := said(); !strings.Contains(text, " ready after ") {
			return cluster.NotYet("perenniald says %s", text)
		}
		return nil
	})
	return stop
}

// deployed waits until a certificate is in a file of the machine, and returns it.
func (m *machine) deployed(name string) []byte {
	m.Helper()
	var content []byte
	cluster.Eventually(m, func() (err error) {
		if content, err = os.ReadFile(m.path(name)); os.IsNotExist(err) {
			return cluster.NotYet("there is no %s", name)
		}
		return err
	})
	return content
}

// TestAPackageIsInstalledUpgradedRemovedAndPurged goes through the life of the package of
// perenniald. In between, perenniald runs as its unit says.
func TestAPackageIsInstalledUpgradedRemovedAndPurged(t *testing.T) {
	t.Parallel()
	old, later := release(t), t.TempDir()
	packaged(t, later, "v1.2.4-0.20260102030405-0123456789ab", map[string][]byte{"perenniald": programs(t)["perenniald"]})
	m := newMachine(t)
	m.dpkg("--install", filepath.Join(old, "perennial_v1.2.3_amd64.deb"),
		filepath.Join(old, "perenniald_v1.2.3_amd64.deb"))

	info, err := os.Stat(m.path("var/lib/perennial"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has the mode %o", info.Mode().Perm())
	}
	for _, line := range strings.Split(m.unit(), "\n") { // a missing path would stop the start of the unit
		if paths, found := strings.CutPrefix(line, "ReadWritePaths="); found {
			for path := range strings.FieldsSeq(paths) {
				if !m.exists(path) {
					t.Errorf("the package does not create %s", path)
				}
			}
		}
	}
	const settings = "PERENNIALD_FLAGS=\"--v=1\"\n"
	m.write("etc/default/perenniald", settings)
	m.write("etc/perennial/site.yaml", fmt.Sprintf(`
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: selfsigned}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: site, namespace: default}
spec: {secretName: site, dnsNames: [www.example.com], issuerRef: {kind: ClusterIssuer, name: selfsigned}}
---
apiVersion: perennial.dev/v1alpha1
kind: CertificateFile
metadata: {name: site}
spec: {certificateRef: {namespace: default, name: site}, directory: %s}
`, m.path("etc/ssl/perennial/site")))
	stop := m.start()
	before := m.deployed("etc/ssl/perennial/site/tls.crt")
	stop()

	// The upgrade keeps what is stored, and the settings.
	m.dpkg("--install", filepath.Join(later, "perenniald_v1.2.4-0.20260102030405-0123456789ab_amd64.deb"))
	if is := m.dpkg("--list", "perenniald"); !strings.Contains(is, "1.2.4~0.20260102030405-0123456789ab") {
		t.Errorf("after the upgrade:\n%s", is)
	}
	if is, err := os.ReadFile(m.path("etc/default/perenniald")); err != nil || string(is) != settings {
		t.Errorf("the settings are %q: %v", is, err)
	}
	stop = m.start()
	if after := m.deployed("etc/ssl/perennial/site/tls.crt"); !bytes.Equal(before, after) {
		t.Error("the upgrade issued another certificate")
	}
	stop()

	m.dpkg("--remove", "perenniald")
	if m.exists("usr/bin/perenniald") || !m.exists("usr/bin/perennial") {
		t.Error("not perenniald alone was removed")
	}
	if !m.exists("var/lib/perennial/kubeconfig") || !m.exists("etc/ssl/perennial/site/tls.crt") {
		t.Error("the removal deleted what perenniald has stored")
	}
	m.dpkg("--purge", "perenniald")
	if m.exists("var/lib/perennial") || m.exists("etc/default/perenniald") {
		t.Error("state or settings are there after the package was purged")
	}
	if !m.exists("etc/ssl/perennial/site/tls.crt") || !m.exists("etc/perennial/site.yaml") {
		t.Error("a purge deleted certificates in use, or manifests of the user")
	}
}

func (m *machine) unit() string {
	m.Helper()
	text, err := os.ReadFile(m.path("usr/lib/systemd/system/perenniald.service"))
	if err != nil {
		m.Fatal(err)
	}
	return string(text)
}

func (m *machine) write(name, content string) {
	m.Helper()
	if err := os.WriteFile(m.path(name), []byte(content), 0o600); err != nil {
		m.Fatal(err)
	}
}

// TestSystemdAcceptsTheUnit has systemd check the unit where the package is installed.
func TestSystemdAcceptsTheUnit(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.dpkg("--install", filepath.Join(release(t), "perenniald_v1.2.3_amd64.deb"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no",
		"--root="+m.root, "perenniald.service").CombinedOutput()
	if err != nil || strings.Contains(string(out), "perenniald.service:") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
