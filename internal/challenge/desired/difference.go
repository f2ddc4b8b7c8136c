package desired

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/order/neworder"
)

// NotOfOrder is the reason of a Challenge that is not what its Order and issuer ask for.
const NotOfOrder = "NotOfItsOrder"

// Instead returns the Challenge that an Order and its issuer ask for, for the authorization of one
// that exists.
func Instead(order *cmacme.Order, spec *cmacme.ACMEIssuer, by acme.Account,
	ch *cmacme.Challenge) (*cmacme.Challenge, error) {
	at := slices.IndexFunc(order.Status.Authorizations,
		func(z cmacme.ACMEAuthorization) bool { return z.URL == ch.Spec.AuthorizationURL })
	if at < 0 || order.Status.Authorizations[at].Identifier == "" {
		return nil, fault.Misconfiguredf(NotOfOrder,
			"the Order of the Challenge has no such authorization")
	}
	z := order.Status.Authorizations[at]
	ask, err := neworder.Request(order)
	if err != nil {
		return nil, err
	}
	named := acme.DNS(z.Identifier)
	if addr, err := netip.ParseAddr(z.Identifier); err == nil {
		named = acme.IP(addr)
	}
	if !slices.ContainsFunc(ask.Identifiers, func(id acme.Identifier) bool {
		id.Value = strings.TrimPrefix(id.Value, "*.")
		return neworder.Canonical(id) == neworder.Canonical(named)
	}) {
		return nil, fault.Misconfiguredf(NotOfOrder,
			"the Order of the Challenge is not for %q", z.Identifier)
	}
	return Challenge(order, z, spec, by)
}

// Difference names the field of its spec in which a Challenge differs from the one that it should
// be, empty if there is none.
func Difference(should, is *cmacme.Challenge) string {
	for _, field := range []struct {
		name   string
		differ bool
	}{
		{"issuerRef", should.Spec.IssuerRef.Name != is.Spec.IssuerRef.Name ||
			should.Spec.IssuerRef.KindOrDefault() != is.Spec.IssuerRef.KindOrDefault() ||
			should.Spec.IssuerRef.GroupOrDefault() != is.Spec.IssuerRef.GroupOrDefault()},
		{"dnsName", should.Spec.DNSName != is.Spec.DNSName},
		{"wildcard", should.Spec.Wildcard != is.Spec.Wildcard},
		{"type", should.Spec.Type != is.Spec.Type},
		{"url", should.Spec.URL != is.Spec.URL},
		{"token", should.Spec.Token != is.Spec.Token},
		{"key", should.Spec.Key != is.Spec.Key},
		{"recordName", should.Spec.RecordName != is.Spec.RecordName},
		{"keyAuthorization", should.Spec.KeyAuthorization != is.Spec.KeyAuthorization},
		{"solver", !equality.Semantic.DeepEqual(should.Spec.Solver, WithoutSelector(is.Spec.Solver))},
	} {
		if field.differ {
			return "spec." + field.name
		}
	}
	return ""
}

// WithoutSelector is a solver without its selector, which the Challenges of cert-manager have.
func WithoutSelector(s cmacme.ACMEChallengeSolver) cmacme.ACMEChallengeSolver {
	s.Selector = nil
	return s
}
