// Package image builds the container image of Perennial without a container engine. One commit and
// one version of Go make one digest, wherever the commit is checked out: nothing in the image comes
// from the machine that builds it.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	modulePath = "github.com/perennial-pki/perennial"
	licenses   = "Apache-2.0"
	// program and roots are paths in the image. Go and OpenSSL look for CA certificates at roots.
	program = "usr/local/bin/perennial"
	roots   = "etc/ssl/certs/ca-certificates.crt"
	// user is the UID and GID of the process. The files are readable by all, so that every other UID
	// works, too.
	user = "65532:65532"

	mediaTypeSBOM types.MediaType = "application/spdx+json"
)

// Platforms returns the platforms of the released image.
func Platforms() []v1.Platform {
	return []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

// Source is what an image is built from.
type Source struct {
	// Dir is the root of the repository.
	Dir string
	// Version and Revision are those that the program reports.
	Version, Revision string
	// Time is that of the commit. The image was created then.
	Time time.Time
}

// Image is a built image.
type Image struct {
	// Index has a manifest for each platform, and one for the SBOM of each platform.
	Index v1.ImageIndex
	// Variants are the images of the platforms.
	Variants []Variant

	source Source
}

// Variant is the image of one platform.
type Variant struct {
	v1.Image
	Platform v1.Platform
	// SBOM is an SPDX document in JSON.
	SBOM []byte
}

// Build compiles the program for each platform, and makes an image of it.
func Build(ctx context.Context, s Source, platforms []v1.Platform) (*Image, error) {
	built := &Image{source: s}
	var manifests []mutate.IndexAddendum
	for _, p := range platforms {
		variant, err := buildVariant(ctx, s, p)
		if err != nil {
			return nil, fmt.Errorf("image for %s: %w", p, err)
		}
		sbom, err := referrer(variant)
		if err != nil {
			return nil, fmt.Errorf("SBOM for %s: %w", p, err)
		}
		built.Variants = append(built.Variants, *variant)
		manifests = append(manifests,
			mutate.IndexAddendum{Add: variant, Descriptor: v1.Descriptor{Platform: &p}},
			// In the index, so that copies of the image have it. No runtime chooses this platform.
			mutate.IndexAddendum{Add: sbom, Descriptor: v1.Descriptor{
				Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}, ArtifactType: string(mediaTypeSBOM),
			}},
		)
	}
	index := mutate.AppendManifests(empty.Index, manifests...)
	built.Index = mutate.Annotations(index, s.labels()).(v1.ImageIndex)
	return built, nil
}

// labels are the labels of the image and the annotations of its manifests.
func (s Source) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":         "perennial",
		prefix + "description":   "Keeps TLS certificates alive",
		prefix + "version":       s.Version,
		prefix + "revision":      s.Revision,
		prefix + "created":       s.Time.UTC().Format(time.RFC3339),
		prefix + "source":        "https://" + modulePath,
		prefix + "documentation": "https://" + modulePath + "/tree/main/docs",
		prefix + "licenses":      licenses,
	}
}

// environment returns the environment of go commands in the source.
func (s Source) environment() []string {
	// The workspace has the versions of modules that the tests ran with.
	return append(os.Environ(), "PWD="+s.Dir, "GOWORK="+filepath.Join(s.Dir, "go.work"))
}

func buildVariant(ctx context.Context, s Source, p v1.Platform) (*Variant, error) {
	binary, err := Compile(ctx, s, p, "./cmd/perennial")
	if err != nil {
		return nil, err
	}
	trusted, err := rootsVersion(ctx, s)
	if err != nil {
		return nil, err
	}
	sbom, err := SBOM(s, p, program, binary, map[string]string{rootsModule: trusted})
	if err != nil {
		return nil, err
	}
	bundle, err := rootCertificates()
	if err != nil {
		return nil, err
	}
	// The certificates have a layer of their own, which stays the same when the program changes. Time
	// zones are in the program, which embeds time/tzdata.
	created := v1.Time{Time: s.Time.UTC()}
	var layers []mutate.Addendum
	for _, f := range []struct {
		name, history string
		mode          int64
		content       []byte
	}{
		{roots, "CA certificates of " + rootsModule, 0o444, bundle},
		{program, "perennial " + s.Version, 0o555, binary},
	} {
		layer, err := layerOf(f.name, f.mode, f.content)
		if err != nil {
			return nil, fmt.Errorf("layer of %s: %w", f.name, err)
		}
		layers = append(layers, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: created, CreatedBy: f.history},
		})
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Created: created,
		Config: v1.Config{
			User:       user,
			WorkingDir: "/",
			Env:        []string{"PATH=/" + path.Dir(program)},
			Entrypoint: []string{"/" + program},
			Labels:     s.labels(),
		},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	if image, err = mutate.Append(image, layers...); err != nil {
		return nil, err
	}
	image = mutate.Annotations(image, s.labels()).(v1.Image)
	return &Variant{Image: image, Platform: p, SBOM: sbom}, nil
}

// Compile returns a program for a platform. The settings of the environment that change the output
// are overridden.
func Compile(ctx context.Context, s Source, p v1.Platform, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "perennial-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	output := filepath.Join(dir, path.Base(pkg))
	set := func(name, value string) string {
		return fmt.Sprintf(" -X %s/internal/version.%s=%s", modulePath, name, value)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", output,
		"-ldflags", "-s -w"+set("version", s.Version)+set("commit", s.Revision), pkg)
	cmd.Dir = s.Dir
	cmd.Env = append(s.environment(), "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOAMD64=v1", "GOARM64=v8.0",
		"CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, said)
	}
	return os.ReadFile(output)
}

// layerOf returns a layer with one file, all owned by root. All times are 1970.
func layerOf(name string, mode int64, content []byte) (v1.Layer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	parts := strings.Split(path.Dir(name), "/")
	for i := range parts {
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeDir, Name: strings.Join(parts[:i+1], "/") + "/", Mode: 0o755, ModTime: time.Unix(0, 0),
		}); err != nil {
			return nil, err
		}
	}
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0),
	}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression),
		tarball.WithCompressedCaching,
	)
}

// referrer returns the manifest of an SBOM. Its subject is the image, by which registries list it.
func referrer(v *Variant) (v1.Image, error) {
	subject, err := partial.Descriptor(v)
	if err != nil {
		return nil, err
	}
	manifest := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mediaTypeSBOM)
	if manifest, err = mutate.AppendLayers(manifest, static.NewLayer(v.SBOM, mediaTypeSBOM)); err != nil {
		return nil, err
	}
	return mutate.Subject(manifest, *subject).(v1.Image), nil
}

// DownloadSize returns the number of bytes to download for a platform.
func (v *Variant) DownloadSize() (int64, error) {
	manifest, err := v.Manifest()
	if err != nil {
		return 0, err
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	return size, nil
}

// Write writes the image into dir/image, an OCI layout, and the SBOMs beside it. It replaces what a
// former build wrote there.
func (i *Image) Write(dir string) error {
	name := filepath.Join(dir, "image")
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	target, err := layout.Write(name, empty.Index)
	if err != nil {
		return err
	}
	// Tags have no plus sign.
	tag := map[string]string{"org.opencontainers.image.ref.name": strings.ReplaceAll(i.source.Version, "+", "-")}
	if err := target.AppendIndex(i.Index, layout.WithAnnotations(tag)); err != nil {
		return err
	}
	for _, v := range i.Variants {
		name := fmt.Sprintf("perennial-image-%s-%s.spdx.json", v.Platform.OS, v.Platform.Architecture)
		if err := os.WriteFile(filepath.Join(dir, name), v.SBOM, 0o644); err != nil {
			return err
		}
	}
	return nil
}
