package budget

import "strings"

// Sizes of texts that are kept.
const (
	maxWhy     = 160
	maxRefusal = 6 << 10
)

// scopeOf reads what the refusal of an order is about, and which names it names, from what Let's Encrypt says of each limit. Other CAs run the
// same software, or say something else: such refusals have no kind.
func scopeOf(detail string) (kind Kind, names []string) {
	text := strings.ToLower(detail)
	quoted := func() []string {
		_, rest, _ := strings.Cut(text, `"`)
		if name, _, found := strings.Cut(rest, `"`); found {
			return []string{name}
		}
		return nil
	}
	switch has := func(s string) bool { return strings.Contains(text, s) }; {
	case has("prevented from requesting certificates"):
		_, rest, _ := strings.Cut(text, "certificates for ")
		list, _, _ := strings.Cut(rest, " and possibly others")
		return Paused, strings.Split(list, ", ")
	case has("exact set of"), has("#new-certificates-per-exact-set"):
		return Set, nil
	case has("too many new orders"), has("#new-orders-per-account"):
		return NewOrders, nil
	case has("too many certificates"), has("#new-certificates-per-registered-domain"):
		return Domain, quoted()
	case has("too many failed authorizations"), has("#authorization-failures-per"):
		return Validations, quoted()
	}
	return "", nil
}
