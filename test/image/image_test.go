package image

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/perennial-pki/perennial/acme"
	// The image is built from these. As they are imported, go test repeats the test when they change.
	_ "github.com/perennial-pki/perennial/internal/cli"
	_ "github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// most is the largest size to download.
const most = 30 << 20

// copyTree copies the files of the repository that git knows or would add.
func copyTree(t *testing.T, to string) Source {
	t.Helper()
	const root = "../.."
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) { // deleted, and not committed yet
			continue
		}
		target := filepath.Join(to, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	return Source{
		Dir: to, Version: "v1.2.3", Revision: strings.Repeat("0123456789", 4),
		Time: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
	}
}

// read returns the files of an image and the headers of all entries.
func read(t *testing.T, image v1.Image) (files map[string][]byte, entries []*tar.Header) {
	t.Helper()
	files = map[string][]byte{}
	extracted := mutate.Extract(image)
	defer extracted.Close()
	for r := tar.NewReader(extracted); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, h)
		if h.Typeflag == tar.TypeReg {
			if files[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheImageIsTheSameFromTwoPathsAndRunsAsAnyUser(t *testing.T) {
	native := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	var builds []*Image
	for _, dir := range []string{"a", "another/checkout"} {
		built, err := Build(t.Context(), copyTree(t, filepath.Join(t.TempDir(), dir)), []v1.Platform{native})
		if err != nil {
			t.Fatal(err)
		}
		builds = append(builds, built)
	}
	first, err := builds[0].Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	second, err := builds[1].Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Errorf("the digests differ: %s and %s", first, second)
	}
	variant := builds[0].Variants[0]
	files, entries := read(t, variant)
	t.Run("layout", func(t *testing.T) { checkLayout(t, builds[0]) })
	t.Run("config", func(t *testing.T) { checkConfig(t, variant) })
	t.Run("files", func(t *testing.T) { checkFiles(t, files, entries) })
	t.Run("SBOM", func(t *testing.T) { checkSBOM(t, variant.SBOM, files[program]) })
	t.Run("run", func(t *testing.T) { checkRun(t, files) })
	size, err := variant.DownloadSize()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MiB to download", float64(size)/(1<<20))
	if size > most {
		t.Errorf("%d bytes to download, more than %d", size, most)
	}
}

// checkLayout writes the image, and reads it as a program would that copies it.
func checkLayout(t *testing.T, built *Image) {
	dir := t.TempDir()
	for range 2 { // the second replaces the first
		if err := built.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	all, err := layout.ImageIndexFromPath(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(all); err != nil {
		t.Error(err)
	}
	top, err := all.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "v1.2.3" {
		t.Fatalf("the layout has %+v", top.Manifests)
	}
	index, err := all.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	beside, err := os.ReadFile(filepath.Join(dir, "perennial-image-linux-"+runtime.GOARCH+".spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(beside, built.Variants[0].SBOM) {
		t.Error("the SBOM beside the image differs")
	}
	checkRegistry(t, index, built.Variants[0])
}

// checkRegistry copies an image to a registry, and reads there the variant for this platform and
// what is attached to it.
func checkRegistry(t *testing.T, index v1.ImageIndex, variant Variant) {
	t.Helper()
	server := httptest.NewServer(registry.New(
		registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)),
	))
	defer server.Close()
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/perennial:v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	native := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	pulled, err := remote.Image(tag, remote.WithPlatform(native)) // as a runtime chooses it
	if err != nil {
		t.Fatal(err)
	}
	digest, err := pulled.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := variant.Digest(); err != nil || digest != want {
		t.Errorf("the image for %s is %s, want %s, %v", native, digest, want, err)
	}
	referrers, err := remote.Referrers(tag.Context().Digest(digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	attached, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(attached.Manifests) != 1 || attached.Manifests[0].ArtifactType != "application/spdx+json" {
		t.Fatalf("attached to the image is %+v", attached.Manifests)
	}
	sbom, err := remote.Image(tag.Context().Digest(attached.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := sbom.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the SBOM has the layers %v, %v", layers, err)
	}
	reader, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	inRegistry, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(inRegistry, variant.SBOM) {
		t.Error("the SBOM in the registry differs")
	}
}

func checkConfig(t *testing.T, image v1.Image) {
	f, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[1-9][0-9]*:[0-9]+$`).MatchString(f.Config.User) { // as runAsNonRoot needs
		t.Errorf("the user is %q", f.Config.User)
	}
	if !slices.Equal(f.Config.Entrypoint, []string{"/" + program}) || len(f.Config.Cmd) != 0 {
		t.Errorf("it starts %q %q", f.Config.Entrypoint, f.Config.Cmd)
	}
	if f.OS != "linux" || f.Architecture != runtime.GOARCH {
		t.Errorf("it is for %s/%s", f.OS, f.Architecture)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(f.Config.Labels, manifest.Annotations) {
		t.Errorf("labels %v and annotations %v differ", f.Config.Labels, manifest.Annotations)
	}
	for name, want := range map[string]string{
		"version": "v1.2.3", "revision": strings.Repeat("0123456789", 4), "created": "2026-05-04T03:02:01Z",
		"licenses": "Apache-2.0", "source": "https://github.com/perennial-pki/perennial",
	} {
		if got := f.Config.Labels["org.opencontainers.image."+name]; got != want {
			t.Errorf("the label %s is %q, want %q", name, got, want)
		}
	}
}

func checkFiles(t *testing.T, files map[string][]byte, entries []*tar.Header) {
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, []string{roots, program}) {
		t.Errorf("the image has the files %q", got)
	}
	for _, h := range entries {
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(time.Unix(0, 0)) || h.Mode&0o022 != 0 ||
			h.Mode&0o444 != 0o444 {
			t.Errorf("%s: owner %d:%d %s, mode %o, of %s", h.Name, h.Uid, h.Gid, h.Uname, h.Mode, h.ModTime)
		}
	}
	var trusted []string
	for block, rest := pem.Decode(files[roots]); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		trusted = append(trusted, c.Subject.CommonName)
	}
	if len(trusted) < 100 || !slices.Contains(trusted, "ISRG Root X1") { // that of Let's Encrypt
		t.Errorf("it has %d CA certificates: %q", len(trusted), trusted)
	}
	if !bytes.Contains(files[program], []byte("Australia/Lord_Howe")) {
		t.Error("the program has no time zones")
	}
}

func checkSBOM(t *testing.T, sbom, binary []byte) {
	var d document
	if err := json.Unmarshal(sbom, &d); err != nil {
		t.Fatal(err)
	}
	ids, versions := map[string]bool{documentID: true}, map[string]string{}
	for _, p := range d.Packages {
		if ids[p.SPDXID] || !regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`).MatchString(p.SPDXID) || p.VersionInfo == "" {
			t.Errorf("package %+v", p)
		}
		ids[p.SPDXID], versions[p.Name] = true, p.VersionInfo
	}
	for _, r := range d.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("relationship %+v of what is not there", r)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"stdlib": strings.TrimPrefix(info.GoVersion, "go"), modulePath: "v1.2.3", rootsModule: versions[rootsModule],
	}
	for _, m := range info.Deps {
		want[m.Path] = m.Version
	}
	if !maps.Equal(versions, want) || versions["k8s.io/client-go"] == "" {
		t.Errorf("it lists %v, the program has %v", versions, want)
	}
	if !bytes.Contains(sbom, []byte(`"pkg:golang/k8s.io/client-go@v`)) {
		t.Error("it names no package URL of k8s.io/client-go")
	}
}

// checkRun runs the program with the files of the image as its root, as a user that owns none of
// them and belongs to group 0, and cannot write.
func checkRun(t *testing.T, files map[string][]byte) {
	root := filepath.Join(t.TempDir(), "root")
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o555)); err != nil {
			t.Fatal(err)
		}
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/"+program, args...)
		cmd.Dir, cmd.Env = "/", []string{}
		cmd.SysProcAttr = confine(root)
		return cmd
	}
	out, err := command("version", "--client").CombinedOutput()
	if want := "perennial v1.2.3 (" + runtime.Version() + ")\n"; err != nil || string(out) != want {
		t.Fatalf("it says %q, %v, want %q", out, err, want)
	}

	address := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	solver := command("http01-solver", "--listen-address="+address, "--domain=shop.example.com", "--token=tok",
		"--key=tok.thumbprint") // as solver pods do
	if err := solver.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = solver.Process.Signal(syscall.SIGTERM)
		if err := solver.Wait(); err != nil {
			t.Errorf("at its end: %v", err)
		}
	}()
	request, err := http.NewRequest(http.MethodGet, "http://"+address+acme.HTTP01Path("tok"), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "shop.example.com"
	cluster.Eventually(t, func() error {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "tok.thumbprint" {
			return cluster.NotYet("it answers %q, %v", body, err)
		}
		return nil
	})
}

// confine changes the root directory and the user of a process: without privileges by a user
// namespace.
func confine(root string) *syscall.SysProcAttr {
	const anyUser = 1000720000
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: anyUser, Gid: 0}}
	}
	return &syscall.SysProcAttr{
		Chroot:      root,
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: anyUser, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
}
