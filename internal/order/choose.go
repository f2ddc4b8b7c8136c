package order

import (
	"crypto"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// noSolver is the reason of the event about a name that no solver is for. It is cert-manager's.
const noSolver = "Solver"

// challengeFor returns the Challenge that gives an authorization of the order. It is the same whenever it is asked for.
func challengeFor(order *cmacme.Order, z cmacme.ACMEAuthorization, solvers []cmacme.ACMEChallengeSolver, key crypto.PublicKey) (*cmacme.Challenge, error) {
	solver, offered := choose(solvers, z, order.Labels)
	if solver == nil {
		name := z.Identifier
		if wildcard(z) {
			name = "*." + name
		}
		var types []string
		for _, ch := range z.Challenges {
			types = append(types, ch.Type)
		}
		return nil, fault.Misconfiguredf(noSolver, "no solver of the issuer can be used for %q: the CA offers %s; correct spec.acme.solvers and their selectors",
			name, strings.Join(types, ", "))
	}
	solver = solver.DeepCopy()
	if err := override(solver, order); err != nil {
		return nil, err
	}
	proof, err := acme.KeyAuthorization(offered.Token, key)
	if err != nil {
		return nil, err
	}
	kind, _ := typeOf(solver)
	authorization := ""
	if kind == cmacme.ACMEChallengeTypeDNS01 {
		if solver.DNS01.Provider != nil {
			authorization = proof
		}
		proof = acme.DNS01Value(proof)
	}
	ch := &cmacme.Challenge{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: order.Namespace, Labels: maps.Clone(order.Labels), Annotations: maps.Clone(order.Annotations),
			Finalizers:      []string{cmacme.ACMEDomainQualifiedFinalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(order, cmacme.SchemeGroupVersion.WithKind("Order"))},
		},
		Spec: cmacme.ChallengeSpec{
			URL: offered.URL, AuthorizationURL: z.URL, DNSName: z.Identifier, Wildcard: wildcard(z), Type: kind, Token: offered.Token, Key: proof,
			KeyAuthorization: authorization, Solver: *solver, IssuerRef: order.Spec.IssuerRef,
		},
	}
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

// typeOf is the type of the challenges that a solver solves, by the name of the API and by that of the protocol.
func typeOf(s *cmacme.ACMEChallengeSolver) (cmacme.ACMEChallengeType, string) {
	switch {
	case s.DNS01 != nil:
		return cmacme.ACMEChallengeTypeDNS01, acme.ChallengeDNS01
	case s.TLSALPN01 != nil:
		return cmacme.ACMEChallengeTypeTLSALPN01, acme.ChallengeTLSALPN01
	}
	return cmacme.ACMEChallengeTypeHTTP01, acme.ChallengeHTTP01
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

// choose returns the solver that fits an authorization best: the one with most of its labels and names where the selector names the
// name, else the one with the longest zone, else the one with most labels, else the first.
func choose(solvers []cmacme.ACMEChallengeSolver, z cmacme.ACMEAuthorization, labels map[string]string) (*cmacme.ACMEChallengeSolver, *cmacme.ACMEChallenge) {
	name := z.Identifier
	if wildcard(z) {
		name = "*." + name
	}
	type score struct{ names, zone, labels int }
	better := func(a, b score) bool {
		switch {
		case a.names != b.names:
			return a.names > b.names
		case a.zone != b.zone:
			return a.zone > b.zone
		}
		return a.labels > b.labels
	}
	var best *cmacme.ACMEChallengeSolver
	var with *cmacme.ACMEChallenge
	var bestScore score
	for i := range solvers {
		s := &solvers[i]
		_, kind := typeOf(s)
		at := slices.IndexFunc(z.Challenges, func(c cmacme.ACMEChallenge) bool { return c.Type == kind })
		if at < 0 {
			continue
		}
		var is score
		if sel := s.Selector; sel != nil {
			fits := true
			for k, v := range sel.MatchLabels {
				if got, ok := labels[k]; !ok || got != v {
					fits = false
				}
			}
			is.labels = len(sel.MatchLabels)
			if len(sel.DNSNames) > 0 && slices.ContainsFunc(sel.DNSNames, func(n string) bool { return strings.EqualFold(n, name) }) {
				is.names = 1
			}
			for _, zone := range sel.DNSZones {
				if within(name, zone) {
					is.zone = max(is.zone, len(strings.Split(strings.Trim(zone, "."), ".")))
				}
			}
			if !fits || len(sel.DNSNames) > 0 && is.names == 0 && is.zone == 0 || len(sel.DNSZones) > 0 && is.zone == 0 && is.names == 0 {
				continue
			}
		}
		if best == nil || better(is, bestScore) {
			best, with, bestScore = s, &z.Challenges[at], is
		}
	}
	return best, with
}

// within reports whether a name is a zone's apex or below it.
func within(name, zone string) bool {
	name, zone = strings.ToLower(strings.TrimPrefix(name, "*.")), strings.ToLower(strings.Trim(zone, "."))
	return name == zone || strings.HasSuffix(name, "."+zone)
}
