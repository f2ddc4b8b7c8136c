package ratelimit

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestDomainsAreRegisteredOnesAndNetworks(t *testing.T) {
	ids := asks("", "*.www.Example.co.uk", "example.co.uk", "a.b.github.io", "com", "www.example.de").Identifiers
	ids = append(ids, acme.IP(netip.MustParseAddr("192.0.2.7")), acme.IP(netip.MustParseAddr("2001:db8:1:2:3::4")))
	if got := strings.Join(
		domains(ids),
		" ",
	); got != "192.0.2.7/32 2001:db8:1:2::/64 b.github.io com example.co.uk example.de" {
		t.Error(got)
	}
}

func TestLimitsOfIssuersTakeThePlaceOfThoseThatAreKnown(t *testing.T) {
	l := Published("https://acme-v02.api.letsencrypt.org/directory").Override(&cmacme.ACMERateLimits{
		NewOrdersPerAccount:     &cmacme.ACMERateLimit{Count: 1000, Period: &metav1.Duration{Duration: time.Hour}},
		CertificatesPerExactSet: &cmacme.ACMERateLimit{Count: 0},
	})
	if l.NewOrders != (Limit{1000, time.Hour}) || !l.Set.None() || l.Domain != (Limit{50, 7 * 24 * time.Hour}) ||
		l.Validations != (Limit{5, time.Hour}) {
		t.Errorf("%+v", l)
	}
	if l := Published("https://acme.example/directory"); l != (Limits{}) {
		t.Errorf("%+v", l)
	}
}

func TestACAHasOneLedgerHoweverItsDirectoryIsSpelt(t *testing.T) {
	b := &Ledgers{}
	ca := b.For("https://acme-v02.api.letsencrypt.org/directory")
	for _, same := range []string{"https://acme-v02.api.letsencrypt.org:443/directory",
		"https://ACME-v02.API.letsencrypt.org/directory", "HTTPS://acme-v02.api.letsencrypt.org/directory#x",
		"https://acme-v02.api.letsencrypt.org./directory"} {
		if b.For(same) != ca {
			t.Errorf("%s has another ledger", same)
		}
		if Published(same) != Published("https://acme-v02.api.letsencrypt.org/directory") {
			t.Errorf("%s has other limits", same)
		}
	}
	for _, other := range []string{"https://acme-staging-v02.api.letsencrypt.org/directory",
		"https://acme-v02.api.letsencrypt.org:14000/directory",
		"https://acme-v02.api.letsencrypt.org/other", "https://acme-v02.api.letsencrypt.org/directory?x", "https://[2001:db8::1]/directory", "%"} {
		if b.For(other) == ca {
			t.Errorf("%s has the same ledger", other)
		}
	}
}
