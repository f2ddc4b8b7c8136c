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
	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// atOnce is how many authorizations of an order are read at once.
	atOnce = 8
	// maxAuthorizations is how many an order may want, and maxOffered how many challenges of each are kept. CAs want one for each name, of
	// which they take a hundred or a few, and offer less than ten.
	maxAuthorizations, maxOffered = 1000, 20
)

// authorizations reads those at the URLs. If one cannot be read, the error says why.
func (o conversation) authorizations(ctx context.Context, urls []string) ([]acme.Authorization, error) {
	found := make([]acme.Authorization, len(urls))
	errs := make([]error, len(urls))
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, url := range urls {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i], errs[i] = o.ca.Authorization(ctx, o.by, url)
		})
	}
	group.Wait()
	return found, errors.Join(errs...)
}

// firstToExpire is when the first of authorizations expires, zero if none does. What has expired already when it is new is by another clock.
func firstToExpire(all []acme.Authorization, now time.Time) (until time.Time) {
	for _, z := range all {
		if z.Expires != nil && now.Before(*z.Expires) && (until.IsZero() || z.Expires.Before(until)) {
			until = *z.Expires
		}
	}
	return until
}

// lapsed says which authorization of an order is of no use any more though no proof failed, if there is one. Else it returns when the first expires.
func (o conversation) lapsed(ctx context.Context, order *cmacme.Order) (why string, until time.Time, err error) {
	var urls []string
	for _, z := range order.Status.Authorizations {
		urls = append(urls, z.URL)
	}
	found, err := o.authorizations(ctx, urls)
	if err != nil {
		return "", until, err
	}
	for _, z := range found {
		switch past := z.Expires != nil && !o.now.Before(*z.Expires); {
		case z.Status == acme.StatusInvalid:
			return "", until, nil
		case past:
			return fmt.Sprintf("%s: the authorization expired at %s", words([]acme.Identifier{z.Identifier}), z.Expires.UTC().Format(time.RFC3339)), until, nil
		case z.Status != acme.StatusPending && z.Status != acme.StatusValid:
			return fmt.Sprintf("%s: the authorization is %s", words([]acme.Identifier{z.Identifier}), z.Status), until, nil
		}
	}
	return "", firstToExpire(found, o.now), nil
}

// readAuthorizations fills in what the order's authorizations are about, and returns when the first expires.
func (o conversation) readAuthorizations(ctx context.Context, order *cmacme.Order) (until time.Time, err error) {
	var unread []*cmacme.ACMEAuthorization
	var urls []string
	for i := range order.Status.Authorizations {
		if z := &order.Status.Authorizations[i]; z.Identifier == "" {
			unread, urls = append(unread, z), append(urls, z.URL)
		}
	}
	found, err := o.authorizations(ctx, urls)
	if err != nil {
		return until, err
	}
	ask, err := request(order)
	if err != nil {
		return until, err
	}
	for i, z := range unread {
		// Nothing is proved to a CA but what we have asked for. What is proved already may be more, such as the name above.
		if id := found[i].Identifier; found[i].Status == acme.StatusPending && !slices.ContainsFunc(ask.Identifiers, func(a acme.Identifier) bool {
			a.Value = strings.TrimPrefix(a.Value, "*.")
			return canonical(a) == canonical(id)
		}) {
			return until, fault.Refusedf("InvalidOrder", "the CA wants proof for %s, which the order is not for", words([]acme.Identifier{id}))
		}
		wildcard := found[i].Wildcard
		z.Identifier, z.Wildcard, z.InitialState = found[i].Identifier.Value, &wildcard, initialState(found[i].Status)
		for _, ch := range found[i].Challenges {
			// An offer that cert-manager does not know would keep it from writing the status of the Order.
			if (ch.Token != "" || ch.Type == acme.ChallengeDNSPersist01 && o.persists) && len(z.Challenges) < maxOffered {
				z.Challenges = append(z.Challenges, cmacme.ACMEChallenge{URL: ch.URL, Token: ch.Token, Type: ch.Type, IssuerDomainNames: ch.IssuerDomainNames})
			}
		}
	}
	return firstToExpire(found, o.now), nil
}

// initialState is the state of an authorization in an Order.
func initialState(status string) cmacme.State {
	switch status {
	case acme.StatusPending, acme.StatusValid, acme.StatusInvalid:
		return cmacme.State(status)
	}
	return cmacme.Expired // or deactivated, or revoked: of no use
}
