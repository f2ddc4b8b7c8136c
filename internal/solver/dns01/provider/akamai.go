package provider

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

// akamaiNeeds is the permission that an API client needs.
const akamaiNeeds = "to read and write records (API service DNS-Zone Record Management, READ-WRITE)"

const (
	akamaiClientTokenField  = "dns01.akamai.clientTokenSecretRef"
	akamaiClientSecretField = "dns01.akamai.clientSecretSecretRef"
	akamaiAccessTokenField  = "dns01.akamai.accessTokenSecretRef"
)

var akamaiService = service{
	field:      "akamai",
	configured: func(s *spec) bool { return s.Akamai != nil },
	check: func(_ *Factory, _ *signer.Issuer, s *spec) error {
		_, err := akamaiHost(s.Akamai)
		return err
	},
	references: func(s *spec) []reference {
		return []reference{
			referenceTo(akamaiClientTokenField, s.Akamai.ClientToken),
			referenceTo(akamaiClientSecretField, s.Akamai.ClientSecret),
			referenceTo(akamaiAccessTokenField, s.Akamai.AccessToken),
		}
	},
	open: openAkamai,
}

// akamai changes the record sets of zones of Edge DNS. Its API has no conditional writes, and
// accepts one change of a zone at a time. So one challenge at a time changes a zone, and each set
// is read again after the write: if another client has written it at the same time, the change is
// repeated. (A change list becomes stale when the zone changes, and so could be a condition. But a
// user has one change list for each zone, so ours would replace one of a person, and any other
// change in a busy zone would make it fail.)
type akamai struct{ rest }

// akamaiRecords is the Provider. It locks what it changes.
type akamaiRecords struct {
	recordSets[*akamaiSet]
	host  string
	locks *lego.Records
}

// Lock locks the record set, because Akamai replaces it without a condition, and the zone, because
// Akamai accepts one change of a zone at a time. The lock of a zone is by API host, so that a host
// of one tenant that hangs does not block another tenant's zone of the same name.
func (p *akamaiRecords) Lock(ctx context.Context, r Record) (unlock func(), err error) {
	set, err := p.locks.Alone(ctx, "akamai", lego.RecordSet, r.FQDN)
	if err != nil {
		return nil, err
	}
	zone, err := p.locks.Alone(ctx, "akamai "+p.host, lego.Zone, r.Zone)
	if err != nil {
		set()
		return nil, err
	}
	return func() { zone(); set() }, nil
}

// akamaiHost is the host of the API client.
func akamaiHost(c *cmacme.ACMEIssuerDNS01ProviderAkamai) (string, error) {
	host := strings.TrimSuffix(strings.TrimPrefix(c.ServiceConsumerDomain, "https://"), "/")
	if at, err := url.Parse("https://" + host); err != nil || at.Host != host || at.Hostname() == "" {
		return "", fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.akamai.serviceConsumerDomain: %.100q is not a host: take that of the API client, such as "+
				"akab-1234.luna.akamaiapis.net",
			c.ServiceConsumerDomain,
		)
	}
	return host, nil
}

// openAkamai returns the provider for these settings, from the cache if it exists.
func openAkamai(_ context.Context, f *Factory, r request, c credentials) (Provider, error) {
	host, err := akamaiHost(r.spec().Akamai)
	if err != nil {
		return nil, err
	}
	grid := edgeGrid{
		clientToken:  c[akamaiClientTokenField],
		clientSecret: c[akamaiClientSecretField],
		accessToken:  c[akamaiAccessTokenField],
		now:          f.Now,
	}
	settings := []string{r.issuer.Kind, host, grid.clientToken, grid.clientSecret, grid.accessToken}
	return openOnce(&f.opened, "akamai", settings, func() (Provider, error) {
		p := newAkamai("https://"+host, grid)
		p.client, p.now = f.clientOf(r.issuer.Kind), f.Now
		return &akamaiRecords{recordSets: recordSets[*akamaiSet]{api: p}, host: p.base, locks: &f.records}, nil
	})
}

func newAkamai(base string, grid edgeGrid) *akamai {
	return &akamai{rest: rest{
		name: "Akamai", base: base, sign: grid.sign, secrets: []string{grid.clientToken, grid.clientSecret, grid.accessToken},
		credentials: "the Secrets of dns01.akamai.clientTokenSecretRef, clientSecretSecretRef and accessTokenSecretRef",
	}}
}

func (*akamai) zoneNamed(Record) (string, error) { return "", nil }

func (p *akamai) zoneAt(ctx context.Context, apex string) (string, error) {
	var zone struct {
		Type string `json:"type"`
	}
	status, err := p.send(
		ctx,
		call{method: http.MethodGet, path: "/config-dns/v2/zones/" + url.PathEscape(apex), out: &zone, needs: akamaiNeeds},
	)
	switch {
	case err == nil && !strings.EqualFold(zone.Type, "PRIMARY"):
		return "", fault.Misconfiguredf(
			"PresentError",
			"zone %s at Akamai is of type %.20q, whose records cannot be changed there: let _acme-challenge be a CNAME to "+
				"a primary zone, and set cnameStrategy: Follow",
			apex,
			zone.Type,
		)
	case status == http.StatusForbidden: // also for zones of other accounts
		return "", zoneRefused{err}
	case status == http.StatusNotFound:
		return "", errNoZone
	}
	return apex, err
}

func (*akamai) noZone(r Record, _ string) error {
	return fault.Misconfiguredf(
		"PresentError",
		"Akamai has no zone for %s that this API client can see: create it, or give the client's user access to its group",
		r.FQDN,
	)
}

// akamaiSet is a record set.
type akamaiSet struct {
	Name   string       `json:"name"`
	Type   string       `json:"type"`
	TTL    int          `json:"ttl"`
	Values quotedValues `json:"rdata"`

	exists bool
}

func (s *akamaiSet) has(value string) bool { return s.Values.has(value) }

func akamaiPath(zone string, r Record) string {
	return fmt.Sprintf("/config-dns/v2/zones/%s/names/%s/types/TXT", url.PathEscape(zone),
		url.PathEscape(strings.TrimSuffix(r.FQDN, ".")))
}

func (p *akamai) read(ctx context.Context, zone string, r Record) (*akamaiSet, error) {
	set := &akamaiSet{exists: true}
	status, err := p.send(ctx, call{method: http.MethodGet, path: akamaiPath(zone, r), out: set, needs: akamaiNeeds})
	if status == http.StatusNotFound {
		return &akamaiSet{Name: strings.TrimSuffix(r.FQDN, "."), Type: "TXT", TTL: int(r.TTL.Seconds())}, nil
	}
	return set, err
}

// write always returns an error: it succeeds once the set is read with the desired values.
func (p *akamai) write(ctx context.Context, zone string, r Record, was *akamaiSet, add bool) (string, error) {
	set := *was
	set.Values = was.Values.with(r.Value, add)
	next := call{method: http.MethodPut, path: akamaiPath(zone, r), needs: akamaiNeeds}
	switch {
	case !was.exists:
		next.method = http.MethodPost
	case len(set.Values) == 0:
		next.method = http.MethodDelete
	}
	if next.method != http.MethodDelete {
		next.in = set
	}
	// Another client is changing the zone, or has made or removed the set.
	next.isConflict = func(status int, body []byte) bool {
		return status == http.StatusConflict || was.exists && (status == http.StatusNotFound ||
			status == http.StatusBadRequest && strings.Contains(egress.ErrorText(body), "does not exist"))
	}
	status, err := p.send(ctx, next)
	switch {
	case err == nil:
		return "", errConflict
	case status == http.StatusNotFound && !was.exists:
		return "", goneZone{err}
	}
	return "", err
}

// edgeGrid signs requests as Akamai's API clients do, by the scheme EG1-HMAC-SHA256.
type edgeGrid struct {
	clientToken, clientSecret, accessToken string
	now                                    func() time.Time
}

// sign adds the Authorization header. Only the body of a POST is signed, the first 128 KiB of it;
// ours are shorter.
func (g edgeGrid) sign(request *http.Request, body []byte) error {
	stamp := g.now().UTC().Format("20060102T15:04:05+0000")
	header := fmt.Sprintf(
		"EG1-HMAC-SHA256 client_token=%s;access_token=%s;timestamp=%s;nonce=%s;",
		g.clientToken,
		g.accessToken,
		stamp,
		rand.Text(),
	)
	hash := ""
	if request.Method == http.MethodPost && len(body) > 0 {
		sum := sha256.Sum256(body)
		hash = base64.StdEncoding.EncodeToString(sum[:])
	}
	// The empty part is for headers: none are signed.
	text := strings.Join(
		[]string{request.Method, request.URL.Scheme, request.URL.Host, request.URL.RequestURI(), "", hash, header},
		"\t",
	)
	request.Header.Set("Authorization", header+"signature="+mac(mac(g.clientSecret, stamp), text))
	return nil
}

func mac(key, text string) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
