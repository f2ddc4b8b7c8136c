package desired

import (
	"cmp"
	"slices"

	"github.com/miekg/dns"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/pki"
)

func wildcard(z cmacme.ACMEAuthorization) bool { return z.Wildcard != nil && *z.Wildcard }

// nameOf is what an authorization is for, as a Certificate names it.
func nameOf(z cmacme.ACMEAuthorization) string {
	if wildcard(z) {
		return "*." + z.Identifier
	}
	return z.Identifier
}

// choose returns the solver that fits an authorization best. All that its selector names must fit:
// the labels, one of the names, and one of the zones. Of those that fit it is the one that names
// the name, else the one with the longest zone, else the one with most labels, else the first.
func choose(
	solvers []cmacme.ACMEChallengeSolver,
	z cmacme.ACMEAuthorization,
	labels map[string]string,
) (*cmacme.ACMEChallengeSolver, *cmacme.ACMEChallenge) {
	name := nameOf(z)
	var best *cmacme.ACMEChallengeSolver
	var with *cmacme.ACMEChallenge
	var most rank
	for i := range solvers {
		_, kind := typeOf(&solvers[i])
		at := slices.IndexFunc(z.Challenges, func(c cmacme.ACMEChallenge) bool { return c.Type == kind })
		is, fits := rankOf(solvers[i].Selector, name, labels)
		if at >= 0 && fits && (best == nil || is.compare(most) > 0) {
			best, with, most = &solvers[i], &z.Challenges[at], is
		}
	}
	return best, with
}

// rank is how well a selector fits: whether it names the name, how many labels of it its longest
// zone has, how many labels it wants.
type rank struct{ name, zone, labels int }

func (r rank) compare(other rank) int {
	return cmp.Or(cmp.Compare(r.name, other.name), cmp.Compare(r.zone, other.zone), cmp.Compare(r.labels, other.labels))
}

func rankOf(s *cmacme.CertificateDNSNameSelector, name string, labels map[string]string) (is rank, fits bool) {
	if s == nil {
		return is, true
	}
	for k, v := range s.MatchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return is, false
		}
		is.labels++
	}
	name = pki.ComparableDNSName(name)
	if slices.Contains(pki.DNSNames(s.DNSNames), name) {
		is.name = 1
	}
	for _, zone := range s.DNSZones {
		zone = pki.ComparableDNSName(zone)
		if n := dns.CompareDomainName(zone, name); n == dns.CountLabel(zone) {
			is.zone = max(is.zone, n)
		}
	}
	return is, (len(s.DNSNames) == 0 || is.name > 0) && (len(s.DNSZones) == 0 || is.zone > 0)
}
