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
		return nil, fault.Misconfiguredf("NoSolver", "no solver of the issuer can be used for %q: the CA offers %s; correct spec.acme.solvers and their selectors",
			name, strings.Join(types, ", "))
	}
	proof, err := acme.KeyAuthorization(offered.Token, key)
	if err != nil {
		return nil, err
	}
	kind := cmacme.ACMEChallengeTypeHTTP01
	if solver.DNS01 != nil {
		kind, proof = cmacme.ACMEChallengeTypeDNS01, acme.DNS01Value(proof)
	}
	ch := &cmacme.Challenge{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: order.Namespace, Labels: maps.Clone(order.Labels), Annotations: maps.Clone(order.Annotations),
			Finalizers:      []string{cmacme.ACMEDomainQualifiedFinalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(order, cmacme.SchemeGroupVersion.WithKind("Order"))},
		},
		Spec: cmacme.ChallengeSpec{
			URL: offered.URL, AuthorizationURL: z.URL, DNSName: z.Identifier, Wildcard: wildcard(z), Type: kind, Token: offered.Token, Key: proof,
			Solver: *solver.DeepCopy(), IssuerRef: order.Spec.IssuerRef,
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
		kind := acme.ChallengeHTTP01
		if s.DNS01 != nil {
			kind = acme.ChallengeDNS01
		}
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
