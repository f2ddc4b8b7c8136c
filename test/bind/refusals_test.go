package bind_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/bind"
)

const anotherSecret = "YW5vdGhlci1zZWNyZXQtYW5vdGhlci1zZWNyZXQ="

func TestTheChallengeReportsWhatBINDRefusesAndWhatToCorrect(t *testing.T) {
	apex := zone(1)
	open, closed, policied := apex, apex, apex
	closed.Name, closed.Settings = "closed.example", "allow-update { none; };"
	policied.Name, policied.Settings = "policied.example", `update-policy { grant "hmac-sha256" name _acme-challenge.other.policied.example. TXT; };`
	primary := bind.Start(t, keys, open, closed, policied)
	open.Of, open.Settings = primary, ""
	secondary := bind.Start(t, keys, open)
	elsewhere := apex
	elsewhere.Name = "elsewhere.example"
	other := bind.Start(t, keys, elsewhere)
	resolver := bind.StartResolver(
		t,
		bind.Resolver{
			Zones: map[string]*bind.Server{
				"example.com":       primary,
				"closed.example":    primary,
				"policied.example":  primary,
				"elsewhere.example": other,
			},
		},
	)
	r := start(t, resolver, resolver, primary)
	r.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "another"}, StringData: map[string]string{"key": anotherSecret}},
	)
	type updates = cmacme.ACMEIssuerDNS01ProviderRFC2136
	for name, test := range map[string]struct {
		zone   string
		change func(p *updates)
		says   string
	}{
		"a key that it has not": {"example.com", func(p *updates) { p.TSIGKeyName = "stranger" },
			`does not accept what is signed with the TSIG key "stranger" (BADKEY): let the server know this key, with this algorithm, or correct tsigKeyName or tsigAlgorithm`},
		"a key of another algorithm": {"example.com", func(p *updates) { p.TSIGAlgorithm = "HMACSHA512" },
			`does not accept what is signed with the TSIG key "hmac-sha256" (BADKEY): let the server know this key, with this algorithm, or correct tsigKeyName or tsigAlgorithm`},
		"another secret": {"example.com", func(p *updates) { p.TSIGSecret.Name = "another" },
			`does not accept what is signed with the TSIG key "hmac-sha256" (BADSIG): the server has another secret, or another algorithm, for it: correct the Secret of tsigSecretSecretRef`},
		"no key": {"example.com", func(p *updates) {
			p.TSIGKeyName, p.TSIGAlgorithm, p.TSIGSecret = "", "", cmmeta.SecretKeySelector{}
		},
			"refuses to update the zone example.com (REFUSED): let it allow updates that are not signed (or set tsigKeyName)"},
		"a zone that takes no changes": {"closed.example", nil,
			`refuses to update the zone closed.example (REFUSED): let it allow the TSIG key "hmac-sha256" to change TXT records there`},
		"a policy that does not grant the name": {"policied.example", nil,
			`refuses to update the zone policied.example (REFUSED): let it allow the TSIG key "hmac-sha256" to change TXT records there`},
		"a secondary": {"example.com", func(p *updates) { p.Nameserver = secondary.Addr },
			"or, if it is a secondary of that zone, let dns01.rfc2136.nameserver be the primary"},
		"a zone that it has not": {"elsewhere.example", nil,
			"does not have the zone elsewhere.example (NOTAUTH): let dns01.rfc2136.nameserver be the primary server of " +
				"that zone"},
		"no server": {"example.com", func(p *updates) { p.Nameserver = "127.0.0.1:9" }, "update the zone example.com " +
			"at 127.0.0.1:9: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			issuer := strings.ReplaceAll(name, " ", "-")
			updates := r.updates("HMACSHA256")
			if test.change != nil {
				test.change(updates)
			}
			r.issuer(issuer, cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: updates}})
			host := issuer + "." + test.zone
			r.certificate(issuer, issuer, host)
			r.says(host, test.says)
			if said := r.reasons(host); strings.Contains(said, tsigSecret) || strings.Contains(said, anotherSecret) {
				t.Errorf("it tells the secret: %s", said)
			}
		})
	}
}

func TestTheChallengeReportsAWrongClock(t *testing.T) {
	primary := bind.Start(t, keys, zone(1))
	r := startAt(t, clocktesting.NewFakeClock(time.Now().Add(time.Hour)), primary, primary, primary)
	r.issuer("bind", cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256")}})
	r.certificate("bind", "late", "late.example.com")
	r.says("late.example.com", "(BADTIME): the clocks of the controller and the server differ by more than five minutes")
}
