package dns01

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// exchangeTimeout bounds one question to one server.
	exchangeTimeout = 3 * time.Second
	// udpSize is what is accepted over UDP: the size that is not fragmented anywhere.
	udpSize = 1232
	// maxCNAMEs is how long a chain of CNAMEs may be.
	maxCNAMEs = 10
	// maxServers and maxAddresses are how many servers of a zone, and addresses of a server, are asked.
	maxServers, maxAddresses = 16, 4
	// maxDoH is how long an answer over HTTPS may be: a DNS message is not longer.
	maxDoH = 64 << 10
)

// Resolver finds zones and asks their servers.
type Resolver struct {
	// Nameservers are those of Solver.
	Nameservers   []string
	RecursiveOnly bool
	Dial          func(ctx context.Context, network, address string) (net.Conn, error)
}

// Locate returns the name at which the record for a challenge is put, and the apex of its zone, both with a dot at their ends. If
// follow is set, that is where CNAMEs at the name lead.
func (r *Resolver) Locate(ctx context.Context, name string, follow bool) (effective, zone string, err error) {
	effective = fqdn(name)
	seen := []string{effective}
	for {
		if zone, err = r.apex(ctx, effective); err != nil {
			return "", "", err
		}
		if !follow {
			return effective, zone, nil
		}
		target, err := r.cname(ctx, effective, zone)
		if err != nil || target == "" {
			return effective, zone, err
		}
		if slices.Contains(seen, target) || len(seen) > maxCNAMEs {
			return "", "", fmt.Errorf("the CNAMEs at %s lead in a circle or too far: %s", name, strings.Join(append(seen, target), " -> "))
		}
		seen = append(seen, target)
		effective = target
	}
}

// apex finds the zone of a name. A record of the zone itself, or the SOA with which a server says that there is nothing, names it. The
// search begins above the first label: that is the one which does not exist yet, and no resolver shall remember so.
func (r *Resolver) apex(ctx context.Context, name string) (string, error) {
	labels := dns.SplitDomainName(name)
	if len(labels) > 1 && strings.HasPrefix(labels[0], "_") {
		labels = labels[1:]
	}
	var last error
	for i := range labels {
		at := fqdn(strings.Join(labels[i:], "."))
		answer, err := r.recursive(ctx, at, dns.TypeSOA)
		if err != nil {
			last = err
			continue
		}
		for _, rr := range append(slices.Clone(answer.Answer), answer.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && under(name, fqdn(soa.Hdr.Name)) && fqdn(soa.Hdr.Name) != "." {
				return fqdn(soa.Hdr.Name), nil
			}
		}
	}
	if last != nil {
		return "", last
	}
	return "", fmt.Errorf("no name server knows a zone of %s", strings.TrimSuffix(name, "."))
}

// cname returns where a CNAME at the name leads, or "".
func (r *Resolver) cname(ctx context.Context, name, zone string) (string, error) {
	servers, err := r.servers(ctx, zone)
	if err != nil {
		return "", err
	}
	for _, s := range servers {
		for _, address := range s.addresses {
			answer, err := r.exchange(ctx, address, name, dns.TypeCNAME, r.RecursiveOnly)
			if err != nil {
				continue
			}
			for _, rr := range answer.Answer {
				if c, ok := rr.(*dns.CNAME); ok && fqdn(c.Hdr.Name) == name {
					return fqdn(c.Target), nil
				}
			}
			return "", nil
		}
	}
	return "", fmt.Errorf("no name server of %s can be reached", zone)
}

// server is a name server with its addresses, host:port or a URL.
type server struct {
	name      string
	addresses []string
	err       error
}

// servers returns the servers to ask for records of a zone.
func (r *Resolver) servers(ctx context.Context, zone string) ([]server, error) {
	if r.RecursiveOnly {
		list, err := r.nameservers()
		var servers []server
		for _, s := range list {
			servers = append(servers, server{name: s, addresses: []string{s}})
		}
		return servers, err
	}
	answer, err := r.recursive(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var servers []server
	for _, rr := range answer.Answer {
		if ns, ok := rr.(*dns.NS); ok && fqdn(ns.Hdr.Name) == zone && len(servers) < maxServers {
			servers = append(servers, server{name: fqdn(ns.Ns)})
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("zone %s names no name servers", strings.TrimSuffix(zone, "."))
	}
	var group sync.WaitGroup
	for i := range servers {
		group.Go(func() { servers[i].addresses, servers[i].err = r.addresses(ctx, servers[i].name) })
	}
	group.Wait()
	return servers, nil
}

func (r *Resolver) addresses(ctx context.Context, name string) ([]string, error) {
	var found []string
	var last error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.recursive(ctx, name, kind)
		if err != nil {
			last = err
			continue
		}
		for _, rr := range answer.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				found = append(found, net.JoinHostPort(rr.A.String(), "53"))
			case *dns.AAAA:
				found = append(found, net.JoinHostPort(rr.AAAA.String(), "53"))
			}
		}
	}
	if len(found) == 0 && last == nil {
		last = errors.New("it has no address")
	}
	if len(found) > 0 {
		last = nil
	}
	return found[:min(len(found), maxAddresses)], last
}

// Ask asks every server of the record's zone for the TXT values at its name.
func (r *Resolver) Ask(ctx context.Context, record Record) ([]Answer, error) {
	servers, err := r.servers(ctx, record.Zone)
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(servers))
	var group sync.WaitGroup
	for i, s := range servers {
		group.Go(func() { answers[i] = r.askServer(ctx, s, record) })
	}
	group.Wait()
	return answers, nil
}

// askServer asks one server, on one address after the other. An address that has the value settles it; one that answers without it counts
// unless another one has it.
func (r *Resolver) askServer(ctx context.Context, s server, record Record) Answer {
	a := Answer{Server: s.name, Err: s.err}
	if len(s.addresses) == 0 && a.Err == nil {
		a.Err = errors.New("it has no address")
	}
	heard := false
	for _, address := range s.addresses {
		m, err := r.exchange(ctx, address, record.FQDN, dns.TypeTXT, r.RecursiveOnly)
		if err != nil {
			if !heard {
				a.Address, a.Err = address, err
			}
			continue
		}
		values := texts(m, record.FQDN)
		if record.in(values) {
			return Answer{Server: s.name, Address: address, Values: values}
		}
		if !heard {
			heard, a = true, Answer{Server: s.name, Address: address, Values: values}
		}
	}
	return a
}

// texts returns the TXT values at a name, or at where CNAMEs of the answer lead.
func texts(m *dns.Msg, name string) []string {
	names := []string{name}
	var values []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if len(names) <= maxCNAMEs {
				names = append(names, fqdn(rr.Target))
			}
		case *dns.TXT:
			if slices.Contains(names, fqdn(rr.Hdr.Name)) {
				values = append(values, strings.Join(rr.Txt, ""))
			}
		}
	}
	return values
}

func (r *Resolver) nameservers() ([]string, error) {
	var list []string
	for _, s := range r.Nameservers {
		if !strings.HasPrefix(s, "https://") {
			if _, _, err := net.SplitHostPort(s); err != nil {
				s = net.JoinHostPort(strings.Trim(s, "[]"), "53")
			}
		}
		list = append(list, s)
	}
	if len(list) > 0 {
		return list, nil
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(config.Servers) == 0 {
		return nil, errors.New("this machine has no name servers in /etc/resolv.conf: give some with --dns01-recursive-nameservers")
	}
	for _, s := range config.Servers {
		list = append(list, net.JoinHostPort(s, config.Port))
	}
	return list, nil
}

// recursive asks the recursive servers, one after the other.
func (r *Resolver) recursive(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	list, err := r.nameservers()
	if err != nil {
		return nil, err
	}
	var last error
	for _, s := range list {
		m, err := r.exchange(ctx, s, name, kind, true)
		if err == nil {
			return m, nil
		}
		last = err
	}
	return nil, last
}

// exchange asks one server, over UDP and, if the answer is cut off or does not come, over TCP. A server that fails is an error; one that
// says that there is nothing is not.
func (r *Resolver) exchange(ctx context.Context, address, name string, kind uint16, recursion bool) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.RecursionDesired = recursion
	q.SetEdns0(udpSize, false)
	var m *dns.Msg
	var err error
	if strings.HasPrefix(address, "https://") {
		m, err = overHTTPS(ctx, address, q)
	} else {
		m, err = r.over(ctx, "udp", address, q)
		if err != nil || m.Truncated {
			m, err = r.over(ctx, "tcp", address, q)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s of %s: %w", address, dns.TypeToString[kind], strings.TrimSuffix(name, "."), err)
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("ask %s for %s of %s: it answers %s", address, dns.TypeToString[kind], strings.TrimSuffix(name, "."), dns.RcodeToString[m.Rcode])
	}
	return m, nil
}

func (r *Resolver) over(ctx context.Context, network, address string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	return exchangeOver(ctx, r.Dial, network, address, q, dns.Client{Net: network, UDPSize: udpSize})
}

// exchangeOver sends a message over a connection of its own. There may be an answer beside an error: one whose signature is wrong.
func exchangeOver(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, address string, q *dns.Msg, client dns.Client) (*dns.Msg, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn, UDPSize: udpSize}
	m, _, err := client.ExchangeWithConnContext(ctx, q, c)
	if err != nil {
		return m, err
	}
	if len(m.Question) > 0 && len(q.Question) > 0 && !strings.EqualFold(m.Question[0].Name, q.Question[0].Name) {
		return nil, errors.New("it answers another question")
	}
	return m, nil
}

// overHTTPS asks by RFC 8484.
func overHTTPS(ctx context.Context, url string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	q.Id = 0 // section 4.1
	packed, err := q.Pack()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/dns-message")
	request.Header.Set("Accept", "application/dns-message")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDoH+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxDoH {
		return nil, errors.New("the answer is too long")
	}
	m := new(dns.Msg)
	return m, m.Unpack(body)
}
