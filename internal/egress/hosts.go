package egress

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// addressOf returns the address that the host of a URL stands for without a lookup. Besides the
// usual forms, it reads the forms that net/http and a proxy turn into an address: other scripts,
// IPv4 in the forms of inet_aton, and the names of the loopback interface, RFC 6761 section 6.3.
func addressOf(host string) (ip netip.Addr, found bool) {
	if ascii, err := idna.Lookup.ToASCII(host); err == nil { // as net/http does
		host = ascii
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, true
	}
	return inetAton(host)
}

// inetAton reads an IPv4 address of one to four numbers, decimal, octal or hexadecimal. The last
// number fills the remaining bytes.
func inetAton(host string) (ip netip.Addr, found bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts))
		}
		digits, base := part, 10
		if hex, ok := strings.CutPrefix(part, "0x"); ok {
			digits, base = hex, 16
		} else if len(part) > 1 && part[0] == '0' {
			base = 8
		}
		n, err := strconv.ParseUint(digits, base, bits)
		if err != nil {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(value)))), true
}
