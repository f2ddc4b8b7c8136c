package order

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/desired"
)

// makeChallenges creates the Challenges that are missing.
func (r *Reconciler) makeChallenges(ctx context.Context, p *passState, order *cmacme.Order,
	challenges []cmacme.Challenge) (made MadeChallenges, err error) {
	for _, z := range order.Status.Authorizations {
		if z.InitialState != cmacme.Pending {
			continue
		}
		at := slices.IndexFunc(challenges, func(c cmacme.Challenge) bool {
			return c.Spec.AuthorizationURL == z.URL && c.DeletionTimestamp == nil
		})
		if at < 0 {
			open, created, err := r.makeChallenge(ctx, p, order, z, challenges)
			if err != nil {
				return made, err
			}
			made.Open, made.Created = made.Open || open, made.Created || created
			continue
		}
		switch state := challenges[at].Status.State; {
		case state == cmacme.Valid:
		case acmestatus.IsFinal(state):
			return MadeChallenges{Created: made.Created}, nil // the order is lost: the CA says how
		case state != cmacme.Processing && replaced(order, z, p, &challenges[at]):
			if err := r.discard(ctx, challenges[at:at+1]); err != nil {
				return made, err
			}
			made.Open = true // the controller watches for its end
		default:
			made.Open = true
		}
	}
	return made, nil
}

// makeChallenge creates the Challenge for an authorization. open says that an older one for it is
// still being deleted; the controller watches for its end.
func (r *Reconciler) makeChallenge(ctx context.Context, p *passState, order *cmacme.Order, z cmacme.ACMEAuthorization,
	challenges []cmacme.Challenge) (open, created bool, err error) {
	ch, err := desired.Challenge(order, z, p.issuer.GetSpec().ACME, p.session.Account)
	if err != nil {
		return false, false, err
	}
	if slices.ContainsFunc(challenges, func(c cmacme.Challenge) bool {
		return c.Spec.AuthorizationURL == z.URL && c.Spec.Key == ch.Spec.Key
	}) {
		return true, false, nil // it removes the same value that this one sets up
	}
	if err := r.Seals.Seal(ctx, ch); err != nil {
		// It goes on without: the seal matters only if its Order is gone, or its issuer changes.
		log.FromContext(ctx).Error(err, "challenge without a seal", "challenge", ch.Name)
	}
	if err := r.Client.Create(ctx, ch); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return true, false, nil
		}
		return false, false, fmt.Errorf("create Challenge %s: %w", ch.Name, err)
	}
	r.Events.Eventf(
		order,
		corev1.EventTypeNormal,
		"Created",
		"Created Challenge resource %q for domain %q",
		ch.Name,
		ch.Spec.DNSName,
	)
	return false, true, nil
}

// replaced reports whether a challenge that the CA has not been asked to validate must be replaced:
// the issuer has another solver now, or the account or its key has changed. The name of a Challenge
// is a hash of all that, so comparing names is enough.
func replaced(order *cmacme.Order, z cmacme.ACMEAuthorization, p *passState, is *cmacme.Challenge) bool {
	ch, err := desired.Challenge(order, z, p.issuer.GetSpec().ACME, p.session.Account)
	return err == nil && ch.Name != is.Name
}
