package standalone_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perennial-pki/perennial/test/cluster"
)

// goCommand is a go command run in the folder of this package.
func goCommand(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func kubernetesVersion(t testing.TB) string {
	t.Helper()
	return goCommand(t, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
}

func TestKubectlWorks(t *testing.T) {
	c := plane(t)
	k := cluster.Kubectl(t, c.KubeconfigPath())
	namespace := newNamespace(t, admin(t, c))
	const certificate = `
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web}
spec:
  secretName: web
  dnsNames: [web.example.com]
  issuerRef: {name: ca}
`
	contains := func(t *testing.T, out, want string) {
		t.Helper()
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	t.Run("get --raw", func(t *testing.T) {
		contains(t, k("", "get", "--raw", "/version"), `"gitVersion": "`+kubernetesVersion(t)+`"`)
	})
	t.Run("apply", func(t *testing.T) {
		contains(t, k(certificate, "apply", "-n", namespace, "-f", "-"), "certificate.cert-manager.io/web created")
		contains(t, k(certificate, "apply", "-n", namespace, "-f", "-"), "certificate.cert-manager.io/web unchanged")
	})
	t.Run("apply --server-side", func(t *testing.T) {
		contains(
			t,
			k(
				strings.Replace(certificate, "{name: web}", "{name: other}", 1),
				"apply",
				"--server-side",
				"-n",
				namespace,
				"-f",
				"-",
			),
			"certificate.cert-manager.io/other serverside-applied",
		)
	})
	t.Run("get, by its short name and by its category", func(t *testing.T) {
		contains(t, k("", "get", "cert", "-n", namespace), "web")
		contains(t, k("", "get", "cert-manager", "-n", namespace), "certificate.cert-manager.io/web")
	})
	t.Run("describe", func(t *testing.T) {
		contains(t, k("", "describe", "certificate", "web", "-n", namespace), "web.example.com")
	})
	t.Run("explain", func(t *testing.T) {
		contains(t, k("", "explain", "certificate.spec.privateKey.rotationPolicy"), "FIELD: rotationPolicy")
	})
	t.Run("edit", func(t *testing.T) {
		editor := filepath.Join(t.TempDir(), "editor")
		if err := os.WriteFile(
			editor,
			[]byte("#!/bin/sh\nsed -i s/web.example.com/edited.example.com/ \"$1\"\n"),
			0o700,
		); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBE_EDITOR", editor)
		contains(t, k("", "edit", "certificate", "web", "-n", namespace), "certificate.cert-manager.io/web edited")
		contains(
			t,
			k("", "get", "certificate", "web", "-n", namespace, "-o", "jsonpath={.spec.dnsNames}"),
			"edited.example.com",
		)
	})
	t.Run("patch --subresource=status and wait", func(t *testing.T) {
		k(
			"",
			"patch",
			"certificate",
			"web",
			"-n",
			namespace,
			"--subresource=status",
			"--type=merge",
			// With a generation that kubectl takes for the present one.
			"-p",
			`{"status":{"observedGeneration":100,"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"by hand"}]}}`,
		)
		contains(
			t,
			k("", "wait", "certificate", "web", "-n", namespace, "--for=condition=Ready", "--timeout=30s"),
			"condition met",
		)
	})
	t.Run("delete", func(t *testing.T) {
		contains(t, k("", "delete", "certificate", "web", "-n", namespace), "deleted")
	})
	t.Run("api-resources", func(t *testing.T) {
		contains(t, k("", "api-resources", "--api-group=cert-manager.io"), "ClusterIssuer")
	})
}
