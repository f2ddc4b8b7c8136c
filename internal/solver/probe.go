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
	"github.com/perennial-pki/perennial/internal/outside"
)

const (
	// unreachable is after how long a site from which nothing is heard at all is left to the CA to
	// judge: it may be reachable from outside only.
	unreachable = 2 * time.Minute
	// maxAddresses is how many addresses of a site are looked at.
	maxAddresses = 8
	// connectTimeout is for how long one address is tried, where there may be others.
	connectTimeout = 4 * time.Second
)

// Dial connects, as that of a net.Dialer.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// A Site is looked at as an ACME server would: at each of its addresses, because the server chooses
// one of them.
type Site struct {
	// Dial connects. If nil, it connects within Reach.
	Dial Dial
	// Reach says which addresses of sites are looked at: a CA comes to no others.
	Reach outside.Reach
	// Lookup returns the addresses of a host. If nil, Dial is given names.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Views are what look sees at each address of a host, all at once. Look is given a Dial that leads
// connections with the host to that address.
func (s Site) Views(ctx context.Context, host string, look func(context.Context, Dial) View) []View {
	if s.Lookup == nil {
		return []View{s.view(ctx, host, "", look)}
	}
	addresses := []netip.Addr{}
	if addr, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, addr)
	} else if addresses, err = s.Lookup(ctx, host); err != nil || len(addresses) == 0 {
		var no *net.DNSError
		if err == nil || errors.As(err, &no) && no.IsNotFound {
			return []View{{Says: "has no address: add an A or AAAA record for it"}} // an answer, and one that the CA gets, too
		}
		return []View{{Silent: true, Says: fmt.Sprintf("cannot be looked up: %s", err)}}
	}
	views := make([]View, min(len(addresses), maxAddresses))
	var group sync.WaitGroup
	for i := range views {
		group.Go(func() { views[i] = s.view(ctx, host, addresses[i].Unmap().String(), look) })
	}
	group.Wait()
	return views
}

func (s Site) view(ctx context.Context, host, address string, look func(context.Context, Dial) View) View {
	if addr, err := netip.ParseAddr(address); err == nil && !s.Reach.Allows(addr) {
		return View{Where: address, Says: "is an address where no CA comes: correct the record"}
	}
	dial := s.Dial
	if dial == nil {
		dial = s.Reach.Dialer().DialContext
	}
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
	v.Where, v.Silent = address, heard.Load() == 0
	return v
}

// addresses are those of a host that the site leads to, which is looked up as the site itself is.
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

// first connects with the first of some addresses, of which there is one at least, that can be
// connected with.
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

// listened counts what is heard on a connection.
type listened struct {
	net.Conn
	heard *atomic.Int64
}

func (l *listened) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.heard.Add(int64(n))
	return n, err
}

// JudgeSite decides by its views whether a site, named in front of what its addresses say, shows
// the proof. Every address that answers must. Those from which nothing is heard may be reachable
// from outside only: if that is all of them for long, the CA is left to judge. A wrong answer is
// never passed over.
func JudgeSite(site string, views []View, ch *cmacme.Challenge, now time.Time) Sight {
	var wrong, silent []string
	for _, v := range views {
		text := v.Says
		if v.Where != "" {
			text = "at " + v.Where + " " + text
		}
		switch {
		case v.Right:
		case v.Silent:
			silent = append(silent, text)
		default:
			wrong = append(wrong, text)
		}
	}
	switch {
	case len(wrong) > 0:
		return Sight{Why: site + " " + strings.Join(wrong, "; ")}
	case len(silent) < len(views):
		return Sight{Visible: true}
	case ch.Status.PresentedAt != nil && now.Sub(ch.Status.PresentedAt.Time) > unreachable:
		return Sight{Visible: true, Unseen: site + " " + strings.Join(silent, "; ")}
	}
	return Sight{Why: site + " " + strings.Join(silent, "; ")}
}

// lookupTimeout bounds a question to one DNS server.
const lookupTimeout = 3 * time.Second

// Lookup looks addresses up at DNS servers, host:port, of which the first that answers counts. The
// system's, if there are none.
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
			if found, err = ask(ctx, r, host+"."); err == nil || missing(err) { // a public name is whole
				break
			}
		}
		if len(nameservers) == 0 && missing(err) { // one of a cluster may be that only with the search list
			return ask(ctx, resolvers[0], host)
		}
		return found, err
	}
}
