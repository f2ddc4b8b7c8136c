package egress

import (
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
		if got := Allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
	if Allowed(netip.Addr{}) {
		t.Error("there is no address")
	}
}

func TestHowFarIssuersReach(t *testing.T) {
	egress := Egress{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.53/32"),
		netip.MustParsePrefix("169.254.20.0/24")}}
	own := Egress{OwnMachine: true}
	for address, test := range map[string]struct{ issuer, cluster, own bool }{
		"192.0.2.1":              {true, true, true},
		"10.0.0.1":               {true, true, true},
		"2001:db8::1":            {true, true, true},
		"127.0.0.1":              {false, true, true},
		"127.0.0.53":             {true, true, true},
		"127.1.2.3":              {false, true, true},
		"::1":                    {false, true, true},
		"::ffff:127.0.0.1":       {false, true, true},
		"169.254.169.254":        {false, true, false},
		"::ffff:169.254.169.254": {false, true, false},
		"169.254.20.10":          {true, true, false},
		"fe80::1%eth0":           {false, true, false},
		"fd00:ec2::254":          {false, true, false},
		"100.100.100.200":        {false, true, false},
		"168.63.129.16":          {false, true, false},
		"fd00:ec2::23":           {false, true, false},
		"fd20:ce::254":           {false, true, false},
		"fd00:c1::a9fe:a9fe":     {false, true, false},
		"fd00:42::42":            {false, true, false},
		"192.0.0.192":            {false, true, false},
		"64:ff9b::a9fe:a9fe":     {false, true, false}, // 169.254.169.254 by NAT64
		"64:ff9b:1::7f00:1":      {false, true, true},
		"2002:a9fe:a9fe::1":      {false, true, false}, // by 6to4
		"64:ff9b::c000:201":      {true, true, true},   // 192.0.2.1
		"0.0.0.0":                {false, true, false},
		"::":                     {false, true, false},
		"224.0.0.1":              {false, true, false},
	} {
		ip := netip.MustParseAddr(address)
		if got := egress.Of(false).Allows(ip); got != test.issuer {
			t.Errorf("an Issuer to %s: %t", address, got)
		}
		if got := egress.Of(true).Allows(ip); got != test.cluster {
			t.Errorf("a ClusterIssuer to %s: %t", address, got)
		}
		if got := own.Of(false).Allows(ip); got != test.own {
			t.Errorf("an Issuer of the machine's owner to %s: %t", address, got)
		}
	}
}

func TestAConnectionIsRefusedBeforeItIsMade(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "::1", "169.254.169.254", "0.0.0.0"} {
		// names are checked after they are resolved
		_, err := Egress{}.Of(false).Dialer().DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if !IsBlockedAddress(err) {
			t.Errorf("%s: %v", host, err)
		}
	}
	conn, err := Egress{}.Of(true).Dialer().DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
