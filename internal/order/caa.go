package order

import (
	"context"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/challenge"
	"github.com/perennial-pki/perennial/internal/challenge/diagnosis"
	"github.com/perennial-pki/perennial/internal/solver"
)

// maxExplained is how many names of an order are diagnosed.
const maxExplained = 3

// explainCAA says which CAA records keep the CA from issuing a certificate though all names are
// proven: CAs read the records again when they issue. It is empty if the problem is another one.
// The error is a limiter.ErrBusy.
func (r *Reconciler) explainCAA(
	ctx context.Context,
	p *passState,
	order *cmacme.Order,
	challenges []cmacme.Challenge,
	problem *acme.Problem,
) (string, error) {
	if !diagnosis.AboutCAA(problem) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, challenge.DiagnoseTimeout)
	defer cancel()
	named := slices.DeleteFunc(
		slices.Clone(order.Spec.DNSNames),
		func(name string) bool { return !strings.Contains(problem.Error(), strings.TrimPrefix(name, "*.")) },
	)
	if len(named) == 0 {
		named = order.Spec.DNSNames
	}
	var parts []string
	for _, name := range named[:min(len(named), maxExplained)] {
		base := strings.TrimPrefix(name, "*.")
		var kind cmacme.ACMEChallengeType
		for i := range challenges {
			if challenges[i].Spec.DNSName == base {
				kind = challenges[i].Spec.Type
			}
		}
		found, err := challenge.ReadCAA(ctx, r.Names, p.session, solver.NameServers(order.Namespace, base), base)
		if err != nil {
			return "", err
		}
		if text := found.Advice(base, base != name, kind); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ". "), nil
}
