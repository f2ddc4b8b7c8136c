// Package egress prevents server-side request forgery. Issuers, zones and redirects lead to
// addresses that their authors choose. Some addresses answer only requests from this machine, such
// as loopback and the metadata service of a cloud. The package decides to which addresses this
// process may connect, and how much of an answer may appear in a message.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

var (
	// metadata are addresses that are not link-local and at which clouds hand out credentials.
	metadata = []netip.Addr{
		netip.MustParseAddr("fd00:ec2::254"),      // AWS, instance metadata
		netip.MustParseAddr("fd00:ec2::23"),       // AWS, EKS Pod Identity
		netip.MustParseAddr("fd20:ce::254"),       // Google Cloud
		netip.MustParseAddr("fd00:c1::a9fe:a9fe"), // Oracle Cloud
		netip.MustParseAddr("192.0.0.192"),        // Oracle Cloud Classic
		netip.MustParseAddr("fd00:42::42"),        // Scaleway
		netip.MustParseAddr("100.100.100.200"),    // Alibaba Cloud
		netip.MustParseAddr("168.63.129.16"),      // Azure
	}
	// nat64 are the prefixes that carry an IPv4 address in the last 32 bits, RFC 6052 and RFC 8215.
	// sixToFour carries it behind the first 16 bits, RFC 3056.
	nat64     = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}
	sixToFour = netip.MustParsePrefix("2002::/16")
	// thisNetwork is this host, RFC 1122 section 3.2.1.3. The kernel connects to it as to 127.0.0.1.
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// Allowed reports whether an address may be that of a DNS server, CA or site. It allows private
// networks, because such servers are in them. It also allows loopback: the caller decides about
// that.
func Allowed(ip netip.Addr) bool {
	ip = embedded(ip)
	return ip.IsValid() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() && ip != broadcast &&
		!thisNetwork.Contains(ip) &&
		!slices.Contains(metadata, ip)
}

// AllowedRemote reports what Serves does, and refuses loopback.
func AllowedRemote(ip netip.Addr) bool { return !embedded(ip).IsLoopback() && Allowed(ip) }

// embedded returns the IPv4 address that an IPv6 address carries, or the address itself, without
// its zone.
func embedded(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if !ip.Is6() {
		return ip
	}
	bytes := ip.As16()
	switch {
	case slices.ContainsFunc(nat64, func(p netip.Prefix) bool { return p.Contains(ip) }):
		return netip.AddrFrom4([4]byte(bytes[12:16]))
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(bytes[2:6]))
	}
	return ip
}

// BlockedAddressError is the error of a connection that is not made because its address is not
// allowed.
type BlockedAddressError struct{ Address netip.Addr }

func (r *BlockedAddressError) Error() string {
	return fmt.Sprintf("%s is an address of this machine, its link or its cloud's metadata service", r.Address)
}

// BlockedAddressAdvice says what to do about a Refused that comes from a setting of an issuer.
const BlockedAddressAdvice = "a namespaced Issuer may not lead there: correct it, use a ClusterIssuer, or start " +
	"the controller with --issuer-allowed-addresses"

// IsBlockedAddress reports whether an error is a Refused.
func IsBlockedAddress(err error) bool {
	var refused *BlockedAddressError
	return errors.As(err, &refused)
}

// Reach says to which addresses a setting or a redirect may lead. The zero value allows loopback,
// but neither link-local addresses nor a metadata service.
type Reach struct {
	anywhere, elsewhere bool
	allowed             []netip.Prefix
}

// Anywhere is the reach of flags and of ClusterIssuers, which administrators write.
func Anywhere() Reach { return Reach{anywhere: true} }

// Egress says to which addresses issuers may lead.
type Egress struct {
	// OwnMachine says that the users that write issuers own this machine, so that loopback is allowed.
	OwnMachine bool
	// Allowed are addresses to which namespaced Issuers may lead although they are refused by default.
	Allowed []netip.Prefix
}

// Of returns the reach of an issuer. A ClusterIssuer reaches everything.
func (e Egress) Of(cluster bool) Reach {
	switch {
	case cluster:
		return Anywhere()
	case e.OwnMachine:
		return Reach{}
	}
	return Reach{elsewhere: true, allowed: e.Allowed}
}

// Allows reports whether an address may be connected to.
func (r Reach) Allows(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	switch {
	case r.anywhere:
		return true
	case slices.ContainsFunc(r.allowed, func(p netip.Prefix) bool { return p.Contains(ip) }):
		return true
	case r.elsewhere:
		return AllowedRemote(ip)
	}
	return Allowed(ip)
}

// Check returns a Refused if a connection to an address with a port may not be made.
func (r Reach) Check(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	if ip := to.Addr().Unmap().WithZone(""); !r.Allows(ip) {
		return &BlockedAddressError{ip}
	}
	return nil
}

// Dialer connects within the reach. Addresses are judged after names are resolved, as a name may
// lead elsewhere each time.
func (r Reach) Dialer() *net.Dialer {
	return &net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		return r.Check(address)
	}}
}
