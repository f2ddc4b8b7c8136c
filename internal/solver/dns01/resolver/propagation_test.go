package resolver

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	record := Record{FQDN: "_acme-challenge.a.example.", Zone: "a.example.", Value: "v"}
	has := Answer{Server: "ns1.", Address: "192.0.2.1:53", Values: []string{"other", "v"}}
	lacks := Answer{Server: "ns2.", Address: "192.0.2.2:53", Values: []string{"old"}}
	silent := Answer{Server: "ns3.", Address: "192.0.2.3:53", Err: errors.New("timeout")}
	for name, test := range map[string]struct {
		answers []Answer
		age     time.Duration
		visible bool
		says    string
	}{
		"all servers have it":                                {[]Answer{has, has}, 0, true, ""},
		"one that answers without it blocks for ever":        {[]Answer{has, lacks}, time.Hour, false, `ns2 (192.0.2.2:53) still answers "old"`},
		"one that cannot be reached blocks at first":         {[]Answer{has, silent}, 59 * time.Second, false, "ns3 (192.0.2.3:53) cannot be reached: timeout"},
		"one that cannot be reached blocks for a minute":     {[]Answer{has, silent}, time.Minute, true, ""},
		"servers that all cannot be reached confirm nothing": {[]Answer{silent}, time.Hour, false, "0 have the TXT record"},
		"a zone without servers confirms nothing":            {nil, time.Hour, false, "no name server"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge(record, test.answers, now.Add(-test.age), now)
			if got.Visible != test.visible || !strings.Contains(got.Why, test.says) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("_acme-challenge.a.example.", dns.TypeTXT)
	m.Answer = []dns.RR{
		&dns.TXT{
			Hdr: dns.RR_Header{Name: "_acme-challenge.a.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{"v"},
		},
	}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		values, _ := txtValues(m, "_acme-challenge.a.example.")
		for _, v := range values {
			if len(Quote([]string{v})) > 400 {
				t.Error("a message without end")
			}
		}
	})
}
