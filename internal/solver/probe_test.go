package solver_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

func TestWhatASiteShowsIsJudged(t *testing.T) {
	right, wrong, silent := solver.EndpointView{
		Where:   "192.0.2.1",
		Matches: true,
	}, solver.EndpointView{
		Where: "192.0.2.2",
		Shows: "answers with status 404",
	},
		solver.EndpointView{
			Where:      "2001:db8::1",
			NoResponse: true,
			Shows:      "cannot be read: timeout",
		}
	presented := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		views []solver.EndpointView
		after time.Duration
		want  solver.CheckResult
	}{
		"the proof everywhere": {[]solver.EndpointView{right, right}, 0, solver.CheckResult{Visible: true}},
		"an address that answers otherwise": {[]solver.EndpointView{right, wrong}, 0,
			solver.CheckResult{Why: "www at 192.0.2.2 " +
				"answers with status 404"}},
		"it still does":                        {[]solver.EndpointView{silent, wrong}, time.Hour, solver.CheckResult{Why: "www at 192.0.2.2 answers with status 404"}},
		"an address that says nothing":         {[]solver.EndpointView{right, silent}, 0, solver.CheckResult{Visible: true}},
		"nothing heard anywhere":               {[]solver.EndpointView{silent}, time.Minute, solver.CheckResult{Why: "www at 2001:db8::1 cannot be read: timeout"}},
		"nothing heard anywhere for a while":   {[]solver.EndpointView{silent}, 3 * time.Minute, solver.CheckResult{Visible: true, Unseen: "www at 2001:db8::1 cannot be read: timeout"}},
		"a site that was reached by its name":  {[]solver.EndpointView{{Shows: "answers with status 500"}}, 0, solver.CheckResult{Why: "www answers with status 500"}},
		"a name that does not exist, for long": {[]solver.EndpointView{{Shows: "has no address"}}, time.Hour, solver.CheckResult{Why: "www has no address"}},
	} {
		t.Run(name, func(t *testing.T) {
			ch := &cmacme.Challenge{Status: cmacme.ChallengeStatus{PresentedAt: &metav1.Time{Time: presented}}}
			if got := solver.EvaluateSite("www", test.views, ch, presented.Add(test.after)); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestWhereASiteLeadsIsLookedUpAsTheSiteItself has a DNS server with names that no other server
// has.
func TestWhereASiteLeadsIsLookedUpAsTheSiteItself(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{
				&dns.A{
					Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
					A:   net.IPv4(127, 0, 0, 1),
				},
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = names.ActivateAndServe() }()
	t.Cleanup(func() { _ = names.Shutdown() })
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.Close() })
	_, port, err := net.SplitHostPort(site.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := solver.Site{Lookup: solver.Lookup([]string{packets.LocalAddr().String()})}
	for _, to := range []string{"www.site.invalid", "elsewhere.invalid", "127.0.0.1"} {
		s.Views(t.Context(), "www.site.invalid", func(ctx context.Context, dial solver.Dial) solver.EndpointView {
			conn, err := dial(ctx, "tcp", net.JoinHostPort(to, port))
			if err != nil {
				t.Errorf("%s: %v", to, err)
				return solver.EndpointView{}
			}
			conn.Close()
			return solver.EndpointView{Matches: true}
		})
	}
}

func TestNamesOfThisMachineAreFound(t *testing.T) {
	found, err := solver.Lookup(nil)(t.Context(), "localhost")
	if err != nil || !slices.ContainsFunc(found, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }) {
		t.Errorf("got %v, %v", found, err)
	}
	// No server listens at the discard port, so the second server is asked.
	if _, err := solver.Lookup(
		[]string{net.JoinHostPort("127.0.0.1", "9"), net.JoinHostPort("127.0.0.1", "9")},
	)(
		t.Context(),
		"www.example.com",
	); err == nil {
		t.Error("no site has answered")
	}
}
