package dns01

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

func TestForeignValues(t *testing.T) {
	for what, test := range map[string]struct {
		answers []resolver.Answer
		values  []string
		ours    bool
	}{
		"nothing":                            {answers: []resolver.Answer{{}}},
		"ours alone":                         {answers: []resolver.Answer{{Values: []string{"ours"}}}, ours: true},
		"an empty value":                     {answers: []resolver.Answer{{Values: []string{""}}}},
		"another at one of the servers":      {answers: []resolver.Answer{{Values: []string{"ours"}}, {Values: []string{"ours", "theirs"}}}, values: []string{"theirs"}, ours: true},
		"the same at both":                   {answers: []resolver.Answer{{Values: []string{"b", "a"}}, {Values: []string{"a", "b"}}}, values: []string{"a", "b"}},
		"what a server that fails has known": {answers: []resolver.Answer{{Values: []string{"theirs"}, Err: errors.New("lame")}}},
	} {
		if values, ours := foreignValues("ours", test.answers); !slices.Equal(values, test.values) || ours != test.ours {
			t.Errorf("%s: %q, ours: %v", what, values, ours)
		}
	}
	for value, want := range map[string]bool{acme.DNS01Value("token.thumbprint"): true, "v=spf1 -all": false,
		"": false, "AAAA": false} {
		if isChallengeValue(value) != want {
			t.Errorf("%q: %v", value, !want)
		}
	}
}

// overwriting is a provider that replaces all values of a name.
type overwriting struct{ provider.Provider }

func (overwriting) Busy(context.Context, string) (bool, error) { return false, nil }
func (overwriting) Overwrites(provider.Record) bool            { return true }

func TestForeignRecordsAreSparedOrReportedOnce(t *testing.T) {
	created := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	clock := created
	var values []string
	server := dnstest.Serve(t, "127.0.0.1", func(q *dns.Msg, tcp bool) [][]byte {
		zone := []string{soa}
		for _, v := range values {
			zone = append(zone, fmt.Sprintf("%s 60 IN TXT %q", name, v))
		}
		return dnstest.Records(t, true, zone...)(q, tcp)
	})
	s := &Solver{
		Providers: &provider.Factory{OwnMachine: true}, Now: func() time.Time { return clock },
	}
	present := func(ch *cmacme.Challenge) string {
		t.Helper()
		err := s.spareForeignRecords(t.Context(), overwriting{}, ch,
			provider.Record{FQDN: name, Zone: "example.com.", Value: value})
		if err == nil {
			return ""
		}
		later := new(solver.RetryLaterError)
		if !errors.As(err, &later) || !later.Tell {
			t.Fatalf("got %v", err)
		}
		return later.Why
	}
	challenge := func(uid types.UID) *cmacme.Challenge {
		ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{UID: uid, CreationTimestamp: metav1.NewTime(created)}}
		ch.Spec.Solver.DNS01 = &cmacme.ACMEChallengeSolverDNS01{
			Nameservers: []string{server}, Provider: &cmacme.ACMEIssuerDNS01ProviderLego{Name: "single"},
		}
		return ch
	}
	expect := func(when string, ch *cmacme.Challenge, says string) {
		t.Helper()
		if got := present(ch); (got == "") != (says == "") || !strings.Contains(got, says) {
			t.Errorf("%s: it says %q", when, got)
		}
	}
	ch := challenge("1")
	expect("nothing is there", ch, "")
	values = []string{value}
	expect("our own value is there", ch, "")
	values = []string{acme.DNS01Value("token.thumbprint")}
	expect("another client is at work", ch, "another ACME client may be at work")
	expect("it still is", ch, "another ACME client may be at work")
	clock = created.Add(foreignWait)
	expect("it had its time", ch, "")
	values = []string{"v=spf1 -all"}
	expect("the user was warned", ch, "")
	// What is in the status decides nothing.
	other := challenge("2")
	other.Status.Reason = "it will be lost, as it puts one value in the place of all"
	expect("the user of another challenge was not warned", other, "that Perennial did not make")
	expect("now the user was", other, "")
}
