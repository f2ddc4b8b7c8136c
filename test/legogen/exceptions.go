package main

// allowed are the modules that a provider may import beside the standard library and lego.
var allowed = []string{
	"golang.org/x/",
	"github.com/miekg/dns",
	"github.com/cenkalti/backoff/",
	"github.com/google/go-querystring/",
	"github.com/pquerna/otp",
	"github.com/hashicorp/go-retryablehttp",
}

var (
	// native are providers that Perennial has itself, by the name in lego.
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
	// ours are done by Perennial in the way of lego: theirs read the terminal, or can hang.
	ours = []string{"exec", "manual"}
	// local are for the machine's owner only.
	local = []string{"exec", "manual", "httpreq"}
	// gone are services that exist no more, of which lego keeps the name.
	gone = []string{"stackpath"}
	// closed have something that only lego itself can set, from its environment.
	closed = map[string]string{"plesk": "lego takes the address of the server from its own environment alone"}
	// single put a record set in the place of the one that is there, although their CleanUp names a
	// value.
	single = []string{"nifcloud"}
	// keeping change a set as a whole, or a zone, and were read: what else stands there stays.
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
	// oneRecord have one TXT value for a whole account or domain, at whatever name below it.
	oneRecord = []string{"duckdns", "myaddr"}
	// logged name the domain of the certificate to their log only.
	logged = []string{"cloudns", "variomedia"}
	// under are settings with an address that is asked by a client of the provider's own, by the
	// domain that it has to be in.
	under = map[string]string{"otc.IdentityEndpoint": ".otc.t-systems.com"}
	// spelled are names of settings that do not follow from those of the fields.
	spelled = map[string]string{"APIkey": "apiKey", "OAuthToken": "oauthToken"}
	// ignored are fields that set nothing here: the check of the record, deadlines and order are
	// Perennial's.
	ignored = []string{"PropagationTimeout", "PollingInterval", "SequenceInterval", "HTTPClient", "Debug"}
	// transport are fields that Perennial's HTTP client obeys: the provider would make one of its own.
	transport = []string{"InsecureSkipVerify", "TLSCert", "TLSKey"}
)
