package challenge

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/challenge/diagnosis"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

// passState are what a pass acts through.
type passState struct {
	issuer  *signer.Issuer
	solver  solver.Solver
	session *account.Session
	// neighbors are the other challenges that must keep their proofs at the same place, if it has few
	// slots.
	neighbors []*cmacme.Challenge
}

// pass observes, decides and acts until there is nothing to do but wait. It leaves the status to
// write, and what is to be reported then.
func (r *Reconciler) pass(ctx context.Context, ch *cmacme.Challenge) Decision {
	o := Observation{Challenge: ch.DeepCopy()}
	m := r.memory.Of(ch)
	p := &passState{}
	o.Blocked = r.find(ctx, p, o.Challenge, m)
	o.Capacity = r.capacity(ch)
	waiting := !ch.Status.Presented
	var events []Event
	for {
		o.Now, o.Memory = r.Clock.Now(), m.Memory
		if p.session != nil {
			o.LimitedFor = p.session.Wait()
		}
		if o.Challenge.Status.Presented || o.Done == Present {
			o.Siblings = r.siblings(ctx, o.Challenge)
		}
		d := Decide(o)
		if m.Seen.IsZero() && !d.Memory.Seen.IsZero() {
			log.FromContext(ctx).Info("challenge visible", "type", ch.Spec.Type, "domain", ch.Spec.DNSName)
		}
		o.Challenge.Status, m.Memory = d.Status, d.Memory
		r.slots.update(client.ObjectKeyFromObject(ch), func(e *entry) { e.visible = !d.Memory.Seen.IsZero() })
		for _, key := range d.Wake {
			r.queue.Add(reconcile.Request{NamespacedName: key})
		}
		r.report(ch, d.Done)
		events = append(events, d.Events...)
		if d.Action == Wait {
			d.Events = events
			if waiting && !d.Status.Presented {
				r.yield(ctx, ch, d.Slot)
			}
			return d
		}
		r.act(ctx, p, &o, d)
		limiter.Release(ctx)
	}
}

// find finds what a pass for a challenge acts through. Its error blocks the challenge.
func (r *Reconciler) find(ctx context.Context, p *passState, ch *cmacme.Challenge, m *remembered) (err error) {
	p.issuer, err = r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	if err != nil {
		return err
	}
	if p.issuer == nil || p.issuer.GetSpec().ACME == nil {
		return fault.Misconfiguredf("IssuerNotFound", "there is no ACME %s %q: create it",
			ch.Spec.IssuerRef.KindOrDefault(), ch.Spec.IssuerRef.Name)
	}
	if p.solver = r.Solvers[ch.Spec.Type]; p.solver == nil {
		return fault.Misconfiguredf("NoSolver", "this process solves no challenges of type %s", ch.Spec.Type)
	}
	p.session, err = r.Accounts.Session(ctx, p.issuer, &m.notes, &ch.Status.UnreachableSince)
	switch {
	case err != nil:
		return err
	case !ch.Status.Presented:
		return r.verify(ctx, p.issuer, p.session.Account, ch)
	case p.issuer.Kind == signer.KindClusterIssuer:
		return leftAlone(r.prove(ctx, p.issuer, ch))
	}
	return nil // with the settings that it was set up with, also if the issuer has others by now
}

// yield reports to the scheduler what becomes of the slot of a challenge that is not presented.
func (r *Reconciler) yield(ctx context.Context, ch *cmacme.Challenge, use SlotUse) {
	switch use {
	case Keep:
	case Release:
		r.release(ch)
	case Yield:
		now := r.Clock.Now()
		r.slots.update(client.ObjectKeyFromObject(ch), func(e *entry) {
			e.Presenting, e.Failed, e.Resting = false, now, true
		})
		r.wakeNext(ctx)
	}
}

// act carries out an action, and adds what came of it to the observation.
func (r *Reconciler) act(ctx context.Context, p *passState, o *Observation, d Decision) {
	ch, url := o.Challenge, o.Challenge.Spec.AuthorizationURL
	o.Done, o.Err = d.Action, nil
	switch d.Action {
	case Admit:
		o.Slot, p.neighbors, o.Err = r.admit(ctx, ch)
	case ReadAuthorization:
		o.Authorization, o.Err = p.session.Authorization(ctx, url)
	case Present:
		o.Err = present(ctx, p, ch)
	case Check:
		var seen solver.CheckResult
		seen, o.Err = p.solver.Check(ctx, p.issuer, ch)
		o.Sight = &seen
	case Restore:
		if p.neighbors, o.Err = r.neighbors(ctx, ch); o.Err == nil {
			o.Err = present(ctx, p, ch)
		}
	case Accept:
		var got acme.Challenge
		got, o.Err = p.session.AcceptChallenge(ctx, ch.Spec.URL)
		o.RetryAfter = got.RetryAfter
		if acme.IsProblem(o.Err, acme.ProblemMalformed, acme.ProblemUnauthorized) {
			o.Refusal = o.Err
		}
	case Count:
		o.Err = r.count(ctx, p, ch, o.Authorization, d.Verdict)
	case Diagnose:
		o.Diagnosis, o.Err = r.diagnose(ctx, p, ch, diagnosis.ProblemOf(ch, o.Authorization))
	}
	if p.session != nil {
		p.session.NoteLimit(o.Err) // a solver's service has limits, too
	}
}

// present sets up the proof of a challenge, and leaves those of its neighbors in place.
func present(ctx context.Context, p *passState, ch *cmacme.Challenge) error {
	if x, ok := p.solver.(solver.CapacityLimited); ok && len(p.neighbors) > 0 {
		return x.PresentAlong(ctx, p.issuer, ch, p.neighbors)
	}
	return p.solver.Present(ctx, p.issuer, ch)
}

// count adds the CA's verdict to what is known of its limits.
func (r *Reconciler) count(
	ctx context.Context, p *passState, ch *cmacme.Challenge, z acme.Authorization, v Verdict,
) error {
	spec, account := p.issuer.GetSpec().ACME, p.session.Account.URL
	ca := r.RateLimits.For(spec.Server)
	switch v.State {
	case cmacme.Valid:
		ca.Validated(account, z.Identifier)
	case cmacme.Invalid:
		own := ratelimit.Published(spec.Server).Override(spec.RateLimits)
		return ca.ValidationFailed(ctx, ratelimit.FailedValidation{
			Account: account, Namespace: ch.Namespace, Identifier: z.Identifier, Limit: own.Validations,
			Authorization: ch.Spec.AuthorizationURL, Detail: v.Reason,
		})
	}
	return nil
}
