// Package neworder makes the newOrder request of an Order, RFC 8555 section 7.4, and compares
// identifiers.
package neworder

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// Request returns the newOrder request of an Order. It follows from the Order alone, so that it is
// the same after a crash.
func Request(order *cmacme.Order) (acme.OrderRequest, error) {
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

// Same reports whether two lists name the same identifiers, in any order and spelling.
func Same(a, b []acme.Identifier) bool {
	has := func(list []acme.Identifier, id acme.Identifier) bool {
		return slices.ContainsFunc(list, func(other acme.Identifier) bool { return Canonical(other) == Canonical(id) })
	}
	return !slices.ContainsFunc(a, func(id acme.Identifier) bool { return !has(b, id) }) &&
		!slices.ContainsFunc(b, func(id acme.Identifier) bool { return !has(a, id) })
}

// Canonical returns an identifier in the form for comparison.
func Canonical(id acme.Identifier) acme.Identifier {
	if id.Type == acme.IdentifierIP {
		id.Value = pki.ComparableIP(id.Value)
	} else {
		id.Value = pki.ComparableDNSName(id.Value)
	}
	return id
}

// Describe names identifiers in a text for users: the first of them, if there are many.
func Describe(ids []acme.Identifier) string {
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

// RefusesReplaces reports whether an order was refused because of what it replaces: RFC 9773
// section 5 and what CAs do. The type alreadyReplaced says so. CAs also use other types, which have
// other causes, too: then the text must mention the replacement or its certID, as a second attempt
// without it would not help otherwise. The problem must come from the CA, not from a proxy.
func RefusesReplaces(err error) bool {
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
			strings.Contains(
				said,
				"certid",
			)
	}
	return false
}
