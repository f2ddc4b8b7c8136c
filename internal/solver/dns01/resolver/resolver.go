// Package resolver finds the zone of a name, asks the authoritative servers of that zone directly,
// so that no resolver caches a negative answer, and judges whether a TXT record has propagated to
// all of them.
package resolver

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
)

// A Dial connects to a name server, like net.Dialer.DialContext.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Resolver finds zones and asks their servers. It keeps the servers of zones, so use each Resolver
// for one check, in one goroutine.
type Resolver struct {
	// Nameservers are host:port or https URLs of recursive servers, which find zones and their
	// servers. If empty, those of the system are used.
	Nameservers []string
	// RecursiveOnly asks the recursive servers for the records, too, for networks that block
	// authoritative servers.
	RecursiveOnly bool
	// Dial connects to name servers. If nil, a net.Dialer does.
	Dial Dial
	// Reach says where Nameservers may be.
	Reach egress.Reach
	// HTTPS is the client for Nameservers that are URLs. If nil, one without limits of reach is used.
	HTTPS *http.Client

	serversOf map[string][]server // by zone
}

// Locate returns the name of a challenge's record and the apex of its zone, both with a dot at
// their ends. If follow is set, it follows CNAMEs from the name. It has its own timeout.
func (r *Resolver) Locate(ctx context.Context, name string, follow bool) (effective, zone string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	effective = FQDN(name)
	seen := []string{effective}
	for {
		target := ""
		if zone, target, err = r.zoneAndAlias(ctx, effective, follow); err != nil {
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
