// Package servers runs the servers of scripts/servers, which others have written and certificates
// are for: HAProxy, nginx, and BIND by package bind.
package servers

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a server that runs.
type Process struct {
	// Ended is closed when it has ended.
	Ended <-chan struct{}

	command *exec.Cmd
	log     logged
}

// logged is what a process writes.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Start starts a server. It ends with the test, whose log has what it wrote if the test fails.
func Start(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../bin/servers", program))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: run scripts/servers", program)
	}
	p := &Process{command: exec.Command(path, args...)}
	p.command.Stdout, p.command.Stderr = &p.log, &p.log
	// nginx has processes of its own, which it ends when it is asked to.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	p.Ended = ended
	go func() {
		_ = p.command.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("the log of %s %s:\n%s", program, strings.Join(args, " "), p.Log())
		}
	})
	return p
}

// Stop ends it.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	<-p.Ended
}

// Log is what it wrote until now.
func (p *Process) Log() string { return p.log.String() }

// Until waits until something is so, and reports whether it is: it is not if the process ends
// before.
func (p *Process) Until(so func() bool) bool {
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !so() {
		select {
		case <-ticker.C:
		case <-p.Ended:
			return false
		case <-deadline:
			return false
		}
	}
	return true
}

// listens waits until connections to the address are taken.
func (p *Process) listens(t testing.TB, address string) {
	t.Helper()
	if !p.Until(func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}) {
		t.Fatalf("nothing listens on %s:\n%s", address, p.Log())
	}
}

// HAProxy starts HAProxy with a configuration, by which it listens on an address.
func HAProxy(t testing.TB, config, listens string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	Start(t, "haproxy", "-db", "-f", file).listens(t, listens)
}

// Nginx starts nginx with what stands at the outermost of its configuration, by which it listens on
// an address. It returns the file with the ID of its process. Paths of the configuration begin in
// the directory of that file.
func Nginx(t testing.TB, config, listens string) (pidFile string) {
	t.Helper()
	dir := t.TempDir()
	base := "daemon off; pid nginx.pid; error_log stderr; events {}\n"
	if os.Geteuid() == 0 {
		base += "user root;\n" // who can read the test's files
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(base+config), 0o600); err != nil {
		t.Fatal(err)
	}
	Start(t, "nginx", "-p", dir, "-c", "nginx.conf").listens(t, listens)
	return filepath.Join(dir, "nginx.pid")
}

// Site starts an nginx that serves https with HTTP/1.1 and HTTP/2: settings are those of its one
// server.
func Site(t testing.TB, settings, listens string) (pidFile string) {
	t.Helper()
	return Nginx(
		t,
		"http {\naccess_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; "+
			"uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n"+
			"server {\n"+settings+"\n}\n}\n",
		listens,
	)
}
