package cluster

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

var kubectlPath = sync.OnceValues(func() (string, error) {
	// A tool of the module standalone, so it is of the server's release. Go builds it, and keeps it.
	out, err := exec.Command("go", "tool", "-n", "kubectl").Output()
	return strings.TrimSpace(string(out)), err
})

// Kubectl returns a function that runs kubectl with a kubeconfig and returns its output.
func Kubectl(t testing.TB, kubeconfig string) func(stdin string, args ...string) string {
	t.Helper()
	path, err := kubectlPath()
	if err != nil {
		t.Fatalf("build kubectl: %v", err)
	}
	home := t.TempDir() // it keeps a cache there
	return func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+home)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}
