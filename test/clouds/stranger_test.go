package clouds_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/challenge/dns01"
	legocloudflare "github.com/go-acme/lego/v5/providers/dns/cloudflare"
	legodigitalocean "github.com/go-acme/lego/v5/providers/dns/digitalocean"

	"github.com/perennial-pki/perennial/test/cloudflare"
	"github.com/perennial-pki/perennial/test/digitalocean"
	"github.com/perennial-pki/perennial/test/dnsserver"
)

// The simulated services accept the requests of third-party clients.
func TestTheStandInsServeClientsOfOthers(t *testing.T) {
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	before := dns01.DefaultClient()
	t.Cleanup(func() { dns01.SetDefaultClient(before) })
	dns01.SetDefaultClient(
		dns01.NewClient(&dns01.Options{RecursiveNameservers: []string{names.Addr}, Timeout: 5 * time.Second}),
	)

	flare := &cloudflare.API{
		Token: "good",
		Email: "ops@example.com",
		Key:   "good",
		Zones: map[string]string{"z1": "example.com"},
		DNS:   names,
	}
	flare.Put("z1", record, others)
	byFlare := func(change func(*legocloudflare.Config)) func(string) (challenge.Provider, error) {
		return func(at string) (challenge.Provider, error) {
			config := legocloudflare.NewDefaultConfig()
			config.BaseURL = at + "/client/v4"
			change(config)
			return legocloudflare.NewDNSProviderConfig(config)
		}
	}
	ocean := &digitalocean.API{Token: "good", Domains: []string{"example.com"}, DNS: names}
	byOcean := func(token string) func(string) (challenge.Provider, error) {
		return func(at string) (challenge.Provider, error) {
			config := legodigitalocean.NewDefaultConfig()
			config.BaseURL, config.AuthToken = at, token
			return legodigitalocean.NewDNSProviderConfig(config)
		}
	}
	ocean.Put("example.com", record, others)
	flareServer, oceanServer := httptest.NewServer(flare), httptest.NewServer(ocean)
	t.Cleanup(flareServer.Close)
	t.Cleanup(oceanServer.Close)

	for name, test := range map[string]struct {
		provider func(at string) (challenge.Provider, error)
		at       string
		values   func(string) []string
		refused  string // nothing if it works
	}{
		"Cloudflare, a token":               {byFlare(func(c *legocloudflare.Config) { c.AuthToken = "good" }), flareServer.URL, flare.Values, ""},
		"Cloudflare, the key of an account": {byFlare(func(c *legocloudflare.Config) { c.AuthEmail, c.AuthKey = "ops@example.com", "good" }), flareServer.URL, flare.Values, ""},
		"Cloudflare, a token that is wrong": {byFlare(func(c *legocloudflare.Config) { c.AuthToken = "wrong" }), flareServer.URL, flare.Values, "Invalid access token"},
		"DigitalOcean":                      {byOcean("good"), oceanServer.URL, ocean.Values, ""},
		"DigitalOcean, a wrong token":       {byOcean("wrong"), oceanServer.URL, ocean.Values, "Unable to authenticate you"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := test.provider(test.at)
			if err != nil {
				t.Fatal(err)
			}
			value := dns01.GetChallengeInfo(t.Context(), "example.com", "proof").Value
			err = p.Present(t.Context(), "example.com", "token", "proof")
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := test.values(record); !slices.Equal(got, []string{others, value}) {
				t.Errorf("it has %q", got)
			}
			if err := p.CleanUp(t.Context(), "example.com", "token", "proof"); err != nil {
				t.Fatal(err)
			}
			if got := test.values(record); !slices.Equal(got, []string{others}) {
				t.Errorf("afterwards it has %q", got)
			}
		})
	}
}
