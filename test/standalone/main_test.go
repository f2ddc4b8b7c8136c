package standalone_test

import (
	"bufio"
	"context"
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
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/perennial-pki/perennial/standalone/controlplane"
)

// startIn, set in the environment, turns the test binary into a process that runs a control plane
// in that directory until its input ends.
const startIn = "PERENNIAL_TEST_START_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(startIn); dir != "" {
		os.Exit(runAlone(dir))
	}
	code := m.Run()
	if shared.plane != nil {
		shared.plane.Stop()
	}
	os.RemoveAll(shared.dir)
	os.Exit(code)
}

func runAlone(dir string) int {
	c, err := controlplane.Start(context.Background(), controlplane.Options{DataDir: dir})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	c.Stop()
	return 0
}

// alone starts the test binary again as a control plane of its own, as the given user (0: this
// one), and returns it and its output up to and including the first line.
func alone(t *testing.T, dir string, uid uint32) (*exec.Cmd, io.Closer, string) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if uid != 0 {
		// The directory of test binaries is closed to others.
		open := openDir(t, uid)
		name := filepath.Join(open, "control-plane")
		if err := os.Link(binary, name); err != nil {
			copyFile(t, binary, name)
		}
		binary = name
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), startIn+"="+dir)
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("control plane as user %d: %v", uid, err)
	}
	return cmd, stdin, strings.TrimSpace(line)
}

// openDir returns a directory that belongs to the user, below directories that the user can enter.
func openDir(t *testing.T, uid uint32) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "perennial-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if uid != 0 {
		if err := os.Chown(dir, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// shared is the control plane of all tests that do not need one of their own.
var shared struct {
	start sync.Once
	err   error
	plane *controlplane.ControlPlane
	dir   string
}

func plane(t testing.TB) *controlplane.ControlPlane {
	t.Helper()
	shared.start.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "perennial-standalone-"); shared.err != nil {
			return
		}
		shared.plane, shared.err = controlplane.Start(
			context.Background(),
			controlplane.Options{DataDir: shared.dir, API: true},
		)
	})
	if shared.err != nil {
		t.Fatalf("start the control plane: %v", shared.err)
	}
	return shared.plane
}

func start(t *testing.T, o controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	c, err := controlplane.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

func admin(t testing.TB, c *controlplane.ControlPlane) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// eventually waits until f returns nil, and fails with its last error if that takes more than a
// minute.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still not so after a minute: %v", err)
		case <-ticker.C:
		}
	}
}

var errNotYet = errors.New("not yet")
