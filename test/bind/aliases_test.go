package bind_test

import (
	"fmt"
	"testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/bind"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestAliasesAndDelegationsLeadToZonesOfOtherServers(t *testing.T) {
	parent := zone(1,
		"_acme-challenge.alias CNAME alias.challenges.example.",
		"_acme-challenge.chain CNAME step",
		"step CNAME chain.challenges.example.",
		"_acme-challenge.circle CNAME circle",
		"circle CNAME _acme-challenge.circle",
		"_acme-challenge.dangling CNAME absent.nowhere.example.",
		"_acme-challenge.shop NS ns.challenges.example.",
	)
	challenges := zone(1)
	challenges.Name = "challenges.example"
	challenges.Records = "$TTL 60\n@ IN SOA ns hostmaster 1 86400 86400 864000 1\n@ IN NS ns\nns IN A 192.0.2.2\n" +
		"alias TXT \"another client's\"\n"
	shop := challenges
	shop.Name = "_acme-challenge.shop.example.com"
	shop.Records = "$TTL 60\n@ IN SOA ns.challenges.example. hostmaster.challenges.example. 1 86400 86400 864000 1\n" +
		"@ IN NS ns.challenges.example.\n@ TXT \"another client's\"\n"
	above := bind.Start(t, keys, parent)
	below := bind.Start(t, keys, challenges, shop)
	resolver := bind.StartResolver(
		t,
		bind.Resolver{Zones: map[string]*bind.Server{"example.com": above, challenges.Name: below, shop.Name: below}},
	)
	r := start(t, resolver, resolver, above, below)
	issuer := func(name string, strategy cmacme.CNAMEStrategy, at *bind.Server) {
		t.Helper()
		r.issuer(name, cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{CNAMEStrategy: strategy,
			RFC2136: r.updates("HMACSHA256", func(p *cmacme.ACMEIssuerDNS01ProviderRFC2136) { p.Nameserver = at.Addr })}})
	}
	issuer("following", cmacme.FollowStrategy, below)
	issuer("below", "", below)
	issuer("above", "", above)
	for i, test := range []struct {
		name, issuer string
		says         string
	}{
		{"alias", "following", ""},
		{"chain", "following", ""},
		{"shop", "below", ""},
		{"alias", "above", "as a CNAME leads from there to alias.challenges.example: if that is on purpose, set " +
			"dns01.cnameStrategy to Follow"},
		{"circle", "following", "the CNAMEs at _acme-challenge.circle.example.com lead in a circle or too far: " +
			"_acme-challenge.circle.example.com -> circle.example.com -> _acme-challenge.circle.example.com"},
		{"dangling", "following", "know no zone of absent.nowhere.example"},
		{"shop", "above", "does not have the zone _acme-challenge.shop.example.com (NOTAUTH): let " +
			"dns01.rfc2136.nameserver be the primary server of that zone"},
	} {
		t.Run(test.name+" "+test.issuer, func(t *testing.T) {
			r := r.in(t)
			host := test.name + ".example.com"
			crt := r.certificate(test.issuer, fmt.Sprintf("%s-%d", test.name, i), host)
			if test.says != "" {
				r.says(host, test.says)
				if err := r.admin.Delete(t.Context(), crt); err != nil {
					t.Fatal(err)
				}
				// What kept it from being set up is no reason to keep the challenge, as there is nothing to
				// take away.
				cluster.Eventually(t, func() error {
					if said := r.reasons(host); said != "" {
						return cluster.NotYet("there is still a challenge: %s", said)
					}
					return nil
				})
				return
			}
			r.ready(crt)
		})
	}
	r.primary = below
	r.has("alias.challenges.example", "another client's")
	r.has("chain.challenges.example")
	r.has(shop.Name, "another client's")
}
