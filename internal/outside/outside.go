// Package outside says where nobody else may make this process connect to. Issuers, zones and redirects lead to addresses that their authors choose, and
// some addresses answer only whoever asks from inside: what they hand out is meant for this machine alone. It also says what of an answer may be told.
package outside

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

var (
	// metadata are addresses, beside those of the link, at which clouds hand out credentials: those of AWS by IPv6, Alibaba Cloud and Azure.
	metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16")}
	// thisNetwork is this host, RFC 1122 section 3.2.1.3. The kernel connects to it as to 127.0.0.1.
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// Serves reports whether a service of somebody else may be at an address. Loopback is for the caller to judge: on a machine of one's own, services are
// there. Private networks are allowed, as DNS servers, CAs and sites are in them.
func Serves(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsValid() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() && ip != broadcast && !thisNetwork.Contains(ip) &&
		!slices.Contains(metadata, ip)
}

// Elsewhere reports whether a service may be at an address that is not of this machine.
func Elsewhere(ip netip.Addr) bool { return !ip.Unmap().IsLoopback() && Serves(ip) }

// Refused is the error of a connection to an address at which no service of somebody else is.
type Refused struct{ Address netip.Addr }

func (r *Refused) Error() string {
	return fmt.Sprintf("%s is an address of this machine or of its cloud, to which nobody else may lead", r.Address)
}

// Control is that of a net.Dialer, which asks it after names are resolved, as they may lead elsewhere each time.
func Control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	if ip := to.Addr().Unmap().WithZone(""); !Serves(ip) {
		return &Refused{ip}
	}
	return nil
}
