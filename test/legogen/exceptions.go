package main

// allowed are the modules that a provider may import in addition to the standard library and lego.
var allowed = []string{
	"golang.org/x/",
	"github.com/miekg/dns",
	"github.com/cenkalti/backoff/",
	"github.com/google/go-querystring/",
	"github.com/pquerna/otp",
	"github.com/hashicorp/go-retryablehttp",
}

var (
	// native are providers that Perennial implements itself, by the name in lego.
	native = map[string]string{
		"acmedns":      "acmeDNS",
		"azuredns":     "azureDNS",
		"cloudflare":   "cloudflare",
		"digitalocean": "digitalocean",
		"dnsupdate":    "rfc2136",
		"edgedns":      "akamai",
		"gcloud":       "cloudDNS",
		"route53":      "route53",
	}
	// ours are providers that Perennial reimplements with lego's settings, because those of lego read
	// the terminal or can hang.
	ours = []string{"exec", "manual"}
	// local are only for the owner of the machine.
	local = []string{"exec", "manual", "httpreq"}
	// gone are services that no longer exist but whose name lego keeps.
	gone = []string{"stackpath"}
	// closed need a setting that only lego itself can set, from its environment.
	closed = map[string]string{"plesk": "lego takes the address of the server from its own environment alone"}
	// single replace an existing record set, although their CleanUp names a value.
	single = []string{"nifcloud"}
	// keeping write a whole set or zone but keep the other records, as a review of their source
	// showed.
	keeping = []string{
		"abion",
		"checkdomain",
		"constellix",
		"derak",
		"eurodns",
		"godaddy",
		"hostinger",
		"ionos",
		"keyhelp",
		"leaseweb",
		"manageengine",
		"metaregistrar",
		"nederhost",
		"netnod",
		"ngenix",
		"nicru",
		"openprovider",
		"opusdns",
		"pdns",
		"simply",
		"spaceship",
		"uniteddomains",
	}
	// wholeZones read all records of a zone and write them back, or a copy of the zone.
	wholeZones = []string{"eurodns", "gandi", "joker", "keyhelp", "namecheap", "ngenix", "versio"}
	// oneRecord have one TXT value for a whole account or domain, for all names below it.
	oneRecord = []string{"duckdns", "myaddr"}
	// logged use the domain of the certificate only in their log.
	logged = []string{"cloudns", "variomedia"}
	// under are settings with an address that the provider's own client connects to, with the domain
	// that the address must be in.
	under = map[string]string{"otc.IdentityEndpoint": ".otc.t-systems.com"}
	// spelled are names of settings that do not follow from the names of the fields.
	spelled = map[string]string{"APIkey": "apiKey", "OAuthToken": "oauthToken"}
	// ignored are fields without effect, because Perennial itself handles the check of the record,
	// deadlines and order.
	ignored = []string{"PropagationTimeout", "PollingInterval", "SequenceInterval", "HTTPClient", "Debug"}
	// transport are fields that Perennial's HTTP client uses instead of a client of the provider.
	transport = []string{"InsecureSkipVerify", "TLSCert", "TLSKey"}
)
