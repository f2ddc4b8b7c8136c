package desired

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// authorization is one that a CA offers the types of challenges for.
func authorization(name string, types ...string) cmacme.ACMEAuthorization {
	plain, wildcard := strings.CutPrefix(name, "*.")
	z := cmacme.ACMEAuthorization{URL: "https://ca.example/authz/1", Identifier: plain, Wildcard: &wildcard}
	for _, kind := range types {
		ch := cmacme.ACMEChallenge{URL: "https://ca.example/" + kind, Type: kind, Token: "token"}
		if kind == acme.ChallengeDNSPersist01 {
			ch.Token, ch.IssuerDomainNames = "", []string{"ca.example", "other.example"}
		}
		z.Challenges = append(z.Challenges, ch)
	}
	return z
}

func TestWhichSolver(t *testing.T) {
	type selector = cmacme.CertificateDNSNameSelector
	http := func(s *selector) cmacme.ACMEChallengeSolver {
		return cmacme.ACMEChallengeSolver{Selector: s, HTTP01: &cmacme.ACMEChallengeSolverHTTP01{}}
	}
	dns := func(s *selector) cmacme.ACMEChallengeSolver {
		return cmacme.ACMEChallengeSolver{Selector: s, DNS01: &cmacme.ACMEChallengeSolverDNS01{}}
	}
	of := func(kind cmacme.DNS01ChallengeType) cmacme.ACMEChallengeSolver {
		return cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{ChallengeType: kind}}
	}
	handshake := cmacme.ACMEChallengeSolver{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}}
	labels := map[string]string{"team": "web", "tier": "1"}
	type solvers = []cmacme.ACMEChallengeSolver
	for name, test := range map[string]struct {
		name    string
		offers  string
		solvers solvers
		want    int // none if -1
		by      string
	}{
		"the first of those that are for all": {
			"www.example.com", "http-01 dns-01", solvers{dns(nil), http(nil)}, 0, "dns-01"},
		"an empty selector is for all": {
			"www.example.com", "http-01 dns-01", solvers{dns(&selector{}), http(nil)}, 0, "dns-01"},
		"an empty selector is no better than none": {
			"www.example.com", "http-01 dns-01", solvers{dns(nil), http(&selector{})}, 0, "dns-01"},
		"of the types that the CA offers":     {"*.example.com", "dns-01", solvers{http(nil), dns(nil)}, 1, "dns-01"},
		"none, if the CA offers no such type": {"*.example.com", "dns-01", solvers{http(nil), handshake}, -1, ""},
		"none of no solvers":                  {"www.example.com", "http-01", nil, -1, ""},
		"a handshake": {
			"www.example.com", "http-01 tls-alpn-01", solvers{handshake}, 0, "tls-alpn-01"},
		"dns-account-01 where that is wanted": {
			"www.example.com", "dns-01 dns-account-01", solvers{of("dns-account-01"), dns(nil)}, 0, "dns-account-01"},
		"not dns-01 in its place": {"www.example.com", "dns-01", solvers{of("dns-account-01"), of("dns-persist-01")}, -1, ""},
		"dns-01 by its name":      {"www.example.com", "dns-01", solvers{of("dns-01")}, 0, "dns-01"},
		"a name before all": {
			"www.example.com", "http-01", solvers{http(nil), http(&selector{DNSNames: []string{"www.example.com"}})}, 1,
			"http-01"},
		"a name in other letters": {
			"www.example.com", "http-01", solvers{http(&selector{DNSNames: []string{"WWW.example.com."}})}, 0, "http-01"},
		"a name in letters beyond ASCII": {
			"xn--bcher-kva.example", "http-01", solvers{http(&selector{DNSNames: []string{"bücher.example"}})}, 0, "http-01"},
		"a zone in letters beyond ASCII": {
			"www.xn--bcher-kva.example", "dns-01", solvers{dns(&selector{DNSZones: []string{"Bücher.example"}})}, 0, "dns-01"},
		"a name is not for its wildcard": {
			"*.example.com", "dns-01", solvers{dns(&selector{DNSNames: []string{"example.com"}})}, -1, ""},
		"a wildcard by its name": {
			"*.example.com", "dns-01", solvers{dns(nil), dns(&selector{DNSNames: []string{"*.example.com"}})}, 1, "dns-01"},
		"a wildcard is not for its name": {
			"example.com", "dns-01", solvers{dns(&selector{DNSNames: []string{"*.example.com"}})}, -1, ""},
		"several names count as one": {
			"www.example.com", "http-01", solvers{http(&selector{DNSNames: []string{"www.example.com"}}),
				http(&selector{DNSNames: []string{"www.example.com", "www.example.com"}})}, 0, "http-01"},
		"a zone for its apex": {
			"example.com", "dns-01", solvers{dns(nil), dns(&selector{DNSZones: []string{"example.com"}})}, 1, "dns-01"},
		"a zone for names below": {
			"a.b.example.com", "dns-01", solvers{dns(nil), dns(&selector{DNSZones: []string{"example.com"}})}, 1, "dns-01"},
		"a zone for a wildcard of it": {
			"*.example.com", "dns-01", solvers{dns(nil), dns(&selector{DNSZones: []string{"example.com"}})}, 1, "dns-01"},
		"a zone in other letters": {
			"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"Example.COM"}})}, 0, "dns-01"},
		"a zone with a dot at its end": {
			"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com."}})}, 0, "dns-01"},
		"a zone that only ends like it is not for it":                {"www.badexample.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}})}, -1, ""},
		"a wildcard zone is for the wildcard":                        {"*.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}}), dns(&selector{DNSZones: []string{"*.example.com"}})}, 1, "dns-01"},
		"a wildcard zone is for no other name":                       {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"*.example.com"}})}, -1, ""},
		"an empty zone is for nothing":                               {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"", "."}})}, -1, ""},
		"the longer zone":                                            {"www.sub.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}}), dns(&selector{DNSZones: []string{"com", "sub.example.com"}})}, 1, "dns-01"},
		"a name before a zone":                                       {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"www.example.com"}}), dns(&selector{DNSNames: []string{"www.example.com"}})}, 1, "dns-01"},
		"a name with a zone before a name":                           {"www.example.com", "dns-01", solvers{dns(&selector{DNSNames: []string{"www.example.com"}}), dns(&selector{DNSNames: []string{"www.example.com"}, DNSZones: []string{"example.com"}})}, 1, "dns-01"},
		"names and zones must both fit: the zone does not":           {"www.example.com", "dns-01", solvers{dns(&selector{DNSNames: []string{"www.example.com"}, DNSZones: []string{"example.org"}})}, -1, ""},
		"names and zones must both fit: the name does not":           {"www.example.com", "dns-01", solvers{dns(&selector{DNSNames: []string{"example.com"}, DNSZones: []string{"example.com"}})}, -1, ""},
		"labels before all":                                          {"www.example.com", "http-01", solvers{http(nil), http(&selector{MatchLabels: map[string]string{"team": "web"}})}, 1, "http-01"},
		"most labels":                                                {"www.example.com", "http-01", solvers{http(&selector{MatchLabels: map[string]string{"team": "web"}}), http(&selector{MatchLabels: labels})}, 1, "http-01"},
		"labels must all fit":                                        {"www.example.com", "http-01", solvers{http(&selector{MatchLabels: map[string]string{"team": "web", "tier": "2"}})}, -1, ""},
		"a label that is missing does not fit an empty one":          {"www.example.com", "http-01", solvers{http(&selector{MatchLabels: map[string]string{"zone": ""}})}, -1, ""},
		"a name of which the labels do not fit is not considered":    {"www.example.com", "http-01", solvers{http(nil), http(&selector{DNSNames: []string{"www.example.com"}, MatchLabels: map[string]string{"team": "db"}})}, 0, "http-01"},
		"a zone before labels":                                       {"www.example.com", "dns-01", solvers{dns(&selector{MatchLabels: labels}), dns(&selector{DNSZones: []string{"example.com"}})}, 1, "dns-01"},
		"labels decide between equal zones":                          {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}}), dns(&selector{DNSZones: []string{"example.com"}, MatchLabels: labels})}, 1, "dns-01"},
		"the first of equals":                                        {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}}), dns(&selector{DNSZones: []string{"example.com"}})}, 0, "dns-01"},
		"the best of those whose type is offered":                    {"*.example.com", "dns-01", solvers{dns(nil), http(&selector{DNSNames: []string{"*.example.com"}})}, 0, "dns-01"},
		"a later one for all is no better than one that was matched": {"www.example.com", "dns-01", solvers{dns(&selector{DNSZones: []string{"example.com"}}), dns(nil)}, 0, "dns-01"},
	} {
		t.Run(name, func(t *testing.T) {
			got, with := choose(test.solvers, authorization(test.name, strings.Fields(test.offers)...), labels)
			at := -1
			for i := range test.solvers {
				if got == &test.solvers[i] {
					at = i
				}
			}
			if at != test.want || at >= 0 && with.Type != test.by {
				t.Errorf("chosen is %d with %+v", at, with)
			}
		})
	}
}

func TestWhatIsPresented(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const account = "https://ca.example/acct/1"
	proof, err := acme.KeyAuthorization("token", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	until := metav1.NewTime(time.Unix(1900000000, 0))
	none := authorization("example.com", acme.ChallengeDNSPersist01)
	none.Challenges[0].IssuerDomainNames = nil
	for name, test := range map[string]struct {
		kind    cmacme.DNS01ChallengeType
		until   *metav1.Time
		z       cmacme.ACMEAuthorization
		server  string
		account string
		record  string
		value   string
		says    string
	}{
		"dns-01":                         {z: authorization("*.example.com", acme.ChallengeDNS01), value: acme.DNS01Value(proof)},
		"dns-account-01":                 {kind: "dns-account-01", z: authorization("*.example.com", acme.ChallengeDNSAccount01), record: acme.DNSAccount01Name(account, "example.com"), value: acme.DNS01Value(proof)},
		"dns-persist-01":                 {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), record: "_validation-persist.example.com", value: "ca.example; accounturi=https://ca.example/acct/1"},
		"dns-persist-01 of a wildcard":   {kind: "dns-persist-01", z: authorization("*.example.com", acme.ChallengeDNSPersist01), record: "_validation-persist.example.com", value: "ca.example; accounturi=https://ca.example/acct/1; policy=wildcard"},
		"dns-persist-01 until a time":    {kind: "dns-persist-01", until: &until, z: authorization("example.com", acme.ChallengeDNSPersist01), record: "_validation-persist.example.com", value: "ca.example; accounturi=https://ca.example/acct/1; persistUntil=1900000000"},
		"a CA that names none":           {kind: "dns-persist-01", z: none, says: "has to name 1 to 10 domain names"},
		"an account of another CA":       {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), server: "https://evil.example/directory", says: "is not of the host evil.example"},
		"an account with a parameter":    {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), account: account + ";policy=wildcard", says: "a record cannot say"},
		"an account that is too long":    {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), account: account + strings.Repeat("1", 255), says: "a record cannot say"},
		"a CA that does not offer it":    {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeHTTP01, acme.ChallengeDNS01), says: "the CA offers http-01, dns-01, and the solvers are for dns-persist-01"},
		"an account with a blank":        {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), account: account + "/a b", says: "a record cannot say"},
		"a CA on a port, and no account": {kind: "dns-persist-01", z: authorization("example.com", acme.ChallengeDNSPersist01), server: "https://ca.example:14000/directory", says: "is not of the host ca.example:14000"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &cmacme.ACMEIssuer{
				Server: test.server,
				Solvers: []cmacme.ACMEChallengeSolver{
					{DNS01: &cmacme.ACMEChallengeSolverDNS01{ChallengeType: test.kind, PersistUntil: test.until}},
				},
			}
			if spec.Server == "" {
				spec.Server = "https://ca.example/directory"
			}
			by := acme.Account{URL: test.account, Key: key}
			if by.URL == "" {
				by.URL = account
			}
			ch, err := Challenge(
				&cmacme.Order{ObjectMeta: metav1.ObjectMeta{Name: "order", Namespace: "default"}},
				test.z,
				spec,
				by,
			)
			if test.says != "" {
				var f *fault.Error
				if !errors.As(err, &f) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ch.Spec.Key != test.value || ch.Spec.RecordName != test.record || ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 {
				t.Errorf("presented is %q at %q, as %s", ch.Spec.Key, ch.Spec.RecordName, ch.Spec.Type)
			}
		})
	}
}
