package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/order/neworder"
)

const (
	// atOnce is how many authorizations of an order are read at once.
	atOnce = 8
	// maxAuthorizations is how many authorizations an order may have, and maxOffered how many
	// challenges of each are kept. CAs accept up to a few hundred names in an order, and offer fewer
	// than ten challenges for each.
	maxAuthorizations, maxOffered = 1000, 20
)

// authorizations reads those at the URLs. If one cannot be read, the error says why.
func authorizations(ctx context.Context, s *account.Session, urls []string) ([]acme.Authorization, error) {
	found := make([]acme.Authorization, len(urls))
	errs := make([]error, len(urls))
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, url := range urls {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i], errs[i] = s.Authorization(ctx, url)
		})
	}
	group.Wait()
	return found, errors.Join(errs...)
}

// firstToExpire is when the first of authorizations expires, zero if none does. An expiry in the
// past is ignored: the clock of the CA differs from ours.
func firstToExpire(all []acme.Authorization, now time.Time) (until time.Time) {
	for _, z := range all {
		if z.Expires != nil && now.Before(*z.Expires) && (until.IsZero() || z.Expires.Before(until)) {
			until = *z.Expires
		}
	}
	return until
}

// checkAuthorizations says which authorization of an order has become useless without a failed
// proof, such as by its expiry. If there is none, it returns when the first expires.
func (r *Reconciler) checkAuthorizations(ctx context.Context, p *passState, order *cmacme.Order,
	now time.Time) (lapse string, expiry time.Time, err error) {
	var urls []string
	for _, z := range order.Status.Authorizations {
		urls = append(urls, z.URL)
	}
	found, err := authorizations(ctx, p.session, urls)
	if err != nil {
		return "", expiry, err
	}
	lapse, expiry = lapsed(found, now)
	return lapse, expiry, nil
}

// lapsed says which authorization has become useless without a failed proof, or when the first
// expires.
func lapsed(all []acme.Authorization, now time.Time) (why string, expiry time.Time) {
	for _, z := range all {
		name := neworder.Describe([]acme.Identifier{z.Identifier})
		switch past := z.Expires != nil && !now.Before(*z.Expires); {
		case z.Status == acme.StatusInvalid:
			return "", expiry
		case past:
			return fmt.Sprintf("%s: the authorization expired at %s", name, z.Expires.UTC().Format(time.RFC3339)), expiry
		case z.Status != acme.StatusPending && z.Status != acme.StatusValid:
			return fmt.Sprintf("%s: the authorization is %s", name, z.Status), expiry
		}
	}
	return "", firstToExpire(all, now)
}

// readAuthorizations returns the authorizations of an order with what they are about, and when the
// first expires.
func (r *Reconciler) readAuthorizations(ctx context.Context, p *passState, order *cmacme.Order,
	now time.Time) (all []cmacme.ACMEAuthorization, expiry time.Time, err error) {
	all = slices.Clone(order.Status.Authorizations)
	var unread []*cmacme.ACMEAuthorization
	var urls []string
	for i := range all {
		if z := &all[i]; z.Identifier == "" {
			unread, urls = append(unread, z), append(urls, z.URL)
		}
	}
	found, err := authorizations(ctx, p.session, urls)
	if err != nil {
		return nil, expiry, err
	}
	ask, err := neworder.Request(order)
	if err != nil {
		return nil, expiry, err
	}
	for i, z := range unread {
		// The controller proves only the names of the order to the CA. An authorization that is already
		// valid may be for another name, such as the parent domain.
		if found[i].Status == acme.StatusPending && !asked(ask, found[i].Identifier) {
			return nil, expiry, fault.Refusedf("InvalidOrder", "the CA wants proof for %s, which the order is not for",
				neworder.Describe([]acme.Identifier{found[i].Identifier}))
		}
		describe(z, found[i], persists(p.spec()))
	}
	return all, firstToExpire(found, now), nil
}

// asked reports whether an order is for the identifier of an authorization.
func asked(ask acme.OrderRequest, id acme.Identifier) bool {
	return slices.ContainsFunc(ask.Identifiers, func(a acme.Identifier) bool {
		a.Value = strings.TrimPrefix(a.Value, "*.")
		return neworder.Canonical(a) == neworder.Canonical(id)
	})
}

// describe fills in what an authorization is about.
func describe(z *cmacme.ACMEAuthorization, found acme.Authorization, persists bool) {
	z.Identifier, z.Wildcard, z.InitialState = found.Identifier.Value, &found.Wildcard, initialState(found.Status)
	for _, ch := range found.Challenges {
		// An offer that cert-manager does not know would keep it from writing the status of the Order.
		known := ch.Token != "" || ch.Type == acme.ChallengeDNSPersist01 && persists
		if known && len(z.Challenges) < maxOffered {
			z.Challenges = append(z.Challenges, cmacme.ACMEChallenge{
				URL: ch.URL, Token: ch.Token, Type: ch.Type, IssuerDomainNames: ch.IssuerDomainNames,
			})
		}
	}
}

// persists reports whether an issuer has a solver for dns-persist-01.
func persists(spec *cmacme.ACMEIssuer) bool {
	return slices.ContainsFunc(spec.Solvers, func(s cmacme.ACMEChallengeSolver) bool {
		return s.DNS01 != nil && s.DNS01.ChallengeType == cmacme.DNS01ChallengeTypeDNSPersist01
	})
}

// initialState is the state of an authorization in an Order.
func initialState(status string) cmacme.State {
	switch status {
	case acme.StatusPending, acme.StatusValid, acme.StatusInvalid:
		return cmacme.State(status)
	}
	return cmacme.Expired // or deactivated, or revoked: of no use
}
