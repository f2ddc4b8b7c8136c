package dns01

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/outside"
)

// barred is the advice if no server of a zone answers.
const barred = "if this network lets nothing through to them, set --dns01-recursive-nameservers-only, or " +
	"dns01.nameservers"

// Resolver finds zones and asks their servers. It caches the servers of zones, so use each Resolver
// for one check, in one goroutine.
type Resolver struct {
	// Nameservers are as in Solver.
	Nameservers   []string
	RecursiveOnly bool
	Dial          func(ctx context.Context, network, address string) (net.Conn, error)
	// Reach says where Nameservers may be.
	Reach outside.Reach

	// https is the client for servers that are URLs. If nil, it is secure.
	https *http.Client
	known map[string][]server
}

// Locate returns the name of a challenge's record and the apex of its zone, both with a dot at
// their ends. If follow is set, it follows CNAMEs from the name. It has its own timeout.
func (r *Resolver) Locate(ctx context.Context, name string, follow bool) (effective, zone string, err error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	effective = fqdn(name)
	seen := []string{effective}
	for {
		target := ""
		if zone, target, err = r.standing(ctx, effective, follow); err != nil {
			return "", "", err
		}
		if !follow || target == "" {
			return effective, zone, nil
		}
		if slices.Contains(seen, target) || len(seen) > maxCNAMEs {
			path := strings.ReplaceAll(strings.Join(append(seen, target), " -> "), ". ", " ")
			return "", "", fault.Misconfiguredf(
				"PresentError",
				"the CNAMEs at %s lead in a circle or too far: %s",
				name,
				strings.TrimSuffix(path, "."),
			)
		}
		seen = append(seen, target)
		effective = target
	}
}

// standing returns the zone of a name, and the target of a CNAME at it, or "". The name may itself
// be the apex of a delegated zone. standing asks the servers of the zone above, because a recursive
// server would cache the negative answer.
func (r *Resolver) standing(ctx context.Context, name string, follow bool) (zone, target string, err error) {
	zone, authoritative, err := r.apex(ctx, name)
	if err != nil || r.RecursiveOnly && !follow && !authoritative {
		return zone, "", err
	}
	for range maxCuts {
		answer, err := r.alias(ctx, name, zone)
		switch {
		case err != nil && follow:
			return "", "", err
		case err != nil: // the check will report unreachable servers
			return zone, "", nil
		}
		for _, rr := range answer.Answer {
			if c, ok := rr.(*dns.CNAME); ok && fqdn(c.Hdr.Name) == name {
				return zone, fqdn(c.Target), nil
			}
		}
		below := cut(answer, name, zone)
		if below == zone {
			break
		}
		zone = below
	}
	return zone, "", nil
}

// cut returns the apex of the zone of a name by an answer of the servers of zone: a zone below it,
// or zone itself. A delegation has the NS records of the zone below, and a negative answer has its
// SOA.
func cut(m *dns.Msg, name, zone string) string {
	for _, rr := range m.Ns {
		switch rr.(type) {
		case *dns.NS, *dns.SOA:
			if at := fqdn(rr.Header().Name); at != zone && under(at, zone) && under(name, at) {
				return at
			}
		}
	}
	return zone
}

// apex finds the zone of a name, by an SOA record in an answer, positive or negative. The search
// begins above the first label: that name does not exist yet, and no resolver may cache that. A
// name right below a top-level domain, such as the target of a CNAME, is asked for itself, because
// the servers of the top-level domain do not have private zones. authoritative says that the
// answering server is one of the zone's own, which does not cache.
func (r *Resolver) apex(ctx context.Context, name string) (zone string, authoritative bool, err error) {
	labels := dns.SplitDomainName(name)
	if len(labels) > 2 || len(labels) > 1 && strings.HasPrefix(labels[0], "_") {
		labels = labels[1:]
	}
	var first error
	for i := range labels {
		answer, err := r.recursive(ctx, fqdn(strings.Join(labels[i:], ".")), dns.TypeSOA)
		if err != nil {
			first = cmp.Or(first, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if zone := soaOf(answer, name); zone != "" {
			return zone, answer.Authoritative, nil
		}
	}
	if first != nil {
		return "", false, first
	}
	asked, err := r.nameservers()
	if err != nil {
		return "", false, err
	}
	for i, server := range asked {
		if strings.Contains(server, "://") {
			asked[i] = hidden(server)
		}
	}
	return "", false, fault.Misconfiguredf("PresentError",
		"the name servers %s know no zone of %s: create it, have its parent delegate it, or correct the name. "+
			"Other servers are asked by dns01.nameservers, or --dns01-recursive-nameservers", strings.Join(asked, ", "),
		strings.TrimSuffix(name, "."))
}

// soaOf returns the apex in an SOA record of an answer that a name is below, or "". The record may
// be in any section, next to SOA records of other zones.
func soaOf(m *dns.Msg, name string) string {
	for _, rr := range append(slices.Clone(m.Answer), m.Ns...) {
		if soa, ok := rr.(*dns.SOA); ok {
			if at := fqdn(soa.Hdr.Name); at != "." && under(name, at) {
				return at
			}
		}
	}
	return ""
}

// alias asks the servers of a zone for a CNAME at a name until one answers. It tries the first
// address of each server, then the others.
func (r *Resolver) alias(ctx context.Context, name, zone string) (*dns.Msg, error) {
	servers, err := r.servers(ctx, zone)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for i := range maxAddresses {
		for _, s := range servers {
			if i < len(s.addresses) {
				addresses = append(addresses, s.addresses[i])
			}
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("no name server of %s has an address", strings.TrimSuffix(zone, "."))
	}
	wait := stagger
	if r.RecursiveOnly {
		wait = patience
	}
	ctx, cancel := context.WithTimeout(ctx, aliasTimeout)
	defer cancel()
	answer, err := firstOf(ctx, addresses, wait, func(ctx context.Context, address string) (*dns.Msg, error) {
		answer, err := r.exchange(ctx, address, name, dns.TypeCNAME, r.RecursiveOnly)
		if err == nil && !r.RecursiveOnly && !ofZone(answer, zone) {
			return nil, fmt.Errorf("ask %s for CNAME of %s: %w", address, strings.TrimSuffix(name, "."), lame(zone))
		}
		return answer, err
	})
	if code, other := rcode(
		0,
	), lame(
		"",
	); err != nil && !r.RecursiveOnly && !errors.As(err, &code) &&
		!errors.As(err, &other) {
		return nil, fmt.Errorf(
			"none of the name servers of %s can be reached: %w; %s",
			strings.TrimSuffix(zone, "."),
			err,
			barred,
		)
	}
	return answer, err
}

// ofZone reports whether an answer is from a server of the zone, or from a cache in between. A
// server without the zone returns no records of it, and may refer to the servers of zones above.
func ofZone(m *dns.Msg, zone string) bool {
	return m.Authoritative ||
		slices.ContainsFunc(
			append(slices.Clone(m.Answer), m.Ns...),
			func(rr dns.RR) bool { return under(fqdn(rr.Header().Name), zone) },
		)
}

// firstOf asks servers in their order until one answers. It asks the next one when one fails, or
// has not answered within wait. If all fail, the error is a response code of a server, or else the
// first error.
func firstOf(
	ctx context.Context,
	addresses []string,
	wait time.Duration,
	ask func(ctx context.Context, address string) (*dns.Msg, error),
) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		answer *dns.Msg
		err    error
	}
	replies := make(chan reply, len(addresses))
	next := time.NewTimer(0)
	defer next.Stop()
	var failed error
	code := rcode(0)
	for asked, heard := 0, 0; heard < len(addresses); {
		select {
		case <-next.C:
			address := addresses[asked]
			go func() {
				answer, err := ask(ctx, address)
				replies <- reply{answer, err}
			}()
			if asked++; asked < len(addresses) {
				next.Reset(wait)
			}
		case r := <-replies:
			if r.err == nil {
				return r.answer, nil
			}
			if heard++; failed == nil || errors.As(r.err, &code) && !errors.As(failed, &code) {
				failed = r.err
			}
			if asked < len(addresses) {
				next.Reset(0)
			}
		}
	}
	return nil, failed
}

// server is a name server with its addresses, host:port or URLs.
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
	if servers, found := r.known[zone]; found {
		return servers, nil
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
	if r.known == nil {
		r.known = map[string][]server{}
	}
	r.known[zone] = servers
	return servers, nil
}

// addresses returns where a name server listens.
func (r *Resolver) addresses(ctx context.Context, name string) ([]string, error) {
	kinds := [...]uint16{dns.TypeA, dns.TypeAAAA}
	var answers [len(kinds)]*dns.Msg
	var errs [len(kinds)]error
	var group sync.WaitGroup
	for i, kind := range kinds {
		group.Go(func() { answers[i], errs[i] = r.recursive(ctx, name, kind) })
	}
	group.Wait()
	var of [len(kinds)][]string
	var refused error
	for i, m := range answers {
		if m == nil {
			continue
		}
		for _, rr := range m.Answer {
			var ip netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				ip, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				ip, _ = netip.AddrFromSlice(rr.AAAA)
			default:
				continue
			}
			// Skip an address that the ACME server cannot reach: it may be an internal service of this
			// machine.
			if ip = ip.Unmap(); !outside.Elsewhere(ip) {
				refused = fmt.Errorf(
					"its address %s leads to this machine or its own link, where no other machine can ask: name the server in "+
						"dns01.nameservers if it is meant",
					ip,
				)
				continue
			}
			if at := netip.AddrPortFrom(ip, 53).String(); !slices.Contains(of[i], at) {
				of[i] = append(of[i], at)
			}
		}
	}
	// Take some of each family, because this network may have only one.
	v4, v6 := of[0], of[1]
	v4 = v4[:min(len(v4), maxAddresses-min(len(v6), maxAddresses/2))]
	if found := append(v4, v6[:min(len(v6), maxAddresses-len(v4))]...); len(found) > 0 {
		return found, nil
	}
	if err := cmp.Or(refused, errs[0], errs[1]); err != nil {
		return nil, err
	}
	return nil, errNoAddress
}

var errNoAddress = errors.New("it has no address")

// Ask asks every server of the record's zone for the TXT values at its name. It has its own
// timeout.
func (r *Resolver) Ask(ctx context.Context, record Record) ([]Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
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

// askServer asks all addresses of one server. An answer with the value wins. An answer without it
// counts only if no other address has it.
func (r *Resolver) askServer(ctx context.Context, s server, record Record) Answer {
	if len(s.addresses) == 0 {
		return Answer{Server: s.name, Err: cmp.Or(s.err, errNoAddress)}
	}
	said := make([]Answer, len(s.addresses))
	var group sync.WaitGroup
	for i, address := range s.addresses {
		group.Go(func() {
			a := Answer{Server: s.name, Address: address}
			m, err := r.exchange(ctx, address, record.FQDN, dns.TypeTXT, r.RecursiveOnly)
			if a.Err = err; err == nil {
				a.Values, a.Alias = texts(m, record.FQDN)
				if !m.Authoritative && !r.RecursiveOnly && !record.in(a.Values) {
					a.Err = lame(record.Zone)
				}
			}
			said[i] = a
		})
	}
	group.Wait()
	best := said[0]
	for _, a := range said {
		switch {
		case a.Err == nil && record.in(a.Values):
			return a
		case a.Err == nil && best.Err != nil:
			best = a
		}
	}
	return best
}

// texts returns the TXT values at a name. If the answer has CNAMEs, it follows them to alias.
func texts(m *dns.Msg, name string) (values []string, alias string) {
	names := []string{name}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if len(names) <= maxCNAMEs && slices.Contains(names, fqdn(rr.Hdr.Name)) {
				alias = fqdn(rr.Target)
				names = append(names, alias)
			}
		case *dns.TXT:
			if slices.Contains(names, fqdn(rr.Hdr.Name)) {
				values = append(values, strings.Join(rr.Txt, ""))
			}
		}
	}
	return values, alias
}

// ParseNameservers adds default ports to DNS servers, which are host:port, host, or https URLs.
func ParseNameservers(servers []string) ([]string, error) {
	var list []string
	for _, s := range servers {
		if strings.Contains(s, "://") {
			u, err := url.Parse(s)
			if err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, "{}") {
				return nil, fmt.Errorf(
					"the DNS server %q must be host:port, or a URL such as https://dns.example.com/dns-query",
					hidden(s),
				)
			}
			if u.User != nil {
				return nil, fmt.Errorf("the URL of the DNS server %q must not have credentials", hidden(s))
			}
		} else {
			host, port, err := net.SplitHostPort(s)
			if err != nil {
				host, port = strings.Trim(s, "[]"), "53"
			}
			if host == "" || port == "" {
				return nil, fmt.Errorf("the DNS server %q must be host:port, or a URL such as https://dns.example.com/dns-query", s)
			}
			s = net.JoinHostPort(host, port)
		}
		list = append(list, s)
	}
	return list, nil
}

// hidden returns a URL without its credentials.
func hidden(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	return scheme + "://" + rest[strings.LastIndex(rest, "@")+1:]
}

func (r *Resolver) nameservers() ([]string, error) {
	list, err := ParseNameservers(r.Nameservers)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		return list, nil
	}
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(config.Servers) == 0 {
		return nil, errors.New(
			"this machine has no name servers in /etc/resolv.conf: give some with --dns01-recursive-nameservers",
		)
	}
	for _, s := range config.Servers {
		list = append(list, net.JoinHostPort(s, config.Port))
	}
	return list, nil
}

// recursive asks the recursive servers, in their order.
func (r *Resolver) recursive(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	list, err := r.nameservers()
	if err != nil {
		return nil, err
	}
	return firstOf(ctx, list, patience, func(ctx context.Context, address string) (*dns.Msg, error) {
		return r.exchange(ctx, address, name, kind, true)
	})
}
