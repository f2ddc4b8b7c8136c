// Package chart has the Helm chart at hand: its generated files, and Helm itself as a program.
package chart

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
)

// Path is the directory of the chart, relative to the root of the repository.
const Path = "charts/perennial"

// manifestHeader precedes the objects of the manifest. A chart does not create its own namespace.
const manifestHeader = `# Generated from charts/perennial by make generate. Install with kubectl apply -f; see docs/install.md.
apiVersion: v1
kind: Namespace
metadata:
  name: ` + deploy.Namespace + "\n---\n"

const podsHeader = `# Generated from charts/perennial by make generate. What the controller may also do where solvers use pods.
`

//go:embed readme.md
var readmeIntroduction string

// Generate writes the chart's copies of the definitions, policies and values, its README, and the
// manifest deploy/perennial.yaml.
func Generate(ctx context.Context) error {
	root, err := cluster.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, Path)
	for from, to := range map[string]string{"api/crds": "files/crds", "api/policies": "files/policies"} {
		to = filepath.Join(dir, to)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.CopyFS(to, os.DirFS(filepath.Join(root, from))); err != nil {
			return err
		}
	}
	values, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "files/values.yaml"), values, 0o644); err != nil {
		return err
	}
	table, err := valuesTable(values)
	if err != nil {
		return fmt.Errorf("values.yaml: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(readmeIntroduction+table), 0o644); err != nil {
		return err
	}
	manifest, err := Helm(ctx, "template", "perennial", dir, "--namespace", deploy.Namespace, "--kube-version", "1.37.0")
	if err != nil {
		return err
	}
	if err := write(filepath.Join(root, "deploy/perennial.yaml"), manifestHeader, documents(manifest)); err != nil {
		return err
	}
	roles, err := Helm(ctx, "template", "perennial", dir, "--namespace", deploy.Namespace, "--set", "http01.pods=true",
		"--show-only", "templates/rbac.yaml")
	if err != nil {
		return err
	}
	pods := slices.DeleteFunc(documents(roles), func(d string) bool { return !strings.Contains(d, ":http01-pods\"") })
	return write(filepath.Join(root, "deploy/http01-pods.yaml"), podsHeader, pods)
}

// documents splits what Helm renders, and leaves out what is true only of a release: where an
// object comes from, and that Helm manages it.
func documents(rendered string) []string {
	var all []string
	var b strings.Builder
	for line := range strings.Lines(rendered + "---\n") {
		field := strings.TrimSpace(line)
		switch {
		case field == "---":
			if document := strings.TrimSpace(b.String()); document != "" {
				all = append(all, document+"\n")
			}
			b.Reset()
		case strings.HasPrefix(field, "# Source: "), strings.HasPrefix(field, "helm.sh/"),
			strings.HasPrefix(field, "app.kubernetes.io/managed-by: "):
		default:
			b.WriteString(line)
		}
	}
	return all
}

func write(path, header string, documents []string) error {
	return os.WriteFile(path, []byte(header+strings.Join(documents, "---\n")), 0o644)
}

// Package packages the chart for a version of the program, and returns the path of the archive.
// The chart's own version has no leading v.
func Package(ctx context.Context, out, version string) (string, error) {
	root, err := cluster.Root()
	if err != nil {
		return "", err
	}
	chartVersion := strings.TrimPrefix(version, "v")
	if _, err := Helm(ctx, "package", filepath.Join(root, Path), "--destination", out, "--version", chartVersion,
		"--app-version", version); err != nil {
		return "", err
	}
	return filepath.Join(out, "perennial-"+chartVersion+".tgz"), nil
}

// Helm runs Helm, which it compiles first if necessary, and returns what it prints.
func Helm(ctx context.Context, args ...string) (string, error) {
	path, err := cluster.Compiled("helm", "test/peers/helm", "helm.sh/helm/v4/cmd/helm", "GOWORK=off")
	if err != nil {
		return "", err
	}
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %s", args[0], strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}
