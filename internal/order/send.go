package order

import (
	"context"
	"errors"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/order/neworder"
)

// send asks the CA for an order. If the CA rejects the certificate that it replaces, the order is
// sent without that, and may have to wait for other limits.
func (r *Reconciler) send(ctx context.Context, p *passState, order *cmacme.Order) (got acme.Order, err error) {
	defer func() {
		if err != nil {
			r.wakeDuplicates(client.ObjectKeyFromObject(order))
		}
		p.session.NoteReachability(err)
	}()
	request, err := neworder.Request(order)
	if err != nil {
		return got, err
	}
	if err := r.checkProfile(ctx, p, request.Profile); err != nil {
		return got, err
	}
	if !p.memory.unreplaced.IsZero() {
		request.Replaces = ""
	}
	got, err = r.newOrder(ctx, p, order, request)
	if request.Replaces != "" && neworder.RefusesReplaces(err) {
		// The certificate is needed in any case. Without replaces, the order counts against the same
		// limits as other orders.
		p.memory.unreplaced.Start(r.Clock.Now())
		p.ask.Window = acme.Window{}
		if err := r.askLimits(ctx, p); err != nil {
			return got, err
		}
		request.Replaces = ""
		got, err = r.newOrder(ctx, p, order, request)
	}
	if err != nil {
		return got, r.refused(ctx, p, err)
	}
	return got, checkNewOrder(request, got)
}

// checkProfile returns an error if the CA does not offer the profile.
func (r *Reconciler) checkProfile(ctx context.Context, p *passState, profile string) error {
	if profile == "" {
		return nil
	}
	dir, err := p.session.Directory(ctx)
	if err != nil {
		return err
	}
	return account.OfferedProfile(profile, dir.Meta.Profiles)
}

// checkNewOrder returns an error if the order is not the one that was asked for.
func checkNewOrder(asked acme.OrderRequest, got acme.Order) error {
	if !neworder.Same(asked.Identifiers, got.Identifiers) {
		return fault.Refusedf("InvalidOrder", "the CA made an order for %s, not for %s", neworder.Describe(got.Identifiers),
			neworder.Describe(asked.Identifiers))
	}
	if got.Profile != "" && asked.Profile != "" && got.Profile != asked.Profile {
		return fault.Refusedf("InvalidOrder", "the CA made an order of profile %q, not of %q",
			account.ShortProfile(got.Profile), asked.Profile)
	}
	if n := len(got.Authorizations); n > maxAuthorizations {
		return fault.Refusedf("InvalidOrder", "the CA wants %d authorizations for %d names", n, len(asked.Identifiers))
	}
	return nil
}

// newOrder sends the order. If the reply cannot be read but names the order's URL, the order is
// read there. The ledger of limits records it if the CA may have taken it and its URL is not known.
func (r *Reconciler) newOrder(ctx context.Context, p *passState, order *cmacme.Order,
	request acme.OrderRequest) (acme.Order, error) {
	got, err := p.session.NewOrder(ctx, request)
	var silent *acme.NoReply
	var wrong *acme.ProtocolError
	if errors.As(err, &wrong) && wrong.Location != "" {
		if read, e := p.session.Order(ctx, wrong.Location); e == nil {
			return read, nil
		}
	}
	if errors.As(err, &silent) && silent.Action == "newOrder" || errors.As(err, &wrong) && wrong.Action == "newOrder" {
		r.RateLimits.NoReply(string(order.UID))
	}
	return got, err
}
