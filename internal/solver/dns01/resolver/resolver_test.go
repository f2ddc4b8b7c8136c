package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
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
		"the value":              {answer: good, confirms: true},
		"the value in pieces":    {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "the-", "value")} }), confirms: true},
		"the value among others": {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "a"), txt(name, value), txt(name, "b")} }), confirms: true},
		"the value in capitals":  {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt(name, "THE-VALUE")} }), blocks: true, says: `still answers "THE-VALUE"`},
		"nothing": {answer: dnstest.Records(t, true, soa), blocks: true, says: "still answers no " +
			"TXT record"},
		"that there is no such name":   {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), blocks: true, says: "still answers no TXT record"},
		"another value":                {answer: dnstest.Records(t, true, name+" 60 IN TXT old"), blocks: true, says: `still answers "old"`},
		"the value at another name":    {answer: reply(func(m *dns.Msg) { m.Answer = []dns.RR{txt("other.example.com.", value)} }), blocks: true, says: "no TXT record"},
		"64 KB without the value":      {answer: reply(func(m *dns.Msg) { m.Answer = long; m.Compress = true }), blocks: true, says: "and 242 more"},
		"64 KB, and then the value":    {answer: reply(func(m *dns.Msg) { m.Answer = append(slices.Clone(long[:240]), txt(name, value)); m.Compress = true }), confirms: true},
		"a CNAME that leads elsewhere": {answer: dnstest.Records(t, true, name+" 60 IN CNAME a.delegated.example."), blocks: true, says: "a CNAME leads from there to a.delegated.example: if that is on purpose, set dns01.cnameStrategy to Follow"},
		"a CNAME and the value where it leads": {answer: reply(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET},
				Target: "b.example.com."}, txt("b.example.com.", value)}
		}), confirms: true},
		"a CNAME of another name": {answer: reply(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: "x.example.com.", Rrtype: dns.TypeCNAME,
				Class: dns.ClassINET}, Target: "b.example.com."}, txt("b.example.com.", value)}
		}), blocks: true, says: "no TXT record"},
		"CNAMEs in a circle": {answer: reply(func(m *dns.Msg) {
			for range 500 {
				m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME,
					Class: dns.ClassINET}, Target: name})
			}
			m.Compress = true
		}), blocks: true, says: "no TXT record"},
		"SERVFAIL": {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), says: "it answers SERVFAIL"},
		"REFUSED":  {answer: reply(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), says: "it answers REFUSED"},
		"that others know (a lame server)": {answer: func(q *dns.Msg, _ bool) [][]byte {
			m := new(dns.Msg).SetReply(q)
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: "com.", Rrtype: dns.TypeNS, Class: dns.ClassINET},
				Ns: "a.gtld-servers.net."}}
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
		"noise": {answer: func(q *dns.Msg, _ bool) [][]byte {
			return [][]byte{[]byte("HTTP/1.1 400 Bad " +
				"Request\r\n\r\n")}
		}, says: "cannot be reached"},
		"a byte": {answer: func(q *dns.Msg, _ bool) [][]byte { return [][]byte{{0}} }, says: "cannot be reached"},
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
			answers, err := within(
				w,
				dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, false, parent...)),
			).Ask(t.Context(), record)
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

// dialAnswer connects to servers that give every query the same answer, over TCP only.
func dialAnswer(t *testing.T, answer []byte) Dial {
	dials := 0
	var mu sync.Mutex
	return func(_ context.Context, network, _ string) (net.Conn, error) {
		if network != "tcp" {
			return nil, errors.New("no UDP")
		}
		mu.Lock()
		defer mu.Unlock()
		if dials++; dials > 2000 {
			t.Error("questions without end")
		}
		return &oneAnswer{answer: append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)}, nil
	}
}

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
		r := &Resolver{Nameservers: []string{"192.0.2.53:53"}, Dial: dialAnswer(t, b)}
		for _, follow := range []bool{false, true} {
			at, zone, err := r.Locate(t.Context(), name, follow)
			if err == nil && !Under(at, zone) {
				t.Errorf("%s is not in %s", at, zone)
			}
		}
		for _, only := range []bool{false, true} {
			r.RecursiveOnly = only
			answers, err := r.Ask(t.Context(), record)
			if seen := Judge(record, answers, time.Time{}, time.Now()); err == nil && len(seen.Why) > 64<<10 {
				t.Errorf("it says %d bytes", len(seen.Why))
			}
		}
	})
}
