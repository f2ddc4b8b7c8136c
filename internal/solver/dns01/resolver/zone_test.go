package resolver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
)

func TestTheZoneOfAName(t *testing.T) {
	reply := func(change func(m *dns.Msg)) dnstest.Wire {
		return func(q *dns.Msg, _ bool) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Authoritative = true
			change(m)
			return dnstest.Packed(t, m)
		}
	}
	rr := func(s string) dns.RR {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	chain := []string{soa}
	for i := range 40 {
		chain = append(chain, fmt.Sprintf("c%d.example.com. 60 IN CNAME c%d.example.com.", i, i+1))
	}
	for title, test := range map[string]struct {
		recursive dnstest.Wire
		server    dnstest.Wire // of 192.0.2.1, where the zone says so
		follow    bool
		at, zone  string
		says      string
	}{
		"is where the SOA is": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "example.com."},
		"is found where the SOA is not the first record": {recursive: reply(func(m *dns.Msg) {
			m.Ns = []dns.RR{rr("example.com. 60 IN NS ns1.example.com."), rr("x.example.com. 60 IN TXT x"), rr(soa)}
		}), at: name, zone: "example.com."},
		"is not that of another zone's SOA": {recursive: reply(func(m *dns.Msg) {
			m.Answer = []dns.RR{rr("attacker.example. 60 IN SOA a. b. 1 1 1 1 1")}
		}), says: "know no zone of _acme-challenge.www.example.com"},
		"is not the root": {
			recursive: reply(func(m *dns.Msg) { m.Ns = []dns.RR{rr(". 60 IN SOA a. b. 1 1 1 1 1")} }), says: "know no zone"},
		"is unknown to servers that fail":        {recursive: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), says: "it answers SERVFAIL"},
		"is unknown to servers that refuse":      {recursive: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), says: "it answers REFUSED"},
		"is unknown to servers that say nothing": {recursive: reply(func(*dns.Msg) {}), says: "know no zone"},
		"is unknown where a code has no name":    {recursive: reply(func(m *dns.Msg) { m.Rcode = 14 }), says: "it answers RCODE 14"},
		"is not found by an answer to another question": {recursive: reply(func(m *dns.Msg) {
			m.Question[0].Name = "example.org."
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is not found by an answer to a question of another type": {recursive: reply(func(m *dns.Msg) {
			m.Question[0].Qtype = dns.TypeA
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is not found by a question": {recursive: reply(func(m *dns.Msg) {
			m.Response = false
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is found by a server that knows no EDNS": {recursive: func(q *dns.Msg, tcp bool) [][]byte {
			if q.IsEdns0() != nil {
				return dnstest.Packed(t, new(dns.Msg).SetRcodeFormatError(q))
			}
			return dnstest.Records(t, false, parent...)(q, tcp)
		}, at: name, zone: "example.com."},
		"is its own where it is delegated": {recursive: dnstest.Records(t, false, parent...), at: name, zone: name,
			server: func(q *dns.Msg, _ bool) [][]byte {
				m := new(dns.Msg).SetReply(q)
				m.Ns = []dns.RR{rr(name + " 60 IN NS ns1.example.com.")}
				return dnstest.Packed(t, m)
			}},
		"is that in which servers say that there is nothing": {recursive: dnstest.Records(t, false, parent...),
			at: name, zone: "www.example.com.",
			server: func(q *dns.Msg, _ bool) [][]byte {
				m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
				m.Ns = []dns.RR{rr("www.example.com. 60 IN SOA ns1.example.com. h.example.com. 1 60 60 600 1")}
				return dnstest.Packed(t, m)
			}},
		"does not move to a zone beside it": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "example.com.",
			server: func(q *dns.Msg, _ bool) [][]byte {
				m := new(dns.Msg).SetReply(q)
				m.Ns = []dns.RR{rr("com. 60 IN NS ns1.example.com."), rr("shop.example.com. 60 IN NS ns1.example.com."),
					rr("a." + name + " 60 IN NS ns1.example.com.")}
				return dnstest.Packed(t, m)
			}},
		"is where a CNAME leads": {recursive: dnstest.Records(t, false, append(parent, "delegated.example. 60 IN SOA a. "+
			"b. 1 1 "+
			"1 1 1", "delegated.example. 60 IN NS ns1.example.com.")...),
			follow: true, at: "www.delegated.example.", zone: "delegated.example.",
			server: dnstest.Records(t, true, name+" 60 IN CNAME www.delegated.example.")},
		"is its own where a CNAME is not followed": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "example.com.", server: dnstest.Records(t, true, soa, name+" 60 IN CNAME www.delegated.example.")},
		"is nowhere where CNAMEs lead in a circle": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, soa, name+" 60 IN CNAME b.example.com.",
				"b.example.com. 60 IN CNAME "+name), says: "lead in a circle or too far"},
		"is nowhere where a CNAME leads to itself": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, soa, name+" 60 IN CNAME "+name), says: "lead in a circle or too far"},
		"is nowhere where CNAMEs lead too far": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, append(chain, name+" 60 IN CNAME c0.example.com.")...),
			says: "lead in a circle or " +
				"too far"},
		"is not looked for beyond a server that is silent about CNAMEs": {recursive: dnstest.Records(t, false, parent...), follow: true, says: "no route to host"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := &dnstest.Network{Sockets: map[string]string{}}
			if test.server != nil {
				w.Sockets["192.0.2.1:53"] = dnstest.Serve(t, "127.0.0.1", test.server)
			}
			at, zone, err := within(w, dnstest.Serve(t, "127.0.0.1", test.recursive)).
				Locate(t.Context(), strings.TrimSuffix(name, "."), test.follow)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %s of %s, %v", at, zone, err)
				}
				return
			}
			if err != nil || at != test.at || zone != test.zone {
				t.Errorf("got %s of %s, %v", at, zone, err)
			}
		})
	}
}

// An answer of a server without the zone does not count: the next server is asked.
func TestACNAMEIsFoundThoughAServerDoesNotHaveTheZone(t *testing.T) {
	for title, m := range map[string]dns.Msg{
		"and refers to the root": {Ns: []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "a.root-servers.net."}}},
		"and says nothing":       {},
	} {
		t.Run(title, func(t *testing.T) {
			lame := dnstest.Serve(
				t,
				"127.0.0.1",
				func(q *dns.Msg, _ bool) [][]byte { return dnstest.Packed(t, m.Copy().SetReply(q)) },
			)
			recursive := dnstest.Serve(
				t,
				"127.0.0.1",
				dnstest.Records(
					t,
					false,
					append(parent, "delegated.example. 60 IN SOA a. b. 1 1 1 1 1", "delegated.example. 60 IN NS ns2.example.com.")...),
			)
			w := &dnstest.Network{
				Sockets: map[string]string{
					"192.0.2.1:53": lame,
					"192.0.2.2:53": dnstest.Serve(
						t,
						"127.0.0.1",
						dnstest.Records(t, true, soa, name+" 60 IN CNAME www.delegated.example."),
					),
				},
			}
			if at, zone, err := within(w, recursive).
				Locate(t.Context(), name, true); err != nil || at != "www.delegated.example." ||
				zone != "delegated.example." {
				t.Errorf("got %s of %s, %v", at, zone, err)
			}
			w.Sockets["192.0.2.2:53"] = lame
			if at, _, err := within(w, recursive).
				Locate(t.Context(), name, true); err == nil ||
				!strings.Contains(err.Error(), "it is no authoritative server of example.com") {
				t.Errorf("where no server has it: got %s, %v", at, err)
			}
			if at, zone, err := within(w, recursive).
				Locate(t.Context(), name, false); err != nil || at != name ||
				zone != "example.com." {
				t.Errorf("where no CNAMEs are followed: got %s of %s, %v", at, zone, err)
			}
		})
	}
}
