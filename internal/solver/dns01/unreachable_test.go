package dns01

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const (
	soa   = "example.com. 60 IN SOA ns1.example.com. h.example.com. 1 60 60 600 1"
	name  = "_acme-challenge.www.example.com."
	value = "the-value"
)

type unreachableTest struct {
	// answers has the servers that answer, by address. recursors is how many silent recursive servers
	// come before the one that answers.
	answers   map[string]dnstest.Wire
	recursors int
	only      bool
	strategy  cmacme.CNAMEStrategy
	// says is the error of Present, and sees is the result of Check when the record has existed for a
	// minute.
	says, sees string
}

// TestServersThatAreSilent changes records within the default deadlines while packets to name
// servers are dropped.
func TestServersThatAreSilent(t *testing.T) {
	// A zone with as many servers as the large services have, each at an IPv4 and an IPv6 address.
	const servers = 4
	zone := []string{soa, "delegated.example. 60 IN SOA a. b. 1 1 1 1 1", "delegated.example. 60 IN NS ns1.example.com."}
	var addresses []string
	for i := range servers {
		zone = append(
			zone,
			fmt.Sprintf("example.com. 60 IN NS ns%d.example.com.", i),
			fmt.Sprintf("ns%d.example.com. 60 IN A 192.0.2.%d", i, i+1),
			fmt.Sprintf("ns%d.example.com. 60 IN AAAA 2001:db8::%d", i, i+1),
		)
		addresses = append(addresses, fmt.Sprintf("192.0.2.%d:53", i+1), fmt.Sprintf("[2001:db8::%d]:53", i+1))
	}
	for title, test := range map[string]unreachableTest{
		"all: the record is made, and then the message says what may be the matter": {
			sees: "if this network lets nothing through to them, set --dns01-recursive-nameservers-only"},
		"all, where a CNAME would be followed: the message says what may be the matter": {strategy: cmacme.FollowStrategy,
			says: "if this network lets nothing through to them, set --dns01-recursive-nameservers-only"},
		"all but the last: the record is made":                     {answers: map[string]dnstest.Wire{"[2001:db8::4]:53": dnstest.Records(t, true, soa)}},
		"all but the last: a CNAME is followed":                    {answers: map[string]dnstest.Wire{"[2001:db8::4]:53": dnstest.Records(t, true, name+" 60 IN CNAME www.example.com.", soa)}, strategy: cmacme.FollowStrategy},
		"all recursive ones but the last":                          {recursors: 2, answers: map[string]dnstest.Wire{"192.0.2.1:53": dnstest.Records(t, true, soa)}},
		"all recursive ones but the last, and no others are asked": {recursors: 2, only: true, strategy: cmacme.FollowStrategy},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			test.run(t, zone, addresses)
		})
	}
}

// run makes the record and checks it. zone is what the recursive servers know, and addresses are
// those of the zone's servers.
func (test unreachableTest) run(t *testing.T, zone, addresses []string) {
	t.Helper()
	silent := func(*dns.Msg, bool) [][]byte { return nil }
	primary := &dnstest.Primary{}
	primary.Start(t, "udp")
	nothing := dnstest.Serve(t, "127.0.0.1", silent)
	w := &dnstest.Network{Sockets: map[string]string{"192.0.2.99:53": primary.Address}}
	for _, a := range addresses {
		if w.Sockets[a] = nothing; test.answers[a] != nil {
			w.Sockets[a] = dnstest.Serve(t, "127.0.0.1", test.answers[a])
		}
	}
	var recursors []string
	for range test.recursors {
		recursors = append(recursors, dnstest.Serve(t, "127.0.0.1", silent))
	}
	recursors = append(recursors, dnstest.Serve(t, "127.0.0.1", dnstest.Records(t, false, zone...)))
	clock := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return clock }
	s := &Solver{
		Providers:     &provider.Factory{Dial: w.Dial(recursors...), Now: now},
		Nameservers:   recursors,
		RecursiveOnly: test.only,
		Dial:          w.Dial(recursors...),
		Now:           now,
	}
	issuer := &signer.Issuer{
		GenericIssuer:   &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le"}},
		Kind:            signer.KindIssuer,
		SecretNamespace: "shop",
	}
	ch := &cmacme.Challenge{Spec: cmacme.ChallengeSpec{
		Type: cmacme.ACMEChallengeTypeDNS01, DNSName: "www.example.com", Key: value,
		Solver: cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{
			CNAMEStrategy: test.strategy, RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: "192.0.2.99"}}},
	}}
	err := s.Present(t.Context(), issuer, ch)
	made := primary.All()
	if test.says != "" {
		if err == nil || !strings.Contains(err.Error(), test.says) || len(made) > 0 {
			t.Errorf("Present says %v, and made %q", err, made)
		}
		return
	}
	if err != nil || !slices.Equal(made, []string{value}) {
		t.Fatalf("Present says %v, and made %q", err, made)
	}
	ch.Status.PresentedAt = &metav1.Time{Time: clock.Add(-resolver.UnreachableDelay)}
	if seen, err := s.Check(t.Context(), issuer, ch); err != nil || !strings.Contains(seen.Why, test.sees) {
		t.Errorf("Check says %v, %+v", err, seen)
	}
}
