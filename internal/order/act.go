package order

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
)

// passState are what a pass acts through.
type passState struct {
	issuer  *signer.Issuer
	session *account.Session
	memory  *remembered
	// ask is what package ratelimit needs to know of the order.
	ask ratelimit.Request
}

// spec is that of the issuer.
func (p *passState) spec() *cmacme.ACMEIssuer { return p.issuer.GetSpec().ACME }

// pass observes, decides and acts until there is nothing to do but wait. It leaves the status to
// write, and what is to be reported then.
func (r *Reconciler) pass(ctx context.Context, order *cmacme.Order, challenges []cmacme.Challenge) Decision {
	m := r.memory.Of(order)
	p := &passState{memory: m}
	o := Observation{Order: order.DeepCopy(), Challenges: challenges}
	if o.Blocked = r.find(ctx, p, o.Order); o.Blocked == nil {
		defer p.session.Release(ctx)
	}
	var events []Event
	for {
		o.Now, o.Memory = r.Clock.Now(), m.Memory
		if p.session != nil {
			o.LimitedFor = p.session.Wait()
		}
		d := Decide(o)
		o.Order.Status, m.Memory = d.Status, d.Memory
		events = append(events, d.Events...)
		if d.Action == Wait {
			d.Events = events
			return d
		}
		o.Done = d.Action
		o.Err = r.act(ctx, p, &o)
	}
}

// find finds what a pass for an order acts through. Its error blocks the order.
func (r *Reconciler) find(ctx context.Context, p *passState, order *cmacme.Order) (err error) {
	p.issuer, err = r.Scope.Get(ctx, r.Client, order.Namespace, order.Spec.IssuerRef)
	if err != nil {
		return err
	}
	if p.issuer == nil || p.issuer.GetSpec().ACME == nil {
		return fault.Misconfiguredf("IssuerNotFound", "there is no ACME %s %q: create it",
			order.Spec.IssuerRef.KindOrDefault(), order.Spec.IssuerRef.Name)
	}
	if err := r.Origin.Check(ctx, order); err != nil {
		return err
	}
	p.session, err = r.Accounts.Session(ctx, p.issuer, &p.memory.notes, &order.Status.UnreachableSince)
	return err
}

// act carries out an action, and adds what came of it to the observation.
func (r *Reconciler) act(ctx context.Context, p *passState, o *Observation) (err error) {
	order := o.Order
	switch o.Done {
	case Admit:
		return r.admit(ctx, p, order)
	case FindDuplicate:
		o.Duplicate, err = r.findDuplicate(ctx, p, order)
	case Send:
		o.CA, err = r.send(ctx, p, order)
	case CheckServer:
		return p.session.Owns(ctx, order.Status.URL)
	case ReadOrder:
		o.CA, err = p.session.Order(ctx, order.Status.URL)
	case ReadAuthorizations:
		o.Authorizations, o.Expiry, err = r.readAuthorizations(ctx, p, order, o.Now)
	case CheckAuthorizations:
		o.Lapse, o.Expiry, err = r.checkAuthorizations(ctx, p, order, o.Now)
	case MakeChallenges:
		var made MadeChallenges
		made, err = r.makeChallenges(ctx, p, order, o.Challenges)
		o.Made = &made
	case CheckWanted:
		o.Wanted, err = r.checkWanted(ctx, order)
	case Finalize:
		err = r.finalize(ctx, p, o)
		o.FinalizeErr = err
	case Fetch:
		o.Fetched, err = r.fetch(ctx, p, order, o.CA, o.Now)
	case ExplainCAA:
		problem := o.CA.Error
		if o.FinalizeErr != nil {
			problem = problemOf(o.FinalizeErr)
		}
		o.CAA, err = r.explainCAA(ctx, p, order, o.Challenges, problem)
	case CountFailures:
		o.Paused, o.PausedUntil, err = r.countFailures(ctx, p, order, o.Challenges)
	}
	return err
}

// findDuplicate looks for an Order that must be finalized before order is sent. It takes the slot
// of the limiter first, as order counts as being sent if there is none.
func (r *Reconciler) findDuplicate(
	ctx context.Context,
	p *passState,
	order *cmacme.Order,
) (*types.NamespacedName, error) {
	if err := p.session.Enter(ctx); err != nil {
		return nil, err
	}
	return r.duplicateOf(ctx, order, p.session.Account)
}

// finalize asks the CA for the certificate.
func (r *Reconciler) finalize(ctx context.Context, p *passState, o *Observation) error {
	order := o.Order
	csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
	if err != nil {
		return fault.Refusedf("InvalidOrder", "spec.request: %w", err)
	}
	if !r.RateLimits.Finalizing(string(order.UID)) {
		return fault.Limitedf(rateLimited, r.Clock.Now().Add(time.Second),
			"another order is just being sent, for the last certificate that a limit leaves")
	}
	got, err := p.session.Finalize(ctx, o.CA, csr.Raw)
	if err != nil {
		return err
	}
	o.CA, o.Finalized = got, true
	r.duplicates.finalize(order)
	r.wakeDuplicates(client.ObjectKeyFromObject(order))
	return nil
}

// problemOf returns the ACME problem in an error's chain, nil if there is none.
func problemOf(err error) *acme.Problem {
	var p *acme.Problem
	errors.As(err, &p)
	return p
}
