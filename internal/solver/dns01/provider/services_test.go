package provider

import (
	"cmp"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// secretRef is a reference to an entry of a Secret.
func secretRef(name string) cmmeta.SecretKeySelector {
	return cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}, Key: "k"}
}

// serviceTests has a row for each service.
var serviceTests = map[string]struct {
	solver spec
	// secrets are the Secrets that the solver names, and wrong is a solver with wrong settings.
	secrets []string
	wrong   *spec
	traits  Traits
	// target is the endpoint in messages.
	target string
	// example is a file of examples/, and page is one of docs/acme/.
	example, page string
}{
	"rfc2136": {
		solver: spec{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
			Nameserver: "ns1", TSIGKeyName: "k", TSIGSecret: secretRef("a"),
		}},
		secrets: []string{"a"},
		wrong:   &spec{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{TSIGKeyName: "k", TSIGAlgorithm: "ROT13"}},
		target:  "the name server ns1",
		example: "acme/1-issuer.yaml", page: "dns01-rfc2136.md",
	},
	"route53": {
		solver: spec{Route53: &cmacme.ACMEIssuerDNS01ProviderRoute53{
			SecretAccessKeyID: new(secretRef("a")), SecretAccessKey: secretRef("b"),
		}},
		secrets: []string{"a", "b"},
		wrong:   &spec{Route53: &cmacme.ACMEIssuerDNS01ProviderRoute53{Region: "not a region"}},
		traits:  Traits{Settles: true},
		example: "dns01/route53.yaml", page: "dns01-route53.md",
	},
	"cloudDNS": {
		solver:  spec{CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{ServiceAccount: new(secretRef("a"))}},
		secrets: []string{"a"},
		wrong:   &spec{CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{}}, // may not use the controller's own
		traits:  Traits{Settles: true},
		example: "dns01/clouddns.yaml", page: "dns01-clouddns.md",
	},
	"azureDNS": {
		solver: spec{AzureDNS: &cmacme.ACMEIssuerDNS01ProviderAzureDNS{
			ClientID: "c", TenantID: "t", ClientSecret: new(secretRef("a")),
		}},
		secrets: []string{"a"},
		wrong:   &spec{AzureDNS: &cmacme.ACMEIssuerDNS01ProviderAzureDNS{Environment: "Mars"}},
		example: "dns01/azuredns.yaml", page: "dns01-azuredns.md",
	},
	"cloudflare": {
		solver:  spec{Cloudflare: &cmacme.ACMEIssuerDNS01ProviderCloudflare{APIToken: new(secretRef("a"))}},
		secrets: []string{"a"},
		wrong:   &spec{Cloudflare: &cmacme.ACMEIssuerDNS01ProviderCloudflare{}},
		example: "dns01/cloudflare.yaml", page: "dns01-cloudflare.md",
	},
	"digitalocean": {
		solver:  spec{DigitalOcean: &cmacme.ACMEIssuerDNS01ProviderDigitalOcean{Token: secretRef("a")}},
		secrets: []string{"a"},
		example: "dns01/digitalocean.yaml", page: "dns01-digitalocean.md",
	},
	"akamai": {
		solver: spec{Akamai: &cmacme.ACMEIssuerDNS01ProviderAkamai{
			ServiceConsumerDomain: "akab-1.luna.akamaiapis.net",
			ClientToken:           secretRef("a"), ClientSecret: secretRef("b"), AccessToken: secretRef("c"),
		}},
		secrets: []string{"a", "b", "c"},
		wrong:   &spec{Akamai: &cmacme.ACMEIssuerDNS01ProviderAkamai{ServiceConsumerDomain: "a/b"}},
		example: "dns01/akamai.yaml", page: "dns01-akamai.md",
	},
	"acmeDNS": {
		solver: spec{AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
			Host: "auth.example.org", AccountSecret: secretRef("a"),
		}},
		secrets: []string{"a"},
		wrong:   &spec{AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{Host: "ftp://a"}},
		traits:  Traits{Capacity: 2, BehindCNAME: true, DropsOldValues: true},
		example: "dns01/acmedns.yaml", page: "dns01-acmedns.md",
	},
	"webhook": {
		solver: spec{Webhook: &cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: "acme.example.com", SolverName: "zone"}},
		wrong:  &spec{Webhook: &cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: "a/b", SolverName: "zone"}},
		traits: Traits{Capacity: 1, Timeout: webhookTimeout},
		target: "the webhook acme.example.com/zone", example: "webhook/2-issuer.yaml", page: "dns01-webhook.md",
	},
	"provider": {
		solver: spec{Provider: &cmacme.ACMEIssuerDNS01ProviderLego{
			Name: "hetzner", SecretRef: &cmmeta.LocalObjectReference{Name: "a"},
		}},
		secrets: []string{"a"},
		wrong:   &spec{Provider: &cmacme.ACMEIssuerDNS01ProviderLego{Name: "not a provider"}},
		traits:  Traits{MayKeepRecord: true},
		example: "dns-provider/issuer.yaml", page: "dns01-other-providers.md",
	},
}

func TestServices(t *testing.T) {
	issuer := &signer.Issuer{Kind: signer.KindIssuer, SecretNamespace: "shop"}
	for _, s := range services {
		t.Run(s.field, func(t *testing.T) {
			test, found := serviceTests[s.field]
			if !found {
				t.Fatal("serviceTests has no row for it")
			}
			if find(&test.solver) != s {
				t.Fatal("its solver is of another service")
			}
			if got := SecretNames(&test.solver); !slices.Equal(got, test.secrets) {
				t.Errorf("it names the Secrets %q", got)
			}
			f := &Factory{}
			if err := f.Check(issuer, &test.solver); err != nil {
				t.Error(err)
			}
			if test.wrong != nil {
				checkRefused(t, f.Check(issuer, test.wrong), "dns01."+s.field)
			}
			checkTraits(t, &test.solver, test.traits)
			ch := &cmacme.Challenge{}
			ch.Spec.Solver.DNS01 = &test.solver
			if got := Target(issuer, ch).Name; got != cmp.Or(test.target, "its DNS service") {
				t.Errorf("its target is %q", got)
			}
			checkUsed(t, s.field, "examples/"+test.example, "docs/acme/"+test.page)
		})
	}
	if len(serviceTests) != len(services) {
		t.Errorf("there are %d rows for %d services", len(serviceTests), len(services))
	}
}

func checkTraits(t *testing.T, s *spec, want Traits) {
	t.Helper()
	want.Timeout = cmp.Or(want.Timeout, Timeout)
	if got := TraitsOf(s); got != want {
		t.Errorf("its traits are %+v", got)
	}
}

func checkRefused(t *testing.T, err error, field string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), field) {
		t.Errorf("of wrong settings it says %v", err)
	}
}

// checkUsed checks that files have a field.
func checkUsed(t *testing.T, field string, files ...string) {
	t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("../../../..", file))
		if err != nil || !strings.Contains(string(text), field+":") {
			t.Errorf("%s does not use it: %v", file, err)
		}
	}
}

// TestEachServiceOfTheAPIHasARow finds fields of dns01 that have no service.
func TestEachServiceOfTheAPIHasARow(t *testing.T) {
	solver := reflect.TypeFor[spec]()
	for i := range solver.NumField() {
		field := solver.Field(i)
		if field.Type.Kind() != reflect.Pointer || field.Type.Elem().PkgPath() != solver.PkgPath() {
			continue
		}
		s := spec{}
		reflect.ValueOf(&s).Elem().Field(i).Set(reflect.New(field.Type.Elem()))
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if found := find(&s); found == nil || found.field != name {
			t.Errorf("dns01.%s has no service of that name", name)
		}
	}
}
