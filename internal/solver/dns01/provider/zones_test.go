package provider

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
)

func TestCloudDNSFindsThePublicZone(t *testing.T) {
	const search, further = "GET /dns/v1/projects/p/managedZones?dnsName=example.com.",
		"GET /dns/v1/projects/p/managedZones?dnsName=example.com.&pageToken=2"
	zone := func(name, visibility string) string {
		return fmt.Sprintf(`{"name": %q, "dnsName": "example.com.", "visibility": %q}`, name, visibility)
	}
	for name, test := range map[string]struct {
		more map[string]string
		says string
	}{
		"on the second page":          {map[string]string{search: `200 {"managedZones": [` + zone("inside", "private") + `], "nextPageToken": "2"}`, further: `200 {"managedZones": [` + zone("z1", "public") + `]}`}, ""},
		"and not a private one":       {map[string]string{search: `200 {"managedZones": [` + zone("inside", "private") + `]}`}, "is private (inside): name it in dns01.cloudDNS.hostedZoneName"},
		"and none if there are two":   {map[string]string{search: `200 {"managedZones": [` + zone("z1", "public") + `,` + zone("old", "public") + `]}`}, "several public zones for example.com (z1, old)"},
		"and not if it is asked much": {map[string]string{search: `403 {"error": {"message": "Slower", "errors": [{"reason": "rateLimitExceeded"}]}}`}, "asked too much: Slower (rateLimitExceeded)"},
		"unless it may not look":      {map[string]string{search: `403 {"error": {"message": "Forbidden", "errors": [{"reason": "forbidden"}]}}`}, "dns.managedZones.list in project p, or set hostedZoneName"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sets{of: map[string][]string{}, more: test.more}
			err := newTestCloudDNS(
				t,
				s,
				"good",
				"",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v",
				TTL: time.Minute})
			if test.says == "" && (err != nil || len(s.values("_acme-challenge.example.com.")) != 1) ||
				test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestZonesThatCannotBeChanged(t *testing.T) {
	r := Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v", TTL: time.Minute}
	const group = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/"
	for name, test := range map[string]struct {
		more map[string]string
		make func(*sets) Provider
		says string
	}{
		"Cloud DNS: a zone that is not there": {nil, func(s *sets) Provider { return newTestCloudDNS(t, s, "good", "z2") }, `has no managed zone "z2": correct dns01.cloudDNS.hostedZoneName`},
		"Cloud DNS: a routing policy": {
			map[string]string{"GET /dns/v1/projects/p/managedZones/z1/rrsets?name=_acme-challenge.example.com.&type=TXT": `200 {"rrsets": [{"name": "_acme-challenge.example.com.", "type": "TXT", "routingPolicy": {"wrr": {}}}]}`},
			func(s *sets) Provider { return newTestCloudDNS(t, s, "good", "z1") }, "chosen by a routing policy",
		},
		"Azure: a zone of another name": {nil, func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "example.org", azureKinds[""]) }, "is not in zone example.org: correct dns01.azureDNS.hostedZoneName"},
		"Azure: a zone that is not there": {
			map[string]string{"GET " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": "404 {}",
				"PUT " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": "404 {}"},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "example.com", azureKinds[""]) },
			"resource group g has no zone example.com",
		},
		"Azure: a set that may be read only": {
			map[string]string{"PUT " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": `403 {"code": "AuthorizationFailed", "message": "No"}`},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "", azureKinds[""]) },
			"No (AuthorizationFailed). Correct the Secret of dns01.azureDNS.clientSecretSecretRef, or allow them " +
				"Microsoft.Network/dnsZones/TXT/write on zone example.com",
		},
		"Azure: zones that may not be read": {
			map[string]string{"GET " + group + "example.com?api-version=2018-05-01": "403 {}"},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "", azureKinds[""]) },
			"Microsoft.Network/dnsZones/read in resource group g, or set hostedZoneName",
		},
		"Akamai: a secondary zone": {
			map[string]string{"GET /config-dns/v2/zones/example.com": `200 {"zone": "example.com", "type": "SECONDARY"}`},
			func(s *sets) Provider { return newTestAkamai(t, s, "good") }, `is of type "SECONDARY"`,
		},
		"Akamai: a zone that others change all the time": {
			map[string]string{"POST /config-dns/v2/zones/example.com/names/_acme-challenge.example.com/types/TXT": `409 {"title": "Concurrent Zone Modification", "detail": "Please try again"}`},
			func(s *sets) Provider { return newTestAkamai(t, s, "good") }, "Please try again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.make(&sets{of: map[string][]string{}, more: test.more}).Present(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
			if class := fault.Of(err).Class; (class == fault.Transient) != strings.Contains(name, "all the time") {
				t.Errorf("it is %s", class)
			}
		})
	}
}

func TestAzureCredentialsForOneZoneFindIt(t *testing.T) {
	s := &sets{of: map[string][]string{}, more: map[string]string{
		"GET /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/www.example.com?api-version=2018-05-01":                 "403 {}",
		"GET /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/_acme-challenge.www.example.com?api-version=2018-05-01": "403 {}",
	}}
	r := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "www.example.com.", Value: "v", TTL: time.Minute}
	if err := newTestAzureDNS(
		t,
		s,
		"good",
		"",
		azureKinds[""],
	).Present(t.Context(), r); err != nil ||
		len(s.values(r.FQDN)) != 1 {
		t.Errorf("%v, %v", err, s.of)
	}
}
