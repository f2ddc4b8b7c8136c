package order

import (
	"context"
	"net/url"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/diagnosis"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/order/neworder"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// renewedWithin is how long after a certificate another with the same names counts as its renewal:
// a day less than Let's Encrypt does.
const renewedWithin = 119 * 24 * time.Hour

// rateLimited is the reason of an order that waits for a limit.
const rateLimited = "RateLimited"

// lineAgain is how often a waiting order computes its wait anew: orders before it may be gone, as
// one certificate may replace many.
const lineAgain = 10 * time.Minute

// byNames is the field index of Orders with a certificate, by its names.
const byNames = "spec.names"

// limitsOf returns the limits of an issuer, and those that its CA publishes.
func limitsOf(spec *cmacme.ACMEIssuer) (own, published ratelimit.Limits) {
	published = ratelimit.Published(spec.Server)
	return published.Override(spec.RateLimits), published
}

// namesOf returns the names of an Order with a certificate, and nothing for others.
func namesOf(order *cmacme.Order) []string {
	if order.Status.State != cmacme.Valid {
		return nil
	}
	return []string{allNames(order)}
}

func allNames(order *cmacme.Order) string {
	ask, err := neworder.Request(order)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, id := range ask.Identifiers { // they are sorted
		b.WriteString(id.Value + " ")
	}
	return b.String()
}

// admit returns an error if the order must wait. It takes no slot of the limiter.
func (r *Reconciler) admit(ctx context.Context, p *passState, order *cmacme.Order) (err error) {
	if p.ask, err = r.ask(ctx, p, order); err != nil {
		return err
	}
	err = r.askLimits(ctx, p)
	if err != nil {
		p.session.NoteReachability(err)
	}
	return err
}

// askLimits returns an error if the limits do not allow the order.
func (r *Reconciler) askLimits(ctx context.Context, p *passState) error {
	v, err := r.RateLimits.For(p.spec().Server).Admit(ctx, p.ask)
	if err != nil || v.Allowed {
		return err
	}
	return postponed(v)
}

// paused is the reason of an order for paused names.
const paused = "Paused"

// postponed returns the error of an order that waits for a limit.
func postponed(v ratelimit.Decision) error {
	if v.Kind == ratelimit.Paused {
		return fault.Limitedf(paused, v.Until, "%s", v.Message())
	}
	return fault.Limitedf(rateLimited, v.Until, "%s", v.Message())
}

// ask returns what the limits depend on for an order.
func (r *Reconciler) ask(ctx context.Context, p *passState, order *cmacme.Order) (ratelimit.Request, error) {
	spec, account := p.spec(), p.session.Account.URL
	wanted, err := neworder.Request(order)
	if err != nil {
		return ratelimit.Request{}, err
	}
	a := ratelimit.Request{
		ID: string(
			order.UID,
		),
		Namespace:   order.Namespace,
		Name:        order.Name,
		Account:     account,
		Identifiers: wanted.Identifiers,
		Manual:      order.Annotations[signer.ManualTriggerAnnotation] != "",
		Created:     order.CreationTimestamp.Time,
	}
	a.Limits, a.Published = limitsOf(spec)
	if name := order.Annotations[cmapi.CertificateNameKey]; name != "" {
		crt := &cmapi.Certificate{}
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: order.Namespace, Name: name}, crt, client.UnsafeDisableDeepCopy)
		if client.IgnoreNotFound(err) != nil {
			return a, err
		}
		if t := crt.Status.NotAfter; t != nil {
			a.Expires = t.Time
		}
		if wanted.Replaces != "" && p.memory.unreplaced.IsZero() && crt.Status.ACME != nil && crt.Status.ACME.ARI != nil {
			if w := crt.Status.ACME.ARI.SuggestedWindow; w != nil && w.Start != nil && w.End != nil {
				a.Window = acme.Window{Start: w.Start.Time, End: w.End.Time}
			}
		}
	}
	if a.Limits == (ratelimit.Limits{}) {
		return a, nil // without limits, it makes no difference whether it is a renewal
	}
	var same cmacme.OrderList
	if err := r.Client.List(ctx, &same, cached(byNames, allNames(order))...); err != nil {
		return a, err
	}
	for n := range same.Items {
		if o := &same.Items[n]; sameHost(o.Status.URL, account) &&
			r.Clock.Now().Sub(o.CreationTimestamp.Time) < renewedWithin {
			a.Renewal = true
		}
	}
	return a, nil
}

// sameHost reports whether two URLs are of one server.
func sameHost(a, b string) bool {
	u, err := url.Parse(a)
	v, err2 := url.Parse(b)
	return err == nil && err2 == nil && u.Host != "" && strings.EqualFold(u.Host, v.Host)
}

// refused records a rate limit error of the CA for an order, and returns the error of an order that
// waits. It returns other errors as they are.
func (r *Reconciler) refused(ctx context.Context, p *passState, err error) error {
	problem := account.Limited(err)
	if problem == nil {
		return err
	}
	v, e := r.RateLimits.For(p.spec().Server).Refused(ctx, p.ask, problem, fault.Of(err).Until)
	if e != nil {
		return e
	}
	return postponed(v)
}

// Past returns how to list the orders to the CA of a directory.
func Past(
	c client.Reader,
	scope signer.Scope,
) func(ctx context.Context, directory string) ([]ratelimit.OrderRecord, error) {
	return func(ctx context.Context, directory string) ([]ratelimit.OrderRecord, error) {
		var list cmacme.OrderList
		if err := c.List(
			ctx,
			&list,
			client.UnsafeDisableDeepCopy,
			&client.ListOptions{DisableReadYourWritesConsistency: true},
		); err != nil {
			return nil, err
		}
		issuers := map[string]*signer.Issuer{}
		var past []ratelimit.OrderRecord
		for n := range list.Items {
			o := &list.Items[n]
			key := signer.Key(o.Namespace, o.Spec.IssuerRef)
			i, known := issuers[key]
			if !known {
				var err error
				if i, err = scope.Get(ctx, c, o.Namespace, o.Spec.IssuerRef); err != nil {
					return nil, err
				}
				issuers[key] = i
			}
			if i == nil || i.GetSpec().ACME == nil || ratelimit.Canonical(i.GetSpec().ACME.Server) != directory ||
				i.GetStatus().ACME == nil {
				continue
			}
			wanted, err := neworder.Request(o)
			if err != nil {
				continue
			}
			p := ratelimit.OrderRecord{
				Request: ratelimit.Request{
					ID: string(
						o.UID,
					),
					Namespace:   o.Namespace,
					Name:        o.Name,
					Account:     i.GetStatus().ACME.URI,
					Identifiers: wanted.Identifiers,
					Renewal:     wanted.Replaces != "",
					Created:     o.CreationTimestamp.Time,
				},
				Sent: o.Status.URL != "", Finished: acmestatus.IsFinal(o.Status.State), Issued: o.Status.State == cmacme.Valid,
			}
			p.At = whenOf(o)
			p.Failed, p.Detail = failedOf(o, wanted.Identifiers)
			if t := o.Status.PausedUntil; t != nil {
				p.PausedUntil = t.Time
			}
			p.Limits, p.Published = limitsOf(i.GetSpec().ACME)
			past = append(past, p)
		}
		return past, nil
	}
}

// whenOf returns the NotBefore of an order's certificate, or when the order failed or was paused.
// It is zero if that is not known.
func whenOf(o *cmacme.Order) time.Time {
	switch st := o.Status; {
	case st.State == cmacme.Valid:
		if leaf, err := pki.DecodeCertificatePEM(st.Certificate); err == nil {
			return leaf.NotBefore
		}
	case st.FailureTime != nil:
		return st.FailureTime.Time
	case pausedUnsent(o):
		return o.CreationTimestamp.Time
	}
	return time.Time{}
}

// pausedUnsent reports whether an order was not sent as its names are paused.
func pausedUnsent(o *cmacme.Order) bool { return o.Status.PausedUntil != nil && o.Status.URL == "" }

// failedOf returns the names of an order of which at least one failed its validation or is paused,
// and why.
func failedOf(o *cmacme.Order, wanted []acme.Identifier) (names []acme.Identifier, why string) {
	switch {
	case o.Status.State == cmacme.Invalid && o.Status.FailureTime != nil:
		for _, z := range o.Status.Authorizations {
			if z.InitialState == cmacme.Pending {
				names = append(names, acme.Identifier{Value: z.Identifier})
			}
		}
		return names, o.Status.Reason
	case pausedUnsent(o):
		return wanted, o.Status.Reason
	}
	return nil, ""
}

// countFailures counts the failed validations of an invalid order that its Challenges have not
// counted: they are deleted with the order, and the CA counts these failures, too. It returns the
// names that are paused from now on.
func (r *Reconciler) countFailures(ctx context.Context, p *passState, order *cmacme.Order,
	challenges []cmacme.Challenge) (names []string, until time.Time, err error) {
	ca := r.RateLimits.For(p.spec().Server)
	own, _ := limitsOf(p.spec())
	for n := range challenges {
		ch := &challenges[n]
		if ch.Status.State != cmacme.Processing {
			continue
		}
		z, err := p.session.Authorization(ctx, ch.Spec.AuthorizationURL)
		if err != nil {
			break // the order has ended all the same
		}
		if z.Status != acme.StatusInvalid {
			continue
		}
		if err := ca.ValidationFailed(ctx, ratelimit.FailedValidation{
			Account: p.session.Account.URL, Namespace: ch.Namespace, Identifier: z.Identifier, Limit: own.Validations,
			Authorization: ch.Spec.AuthorizationURL, Detail: diagnosis.Refusal(diagnosis.ProblemOf(ch, z)),
		}); err != nil {
			return nil, until, err
		}
	}
	request, err := r.ask(ctx, p, order)
	if err != nil {
		return nil, until, err
	}
	return ca.PausedUntil(ctx, request)
}
