package order

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
)

// noSolver is the reason of the event about a name that no solver is for. It is cert-manager's.
const noSolver = "Solver"

// challengeFor returns the Challenge that gives an authorization of the order. It is the same whenever it is asked for.
func challengeFor(order *cmacme.Order, z cmacme.ACMEAuthorization, spec *cmacme.ACMEIssuer, by acme.Account) (*cmacme.Challenge, error) {
	solver, offered := choose(spec.Solvers, z, order.Labels)
	if solver == nil {
		name := z.Identifier
		if wildcard(z) {
			name = "*." + name
		}
		var types []string
		for _, ch := range z.Challenges {
			types = append(types, ch.Type)
		}
		var ours []string
		for i := range spec.Solvers {
			if _, kind := typeOf(&spec.Solvers[i]); !slices.Contains(ours, kind) {
				ours = append(ours, kind)
			}
		}
		return nil, fault.Misconfiguredf(noSolver, "no solver of the issuer can be used for %q: the CA offers %s, and the solvers are for %s; correct spec.acme.solvers and their selectors, or the labels of the Certificate",
			name, strings.Join(types, ", "), cmp.Or(strings.Join(ours, ", "), "nothing"))
	}
	solver = solver.DeepCopy()
	if err := override(solver, order); err != nil {
		return nil, err
	}
	recordName, proof, err := proofOf(solver, z, offered, spec.Server, by)
	if err != nil {
		return nil, err
	}
	kind, _ := typeOf(solver)
	authorization := ""
	if solver.DNS01 != nil && solver.DNS01.Provider != nil {
		if authorization, err = acme.KeyAuthorization(offered.Token, by.Key.Public()); err != nil {
			return nil, err
		}
	}
	ch := &cmacme.Challenge{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: order.Namespace, Labels: maps.Clone(order.Labels), Annotations: maps.Clone(order.Annotations),
			Finalizers:      []string{cmacme.ACMEDomainQualifiedFinalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(order, cmacme.SchemeGroupVersion.WithKind("Order"))},
		},
		Spec: cmacme.ChallengeSpec{
			URL: offered.URL, AuthorizationURL: z.URL, DNSName: z.Identifier, Wildcard: wildcard(z), Type: kind, Token: offered.Token, Key: proof,
			KeyAuthorization: authorization, RecordName: recordName, Solver: *solver, IssuerRef: order.Spec.IssuerRef,
		},
	}
	label(ch)
	// What is chosen by is of no use afterwards.
	ch.Spec.Solver.Selector = nil
	text, err := json.Marshal(ch.Spec)
	if err != nil {
		return nil, err
	}
	h := fnv.New32()
	h.Write(text)
	ch.Name = fmt.Sprintf("%s-%d", strings.TrimRight(order.Name[:min(len(order.Name), 52)], "-."), h.Sum32())
	return ch, nil
}

// label lets a Challenge be found by the host that the CA asks us for, also by a replica whose cache does not have it yet.
func label(ch *cmacme.Challenge) {
	host := ch.Spec.DNSName
	switch ch.Spec.Type {
	case cmacme.ACMEChallengeTypeDNS01:
		return
	case cmacme.ACMEChallengeTypeTLSALPN01:
		host = tlsalpn01.ServerName(ch)
	}
	if ch.Labels == nil {
		ch.Labels = map[string]string{}
	}
	ch.Labels[cmacme.DomainLabelKey] = solver.LabelOf(strings.ToLower(host))
}

// typeOf is the type of the challenges that a solver solves, by the name of the API and by that of the protocol.
func typeOf(s *cmacme.ACMEChallengeSolver) (cmacme.ACMEChallengeType, string) {
	switch {
	case s.DNS01 != nil && s.DNS01.ChallengeType != "":
		return cmacme.ACMEChallengeTypeDNS01, string(s.DNS01.ChallengeType)
	case s.DNS01 != nil:
		return cmacme.ACMEChallengeTypeDNS01, acme.ChallengeDNS01
	case s.TLSALPN01 != nil:
		return cmacme.ACMEChallengeTypeTLSALPN01, acme.ChallengeTLSALPN01
	}
	return cmacme.ACMEChallengeTypeHTTP01, acme.ChallengeHTTP01
}

// proofOf returns what is presented for a challenge and, if that is a TXT record of another name than dns-01's, where.
func proofOf(solver *cmacme.ACMEChallengeSolver, z cmacme.ACMEAuthorization, offered *cmacme.ACMEChallenge, server string, by acme.Account) (recordName, proof string, err error) {
	_, kind := typeOf(solver)
	if kind == acme.ChallengeDNSPersist01 {
		proof, err = standing(solver.DNS01, z, offered, server, by)
		return acme.DNSPersist01Name(z.Identifier), proof, err
	}
	if proof, err = acme.KeyAuthorization(offered.Token, by.Key.Public()); err != nil {
		return "", "", err
	}
	switch kind {
	case acme.ChallengeDNS01:
		return "", acme.DNS01Value(proof), nil
	case acme.ChallengeDNSAccount01:
		return acme.DNSAccount01Name(by.URL, z.Identifier), acme.DNS01Value(proof), nil
	}
	return "", proof, nil
}

// standing is the value of the record of dns-persist-01. It lets the account that it names have certificates of the CA that it names. A server that
// gave out another CA's account as ours could have us let a stranger have certificates of that CA, so the account must be the server's own.
func standing(solver *cmacme.ACMEChallengeSolverDNS01, z cmacme.ACMEAuthorization, offered *cmacme.ACMEChallenge, server string, by acme.Account) (string, error) {
	if len(offered.IssuerDomainNames) == 0 {
		return "", fault.Refusedf("InvalidChallenge", "the CA's dns-persist-01 challenge of %q cannot be used: it has to name 1 to 10 domain names of the CA, by the draft -01", z.Identifier)
	}
	ca, err := url.Parse(server)
	if err != nil {
		return "", fault.Misconfiguredf("InvalidConfig", "spec.acme.server: %q is not a URL", server)
	}
	account, err := url.Parse(by.URL)
	if err != nil || !strings.EqualFold(account.Host, ca.Host) {
		return "", fault.Refusedf("InvalidChallenge", "dns-persist-01 cannot be used: the account %s is not of the host %s of spec.acme.server, so the record could let somebody else have certificates",
			by.URL, ca.Host)
	}
	grant := acme.DNSPersist01{IssuerDomainName: offered.IssuerDomainNames[0], AccountURI: by.URL, Wildcard: wildcard(z)}
	if until := solver.PersistUntil; until != nil {
		grant.Until = until.Time
	}
	if read, err := acme.ParseDNSPersist01(grant.String()); err != nil || !read.Grants(grant, time.Unix(0, 0)) {
		return "", fault.Refusedf("InvalidChallenge", "dns-persist-01 cannot be used: a record cannot say %q", grant)
	}
	return grant.String(), nil
}

// override follows the annotations by which a Certificate says through which Ingress or Gateway its HTTP-01 challenges are answered.
func override(solver *cmacme.ACMEChallengeSolver, order *cmacme.Order) error {
	if solver.HTTP01 == nil {
		return nil
	}
	a := order.Annotations
	if ingress := solver.HTTP01.Ingress; ingress != nil {
		var set []string
		for _, o := range []struct {
			key   string
			write func(string)
		}{
			{cmacme.ACMECertificateHTTP01IngressNameOverride, func(v string) { ingress.Name = v }},
			{cmacme.ACMECertificateHTTP01IngressClassOverride, func(v string) { ingress.Class = &v }},
			{cmacme.ACMECertificateHTTP01IngressClassNameOverride, func(v string) { ingress.IngressClassName = &v }},
		} {
			if v, found := a[o.key]; found {
				ingress.Name, ingress.Class, ingress.IngressClassName = "", nil, nil
				o.write(v)
				set = append(set, o.key)
			}
		}
		if len(set) > 1 {
			return fault.Misconfiguredf("Annotations", "the Certificate has the annotations %s: keep one of them", strings.Join(set, " and "))
		}
	}
	route := solver.HTTP01.GatewayHTTPRoute
	if route == nil {
		return nil
	}
	name, named := a[cmacme.ACMECertificateHTTP01ParentRefName]
	kind, kinded := a[cmacme.ACMECertificateHTTP01ParentRefKind]
	if named != kinded {
		return fault.Misconfiguredf("Annotations", "the Certificate has one of the annotations %s and %s: set both, or none",
			cmacme.ACMECertificateHTTP01ParentRefName, cmacme.ACMECertificateHTTP01ParentRefKind)
	}
	if named {
		namespace := order.Namespace
		if v := a[cmacme.ACMECertificateHTTP01ParentRefNamespace]; v != "" {
			namespace = v
		}
		// That of the annotations takes the place of the same one of the issuer.
		route.ParentRefs = slices.DeleteFunc(route.ParentRefs, func(p cmacme.ParentReference) bool {
			return p.Name == name && p.Namespace != nil && *p.Namespace == namespace && (p.Kind == nil || *p.Kind == kind)
		})
		route.ParentRefs = append(route.ParentRefs, cmacme.ParentReference{Name: name, Kind: &kind, Namespace: &namespace})
	}
	if len(route.ParentRefs) == 0 {
		return fault.Misconfiguredf("NoParent", "the HTTPRoute of the solver has no parent: set parentRefs, or annotate the Gateway itself")
	}
	return nil
}

func wildcard(z cmacme.ACMEAuthorization) bool { return z.Wildcard != nil && *z.Wildcard }

// choose returns the solver that fits an authorization best. All that its selector names must fit: the labels, one of the names, exactly, and one of
// the zones. Of those that fit it is the one that names the name, else the one with the longest zone, else the one with most labels, else the first.
func choose(solvers []cmacme.ACMEChallengeSolver, z cmacme.ACMEAuthorization, labels map[string]string) (*cmacme.ACMEChallengeSolver, *cmacme.ACMEChallenge) {
	name := z.Identifier
	if wildcard(z) {
		name = "*." + name
	}
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

// rank is how well a selector fits: whether it names the name, how many labels of it its longest zone has, how many labels it wants.
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
	if slices.Contains(s.DNSNames, name) {
		is.name = 1
	}
	for _, zone := range s.DNSZones {
		if n := dns.CompareDomainName(zone, name); n == dns.CountLabel(zone) {
			is.zone = max(is.zone, n)
		}
	}
	return is, (len(s.DNSNames) == 0 || is.name > 0) && (len(s.DNSZones) == 0 || is.zone > 0)
}
