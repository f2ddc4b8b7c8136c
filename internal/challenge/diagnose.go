package challenge

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/challenge/diagnosis"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// DiagnoseTimeout bounds all that is done to explain a refusal.
const DiagnoseTimeout = 15 * time.Second

// diagnose explains why a proof was refused: what the CA saw, what is seen from here, and what to
// do. The error is a limiter.ErrBusy.
func (r *Reconciler) diagnose(ctx context.Context, p *passState, ch *cmacme.Challenge,
	problem *acme.Problem) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, DiagnoseTimeout)
	defer cancel()
	f := diagnosis.Failure{
		Kind: ch.Spec.Type, Name: ch.Spec.DNSName, Wildcard: ch.Spec.Wildcard, Problem: problem,
	}
	if _, err := netip.ParseAddr(f.Name); err != nil && problem != nil {
		if diagnosis.AboutCAA(problem) {
			f.CAA, err = ReadCAA(ctx, r.Names, p.session, solver.TargetOf(ch), f.Name)
			return f.String(), err
		}
		if err := limiter.Acquire(ctx, solver.TargetOf(ch)); err != nil {
			return "", err
		}
		if problem.Type == acme.ProblemDNS || strings.Contains(problem.Detail, "DNSSEC") {
			f.Bogus = r.Names.Bogus(ctx, f.Name)
		}
	}
	if f.Views, f.Unknown = p.solver.Look(ctx, ch); limiter.IsBusy(f.Unknown) {
		return "", f.Unknown
	}
	return f.String(), nil
}

// ReadCAA reads which CAs may issue for a name. The error is a limiter.ErrBusy.
func ReadCAA(ctx context.Context, names *resolver.Resolver, s *account.Session, nameServers limiter.Target,
	name string) (diagnosis.CAA, error) {
	c := diagnosis.CAA{Account: s.Account.URL}
	dir, err := s.Directory(ctx)
	if limiter.IsBusy(err) {
		return c, err
	}
	c.Identities = dir.Meta.CAAIdentities
	if err := limiter.Acquire(ctx, nameServers); err != nil {
		return c, err
	}
	c.Records, c.At, c.Unknown = names.CAA(ctx, name)
	return c, nil
}
