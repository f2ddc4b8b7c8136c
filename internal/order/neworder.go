package order

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// request is what the CA is asked for. It follows from the Order alone, so that it is the same after a crash.
func request(order *cmacme.Order) (acme.OrderRequest, error) {
	r := acme.OrderRequest{Profile: order.Spec.Profile, Replaces: order.Spec.Replaces}
	add := func(id acme.Identifier) {
		if !slices.Contains(r.Identifiers, id) {
			r.Identifiers = append(r.Identifiers, id)
		}
	}
	addresses := slices.Clone(order.Spec.IPAddresses)
	if cn := order.Spec.CommonName; cn != "" {
		if _, err := netip.ParseAddr(cn); err == nil {
			addresses = append(addresses, cn)
		} else {
			add(acme.DNS(pki.ComparableDNSName(cn)))
		}
	}
	for _, name := range order.Spec.DNSNames {
		add(acme.DNS(pki.ComparableDNSName(name)))
	}
	for _, s := range addresses {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return r, fault.Refusedf("InvalidOrder", "spec.ipAddresses: %q is not an IP address", s)
		}
		add(acme.IP(addr))
	}
	slices.SortFunc(r.Identifiers, func(a, b acme.Identifier) int {
		return strings.Compare(a.Type+" "+a.Value, b.Type+" "+b.Value)
	})
	if order.Spec.Duration != nil {
		notAfter := order.CreationTimestamp.Add(order.Spec.Duration.Duration).UTC()
		r.NotAfter = &notAfter
	}
	return r, nil
}

// begin asks for the order.
func (r *Reconciler) begin(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, within ratelimit.Request) error {
	ask, err := request(order)
	if err != nil {
		return err
	}
	if ask.Profile != "" {
		dir, err := o.ca.FetchDirectory(ctx)
		if err != nil {
			return err
		}
		if err := account.OfferedProfile(ask.Profile, dir.Meta.Profiles); err != nil {
			return err
		}
	}
	if r.unreplaced.is(string(order.UID)) {
		ask.Replaces = ""
	}
	got, err := r.newOrder(ctx, o, order, ask)
	if ask.Replaces != "" && aboutReplaces(err) {
		// The certificate is needed, whatever the CA thinks of its predecessor. But then the order is one like others.
		r.unreplaced.since(string(order.UID), o.now)
		within.Window = acme.Window{}
		if err := r.admit(ctx, order, i, within); err != nil {
			return err
		}
		ask.Replaces = ""
		got, err = r.newOrder(ctx, o, order, ask)
	}
	if err != nil {
		return err
	}
	if !same(ask.Identifiers, got.Identifiers) {
		return fault.Refusedf("InvalidOrder", "the CA made an order for %s, not for %s", words(got.Identifiers), words(ask.Identifiers))
	}
	if got.Profile != "" && ask.Profile != "" && got.Profile != ask.Profile {
		return fault.Refusedf("InvalidOrder", "the CA made an order of profile %q, not of %q",
			account.ShortProfile(got.Profile), ask.Profile)
	}
	if n := len(got.Authorizations); n > maxAuthorizations {
		return fault.Refusedf("InvalidOrder", "the CA wants %d authorizations for %d names", n, len(ask.Identifiers))
	}
	r.expect(order, o.now, got)
	st := &order.Status
	st.URL, st.FinalizeURL, st.State, st.Reason = got.URL, got.Finalize, cmacme.State(got.Status), ""
	if finished(st.State) {
		st.State = cmacme.Ready // it was one that was made before, or was refused at once: it is read what came of it
	}
	for _, url := range got.Authorizations {
		st.Authorizations = append(st.Authorizations, cmacme.ACMEAuthorization{URL: url})
	}
	return nil
}

// newOrder sends the order. If the reply cannot be read but names the order's URL, the order is
// read there. The ledger of rate limits records it if the CA may have taken it and its URL is not known.
func (r *Reconciler) newOrder(ctx context.Context, o conversation, order *cmacme.Order, ask acme.OrderRequest) (acme.Order, error) {
	got, err := o.ca.NewOrder(ctx, o.by, ask)
	var silent *acme.NoReply
	var wrong *acme.ProtocolError
	if errors.As(err, &wrong) && wrong.Location != "" {
		if read, e := o.ca.Order(ctx, o.by, wrong.Location); e == nil {
			return read, nil
		}
	}
	if errors.As(err, &silent) && silent.Action == "newOrder" || errors.As(err, &wrong) && wrong.Action == "newOrder" {
		r.RateLimits.NoReply(string(order.UID))
	}
	return got, err
}

// same reports whether two lists name the same, in whatever order and spelling.
func same(a, b []acme.Identifier) bool {
	has := func(list []acme.Identifier, id acme.Identifier) bool {
		return slices.ContainsFunc(list, func(other acme.Identifier) bool { return canonical(other) == canonical(id) })
	}
	return !slices.ContainsFunc(a, func(id acme.Identifier) bool { return !has(b, id) }) &&
		!slices.ContainsFunc(b, func(id acme.Identifier) bool { return !has(a, id) })
}

func canonical(id acme.Identifier) acme.Identifier {
	if id.Type == acme.IdentifierIP {
		id.Value = pki.ComparableIP(id.Value)
	} else {
		id.Value = pki.ComparableDNSName(id.Value)
	}
	return id
}

// words names identifiers for people: the first of them, if there are many.
func words(ids []acme.Identifier) string {
	const most = 5
	var parts []string
	for _, id := range ids[:min(len(ids), most)] {
		parts = append(parts, strconv.Quote(id.Value[:min(len(id.Value), 255)]))
	}
	if n := len(ids) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n))
	}
	return strings.Join(parts, ", ")
}

// aboutReplaces reports whether an order was refused because of what it replaces: RFC 9773 section 5 and what CAs do. There is one type of problem
// for it. Of the others that CAs use, the words must speak of it, as each of them has other reasons, too, which asking once more would not mend;
// and it must be the CA that speaks, not a proxy on the way.
func aboutReplaces(err error) bool {
	var p *acme.Problem
	if !errors.As(err, &p) {
		return false
	}
	switch {
	case p.Type == acme.ProblemAlreadyReplaced:
		return true
	case p.Type == acme.ProblemMalformed, p.Type == acme.ProblemUnauthorized, p.Type == acme.ProblemConflict,
		p.Type != "" && (p.Status == http.StatusNotFound || p.Status == http.StatusConflict):
		said := strings.ToLower(p.Title + " " + p.Detail)
		return strings.Contains(said, "replac") || // replaces, replacement, replacing
			strings.Contains(said, "certid") // as RFC 9773 calls what identifies the certificate: its issuer may be one that the CA no longer has
	}
	return false
}
