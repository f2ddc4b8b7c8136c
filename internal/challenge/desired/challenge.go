// Package desired computes the Challenge that an Order and its issuer ask for: which solver, and
// which proof. It is pure.
package desired

import (
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
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
	"github.com/perennial-pki/perennial/pki"
)

// NoSolver is the reason of the event about a name without a solver; it is cert-manager's.
const NoSolver = "Solver"

// Challenge returns the Challenge for an authorization of an Order. It follows from its arguments
// alone, its name included.
func Challenge(
	order *cmacme.Order,
	z cmacme.ACMEAuthorization,
	spec *cmacme.ACMEIssuer,
	by acme.Account,
) (*cmacme.Challenge, error) {
	solver, offered := choose(spec.Solvers, z, order.Labels)
	if solver == nil {
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
		if len(ours) == 0 {
			return nil, fault.Misconfiguredf(NoSolver,
				"the CA wants a proof for %q by one of %s, and the issuer has no solvers: add one to spec.acme.solvers",
				nameOf(z), strings.Join(types, ", "))
		}
		return nil, fault.Misconfiguredf(
			NoSolver,
			"no solver of the issuer can be used for %q: the CA offers %s, and the solvers are for %s; correct "+
				"spec.acme.solvers and their selectors, or the labels of the Certificate",
			nameOf(z),
			strings.Join(types, ", "),
			strings.Join(ours, ", "),
		)
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
			Namespace:   order.Namespace,
			Labels:      signer.CopiedLabels(order.Labels),
			Annotations: maps.Clone(order.Annotations),
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(order, cmacme.SchemeGroupVersion.WithKind("Order")),
			},
		},
		Spec: cmacme.ChallengeSpec{
			URL:              offered.URL,
			AuthorizationURL: z.URL,
			DNSName:          z.Identifier,
			Wildcard:         wildcard(z),
			Type:             kind,
			Token:            offered.Token,
			Key:              proof,
			KeyAuthorization: authorization,
			RecordName:       recordName,
			Solver:           *solver,
			IssuerRef:        order.Spec.IssuerRef,
		},
	}
	label(ch)
	// The selector is of no use after the choice.
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

// label labels a Challenge with the host that the CA asks for. A replica can find it by that label
// before its cache has the Challenge.
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
	ch.Labels[cmacme.DomainLabelKey] = solver.HashLabelValue(pki.ComparableDNSName(host))
}

// typeOf is the type of the challenges that a solver solves, by the name of the API and by that of
// the protocol.
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
