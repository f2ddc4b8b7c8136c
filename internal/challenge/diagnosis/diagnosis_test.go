package diagnosis

import (
	"errors"
	"strings"
	"testing"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

func TestARefusalIsExplained(t *testing.T) {
	const name, there = "www.example.com", "192.0.2.1"
	problem := func(kind, detail string) *acme.Problem { return &acme.Problem{Type: kind, Detail: detail} }
	right, wrong := solver.EndpointView{
		Where:   there,
		Matches: true,
	}, solver.EndpointView{
		Where: "2001:db8::1",
		Shows: "answers with status 404",
	}
	silent := solver.EndpointView{Where: "2001:db8::1", NoResponse: true, Shows: "cannot be read: connection refused"}
	ns := func(v solver.EndpointView, n string) solver.EndpointView {
		v.Where = "ns" + n + ".example.com (192.0.2.53:53)"
		return v
	}
	caaOf := func(at string, values ...resolver.CAA) CAA {
		return CAA{
			At:         at,
			Records:    values,
			Identities: []string{"ca.example", "other.example"},
			Account:    "https://ca.example/a/1",
		}
	}
	forbidden := problem(acme.ProblemCAA, "CAA record for www.example.com prevents issuance")
	for what, test := range map[string]struct {
		Failure
		want []string
	}{
		"the CA cannot connect, we can": {
			Failure{Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemConnection, "192.0.2.1: Timeout "+
				"during connect"), Views: []solver.EndpointView{right}},
			[]string{"the CA could not verify it: urn:ietf:params:acme:error:connection: 192.0.2.1: Timeout during connect. " +
				"From here 192.0.2.1 shows the proof. ", "let port 80 be reached from everywhere"},
		},
		"the CA came to another address": {
			Failure{Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemUnauthorized, "203.0.113.9: Invalid "+
				"response from http://www.example.com/x: 404"), Views: []solver.EndpointView{right}},
			[]string{"The CA came to 203.0.113.9, where www.example.com leads outside"},
		},
		"an AAAA record leads elsewhere": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemUnauthorized, "2001:db8::1: 404"),
				Views: []solver.EndpointView{right, wrong},
			},
			[]string{"From here 192.0.2.1 shows the proof; 2001:db8::1 answers with status 404. ", "lead 2001:db8::1 to " +
				"where 192.0.2.1 leads, or remove its address record"},
		},
		"an address that does not answer": {
			Failure{
				Kind:    cmacme.ACMEChallengeTypeTLSALPN01,
				Problem: problem(acme.ProblemConnection, "2001:db8::1: connection refused"),
				Views:   []solver.EndpointView{right, silent},
			},
			[]string{"let port 443 of 2001:db8::1 be reached"},
		},
		"it was changed since we looked": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemUnauthorized, "404"),
				Views: []solver.EndpointView{wrong},
			},
			[]string{"Lead port 80 of www.example.com to the controller, or, if it was led there, see what else answers"},
		},
		"no connection": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemConnection, "refused"),
				Views: []solver.EndpointView{silent},
			},
			[]string{"2001:db8::1 cannot be read: connection refused", "Lead port 80 of www.example.com to the controller, " +
				"and let it be reached from everywhere"},
		},
		"the answer differs outside": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemUnauthorized, "404"),
				Views: []solver.EndpointView{right},
			},
			[]string{"The CA came to another server, or the answer changed"},
		},
		"the CA is ill": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: problem(acme.ProblemServerInternal, "oops"),
				Views: []solver.EndpointView{right},
			}, []string{"It is the CA that could not look"},
		},
		"the CA says nothing": {
			Failure{Kind: cmacme.ACMEChallengeTypeHTTP01, Views: []solver.EndpointView{right}},
			[]string{"invalid, and not why. " +
				"From here 192.0.2.1 shows the proof"},
		},
		"we cannot look": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemUnauthorized, "no TXT"),
				Unknown: errors.New("no server"),
			}, []string{"From here nothing is known of it: no server"},
		},
		"a record is gone": {
			Failure{Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemUnauthorized, "no TXT"),
				Views: []solver.EndpointView{
					{Where: "ns1.example.com", Shows: "answers no TXT record for _acme-challenge.www.example.com"},
				}},
			[]string{"ns1.example.com answers no TXT record", "The record is gone: find out what else changes this zone"},
		},
		"a secondary has no record": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemUnauthorized, "no TXT"),
				Views: []solver.EndpointView{ns(right, "1"), ns(wrong, "2")},
			},
			[]string{"The record has not come to ns2.example.com (192.0.2.53:53), or is gone there"},
		},
		"a name server is not heard": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemUnauthorized, "no TXT"),
				Views: []solver.EndpointView{ns(right, "1"), ns(silent, "2")},
			},
			[]string{"The CA may have asked ns2.example.com (192.0.2.53:53)"},
		},
		"all name servers have the record": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemUnauthorized, "no TXT"),
				Views: []solver.EndpointView{ns(right, "1"), ns(right, "2")},
			},
			[]string{
				"ns1.example.com (192.0.2.53:53) and ns2.example.com (192.0.2.53:53) show the proof",
				"waitForRecordToPropagate",
			},
		},
		"the name cannot be found outside": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemDNS, "SERVFAIL looking up TXT"),
				Views: []solver.EndpointView{ns(right, "1")},
			},
			[]string{"every name server that the parent zone lists"},
		},
		"DNSSEC does not verify": {
			Failure{Kind: cmacme.ACMEChallengeTypeDNS01, Problem: problem(acme.ProblemDNS, "SERVFAIL"), Bogus: true},
			[]string{"correct the DS record at the registrar"},
		},
		"a CAA record is missing": {
			Failure{
				Problem: forbidden,
				CAA: caaOf(
					"example.com", resolver.CAA{Tag: "issue", Value: "rival.example"},
					resolver.CAA{Tag: "iodef", Value: "mailto:a@example.com"},
				),
			},
			[]string{`The CAA records of example.com allow issue "rival.example": add   example.com. CAA 0 issue "ca.example"`},
		},
		"a CAA record for wildcards is missing": {
			Failure{
				Wildcard: true, Problem: forbidden,
				CAA: caaOf("example.com", resolver.CAA{Tag: "issue", Value: "ca.example"},
					resolver.CAA{Tag: "issuewild", Value: ";"}),
			},
			[]string{`add   example.com. CAA 0 issuewild "ca.example"`},
		},
		"a CAA record names another account": {
			Failure{
				Kind: cmacme.ACMEChallengeTypeHTTP01, Problem: forbidden,
				CAA: caaOf("example.com", resolver.CAA{Tag: "issue", Value: "CA.example; validationmethods=dns-01"}),
			},
			[]string{"this is accounturi=https://ca.example/a/1 and validationmethods=http-01"},
		},
		"a CAA record was changed": {
			Failure{Problem: forbidden, CAA: caaOf("example.com", resolver.CAA{Tag: "issue", Value: "other.example"})},
			[]string{"they allow this CA, so they were changed lately"},
		},
		"CAA in a subproblem": {
			Failure{
				Problem: &acme.Problem{
					Type: acme.ProblemUnauthorized, Detail: "several",
					Subproblems: []acme.Problem{{Type: acme.ProblemCAA, Detail: "forbidden"}},
				},
				CAA: caaOf(""),
			},
			[]string{"urn:ietf:params:acme:error:unauthorized: several: urn:ietf:params:acme:error:caa: forbidden. From here " +
				"no CAA record of www.example.com is seen"},
		},
		"a CA without a name": {
			Failure{
				Problem: forbidden,
				CAA:     CAA{At: "example.com", Records: []resolver.CAA{{Tag: "issue", Value: "rival.example"}}},
			}, []string{"add one for this CA, whose documentation has its name"},
		},
		"name servers that fail for CAA": {Failure{Problem: forbidden, CAA: CAA{Unknown: errors.New("SERVFAIL")}}, []string{"cannot be read from here either: SERVFAIL"}},
	} {
		t.Run(what, func(t *testing.T) {
			test.Name = name
			got := test.Failure.String()
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("it says\n%s\nnot\n%s", got, want)
				}
			}
		})
	}
}

func TestWhatACASaysIsShortened(t *testing.T) {
	p := &acme.Problem{Detail: strings.Repeat("ä", 1000)}
	for range 100 {
		p.Subproblems = append(p.Subproblems, acme.Problem{Detail: strings.Repeat("x", 2000)})
	}
	if got := Refusal(p); len(got) > maxRefusal+50 {
		t.Errorf("it is %d bytes long", len(got))
	}
}
