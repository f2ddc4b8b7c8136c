package provider

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
)

// rfc2136At makes the provider for a server.
func rfc2136At(t *testing.T, u *dnstest.Primary, protocol, algorithm, secret string) *rfc2136 {
	t.Helper()
	p := &rfc2136{nameserver: u.Address, protocol: protocol, secret: secret, now: time.Now}
	if err := p.configure("Key", algorithm); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestUpdatesAreSignedByEachAlgorithm(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		for algorithm, hash := range map[string]func() hash.Hash{"": md5.New, "HMACMD5": md5.New,
			"hmacsha1": sha1.New, "HMACSHA256": sha256.New, "HMACSHA512": sha512.New} {
			t.Run(protocol+" "+algorithm, func(t *testing.T) {
				u := &dnstest.Primary{Hash: hash, Values: []string{"of another client"}}
				u.Start(t, protocol)
				p := rfc2136At(t, u, protocol, algorithm, dnstest.TSIGSecret)
				// The server may have the zone above the one that DNS shows.
				r := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "www.example.com.", Value: "ours", TTL: time.Minute}
				twice(t, func() error { return p.Present(t.Context(), r) })
				if got := u.All(); !slices.Equal(got, []string{"of another client", "ours"}) {
					t.Errorf("it has %q", got)
				}
				twice(t, func() error { return p.CleanUp(t.Context(), r) })
				if got := u.All(); !slices.Equal(got, []string{"of another client"}) {
					t.Errorf("afterwards it has %q", got)
				}
			})
		}
	}
}

func TestWhatAServerRefusesToUpdate(t *testing.T) {
	for name, test := range map[string]struct {
		secret  string
		answers uint16
		zone    string
		says    string
	}{
		"with another secret": {"b3RoZXI=", 0, "example.com.", "(BADSIG): the server has another secret"},
		"with a key it has not": {dnstest.TSIGSecret, dns.RcodeBadKey, "example.com.", "(BADKEY): let the server know " +
			"this key"},
		"when a clock is wrong": {dnstest.TSIGSecret, dns.RcodeBadTime, "example.com.", "(BADTIME): the clocks"},
		"in a zone that it has not": {dnstest.TSIGSecret, 0, "example.org.", "does not have the zone example.org " +
			"(NOTAUTH): let " +
			"dns01.rfc2136.nameserver be the primary server of that zone"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &dnstest.Primary{Hash: sha256.New, TSIGError: test.answers}
			u.Start(t, "udp")
			err := rfc2136At(t, u, "udp", "HMACSHA256", test.secret).
				Present(t.Context(), Record{FQDN: "_acme-challenge." + test.zone, Zone: test.zone, Value: "v", TTL: time.Minute})
			if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), test.says) ||
				strings.Contains(err.Error(), test.secret) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEveryNameServerThatTheAPITakesIsAnAddress(t *testing.T) {
	for given, want := range map[string]string{
		"ns1.example.com": "ns1.example.com:53", "ns1.example.com:5353": "ns1.example.com:5353", "ns1.example.com:": "ns1.example.com:53",
		" 192.0.2.1:53 ": "192.0.2.1:53", " ns1.example.com ": "ns1.example.com:53", "[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:": "[2001:db8::1]:53",
	} {
		p := &rfc2136{nameserver: given}
		if err := p.configure("", ""); err != nil || p.nameserver != want {
			t.Errorf("%q: %q, %v", given, p.nameserver, err)
		}
	}
}
