package acme

import (
	"net/netip"
	"strings"
)

// Types of identifiers.
const (
	IdentifierDNS = "dns" // section 9.7.7
	IdentifierIP  = "ip"  // RFC 8738
)

// Identifier is a name that a certificate is requested for.
type Identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// DNS is the identifier of a domain name, in lower case and, in an order, with "*." before it for a
// wildcard.
func DNS(name string) Identifier { return Identifier{IdentifierDNS, strings.ToLower(name)} }

// IP is the identifier of an address.
func IP(addr netip.Addr) Identifier {
	return Identifier{IdentifierIP, addr.Unmap().WithZone("").String()}
}
