package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
)

// within makes a Resolver in a network.
func within(n *dnstest.Network, recursive ...string) *Resolver {
	return &Resolver{Nameservers: recursive, Dial: n.Dial(recursive...)}
}

const (
	soa   = "example.com. 60 IN SOA ns1.example.com. h.example.com. 1 60 60 600 1"
	name  = "_acme-challenge.www.example.com."
	value = "the-value"
)

var record = Record{FQDN: name, Zone: "example.com.", Value: value}

// parent has the records of a recursive server for the zone: its servers are ns1 at 192.0.2.1 and
// ns2 at 192.0.2.2.
var parent = []string{
	soa, "example.com. 60 IN NS ns1.example.com.", "example.com. 60 IN NS ns2.example.com.",
	"ns1.example.com. 60 IN A 192.0.2.1", "ns2.example.com. 60 IN A 192.0.2.2",
}

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
		"is not told by an answer to another question": {recursive: reply(func(m *dns.Msg) {
			m.Question[0].Name = "example.org."
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is not told by an answer to a question of another type": {recursive: reply(func(m *dns.Msg) {
			m.Question[0].Qtype = dns.TypeA
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is not told by a question": {recursive: reply(func(m *dns.Msg) {
			m.Response = false
			m.Answer = []dns.RR{rr(soa)}
		}), says: "it answers another question"},
		"is told by a server that knows no EDNS": {recursive: func(q *dns.Msg, tcp bool) [][]byte {
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
		"is that in which servers say that there is nothing": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "www.example.com.",
			server: func(q *dns.Msg, _ bool) [][]byte {
				m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
				m.Ns = []dns.RR{rr("www.example.com. 60 IN SOA ns1.example.com. h.example.com. 1 60 60 600 1")}
				return dnstest.Packed(t, m)
			}},
		"does not move to a zone beside it": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "example.com.",
			server: func(q *dns.Msg, _ bool) [][]byte {
				m := new(dns.Msg).SetReply(q)
				m.Ns = []dns.RR{rr("com. 60 IN NS ns1.example.com."), rr("shop.example.com. 60 IN NS ns1.example.com."), rr("a." + name + " 60 IN NS ns1.example.com.")}
				return dnstest.Packed(t, m)
			}},
		"is where a CNAME leads": {recursive: dnstest.Records(t, false, append(parent, "delegated.example. 60 IN SOA a. b. 1 1 "+
			"1 1 1", "delegated.example. 60 IN NS ns1.example.com.")...),
			follow: true, at: "www.delegated.example.", zone: "delegated.example.", server: dnstest.Records(t, true, name+" 60 IN CNAME www.delegated.example.")},
		"is its own where a CNAME is not followed": {recursive: dnstest.Records(t, false, parent...), at: name, zone: "example.com.", server: dnstest.Records(t, true, soa, name+" 60 IN CNAME www.delegated.example.")},
		"is nowhere where CNAMEs lead in a circle": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, soa, name+" 60 IN CNAME b.example.com.", "b.example.com. 60 IN CNAME "+name), says: "lead in a circle or too far"},
		"is nowhere where a CNAME leads to itself": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, soa, name+" 60 IN CNAME "+name), says: "lead in a circle or too far"},
		"is nowhere where CNAMEs lead too far": {recursive: dnstest.Records(t, false, parent...), follow: true,
			server: dnstest.Records(t, true, append(chain, name+" 60 IN CNAME c0.example.com.")...), says: "lead in a circle or " +
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
			lame := dnstest.Serve(t, "127.0.0.1", func(q *dns.Msg, _ bool) [][]byte { return dnstest.Packed(t, m.Copy().SetReply(q)) })
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
					"192.0.2.2:53": dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, true, soa, name+" 60 IN CNAME www.delegated.example.")),
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

func TestWhatOneServerAnswers(t *testing.T) {
	good := dnstest.Records(t, true, soa, name+" 60 IN TXT "+value)
	reply := func(change func(m *dns.Msg)) dnstest.Wire {
		return func(q *dns.Msg, _ bool) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Authoritative = true
			change(m)
			return dnstest.Packed(t, m)
		}
	}
	txt := func(at string, values ...string) dns.RR {
		return &dns.TXT{Hdr: dns.RR_Header{Name: at, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: values}
	}
	var long []dns.RR
	for range 245 {
		long = append(long, txt(name, strings.Repeat("x", 250)))
	}
	// Two names that point to each other, and one that points to itself, after the header.
	bomb := func(q *dns.Msg, body ...byte) []byte {
		h := []byte{byte(q.Id >> 8), byte(q.Id), 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0}
		return append(h, body...)
	}
	for title, test := range map[string]struct {
		answer dnstest.Wire
		// confirms: the server counts as having the value. blocks: the server has another answer, and
		// always blocks. Neither: the server is ignored after a minute.
		confirms, blocks bool
		says             string
	}{
		"the value":                    {answer: good, confirms: true},
		"the value in pieces":          {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "the-", "value")} }), confirms: true},
		"the value among others":       {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "a"), txt(name, value), txt(name, "b")} }), confirms: true},
		"the value in capitals":        {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "THE-VALUE")} }), blocks: true, says: `still answers "THE-VALUE"`},
		"nothing":                      {answer: dnstest.Records(t, true, soa), blocks: true, says: "still answers no TXT record"},
		"that there is no such name":   {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), blocks: true, says: "still answers no TXT record"},
		"another value":                {answer: dnstest.Records(t, true, name+" 60 IN TXT old"), blocks: true, says: `still answers "old"`},
		"the value at another name":    {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt("other.example.com.", value)} }), blocks: true, says: "no TXT record"},
		"64 KB without the value":      {answer: reply(func(m *dns.Msg) { m.Answer = long; m.Compress = true }), blocks: true, says: "and 242 more"},
		"64 KB, and then the value":    {answer: reply(func(m *dns.Msg) { m.Answer = append(slices.Clone(long[:240]), txt(name, value)); m.Compress = true }), confirms: true},
		"a CNAME that leads elsewhere": {answer: dnstest.Records(t, true, name+" 60 IN CNAME a.delegated.example."), blocks: true, says: "a CNAME leads from there to a.delegated.example: if that is on purpose, set dns01.cnameStrategy to Follow"},
		"a CNAME and the value where it leads": {answer: reply(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "b.example.com."}, txt("b.example.com.", value)}
		}), confirms: true},
		"a CNAME of another name": {answer: reply(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: "x.example.com.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "b.example.com."}, txt("b.example.com.", value)}
		}), blocks: true, says: "no TXT record"},
		"CNAMEs in a circle": {answer: reply(func(m *dns.Msg) {
			for range 500 {
				m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: name})
			}
			m.Compress = true
		}), blocks: true, says: "no TXT record"},
		"SERVFAIL": {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), says: "it answers SERVFAIL"},
		"REFUSED":  {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), says: "it answers REFUSED"},
		"that others know (a lame server)": {answer: func(q *dns.Msg, _ bool) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "com.", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "a.gtld-servers.net."}}
			return dnstest.Packed(t, m)
		}, says: "it is no authoritative server of example.com"},
		"from a cache that stands between, with the value": {answer: dnstest.Records(t, false, name+" 60 IN TXT "+value), confirms: true},
		"another question": {answer: reply(func(m *dns.Msg) { m.Question[0].Name = "x.example.com."; m.Answer = []dns.RR{txt(name, value)} }), says: "another question"},
		"no question":      {answer: reply(func(m *dns.Msg) { m.Question = nil; m.Answer = []dns.RR{txt(name, value)} }), says: "another question"},
		"a question":       {answer: reply(func(m *dns.Msg) { m.Response = false; m.Answer = []dns.RR{txt(name, value)} }), says: "another question"},
		"an update":        {answer: reply(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate; m.Answer = []dns.RR{txt(name, value)} }), says: "another question"},
		"with another ID": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			q.Id++
			return good(q, tcp)
		}, says: "id mismatch"},
		"with another ID first, over UDP": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			other := q.Copy()
			other.Id++
			return append(dnstest.Records(t, true, name+" 60 IN TXT forged")(other, tcp), good(q, tcp)...)
		}, confirms: true},
		"cut off over UDP, whole over TCP": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			if !tcp {
				m := new(dns.Msg).SetReply(q)
				m.Truncated, m.Authoritative = true, true
				return dnstest.Packed(t, m)
			}
			return good(q, tcp)
		}, confirms: true},
		"cut off over UDP, nothing over TCP": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			m := new(dns.Msg).SetReply(q)
			if m.Truncated, m.Authoritative = true, true; tcp {
				return [][]byte{{}}
			}
			return dnstest.Packed(t, m)
		}, says: "cannot be reached"},
		"UnreachableDelay over UDP, the value over TCP": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			if !tcp {
				return nil
			}
			return good(q, tcp)
		}, confirms: true},
		"UnreachableDelay": {answer: func(*dns.Msg, bool) [][]byte { return nil }, says: "i/o timeout"},
		"noise":            {answer: func(q *dns.Msg, _ bool) [][]byte { return [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")} }, says: "cannot be reached"},
		"a byte":           {answer: func(q *dns.Msg, _ bool) [][]byte { return [][]byte{{0}} }, says: "cannot be reached"},
		"half of it": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			b := good(q, tcp)[0]
			return [][]byte{b[:len(b)-4]}
		}, says: "cannot be reached"},
		"a name that points to itself": {answer: func(q *dns.Msg, _ bool) [][]byte {
			return [][]byte{bomb(q, 0xc0, 12, 0, 16, 0, 1)}
		}, says: "cannot be reached"},
		"names that point to each other": {answer: func(q *dns.Msg, _ bool) [][]byte {
			return [][]byte{bomb(q, 0xc0, 14, 0xc0, 12, 0, 16, 0, 1)}
		}, says: "cannot be reached"},
		"the value, and that there are more records": {answer: func(q *dns.Msg, tcp bool) [][]byte {
			b := good(q, tcp)[0]
			b[6], b[7] = 0xff, 0xff
			return [][]byte{b}
		}, confirms: true},
		"with a code that has no name": {answer: reply(func(m *dns.Msg) { m.Rcode = 15 }), says: "RCODE 15"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := &dnstest.Network{
				Sockets: map[string]string{
					"192.0.2.1:53": dnstest.Serve(t, "127.0.0.1", good),
					"192.0.2.2:53": dnstest.Serve(t, "127.0.0.1", test.answer),
				},
			}
			answers, err := within(w, dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, false, parent...))).Ask(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			put := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
			first, later := Judge(
				record,
				answers,
				put,
				put.Add(UnreachableDelay-time.Second),
			), Judge(
				record,
				answers,
				put,
				put.Add(UnreachableDelay),
			)
			if first.Visible != test.confirms || later.Visible == test.blocks {
				t.Errorf("at first %+v\nlater %+v", first, later)
			}
			if !test.confirms &&
				(!strings.Contains(first.Why, test.says) || !strings.Contains(first.Why, "ns2.example.com (192.0.2.2:53)")) {
				t.Errorf("it says %s", first.Why)
			}
			if len(first.Why) > 1000 {
				t.Errorf("it says %d bytes", len(first.Why))
			}
		})
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
	addressed := func(address ...string) []string {
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
		"that answer without the value block though other addresses are silent": {zone: addressed("192.0.2.1", "192.0.2.2"), sockets: map[string]dnstest.Wire{"192.0.2.2:53": dnstest.Records(t, true, soa)},
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
			asked := map[string]bool{}
			for _, a := range w.Dialled() {
				if a != recursive {
					asked[a] = true
				}
				for _, own := range []string{"127.", "[::1]", "169.254.", "[fe80", "0.0.0.0", "224."} {
					if a != recursive && strings.HasPrefix(a, own) {
						t.Errorf("it connected to %s", a)
					}
				}
			}
			if test.asked > 0 && len(asked) > test.asked {
				t.Errorf("%d addresses were asked", len(asked))
			}
		})
	}
}

func TestServersOverHTTPS(t *testing.T) {
	const media = "application/dns-message"
	good := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := new(dns.Msg)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != media || q.Unpack(body) != nil || q.Id != 0 {
			t.Errorf("%s %q %x", r.Method, r.Header, body)
		}
		w.Header().Set("Content-Type", media)
		for _, b := range dnstest.Records(t, false, soa, name+" 60 IN TXT "+value)(q, true) {
			_, _ = w.Write(b)
		}
	}
	elsewhere := httptest.NewServer(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }),
	)
	defer elsewhere.Close()
	for title, test := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"have the value": {handler: good},
		"that do not end": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", media)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, says: "the answer is too long"},
		"that drip": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, says: "deadline exceeded"},
		"that speak another language": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, "<html>")
		}, says: "it does not answer with application/dns-message: is that the URL of a DNS server?"},
		"that say nothing": {handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", media) }, says: "ask https://"},
		"that make noise": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			fmt.Fprint(w, strings.Repeat("\xc0\x0c", 100))
		}, says: "ask https://"},
		"that fail": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, says: "status 502"},
		"that lead elsewhere": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, says: "status 307: it redirects"},
		"that cut their answer off": {handler: func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			q := new(dns.Msg)
			if err := q.Unpack(body); err != nil {
				t.Error(err)
			}
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			w.Header().Set("Content-Type", media)
			_, _ = w.Write(dnstest.Packed(t, m)[0])
		}, says: "the answer is cut off"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(test.handler)
			t.Cleanup(server.Close)
			client := server.Client()
			client.CheckRedirect = defaultHTTPSClient.CheckRedirect
			r := &Resolver{Nameservers: []string{server.URL + "/dns-query"}, RecursiveOnly: true, HTTPS: client}
			answers, err := r.Ask(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			seen := Judge(record, answers, time.Time{}, time.Now())
			if seen.Visible != (test.says == "") || !strings.Contains(seen.Why, test.says) {
				t.Errorf("got %+v", seen)
			}
			_, _, err = r.Locate(t.Context(), name, true)
			if (err == nil) != (test.says == "") {
				t.Errorf("locate: %v", err)
			}
		})
	}
}

// oneAnswer is a connection to a server that gives every query the same answer.
type oneAnswer struct {
	net.Conn
	answer []byte
}

func (c *oneAnswer) Write(b []byte) (int, error) {
	if len(b) > 4 && len(c.answer) > 2 { // the ID of the question, after the length
		copy(c.answer[2:], b[2:4])
	}
	return len(b), nil
}

func (c *oneAnswer) Read(b []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *oneAnswer) Close() error                     { return nil }
func (c *oneAnswer) SetReadDeadline(time.Time) error  { return nil }
func (c *oneAnswer) SetWriteDeadline(time.Time) error { return nil }

func FuzzResolver(f *testing.F) {
	for _, answer := range []dnstest.Wire{
		dnstest.Records(f, true, soa, name+" 60 IN TXT "+value), dnstest.Records(f, true, name+" 60 IN CNAME "+name), dnstest.Records(f, true, parent...),
	} {
		for _, kind := range []uint16{dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeA} {
			for _, b := range answer(new(dns.Msg).SetQuestion(name, kind), true) {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10-1 {
			return
		}
		dials := 0
		var mu sync.Mutex
		r := &Resolver{
			Nameservers: []string{"192.0.2.53:53"},
			Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
				if network != "tcp" {
					return nil, errors.New("no UDP")
				}
				mu.Lock()
				defer mu.Unlock()
				if dials++; dials > 2000 {
					t.Error("questions without end")
				}
				return &oneAnswer{answer: append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)}, nil
			},
		}
		for _, follow := range []bool{false, true} {
			at, zone, err := r.Locate(t.Context(), name, follow)
			if err == nil && !Under(at, zone) {
				t.Errorf("%s is not in %s", at, zone)
			}
		}
		for _, only := range []bool{false, true} {
			r.RecursiveOnly = only
			answers, err := r.Ask(t.Context(), record)
			if err == nil {
				if seen := Judge(record, answers, time.Time{}, time.Now()); len(seen.Why) > 64<<10 {
					t.Errorf("it says %d bytes", len(seen.Why))
				}
			}
		}
	})
}

func TestWhichNameserversCanBeNamed(t *testing.T) {
	for given, want := range map[string]string{
		"192.0.2.53":                        "192.0.2.53:53",
		"192.0.2.53:5353":                   "192.0.2.53:5353",
		"2001:db8::53":                      "[2001:db8::53]:53",
		"[2001:db8::53]":                    "[2001:db8::53]:53",
		"dns.example.com":                   "dns.example.com:53",
		"https://dns.example.com/dns-query": "https://dns.example.com/dns-query",

		"http://dns.example.com/dns-query":         `the DNS server "http://dns.example.com/dns-query" must be host:port, or a URL such as https://`,
		"tls://dns.example.com":                    `the DNS server "tls://dns.example.com" must be`,
		"https:///dns-query":                       "must be host:port, or a URL",
		"https://dns.example.com/dns-query{?dns}":  "must be host:port, or a URL",
		"https://dns.example.com:port/":            "must be host:port, or a URL",
		"https://user:secret@dns.example.com/a@b":  "must not have credentials",
		"https://user:secret@dns.example.com:port": "must be host:port, or a URL",
	} {
		got, err := ParseNameservers([]string{given})
		if err != nil {
			got = []string{err.Error()}
		}
		if strings.Contains(got[0], "secret") || !strings.Contains(got[0], want) || err == nil && got[0] != want {
			t.Errorf("%s: got %s, want %s", given, got[0], want)
		}
	}
}
