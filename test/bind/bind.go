// Package bind runs BIND, the most common name server for updates by RFC 2136, from the
// distribution's packages.
package bind

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/servers"
)

// Zone is a zone of a server.
type Zone struct {
	Name string
	// Records are the lines of its file.
	Records string
	// Settings are the settings of the zone, such as allow-update.
	Settings string
	// Of is the primary from which a secondary transfers the zone at its start and after a notify. If
	// nil, the server is a primary.
	Of *Server
}

// Server is a running server.
type Server struct {
	// Addr is host:port, for UDP and TCP.
	Addr string
	// URL is the DNS-over-HTTPS URL of a resolver.
	URL string
}

// Start starts a server with zones, and with settings to write before them, such as keys. It runs
// until the test ends.
func Start(t testing.TB, settings string, zones ...Zone) *Server {
	t.Helper()
	var config strings.Builder
	config.WriteString(settings)
	dir := t.TempDir()
	for _, z := range zones {
		if z.Of == nil {
			write(t, filepath.Join(dir, z.Name+".zone"), z.Records)
			fmt.Fprintf(&config, "zone %q { type primary; file %q; %s };\n", z.Name, z.Name+".zone", z.Settings)
			continue
		}
		from, at, _ := net.SplitHostPort(z.Of.Addr)
		fmt.Fprintf(
			&config,
			"zone %q { type secondary; file %q; primaries { %s port %s; }; %s };\n",
			z.Name,
			z.Name+".copy",
			from,
			at,
			z.Settings,
		)
	}
	s, process := start(t, dir, "recursion no; dnssec-validation no;", config.String())
	for _, z := range zones {
		if !process.Until(func() bool {
			m, err := s.ask(z.Name, dns.TypeSOA)
			return err == nil && m.Rcode == dns.RcodeSuccess && m.Authoritative
		}) {
			t.Fatalf("named does not serve %s:\n%s", z.Name, process.Log())
		}
	}
	return s
}

// Resolver resolves queries at the servers of zones, and caches the answers.
type Resolver struct {
	Zones map[string]*Server
	// Certificate and Key are files for serving DNS over HTTPS, too.
	Certificate, Key string
	// Anchors are the public keys of signed zones, as BIND writes them. If there are any, the resolver
	// verifies answers.
	Anchors string
}

// StartResolver starts a resolver, until the test ends.
func StartResolver(t testing.TB, r Resolver) *Server {
	t.Helper()
	options := "recursion yes; dnssec-validation no;"
	var config strings.Builder
	if r.Anchors != "" {
		// Disable the queries by which the resolver reports its trust anchors to the zone. Their negative
		// answers would be cached as proof that other names do not exist.
		options = "recursion yes; dnssec-validation yes; trust-anchor-telemetry no;"
		fmt.Fprintf(&config, "trust-anchors { %s };\n", r.Anchors)
	}
	url := ""
	if r.Certificate != "" {
		port := cluster.FreePort(t)
		url = fmt.Sprintf("https://127.0.0.1:%d/dns-query", port)
		options += fmt.Sprintf(" listen-on port %d tls own http default { 127.0.0.1; };", port)
		fmt.Fprintf(&config, "tls own { cert-file %q; key-file %q; };\n", r.Certificate, r.Key)
	}
	for name, of := range r.Zones {
		host, port, _ := net.SplitHostPort(of.Addr)
		fmt.Fprintf(&config, "zone %q { type forward; forward only; forwarders { %s port %s; }; };\n", name, host, port)
	}
	s, process := start(t, t.TempDir(), options, config.String())
	s.URL = url
	if !process.Until(func() bool {
		_, err := s.ask("nothing.test", dns.TypeSOA)
		return err == nil
	}) {
		t.Fatalf("named does not answer:\n%s", process.Log())
	}
	return s
}

// start starts named in a directory, with options and further statements.
func start(t testing.TB, dir, options, config string) (*Server, *servers.Process) {
	t.Helper()
	port := cluster.FreePort(t)
	write(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`options {
	directory %q; pid-file none; session-keyfile %q;
	listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
	allow-transfer { any; }; notify no; empty-zones-enable no; querylog yes; %s
};
controls { };
%s
`, dir, filepath.Join(dir, "session.key"), port, options, config))
	return &Server{
			Addr: fmt.Sprintf("127.0.0.1:%d", port),
		}, servers.Start(
			t,
			"named",
			"-g",
			"-4",
			"-n",
			"1",
			"-c",
			filepath.Join(dir, "named.conf"),
		)
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
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

// TTL returns the TTL of the TXT records at a name, which must have some.
func (s *Server) TTL(t testing.TB, name string) uint32 {
	t.Helper()
	m, err := s.ask(name, dns.TypeTXT)
	if err != nil || len(m.Answer) == 0 {
		t.Fatalf("%s: %v, %v", name, m, err)
	}
	return m.Answer[0].Header().Ttl
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
