package dns01

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const (
	// foreignWait is for how long a challenge waits for another ACME client to finish, because it
	// would overwrite that client's value. Most clients take less. It counts from the challenge's
	// creation, so that a challenge that had to wait for its turn does not wait twice.
	foreignWait = 5 * time.Minute
	// foreignInterval is how often the solver checks whether the value is gone.
	foreignInterval = 5 * time.Second
)

// foreignRecords are the values of other clients at the name of a record that a provider is about
// to overwrite.
type foreignRecords struct {
	name, provider string
	values         []string
	// until is set while one of the values may be of a challenge of another ACME client, which gets
	// this long to finish.
	until time.Time
}

// String warns of what will be lost.
func (f foreignRecords) String() string {
	if !f.until.IsZero() {
		return fmt.Sprintf(
			"another ACME client may be at work at %s: %s that Perennial did not make stands there. From %s on %s is used all "+
				"the same, by which it will be lost, as it puts one value in the place of all",
			f.name, resolver.Quote(f.values), f.until.UTC().Format(time.RFC3339), f.provider)
	}
	return fmt.Sprintf("at %s there is %s that Perennial did not make. If it stands at that name itself, and is no "+
		"wildcard, by %s it will be lost, as it puts one value in the place of all",
		f.name, resolver.Quote(f.values), f.provider)
}

// spareForeignRecords checks for other values before a provider replaces all values of a name.
// While a value may be of another client's challenge, it returns a solver.RetryLaterError. For
// other values it returns a solver.RetryLaterError once, to warn the user.
func (s *Solver) spareForeignRecords(ctx context.Context, p provider.Provider, ch *cmacme.Challenge,
	record provider.Record) error {
	values, _ := s.recordsAt(ctx, p, ch, record)
	if len(values) == 0 {
		return nil
	}
	found := foreignRecords{
		name: strings.TrimSuffix(record.FQDN, "."), provider: ch.Spec.Solver.DNS01.Provider.Name, values: values,
	}
	after := time.Second
	if until := ch.CreationTimestamp.Add(foreignWait); s.Now().Before(until) &&
		slices.ContainsFunc(values, isChallengeValue) {
		found.until, after = until, min(foreignInterval, until.Sub(s.Now()))
	} else if s.warned.has(ch.UID) {
		return nil
	}
	s.warned.add(ch.UID)
	return &solver.RetryLaterError{After: after, Tell: true, Why: found.String()}
}

// onlyForeignRecords reports whether the name has only values of other clients, so that there is
// nothing to clean up.
func (s *Solver) onlyForeignRecords(ctx context.Context, p provider.Provider, ch *cmacme.Challenge,
	record provider.Record) bool {
	values, ours := s.recordsAt(ctx, p, ch, record)
	return len(values) > 0 && !ours
}

// recordsAt returns the values of other clients at the name of a record, and whether the record
// itself is there. It applies only to a record that is not made yet, at a provider that would
// remove the other values. It does not ask the recursive servers, because they cache removed
// values.
func (s *Solver) recordsAt(
	ctx context.Context,
	p provider.Provider,
	ch *cmacme.Challenge,
	record provider.Record,
) (foreign []string, ours bool) {
	a, ok := p.(provider.Asynchronous)
	if !ok || ch.Status.Presented || !a.Overwrites(record) || s.cachesAnswers(ch) {
		return nil, false
	}
	answers, err := s.resolver(ch).Ask(ctx, resolver.Record{FQDN: record.FQDN, Zone: record.Zone, Value: record.Value})
	if err != nil {
		return nil, false // the check will say so
	}
	return foreignValues(record.Value, answers)
}

// foreignValues returns the values that differ from ours, and whether ours is there.
func foreignValues(value string, answers []resolver.Answer) (values []string, ours bool) {
	for _, a := range answers {
		for _, v := range a.Values {
			switch {
			case a.Err != nil, v == "", slices.Contains(values, v):
			case v == value:
				ours = true
			default:
				values = append(values, v)
			}
		}
	}
	slices.Sort(values)
	return values, ours
}

// isChallengeValue reports whether a value may be that of a DNS-01 challenge, RFC 8555 section 8.4:
// the base64url of a SHA-256.
func isChallengeValue(v string) bool {
	b, err := base64.RawURLEncoding.DecodeString(v)
	return err == nil && len(b) == 32
}
