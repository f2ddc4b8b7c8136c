package dns01

import (
	"context"
	"fmt"
	"slices"
	"strings"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

// Look asks all name servers of the zone for the record.
func (s *Solver) Look(ctx context.Context, ch *cmacme.Challenge) ([]solver.View, error) {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if err != nil {
		return nil, err
	}
	answers, err := r.Ask(ctx, record)
	if err != nil {
		return nil, err
	}
	var views []solver.View
	for _, a := range answers {
		v := solver.View{Where: a.who()}
		switch {
		case a.Err != nil:
			v.Silent, v.Says = true, fmt.Sprintf("cannot be reached: %s", a.Err)
		case slices.Contains(a.Values, record.Value):
			v.Right = true
		default:
			v.Says = fmt.Sprintf("answers %s for %s", quoted(a.Values), strings.TrimSuffix(record.FQDN, "."))
		}
		views = append(views, v)
	}
	return views, nil
}
