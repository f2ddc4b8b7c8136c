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
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

const (
	// courtesy is for how long a challenge waits for another ACME client to finish, because it would
	// overwrite that client's value. Most clients take less. It counts from the challenge's creation,
	// so that a challenge that had to wait for its turn does not wait twice.
	courtesy = 5 * time.Minute
	// courtesyAgain is how often the solver checks whether the value is gone.
	courtesyAgain = 5 * time.Second
	// losing is part of every warning about a lost value. yield finds out by it whether the user was
	// warned.
	losing = "will be lost, as it puts one value in the place of all"
)

// yield checks for other values before a provider replaces all values of a name. While a value may
// be of another client's challenge, it returns a solver.Later. For other values it returns a
// solver.Later once, to warn the user.
func (s *Solver) yield(ctx context.Context, p Provider, ch *cmacme.Challenge, record Record) error {
	values, _ := s.standing(ctx, p, ch, record)
	if len(values) == 0 {
		return nil
	}
	name, by := strings.TrimSuffix(record.FQDN, "."), ch.Spec.Solver.DNS01.Provider.Name
	if until := ch.CreationTimestamp.Add(courtesy); s.Now().Before(until) && slices.ContainsFunc(values, challengeValue) {
		return &solver.Later{After: min(courtesyAgain, until.Sub(s.Now())), Tell: true, Why: fmt.Sprintf(
			"another ACME client may be at work at %s: %s that Perennial did not make stands there. From %s on %s is used all "+
				"the same, by which it %s",
			name, quoted(values), until.UTC().Format(time.RFC3339), by, losing)}
	}
	if strings.Contains(ch.Status.Reason, losing) {
		return nil
	}
	return &solver.Later{After: time.Second, Tell: true,
		Why: fmt.Sprintf("at %s there is %s that Perennial did not make. If it stands at that name itself, and is no "+
			"wildcard, by %s it %s",
			name, quoted(values), by, losing)}
}

// others reports whether the name has only values of other clients, so that there is nothing to
// clean up.
func (s *Solver) others(ctx context.Context, p Provider, ch *cmacme.Challenge, record Record) bool {
	values, ours := s.standing(ctx, p, ch, record)
	return len(values) > 0 && !ours
}

// standing returns the values of other clients at the name of a record, and whether the record
// itself is there. It applies only to a record that is not made yet, at a provider that would
// remove the other values. It does not ask the recursive servers, because they cache removed
// values.
func (s *Solver) standing(
	ctx context.Context,
	p Provider,
	ch *cmacme.Challenge,
	record Record,
) (values []string, ours bool) {
	l, ok := p.(legoRecords)
	if !ok || ch.Status.Presented || !lego.Exclusive(ch.Spec.Solver.DNS01.Provider.Name) || l.of.Begun(l.record(record)) ||
		s.RecursiveOnly && len(ch.Spec.Solver.DNS01.Nameservers) == 0 {
		return nil, false
	}
	answers, err := s.resolver(ch).Ask(ctx, record)
	if err != nil {
		return nil, false // the check will say so
	}
	return foreign(record, answers)
}

// foreign returns the values that differ from the record's, and whether the record is there.
func foreign(record Record, answers []Answer) (values []string, ours bool) {
	for _, a := range answers {
		for _, v := range a.Values {
			switch {
			case a.Err != nil, v == "", slices.Contains(values, v):
			case v == record.Value:
				ours = true
			default:
				values = append(values, v)
			}
		}
	}
	slices.Sort(values)
	return values, ours
}

// challengeValue reports whether a value may be that of a DNS-01 challenge, RFC 8555 section 8.4:
// the base64url of a SHA-256.
func challengeValue(v string) bool {
	b, err := base64.RawURLEncoding.DecodeString(v)
	return err == nil && len(b) == 32
}
