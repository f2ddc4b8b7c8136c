package lego

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/go-acme/lego/v5/log"
	"github.com/miekg/dns"
)

// finding is what our own look at the DNS has found, and what lego is to find.
type finding struct {
	// challenge is the name that lego makes of the domain, effective where the record goes, zone the apex above it. All have a dot at the end.
	challenge, effective, zone string
}

// feed answers lego's questions for zones and CNAMEs. lego has one DNS client in a process, which holds a lock for as long as a zone is looked
// up; here it asks a socket in the same process, so that the lock is held for microseconds, and it finds what the solver's settings let us find.
type feed struct {
	at string // of the socket

	mu       sync.Mutex
	findings []*finding
	freed    chan struct{} // closed when a finding goes
}

// feeding starts the feed of the process when a provider is used for the first time, and sets up the rest of what lego has one of.
var feeding = sync.OnceValues(func() (*feed, error) {
	f, err := newFeed()
	if err != nil {
		return nil, err
	}
	dns01.SetDefaultClient(dns01.NewClient(&dns01.Options{RecursiveNameservers: []string{f.at}, Timeout: 5 * time.Second}))
	// lego logs to the standard output, and requests, too, if a variable says so, with what is secret in them. By another one it follows no CNAMEs.
	log.SetDefault(slog.New(slog.DiscardHandler))
	for _, v := range []string{"LEGO_DEBUG_DNS_API_HTTP_CLIENT", "LEGO_DISABLE_CNAME_SUPPORT"} {
		if err := os.Unsetenv(v); err != nil {
			return nil, err
		}
	}
	return f, nil
})

func newFeed() (*feed, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		if conn, err = net.ListenPacket("udp", "[::1]:0"); err != nil {
			return nil, fmt.Errorf("open a socket for lego's DNS questions: %w", err)
		}
	}
	f := &feed{at: conn.LocalAddr().String(), freed: make(chan struct{})}
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
			if packed, err := f.answer(q).Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return f, nil
}

// with calls do while lego finds the finding. Where two challenges found different things of one name, as with different DNS servers, they wait
// for each other.
func (f *feed) with(ctx context.Context, x finding, do func() error) error {
	mine := &x
	for {
		f.mu.Lock()
		freed := f.freed
		if !slices.ContainsFunc(f.findings, func(other *finding) bool { return contradict(*other, x) }) {
			f.findings = append(f.findings, mine)
			f.mu.Unlock()
			break
		}
		f.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.findings = slices.DeleteFunc(f.findings, func(other *finding) bool { return other == mine })
		close(f.freed)
		f.freed = make(chan struct{})
	}()
	return do()
}

// contradict reports whether lego would find something else if it knew both.
func contradict(a, b finding) bool {
	if a.challenge == b.challenge && a.effective != b.effective {
		return true
	}
	apex := func(name string) string {
		best := ""
		for _, z := range []string{a.zone, b.zone} {
			if dns.IsSubDomain(z, name) && len(z) > len(best) {
				best = z
			}
		}
		return best
	}
	return apex(a.effective) != a.zone || apex(b.effective) != b.zone
}

// answer answers a question from the findings.
func (f *feed) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeNameError)
	name := strings.ToLower(q.Question[0].Name)
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Question[0].Name, Rrtype: kind, Class: dns.ClassINET}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.findings {
		switch kind := q.Question[0].Qtype; {
		case kind == dns.TypeCNAME && x.challenge == name && x.effective != name:
			m.Answer = []dns.RR{&dns.CNAME{Hdr: head(kind), Target: x.effective}}
		case kind == dns.TypeSOA && x.zone == name: // Refresh is how long lego remembers it: not at all
			m.Answer = []dns.RR{&dns.SOA{Hdr: head(kind), Ns: x.zone, Mbox: x.zone, Serial: 1, Retry: 1, Expire: 1}}
		default:
			continue
		}
		m.Rcode = dns.RcodeSuccess
		break
	}
	return m
}
