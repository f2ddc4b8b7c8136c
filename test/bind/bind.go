// Package bind runs BIND, the name server that most updates by RFC 2136 are sent to, from the distribution's packages.
package bind

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// program returns named: the one in the PATH, or that of scripts/bind.
func program(t testing.TB) string {
	t.Helper()
	var inPath string
	for _, name := range []string{"named", "/usr/sbin/named", "/usr/local/sbin/named"} {
		if found, err := exec.LookPath(name); err == nil {
			inPath = found
			break
		}
	}
	if inPath == "" {
		unpacked, err := filepath.Abs("../../bin/bind/named")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(unpacked); err != nil {
			t.Fatal("BIND's named is missing: run scripts/bind")
		}
		return unpacked
	}
	// AppArmor knows named by its path, and would let it read nothing in a test's directory.
	content, err := os.ReadFile(inPath)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "named")
	if err := os.WriteFile(copied, content, 0o700); err != nil {
		t.Fatal(err)
	}
	return copied
}

// Zone is a zone of a server.
type Zone struct {
	Name string
	// Records are the lines of its file.
	Records string
	// Settings are those of the zone, such as allow-update.
	Settings string
	// Of is the primary from which a secondary transfers the zone: at its start, and when it is notified. A primary if nil.
	Of *Server
}

// Server is a server that runs.
type Server struct {
	// Addr is host:port, for UDP and TCP.
	Addr string
}

// Start starts a server with zones, and with settings that stand before them, such as keys, until the test ends.
func Start(t testing.TB, settings string, zones ...Zone) *Server {
	t.Helper()
	named := program(t)
	const tries = 5 // the port may be taken meanwhile
	var log string
	for range tries {
		var s *Server
		if s, log = try(t, named, settings, zones); s != nil {
			return s
		}
	}
	t.Fatalf("named does not start:\n%s", log)
	return nil
}

func try(t testing.TB, named, settings string, zones []Zone) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	addr, err := free()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(addr)
	write := func(file, content string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var config strings.Builder
	fmt.Fprintf(&config, `options {
	directory %q; pid-file none; session-keyfile %q;
	listen-on port %s { %s; }; listen-on-v6 { none; };
	recursion no; allow-transfer { any; }; notify no; dnssec-validation no; empty-zones-enable no;
};
controls { };
%s
`, dir, filepath.Join(dir, "session.key"), port, host, settings)
	for _, z := range zones {
		if z.Of == nil {
			write(z.Name+".zone", z.Records)
			fmt.Fprintf(&config, "zone %q { type primary; file %q; %s };\n", z.Name, z.Name+".zone", z.Settings)
			continue
		}
		from, at, _ := net.SplitHostPort(z.Of.Addr)
		fmt.Fprintf(&config, "zone %q { type secondary; file %q; primaries { %s port %s; }; %s };\n", z.Name, z.Name+".copy", from, at, z.Settings)
	}
	write("named.conf", config.String())
	var log bytes.Buffer
	process := exec.Command(named, "-g", "-4", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	process.Stdout, process.Stderr = &log, &log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	s := &Server{Addr: addr}
	for _, z := range zones {
		if !s.serves(z.Name, ended) {
			_ = process.Process.Kill()
			<-ended
			return nil, log.String()
		}
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the log of named at %s:\n%s", addr, log.String())
		}
	})
	return s, ""
}

// serves waits until the server has a zone, and reports whether it has it.
func (s *Server) serves(zone string, ended <-chan struct{}) bool {
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if m, err := s.ask(zone, dns.TypeSOA); err == nil && m.Rcode == dns.RcodeSuccess && m.Authoritative {
			return true
		}
		select {
		case <-ticker.C:
		case <-ended:
			return false
		case <-deadline:
			return false
		}
	}
}

func (s *Server) ask(name string, kind uint16) (*dns.Msg, error) {
	m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), s.Addr)
	return m, err
}

// TXT returns the TXT values at a name, sorted.
func (s *Server) TXT(t testing.TB, name string) []string {
	t.Helper()
	m, err := s.ask(name, dns.TypeTXT)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(values)
	return values
}

// Notify tells a secondary that its zone has changed, as its primary would.
func (s *Server) Notify(t testing.TB, zone string) {
	t.Helper()
	m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetNotify(dns.Fqdn(zone)), s.Addr)
	if err == nil && m.Rcode != dns.RcodeSuccess {
		err = errors.New(dns.RcodeToString[m.Rcode])
	}
	if err != nil {
		t.Fatalf("notify: %v", err)
	}
}

// free returns an address of this machine that is free for UDP and TCP now.
func free() (string, error) {
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			p.Close()
			return l.Addr().String(), nil
		}
	}
	return "", errors.New("no port is free for both TCP and UDP")
}
