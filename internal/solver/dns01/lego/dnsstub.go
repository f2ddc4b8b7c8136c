package lego

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/go-acme/lego/v5/log"
	"github.com/miekg/dns"
)

// finding is the result of the solver's own DNS queries, which lego gets as its answer.
type finding struct {
	// challenge is the name that lego derives from the domain, effective is the name of the record,
	// and zone is the apex above it. All have a dot at the end.
	challenge, effective, zone string
}

// dnsStub answers lego's DNS queries for zones and CNAMEs. lego has one DNS client in a process,
// which holds a lock during each query. Here it queries a socket in the same process, so that it
// holds the lock only for microseconds. It also gets the result of the solver's settings, such as
// other name servers. Each call gets its own finding, because concurrent calls may have used other
// servers.
type dnsStub struct {
	at string // of the socket

	// turn is held by one call at a time, from before it connects to the socket until it has its
	// answer. So the stub knows which call sends the next query.
	turn  chan struct{}
	asker atomic.Pointer[asker]
}

// asker is a call that has the turn.
type asker struct {
	*finding
	end func() // ends the turn; it may be called more than once
}

const (
	// answerTimeout bounds lego's wait for the turn and the answer.
	answerTimeout = 5 * time.Second
	// questionTimeout is how long a call keeps the turn without sending a query. It is shorter than
	// answerTimeout, so that the next call is still waiting.
	questionTimeout = 2 * time.Second
)

// startDNSStub starts the stub when a provider is used for the first time, and sets up lego's other
// process-wide state.
var startDNSStub = sync.OnceValues(func() (*dnsStub, error) {
	f, err := newDNSStub()
	if err != nil {
		return nil, err
	}
	dns01.SetDefaultClient(dns01.NewClient(&dns01.Options{RecursiveNameservers: []string{f.at}, Timeout: answerTimeout}))
	// lego logs to the standard output. One variable makes it log requests with their secrets, and
	// another makes it ignore CNAMEs.
	log.SetDefault(slog.New(slog.DiscardHandler))
	for _, v := range []string{"LEGO_DEBUG_DNS_API_HTTP_CLIENT", "LEGO_DISABLE_CNAME_SUPPORT"} {
		if err := os.Unsetenv(v); err != nil {
			return nil, err
		}
	}
	return f, nil
})

func newDNSStub() (*dnsStub, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		if conn, err = net.ListenPacket("udp", "[::1]:0"); err != nil {
			return nil, fmt.Errorf("open a socket for lego's DNS questions: %w", err)
		}
	}
	f := &dnsStub{at: conn.LocalAddr().String(), turn: make(chan struct{}, 1)}
	go func() { // for as long as the process lives
		buffer := make([]byte, dns.MaxMsgSize)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buffer[:n]) != nil || len(q.Question) != 1 {
				continue
			}
			a := f.asker.Load()
			if a == nil { // a query outside of a call has no finding
				a = &asker{&finding{}, func() {}}
			}
			if packed, err := a.answer(q).Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
			a.end()
		}
	}()
	return f, nil
}

// with returns a context in which lego's queries get the finding. The goroutine that connects calls
// the hooks, so ConnectStart can wait for the turn.
func (f *dnsStub) with(ctx context.Context, x finding) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(_, address string) {
			if address != f.at {
				return // a service
			}
			select {
			case f.turn <- struct{}{}:
			case <-ctx.Done():
				return // it cannot connect any more
			}
			a := &asker{finding: &x, end: sync.OnceFunc(func() {
				f.asker.Store(nil)
				<-f.turn
			})}
			f.asker.Store(a)
			time.AfterFunc(questionTimeout, a.end)
		},
		ConnectDone: func(_, address string, err error) {
			if a := f.asker.Load(); err != nil && address == f.at && a != nil && a.finding == &x {
				a.end()
			}
		},
	})
}

// answer answers a query from a finding.
func (x *finding) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeNameError)
	name := strings.ToLower(q.Question[0].Name)
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Question[0].Name, Rrtype: kind, Class: dns.ClassINET}
	}
	switch kind := q.Question[0].Qtype; {
	case kind == dns.TypeCNAME && x.challenge == name && x.effective != name:
		m.Answer = []dns.RR{&dns.CNAME{Hdr: head(kind), Target: x.effective}}
	case kind == dns.TypeSOA && x.zone == name: // lego caches the answer for Refresh: not at all
		m.Answer = []dns.RR{&dns.SOA{Hdr: head(kind), Ns: x.zone, Mbox: x.zone, Serial: 1, Retry: 1, Expire: 1}}
	default:
		return m
	}
	m.Rcode = dns.RcodeSuccess
	return m
}
