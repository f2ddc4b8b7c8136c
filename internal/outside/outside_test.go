package outside

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestWhereServicesOfOthersAre(t *testing.T) {
	for address, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.1": true, "127.0.0.1": true, "2001:db8::1": true, "::1": true, "fd00::1": true,
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "fe80::1%eth0": false, "fd00:ec2::254": false, "100.100.100.200": false,
		"168.63.129.16": false, "0.0.0.0": false, "0.1.2.3": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
	} {
		if got := Serves(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
	if Serves(netip.Addr{}) {
		t.Error("there is no address")
	}
}

func TestAConnectionIsRefusedBeforeItIsMade(t *testing.T) {
	_, err := (&net.Dialer{Control: Control}).DialContext(t.Context(), "tcp", "169.254.169.254:80")
	refused := new(Refused)
	if !errors.As(err, &refused) || refused.Address.String() != "169.254.169.254" {
		t.Errorf("got %v", err)
	}
}
