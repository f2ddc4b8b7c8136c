package resolver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
)

// If a server has too many addresses, some of each family are asked.
func TestAServerOfManyAddressesIsAskedByBothFamilies(t *testing.T) {
	zone := append(
		slices.Clone(parent[:2]),
		"ns1.example.com. 60 IN AAAA 2001:db8::1",
		"ns1.example.com. 60 IN AAAA 2001:db8::2",
	)
	for i := range 6 {
		zone = append(zone, fmt.Sprintf("ns1.example.com. 60 IN A 192.0.2.%d", i+1))
	}
	w := &dnstest.Network{
		Sockets: map[string]string{
			"[2001:db8::2]:53": dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, true, soa, name+" 60 IN TXT "+value)),
		},
	}
	answers, err := within(w, dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, false, zone...))).Ask(t.Context(), record)
	if err != nil || len(answers) != 1 || !record.In(answers[0].Values) {
		t.Errorf("got %+v, %v", answers, err)
	}
}

func TestTheServersOfAZone(t *testing.T) {
	good := dnstest.Records(t, true, soa, name+" 60 IN TXT "+value)
	many := []string{soa}
	for i := range 300 {
		many = append(
			many,
			fmt.Sprintf("example.com. 60 IN NS ns%d.example.com.", i),
			fmt.Sprintf("ns%d.example.com. 60 IN A 192.0.2.%d", i, i%250+1),
		)
	}
	for title, test := range map[string]struct {
		zone    []string
		sockets map[string]dnstest.Wire // by address
		visible bool                    // when it is there for a minute
		says    string
		asked   int // servers, at most
	}{
		"that have only IPv6 addresses confirm":         {zone: addressed("2001:db8::1"), sockets: map[string]dnstest.Wire{"[2001:db8::1]:53": good}, visible: true},
		"confirm on the one address that is reached":    {zone: addressed("192.0.2.1", "192.0.2.2", "2001:db8::1"), sockets: map[string]dnstest.Wire{"[2001:db8::1]:53": good}, visible: true},
		"confirm on the one address that has the value": {zone: addressed("192.0.2.1", "192.0.2.2"), sockets: map[string]dnstest.Wire{"192.0.2.1:53": dnstest.Records(t, true, soa), "192.0.2.2:53": good}, visible: true},
		"that answer without the value block though other addresses are silent": {zone: addressed("192.0.2.1",
			"192.0.2.2"), sockets: map[string]dnstest.Wire{"192.0.2.2:53": dnstest.Records(t, true, soa)},
			says: "ns1.example.com (192.0.2.2:53) still answers no TXT record"},
		"that are all silent confirm nothing": {zone: parent, says: "if this network lets nothing through to them, " +
			"set --dns01-recursive-nameservers-only"},
		"of which one is silent are passed over":  {zone: parent, sockets: map[string]dnstest.Wire{"192.0.2.1:53": good}, visible: true},
		"without addresses are named":             {zone: []string{soa, "example.com. 60 IN NS ns1.example.com."}, says: "ns1.example.com cannot be reached: it has no address"},
		"that are not named are an error":         {zone: []string{soa}, says: "zone example.com names no name servers"},
		"are not all asked if there are hundreds": {zone: many, sockets: map[string]dnstest.Wire{"192.0.2.1:53": good}, visible: true, asked: maxServers},
		"with hundreds of addresses are not asked on all": {zone: func() []string {
			zone := []string{soa, "example.com. 60 IN NS ns1.example.com.", "ns1.example.com. 60 IN A 192.0.2.1"}
			for i := 2; i < 200; i++ {
				zone = append(zone, fmt.Sprintf("ns1.example.com. 60 IN A 192.0.2.%d", i))
			}
			return zone
		}(), sockets: map[string]dnstest.Wire{"192.0.2.1:53": good}, visible: true, asked: maxAddresses},
		"are not looked for on this machine": {zone: addressed("127.0.0.1"), says: "its address 127.0.0.1 leads " +
			"to this machine or its own link"},
		"are not looked for on this machine, IPv6":   {zone: addressed("::1"), says: "its address ::1 leads to"},
		"are not looked for on this machine, mapped": {zone: addressed("::ffff:127.0.0.1"), says: "its address 127.0.0.1 leads to"},
		"are not looked for at a cloud's metadata":   {zone: addressed("169.254.169.254"), says: "its address 169.254.169.254 leads to"},
		"are not looked for on the link": {zone: addressed("fe80::1"), says: "its address fe80::1 " +
			"leads to"},
		"are not looked for at no address": {zone: addressed("0.0.0.0"), says: "its address 0.0.0.0 " +
			"leads to"},
		"are not looked for among many at once":               {zone: addressed("224.0.0.1"), says: "its address 224.0.0.1 leads to"},
		"are asked where they can be, whatever else is named": {zone: addressed("127.0.0.1", "192.0.2.1"), sockets: map[string]dnstest.Wire{"192.0.2.1:53": good}, visible: true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := &dnstest.Network{Sockets: map[string]string{}}
			for address, answer := range test.sockets {
				ip := "127.0.0.1"
				if strings.HasPrefix(address, "[") {
					ip = "::1"
				}
				w.Sockets[address] = dnstest.Serve(t, ip, answer)
			}
			recursive := dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, false, test.zone...))
			answers, err := within(w, recursive).Ask(t.Context(), record)
			put := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
			seen := Judge(record, answers, put, put.Add(UnreachableDelay))
			if err != nil {
				seen.Why = err.Error()
			}
			if seen.Visible != test.visible || !strings.Contains(seen.Why, test.says) {
				t.Errorf("got %+v", seen)
			}
			asked := outsideAddresses(t, w, recursive)
			if test.asked > 0 && len(asked) > test.asked {
				t.Errorf("%d addresses were asked", len(asked))
			}
		})
	}
}

// outsideAddresses returns the addresses that were connected to, without a recursive server. None
// may be of this machine.
func outsideAddresses(t *testing.T, w *dnstest.Network, recursive string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, a := range w.Dialled() {
		if a == recursive {
			continue
		}
		all[a] = true
		for _, own := range []string{"127.", "[::1]", "169.254.", "[fe80", "0.0.0.0", "224."} {
			if strings.HasPrefix(a, own) {
				t.Errorf("it connected to %s", a)
			}
		}
	}
	return all
}

// addressed is a zone whose server has these addresses.
func addressed(address ...string) []string {
	zone := []string{soa, "example.com. 60 IN NS ns1.example.com."}
	for _, a := range address {
		kind := "A"
		if strings.Contains(a, ":") {
			kind = "AAAA"
		}
		zone = append(zone, fmt.Sprintf("ns1.example.com. 60 IN %s %s", kind, a))
	}
	return zone
}
