package solver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
)

const (
	// unreachable is after how long a self-check without any response counts as passed, and the CA
	// decides: the site may be reachable only from outside.
	unreachable = 2 * time.Minute
	// maxAddresses is how many addresses of a site are checked.
	maxAddresses = 8
	// connectTimeout bounds an attempt to connect if there may be other addresses.
	connectTimeout = 4 * time.Second
)

// Dial connects to an address, like net.Dialer.DialContext.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Site checks sites as an ACME server does. It checks each address, because the server chooses
// one of them.
type Site struct {
	// Dial connects to addresses within Reach. A net.Dialer's if nil.
	Dial Dial
	// Reach says which addresses may be checked. A CA connects to no others.
	Reach egress.Reach
	// Lookup returns the addresses of a host. If nil, Dial gets names.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Views calls look for each address of a host, concurrently, and returns the results. The Dial that
// look gets connects to that address when the host is named.
func (s Site) Views(ctx context.Context, host string, look func(context.Context, Dial) EndpointView) []EndpointView {
	if s.Lookup == nil {
		return []EndpointView{s.view(ctx, host, "", look)}
	}
	addresses := []netip.Addr{}
	if addr, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, addr)
	} else if addresses, err = s.Lookup(ctx, host); err != nil || len(addresses) == 0 {
		var no *net.DNSError
		if err == nil || errors.As(err, &no) && no.IsNotFound {
			return []EndpointView{{Shows: "has no address: add an A or AAAA record for it"}} // so does the CA
		}
		return []EndpointView{{NoResponse: true, Shows: fmt.Sprintf("cannot be looked up: %s", err)}}
	}
	views := make([]EndpointView, min(len(addresses), maxAddresses))
	var group sync.WaitGroup
	for i := range views {
		group.Go(func() { views[i] = s.view(ctx, host, addresses[i].Unmap().String(), look) })
	}
	group.Wait()
	return views
}

func (s Site) view(
	ctx context.Context,
	host, address string,
	look func(context.Context, Dial) EndpointView,
) EndpointView {
	if addr, err := netip.ParseAddr(address); err == nil && !s.Reach.Allows(addr) {
		return EndpointView{Where: address, Shows: "is an address where no CA comes: correct the record"}
	}
	dial := s.dialer()
	var heard atomic.Int64
	v := look(ctx, func(ctx context.Context, network, to string) (net.Conn, error) {
		var all []string
		if name, port, err := net.SplitHostPort(to); err != nil {
			return nil, err
		} else if address != "" && strings.EqualFold(name, host) {
			all = []string{net.JoinHostPort(address, port)}
		} else if all, err = s.addresses(ctx, name, port); err != nil {
			return nil, err
		}
		conn, err := first(ctx, dial, network, all)
		if err != nil {
			return nil, err
		}
		return &listened{Conn: conn, heard: &heard}, nil
	})
	v.Where, v.NoResponse = address, heard.Load() == 0
	return v
}

// dialer returns Dial within Reach.
func (s Site) dialer() Dial {
	if s.Dial == nil {
		return s.Reach.Dialer().DialContext
	}
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if _, err := netip.ParseAddrPort(to); err == nil { // not a name
			if err := s.Reach.Check(to); err != nil {
				return nil, err
			}
		}
		return s.Dial(ctx, network, to)
	}
}

// addresses returns the addresses of a host that the site redirects to. They are looked up like
// those of the site itself.
func (s Site) addresses(ctx context.Context, name, port string) ([]string, error) {
	if _, err := netip.ParseAddr(name); err == nil || s.Lookup == nil {
		return []string{net.JoinHostPort(name, port)}, nil
	}
	found, err := s.Lookup(ctx, name)
	if err == nil && len(found) == 0 {
		err = &net.DNSError{Err: "it has no address", Name: name, IsNotFound: true}
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, addr := range found[:min(len(found), maxAddresses)] {
		all = append(all, net.JoinHostPort(addr.Unmap().String(), port))
	}
	return all, nil
}

// first connects to the first address that accepts a connection. all has at least one.
func first(ctx context.Context, dial Dial, network string, all []string) (conn net.Conn, err error) {
	for _, to := range all {
		within, cancel := context.WithTimeout(ctx, connectTimeout)
		conn, err = dial(within, network, to)
		cancel()
		if err == nil {
			break
		}
	}
	return conn, err
}

// listened counts the bytes that are read from a connection.
type listened struct {
	net.Conn
	heard *atomic.Int64
}

// Read reads and counts.
func (l *listened) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.heard.Add(int64(n))
	return n, err
}

// EvaluateSite decides by the views of a site whether it shows the proof. Every address that
// answers must show it. Addresses without a response may be reachable only from outside: if no
// address responds for long, the CA decides. A wrong answer always fails the check. The messages
// begin with site.
func EvaluateSite(site string, views []EndpointView, ch *cmacme.Challenge, now time.Time) CheckResult {
	var wrong, silent []string
	for _, v := range views {
		text := v.Shows
		if v.Where != "" {
			text = "at " + v.Where + " " + text
		}
		switch {
		case v.Matches:
		case v.NoResponse:
			silent = append(silent, text)
		default:
			wrong = append(wrong, text)
		}
	}
	switch {
	case len(wrong) > 0:
		return CheckResult{Why: site + " " + strings.Join(wrong, "; ")}
	case len(silent) < len(views):
		return CheckResult{Visible: true}
	case ch.Status.PresentedAt != nil && now.Sub(ch.Status.PresentedAt.Time) > unreachable:
		return CheckResult{Visible: true, Unseen: site + " " + strings.Join(silent, "; ")}
	}
	return CheckResult{Why: site + " " + strings.Join(silent, "; ")}
}

// lookupTimeout bounds a question to one DNS server.
const lookupTimeout = 3 * time.Second

// Lookup returns a function that looks up addresses at DNS servers, host:port. The first server
// that answers counts. Without servers it uses those of the system.
func Lookup(nameservers []string) func(ctx context.Context, host string) ([]netip.Addr, error) {
	resolvers := []*net.Resolver{{PreferGo: true}}
	if len(nameservers) > 0 {
		resolvers = nil
	}
	for _, server := range nameservers {
		resolvers = append(
			resolvers,
			&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, server)
			}},
		)
	}
	missing := func(err error) bool {
		var no *net.DNSError
		return errors.As(err, &no) && no.IsNotFound
	}
	ask := func(ctx context.Context, r *net.Resolver, host string) ([]netip.Addr, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		return r.LookupNetIP(ctx, "ip", host)
	}
	return func(ctx context.Context, host string) (found []netip.Addr, err error) {
		host = strings.TrimSuffix(host, ".")
		for _, r := range resolvers {
			if found, err = ask(ctx, r, host+"."); err == nil || missing(err) { // fully qualified
				break
			}
		}
		if len(nameservers) == 0 && missing(err) { // a name within the cluster may need the search list
			return ask(ctx, resolvers[0], host)
		}
		return found, err
	}
}
