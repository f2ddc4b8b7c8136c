// Package dnsserver is a small authoritative DNS server on a real socket, which accepts dynamic
// updates, for tests, benchmarks and the quickstart.
package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Options are the settings of the server.
type Options struct {
	// Zones are the apexes. The server is authoritative for them, and answers every other query as for
	// a name without records.
	Zones []string
	// Address is the address of every name without other records. 127.0.0.1 if nil.
	Address net.IP
	// KeyName and Secret (base64) are the TSIG key that updates must be signed with. If empty,
	// unsigned updates are accepted.
	KeyName, Secret string
}

// Server is a running server.
type Server struct {
	// Addr is host:port, for UDP and TCP.
	Addr string

	o       Options
	mu      sync.Mutex
	texts   map[string][]string
	cnames  map[string]string
	updated []string
	hidden  map[string]bool
	records map[question][]string
	bogus   map[string]bool
	fate    func() Fate
	servers []*dns.Server
}

// Fate is the simulated outcome of a dynamic update.
type Fate int

const (
	// Done means that the server applies and answers the update.
	Done Fate = iota
	// Failed means that the server answers with a failure.
	Failed
	// Lost means that the update never reaches the server.
	Lost
	// Unheard means that the server applies the update, and the answer is lost.
	Unheard
)

type question struct {
	name string
	kind uint16
}

// Start starts a server on a free port of 127.0.0.1.
func Start(o Options) (*Server, error) {
	if o.Address == nil {
		o.Address = net.IPv4(127, 0, 0, 1)
	}
	s := &Server{
		o:       o,
		texts:   map[string][]string{},
		cnames:  map[string]string{},
		hidden:  map[string]bool{},
		records: map[question][]string{},
		bogus:   map[string]bool{},
	}
	var listener net.Listener
	var conn net.PacketConn
	for range 20 { // a port that is free for TCP may be taken for UDP
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		if conn, err = net.ListenPacket("udp", listener.Addr().String()); err == nil {
			break
		}
		listener.Close()
	}
	if conn == nil {
		return nil, errors.New("no port is free for both TCP and UDP")
	}
	s.Addr = listener.Addr().String()
	secrets := map[string]string{}
	if o.KeyName != "" {
		secrets[dns.Fqdn(o.KeyName)] = o.Secret
	}
	// Updates are refused by the library unless they are accepted by name.
	accept := func(h dns.Header) dns.MsgAcceptAction {
		if opcode := int(h.Bits>>11) & 0xf; opcode == dns.OpcodeUpdate {
			return dns.MsgAccept
		}
		return dns.DefaultMsgAcceptFunc(h)
	}
	s.servers = []*dns.Server{
		{Listener: listener, Handler: s, TsigSecret: secrets, MsgAcceptFunc: accept},
		{PacketConn: conn, Handler: s, TsigSecret: secrets, MsgAcceptFunc: accept},
	}
	for _, server := range s.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe() //nolint:errcheck // ends with Close
		<-started
	}
	return s, nil
}

// Close stops the server.
func (s *Server) Close() {
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
}

// TXT returns the TXT values at a name.
func (s *Server) TXT(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.texts[canonical(name)])
}

// Updates returns the names of the records in dynamic updates, in their order.
func (s *Server) Updates() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.updated)
}

// AddTXT adds a TXT value.
func (s *Server) AddTXT(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name = canonical(name); !slices.Contains(s.texts[name], value) {
		s.texts[name] = append(s.texts[name], value)
	}
}

// SetTXT replaces the TXT values at a name.
func (s *Server) SetTXT(name string, values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts[canonical(name)] = slices.Clone(values)
}

// Hide makes the server answer as if a name had no TXT values, or stops that. The server keeps the
// values.
func (s *Server) Hide(name string, hide bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden[canonical(name)] = hide
}

// CNAME turns a name into an alias.
func (s *Server) CNAME(name, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cnames[canonical(name)] = canonical(target)
}

// Set replaces the records of a type, other than TXT, at a name, each as in a zone file. Without
// records, it removes them.
func (s *Server) Set(name string, kind uint16, values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[question{canonical(name), kind}] = slices.Clone(values)
}

// SetBogus makes the server fail for a name unless the query disables DNSSEC validation (CD), as a
// validating resolver does if the DNSSEC of the name is invalid.
func (s *Server) SetBogus(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bogus[canonical(name)] = true
}

// Updating makes f decide the outcome of each dynamic update from now on.
func (s *Server) Updating(f func() Fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate = f
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

// zone returns the most specific zone of a name, or "".
func (s *Server) zone(name string) string {
	best := ""
	for _, z := range s.o.Zones {
		if z = canonical(z); dns.IsSubDomain(z, name) && len(z) > len(best) {
			best = z
		}
	}
	return best
}

// ServeDNS answers one message.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	if q.Opcode == dns.OpcodeUpdate {
		s.mu.Lock()
		fate := s.fate
		s.mu.Unlock()
		is := Done
		if fate != nil {
			is = fate()
		}
		switch is {
		case Lost:
			return
		case Failed:
			m.Rcode = dns.RcodeServerFailure
		default:
			m.Rcode = s.update(w, q)
		}
		if is == Unheard {
			return
		}
	} else if len(q.Question) == 1 {
		s.answer(m, q.Question[0], q.CheckingDisabled)
	}
	if t := q.IsTsig(); t != nil && w.TsigStatus() == nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, int64(t.TimeSigned))
	}
	_ = w.WriteMsg(m)
}

func (s *Server) answer(m *dns.Msg, q dns.Question, unverified bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := canonical(q.Name)
	if s.bogus[name] && !unverified {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
	}
	for range 10 {
		target, found := s.cnames[name]
		if !found {
			break
		}
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: target})
		if q.Qtype == dns.TypeCNAME {
			return
		}
		name = target
	}
	zone := s.zone(name)
	soa := &dns.SOA{
		Hdr:     header(zone, dns.TypeSOA),
		Ns:      "ns1." + zone,
		Mbox:    "hostmaster." + zone,
		Serial:  1,
		Refresh: 60,
		Retry:   60,
		Expire:  600,
		Minttl:  1,
	}
	set, found := s.records[question{name, q.Qtype}]
	switch {
	case found:
		for _, value := range set {
			if rr, err := dns.NewRR(fmt.Sprintf("%s 1 IN %s %s", name, dns.TypeToString[q.Qtype], value)); err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
	case q.Qtype == dns.TypeTXT && !s.hidden[name]:
		for _, value := range s.texts[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: []string{value}})
		}
	case q.Qtype == dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: header(name, dns.TypeA), A: s.o.Address})
	case q.Qtype == dns.TypeSOA && name == zone:
		m.Answer = append(m.Answer, soa)
	case q.Qtype == dns.TypeNS && name == zone:
		m.Answer = append(m.Answer, &dns.NS{Hdr: header(zone, dns.TypeNS), Ns: "ns1." + zone})
	}
	if len(m.Answer) == 0 && zone != "" {
		m.Ns = append(m.Ns, soa)
	}
}

func (s *Server) update(w dns.ResponseWriter, q *dns.Msg) int {
	if s.o.KeyName != "" && (q.IsTsig() == nil || w.TsigStatus() != nil) {
		return dns.RcodeRefused
	}
	if len(q.Question) != 1 ||
		!slices.ContainsFunc(s.o.Zones, func(z string) bool { return canonical(z) == canonical(q.Question[0].Name) }) {
		return dns.RcodeNotAuth
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range q.Ns {
		name := canonical(rr.Header().Name)
		txt, ok := rr.(*dns.TXT)
		if !ok {
			return dns.RcodeRefused
		}
		s.updated = append(s.updated, name)
		value := strings.Join(txt.Txt, "")
		switch rr.Header().Class {
		case dns.ClassINET:
			if !slices.Contains(s.texts[name], value) {
				s.texts[name] = append(s.texts[name], value)
			}
		case dns.ClassNONE:
			s.texts[name] = slices.DeleteFunc(s.texts[name], func(v string) bool { return v == value })
		default:
			return dns.RcodeRefused
		}
	}
	return dns.RcodeSuccess
}
