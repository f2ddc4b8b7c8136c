package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
)

const (
	// removalInterval is how often the solver checks whether a record is gone: secondaries get the
	// change later.
	removalInterval = 15 * time.Second
	// removalGrace is how long after the end of a challenge a record that no server has counts as
	// removed although CleanUp fails. An earlier process may have removed it and ended before it
	// stored that. Before this time the record may still reach the servers.
	removalGrace = time.Minute
)

// checkRemoved checks, after CleanUp returned err, whether the record can still be seen. Some
// providers do not find the record any more, or only one of two. The recursive servers cannot
// decide that, because they cache.
func (s *Solver) checkRemoved(ctx context.Context, ch *cmacme.Challenge, err error) error {
	if later := new(solver.RetryLaterError); errors.As(err, &later) {
		return err
	}
	r := s.resolver(ch)
	record, failed := s.locate(ctx, r, ch)
	if limiter.IsBusy(failed) {
		return failed
	}
	if failed != nil || s.cachesAnswers(ch) {
		return err
	}
	answers, failed := r.Ask(ctx, record)
	if failed != nil {
		return err
	}
	var at []string
	silent := len(answers) == 0
	for _, a := range answers {
		switch {
		case a.Err != nil:
			silent = true
		case slices.Contains(a.Values, record.Value):
			at = append(at, strings.TrimSuffix(a.Server, "."))
		}
	}
	switch name := ch.Spec.Solver.DNS01.Provider.Name; {
	case len(at) > 0 && err != nil:
		return fault.Transientf("CleanUpError", "%s still has the record: %w", strings.Join(at, ", "), err)
	case len(at) > 0 && name == provider.Manual:
		return &solver.RetryLaterError{
			After: removalInterval,
			Why: fmt.Sprintf("remove the TXT record %s with the value %q, which %s still has",
				strings.TrimSuffix(record.FQDN, "."), record.Value, strings.Join(at, ", ")),
			Ask: true,
		}
	case len(at) > 0:
		return &solver.RetryLaterError{
			After: removalInterval,
			Why:   fmt.Sprintf("%s still has it, although %s was asked to remove it", strings.Join(at, ", "), name),
		}
	case err != nil && !silent && ch.DeletionTimestamp != nil && s.Now().Sub(ch.DeletionTimestamp.Time) > removalGrace:
		return nil
	}
	return err
}
