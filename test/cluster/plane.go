package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ControlPlane is a running kube-apiserver with etcd, in a separate process.
type ControlPlane struct {
	kubeconfig string
	config     *rest.Config
	process    *exec.Cmd
	stdin      io.Closer
}

// KubeconfigPath is the kubeconfig of a client with all permissions.
func (p *ControlPlane) KubeconfigPath() string { return p.kubeconfig }

// AdminConfig is the configuration of a client with all permissions and no rate limit.
func (p *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(p.config) }

var shared struct {
	start sync.Once
	err   error
	plane *ControlPlane
}

// Plane returns the control plane that the tests of this package share.
func Plane(t testing.TB) *ControlPlane {
	t.Helper()
	shared.start.Do(func() { shared.plane, shared.err = startPlane() })
	if shared.err != nil {
		t.Fatalf("start the control plane: %v", shared.err)
	}
	return shared.plane
}

// EmptyPlane starts a control plane that has nothing of Perennial, for this test alone.
func EmptyPlane(t testing.TB) *ControlPlane {
	t.Helper()
	plane, err := startPlane("-empty")
	if err != nil {
		t.Fatalf("start the control plane: %v", err)
	}
	t.Cleanup(func() {
		if err := plane.stop(); err != nil {
			t.Errorf("the control plane ended with: %v", err)
		}
	})
	return plane
}

func startPlane(flags ...string) (*ControlPlane, error) {
	program, err := Compiled("apiserver", "test", "./apiserver")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, flags...)
	// Memory is there, and a heap that may be larger is collected less often.
	cmd.Env = append([]string{"GOGC=400"}, os.Environ()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // closed by the kernel if this process dies
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	path, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errors.Join(err, cmd.Wait()), stderr.String())
	}
	p := &ControlPlane{kubeconfig: strings.TrimSpace(path), process: cmd, stdin: stdin}
	if p.config, err = clientcmd.BuildConfigFromFlags("", p.kubeconfig); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.config.QPS = -1
	return p, nil
}

func (p *ControlPlane) stop() error {
	p.stdin.Close()
	return p.process.Wait()
}

// Compiled returns the path of a command of this repository, compiled into bin/. dir is the
// directory of its module, relative to the root of the repository. Packages that are tested at the
// same time compile it once.
func Compiled(name, dir, pkg string, env ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(bin, name+".lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	path := filepath.Join(bin, name)
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir, cmd.Env = filepath.Join(root, dir), append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// Root returns the root of the repository: the directory of go.work, above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.work above the working directory")
		}
		dir = parent
	}
}
