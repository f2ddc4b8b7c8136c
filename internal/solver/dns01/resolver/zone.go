package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/fault"
)

// adviceBlocked is the advice if no server of a zone answers.
const adviceBlocked = "if this network lets nothing through to them, set --dns01-recursive-nameservers-only, or " +
	"dns01.nameservers"

// zoneAndAlias returns the zone of a name, and the target of a CNAME at it, or "". The name may
// itself be the apex of a delegated zone. zoneAndAlias asks the servers of the zone above, because
// a recursive server would cache the negative answer.
func (r *Resolver) zoneAndAlias(ctx context.Context, name string, follow bool) (zone, target string, err error) {
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
			if c, ok := rr.(*dns.CNAME); ok && FQDN(c.Hdr.Name) == name {
				return zone, FQDN(c.Target), nil
			}
		}
		below := ZoneCut(answer, name, zone)
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
func ZoneCut(m *dns.Msg, name, zone string) string {
	for _, rr := range m.Ns {
		switch rr.(type) {
		case *dns.NS, *dns.SOA:
			if at := FQDN(rr.Header().Name); at != zone && Under(at, zone) && Under(name, at) {
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
		answer, err := r.recursive(ctx, FQDN(strings.Join(labels[i:], ".")), dns.TypeSOA)
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
			asked[i] = withoutCredentials(server)
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
			if at := FQDN(soa.Hdr.Name); at != "." && Under(name, at) {
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
		if err == nil && !r.RecursiveOnly && !belongsToZone(answer, zone) {
			return nil, fmt.Errorf("ask %s for CNAME of %s: %w", address, strings.TrimSuffix(name, "."), lame(zone))
		}
		return answer, err
	})
	if code, other := RCode(
		0,
	), lame(
		"",
	); err != nil && !r.RecursiveOnly && !errors.As(err, &code) &&
		!errors.As(err, &other) {
		return nil, fmt.Errorf(
			"none of the name servers of %s can be reached: %w; %s",
			strings.TrimSuffix(zone, "."),
			err,
			adviceBlocked,
		)
	}
	return answer, err
}

// belongsToZone reports whether an answer is from a server of the zone, or from a cache in between.
// A server without the zone returns no records of it, and may refer to the servers of zones above.
func belongsToZone(m *dns.Msg, zone string) bool {
	return m.Authoritative ||
		slices.ContainsFunc(
			append(slices.Clone(m.Answer), m.Ns...),
			func(rr dns.RR) bool { return Under(FQDN(rr.Header().Name), zone) },
		)
}
