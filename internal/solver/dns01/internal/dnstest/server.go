// Package dnstest has name servers for the tests of dns01, which send any bytes.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A Wire is what a server sends for a question, over UDP or TCP: nothing, or any bytes. It may hang
// up by closing conn.
type Wire func(q *dns.Msg, tcp bool) [][]byte

// Serve listens on a port of a loopback address, for both UDP and TCP, until the test ends.
func Serve(t testing.TB, ip string, answer Wire) string {
	t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	for range 20 { // a port that is free for TCP may be taken for UDP
		var err error
		if listener, err = net.Listen("tcp", net.JoinHostPort(ip, "0")); err != nil {
			t.Fatal(err)
		}
		if packets, err = net.ListenPacket("udp", listener.Addr().String()); err == nil {
			break
		}
		listener.Close()
	}
	if packets == nil {
		t.Fatal("no port is free for both TCP and UDP")
	}
	var group sync.WaitGroup
	group.Go(func() { serveUDP(packets, answer) })
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { serveTCP(conn, answer) })
		}
	})
	t.Cleanup(func() {
		packets.Close()
		listener.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

// serveUDP answers queries until the socket is closed.
func serveUDP(packets net.PacketConn, answer Wire) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := packets.ReadFrom(b)
		if err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(b[:n]) != nil {
			continue
		}
		for _, m := range answer(q, false) {
			_, _ = packets.WriteTo(m, from)
		}
	}
}

// serveTCP answers the queries of a connection.
func serveTCP(conn net.Conn, answer Wire) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		for _, m := range answer(q, true) {
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
				return
			}
		}
	}
}

// Records makes a server that answers from a zone file. Names of questions choose records;
// authoritative says whether it claims so.
func Records(t testing.TB, authoritative bool, zone ...string) Wire {
	t.Helper()
	var all []dns.RR
	for _, line := range zone {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, rr)
	}
	return func(q *dns.Msg, _ bool) [][]byte {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = authoritative
		for _, rr := range all {
			h := rr.Header()
			if strings.EqualFold(h.Name, q.Question[0].Name) && (h.Rrtype == q.Question[0].Qtype || h.Rrtype == dns.TypeCNAME) {
				m.Answer = append(m.Answer, rr)
			}
		}
		if len(m.Answer) == 0 {
			for _, rr := range all {
				if rr.Header().Rrtype == dns.TypeSOA {
					m.Ns = append(m.Ns, rr)
				}
			}
		}
		return Packed(t, m)
	}
}

// Packed is an answer of one message.
func Packed(t testing.TB, m *dns.Msg) [][]byte {
	b, err := m.Pack()
	if err != nil {
		t.Errorf("pack: %v", err)
		return nil
	}
	return [][]byte{b}
}
