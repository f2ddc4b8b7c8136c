// Package dist builds what is installed on machines without a cluster: archives and Debian packages
// of perennial and perenniald, with SBOMs and checksums.
package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/image"
)

// debian has the scripts and the settings of the Debian package of perenniald.
//
//go:embed debian
var debian embed.FS

// commands returns the programs by their names, and their packages.
func commands() map[string]string {
	return map[string]string{"perennial": "./cmd/perennial", "perenniald": "./standalone/cmd/perenniald"}
}

// Build compiles the programs for all platforms, and writes archives, packages, SBOMs and the file
// SHA256SUMS into a directory.
func Build(ctx context.Context, s image.Source, out string) error {
	var files []string
	for _, p := range image.Platforms() {
		programs := map[string][]byte{}
		for name, pkg := range commands() {
			binary, err := image.Compile(ctx, s, p, pkg)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", name, p, err)
			}
			programs[name] = binary
		}
		written, err := Package(ctx, s, p, programs, out)
		if err != nil {
			return fmt.Errorf("package for %s: %w", p, err)
		}
		files = append(files, written...)
	}
	return writeSums(out, files)
}

// Package writes the archive, the Debian packages and the SBOMs of programs for a platform. It
// returns the names of the files.
func Package(ctx context.Context, s image.Source, p v1.Platform, programs map[string][]byte,
	out string) ([]string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	platform := p.OS + "_" + p.Architecture
	var files []string
	write := func(name string, content []byte) error {
		files = append(files, name)
		return os.WriteFile(filepath.Join(out, name), content, 0o644)
	}
	archive, err := archiveOf(s, programs)
	if err != nil {
		return nil, err
	}
	if err := write(fmt.Sprintf("perennial_%s_%s.tar.gz", s.Version, platform), archive); err != nil {
		return nil, err
	}
	for name, binary := range programs {
		sbom, err := image.SBOM(s, p, name, binary, nil)
		if err != nil {
			return nil, err
		}
		if err := write(fmt.Sprintf("%s_%s_%s.spdx.json", name, s.Version, platform), sbom); err != nil {
			return nil, err
		}
		deb := fmt.Sprintf("%s_%s_%s.deb", name, s.Version, p.Architecture)
		if err := writeDeb(ctx, s, p, name, binary, filepath.Join(out, deb)); err != nil {
			return nil, err
		}
		files = append(files, deb)
	}
	slices.Sort(files)
	return files, nil
}

// archiveOf returns an archive of the programs, the unit and the license. All times are that of the
// commit.
func archiveOf(s image.Source, programs map[string][]byte) ([]byte, error) {
	type file struct {
		name    string
		mode    int64
		content []byte
	}
	var files []file
	for _, name := range []string{"LICENSE", "deploy/perenniald.service"} {
		content, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{filepath.Base(name), 0o644, content})
	}
	for name, binary := range programs {
		files = append(files, file{name, 0o755, binary})
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: "perennial-" + s.Version + "/" + f.name, Mode: f.mode, Size: int64(len(f.content)),
			ModTime: s.Time.UTC(),
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// A content is a file or directory of a Debian package, in the terms of nfpm.
type content struct {
	Source      string    `json:"src,omitempty"`
	Destination string    `json:"dst"`
	Type        string    `json:"type,omitempty"`
	FileInfo    *fileInfo `json:"file_info,omitempty"`
}

type fileInfo struct {
	Mode int `json:"mode"`
}

// writeDeb writes the Debian package of a program.
func writeDeb(ctx context.Context, s image.Source, p v1.Platform, name string, binary []byte, target string) error {
	nfpm, err := cluster.Compiled("nfpm", "test/peers/nfpm", "github.com/goreleaser/nfpm/v2/cmd/nfpm", "GOWORK=off")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "perennial-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, name), binary, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(dir, debian); err != nil {
		return err
	}
	file := func(from, to string, mode int) content {
		return content{Source: from, Destination: to, FileInfo: &fileInfo{mode}}
	}
	contents := []content{
		file(filepath.Join(dir, name), "/usr/bin/"+name, 0o755),
		file(filepath.Join(s.Dir, "LICENSE"), "/usr/share/doc/"+name+"/copyright", 0o644),
	}
	scripts := map[string]string{}
	description := "Command for Perennial, which keeps TLS certificates alive\n" +
		"It shows, checks, renews and revokes certificates in a cluster, or of perenniald."
	if name == "perenniald" {
		description = "Keeps the TLS certificates of this machine alive\n" +
			"It requests, renews, stores, deploys and verifies them, as its manifests say."
		settings := file(filepath.Join(dir, "debian/default"), "/etc/default/perenniald", 0o644)
		settings.Type = "config|noreplace"
		contents = append(contents,
			file(filepath.Join(s.Dir, "deploy/perenniald.service"), "/usr/lib/systemd/system/perenniald.service", 0o644),
			settings,
			content{Destination: "/etc/perennial", Type: "dir", FileInfo: &fileInfo{0o755}},
			content{Destination: "/etc/ssl/perennial", Type: "dir", FileInfo: &fileInfo{0o755}},
		)
		for script, path := range map[string]string{"postinstall": "postinst", "preremove": "prerm", "postremove": "postrm"} {
			scripts[script] = filepath.Join(dir, "debian", path)
		}
	}
	config, err := yaml.Marshal(map[string]any{
		"name": name, "arch": p.Architecture, "platform": p.OS, "version": s.Version, "section": "net",
		"maintainer": "The Perennial authors <noreply@perennial.dev>", "homepage": "https://github.com/perennial-pki/perennial",
		"license": "Apache-2.0", "description": description, "mtime": s.Time.UTC().Format("2006-01-02T15:04:05Z"),
		"contents": contents, "scripts": scripts,
	})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "nfpm.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	said, err := exec.CommandContext(ctx, nfpm, "package", "--config", path, "--packager", "deb", "--target", target).
		CombinedOutput()
	if err != nil {
		return fmt.Errorf("nfpm: %w\n%s", err, said)
	}
	return nil
}

// writeSums writes the checksums of files, in the form that sha256sum --check reads.
func writeSums(dir string, files []string) error {
	var b strings.Builder
	slices.Sort(files)
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), name)
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}
