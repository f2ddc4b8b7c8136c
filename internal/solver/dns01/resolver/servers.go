package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/egress"
)

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
	if servers, found := r.serversOf[zone]; found {
		return servers, nil
	}
	answer, err := r.recursive(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var servers []server
	for _, rr := range answer.Answer {
		if ns, ok := rr.(*dns.NS); ok && FQDN(ns.Hdr.Name) == zone && len(servers) < maxServers {
			servers = append(servers, server{name: FQDN(ns.Ns)})
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
	if r.serversOf == nil {
		r.serversOf = map[string][]server{}
	}
	r.serversOf[zone] = servers
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
			if ip = ip.Unmap(); !egress.AllowedRemote(ip) {
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
