package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/perennial-pki/perennial/deploy"
)

// program is the command perennial, compiled once for all tests of a package.
var program struct {
	build sync.Once
	path  string
	err   error
}

// Program returns the path of the command perennial.
func Program(t testing.TB) string {
	t.Helper()
	program.build.Do(func() {
		dir, err := os.MkdirTemp("", "perennial-program-")
		if err != nil {
			program.err = err
			return
		}
		program.path = filepath.Join(dir, "perennial")
		if out, err := exec.Command("go", "build", "-o", program.path, "github.com/perennial-pki/perennial/cmd/perennial").
			CombinedOutput(); err != nil {
			program.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if program.err != nil {
		t.Fatalf("build perennial: %v", program.err)
	}
	return program.path
}

// Kubeconfig writes the kubeconfig of a ServiceAccount, for a separate process, and returns its
// path.
func Kubeconfig(t testing.TB, namespace, account string) string {
	t.Helper()
	return Plane(t).Kubeconfig(t, namespace, account)
}

// Kubeconfig is the function Kubeconfig for this control plane.
func (p *ControlPlane) Kubeconfig(t testing.TB, namespace, account string) string {
	t.Helper()
	cfg := p.AdminConfig()
	k, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	token, err := k.CoreV1().
		ServiceAccounts(namespace).
		CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// Process runs the controller as a separate process, with this environment and these flags, until
// the test ends.
func Process(t testing.TB, env []string, flags ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(Program(t), append([]string{
		"controller",
		"--kubeconfig",
		Kubeconfig(t, deploy.Namespace, deploy.ServiceAccount),
		"--leader-elect=false",
		"--metrics-listen-address=",
		"--health-listen-address=",
		"--v=1",
		"--issuer-allowed-addresses=127.0.0.0/8,::1/128", // the servers of tests are on this machine
	}, flags...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
		if t.Failed() {
			for line := range strings.Lines(log.String()) {
				if !strings.Contains(line, "msg=\"Starting") && !strings.Contains(line, "msg=\"All workers") {
					t.Log(strings.TrimSpace(line))
				}
			}
		}
	})
}
