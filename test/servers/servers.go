// Package servers runs the third-party servers of scripts/servers: HAProxy and nginx. For BIND, see
// package bind.
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

// Process is a running server.
type Process struct {
	// Ended is closed when the process has ended.
	Ended <-chan struct{}

	command *exec.Cmd
	log     logged
}

// logged holds the output of a process.
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

// Start starts a server until the test ends. If the test fails, its log has the output of the
// server.
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
	// nginx has child processes, which it ends when it receives a signal.
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

// Stop ends the process.
func (p *Process) Stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	<-p.Ended
}

// Log returns the output so far.
func (p *Process) Log() string { return p.log.String() }

// Until waits until a condition is true, and reports whether it is. It returns false if the process
// ends first.
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

// listens waits until the address accepts connections.
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

// HAProxy starts HAProxy with a configuration that makes it listen on an address.
func HAProxy(t testing.TB, config, listens string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	Start(t, "haproxy", "-db", "-f", file).listens(t, listens)
}

// Nginx starts nginx with a configuration for the main context that makes it listen on an address.
// It returns the file with its process ID. Paths in the configuration are relative to the directory
// of that file.
func Nginx(t testing.TB, config, listens string) (pidFile string) {
	t.Helper()
	dir := t.TempDir()
	base := "daemon off; pid nginx.pid; error_log stderr; events {}\n"
	if os.Geteuid() == 0 {
		base += "user root;\n" // root can read the files of the test
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(base+config), 0o600); err != nil {
		t.Fatal(err)
	}
	Start(t, "nginx", "-p", dir, "-c", "nginx.conf").listens(t, listens)
	return filepath.Join(dir, "nginx.pid")
}

// Site starts an nginx that serves https with HTTP/1.1 and HTTP/2. settings are the settings of its
// only server block.
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
