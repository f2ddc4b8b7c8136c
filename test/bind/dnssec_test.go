package bind_test

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/bind"
	"github.com/perennial-pki/perennial/test/cluster"
)

// signed starts a server that signs the zone, also what changes, and returns its public key as a
// trust anchor.
func signed(t *testing.T) (s *bind.Server, anchor string) {
	t.Helper()
	z := zone(1)
	z.Settings += " dnssec-policy default; inline-signing yes;"
	s = bind.Start(t, keys, z)
	cluster.Eventually(t, func() error {
		q := new(dns.Msg).SetQuestion("example.com.", dns.TypeDNSKEY)
		q.SetEdns0(4096, true)
		m, err := dns.Exchange(q, s.Addr)
		if err != nil {
			return err
		}
		verifies := false
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.DNSKEY:
				anchor = fmt.Sprintf("example.com. static-key %d %d %d %q;", rr.Flags, rr.Protocol, rr.Algorithm, rr.PublicKey)
			case *dns.RRSIG:
				verifies = true
			}
		}
		if !verifies {
			return cluster.NotYet("the zone is not signed: %s", m)
		}
		return nil
	})
	return s, anchor
}

func TestARecordInASignedZoneVerifies(t *testing.T) {
	primary, anchor := signed(t)
	zones := map[string]*bind.Server{"example.com": primary}
	verifying := bind.StartResolver(t, bind.Resolver{Zones: zones, Anchors: anchor})
	r := start(t, verifying, verifying, primary)
	r.issuer("bind", cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256")}})
	r.ready(r.certificate("bind", "signed", "example.com", "*.example.com"))

	// A resolver that trusts another key than that of the zone takes it for forged.
	_, of := signed(t)
	doubting := bind.StartResolver(t, bind.Resolver{Zones: zones, Anchors: of})
	r.issuer(
		"doubted",
		cmacme.ACMEChallengeSolver{
			DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256"), Nameservers: []string{doubting.Addr}},
		},
	)
	r.certificate("doubted", "doubted", "doubted.example.com")
	r.says(
		"doubted.example.com",
		"find the zone of doubted.example.com: ",
		"it answers SERVFAIL, as its DNSSEC does not verify: correct the DS record at the registrar, or sign the zone anew",
	)
}
