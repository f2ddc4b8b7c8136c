package dns01

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// akamaiNeeds is the permission that an API client needs.
const akamaiNeeds = "to read and write records (API service DNS-Zone Record Management, READ-WRITE)"

// akamai changes the record sets of zones of Edge DNS. Its API has no conditional writes, and
// accepts one change of a zone at a time. So the solver lets one challenge at a time change a zone
// (lego.Records), and reads each set again after the write: if another client has written it at the
// same time, the change is repeated. (A change list becomes stale when the zone changes, and so
// could be a condition. But a user has one change list for each zone, so ours would replace one of
// a person, and any other change in a busy zone would make it fail.)
type akamai struct {
	rest
	zones zoneNames
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

// akamai returns the provider for these settings, from the pool if it exists.
func (s *Solver) akamai(kind string, c *cmacme.ACMEIssuerDNS01ProviderAkamai,
	secret func(field, name, key string) (string, error)) (Provider, error) {
	host, err := akamaiHost(c)
	if err != nil {
		return nil, err
	}
	grid := edgeGrid{now: s.Now}
	if grid.clientToken, err = secret(
		"dns01.akamai.clientTokenSecretRef",
		c.ClientToken.Name,
		c.ClientToken.Key,
	); err != nil {
		return nil, err
	}
	if grid.clientSecret, err = secret(
		"dns01.akamai.clientSecretSecretRef",
		c.ClientSecret.Name,
		c.ClientSecret.Key,
	); err != nil {
		return nil, err
	}
	if grid.accessToken, err = secret(
		"dns01.akamai.accessTokenSecretRef",
		c.AccessToken.Name,
		c.AccessToken.Key,
	); err != nil {
		return nil, err
	}
	return s.pool.get("akamai", []string{kind, host, grid.clientToken, grid.clientSecret, grid.accessToken},
		func() (Provider, error) {
			p := newAkamai("https://"+host, grid)
			p.client, p.now = s.named(kind), s.Now
			return p, nil
		})
}

func newAkamai(base string, grid edgeGrid) *akamai {
	return &akamai{rest: rest{
		name: "Akamai", base: base, sign: grid.sign, secrets: []string{grid.clientToken, grid.clientSecret, grid.accessToken},
		credentials: "the Secrets of dns01.akamai.clientTokenSecretRef, clientSecretSecretRef and accessTokenSecretRef",
	}}
}

// zone finds the zone of a name: the one with the longest name.
func (p *akamai) zone(ctx context.Context, r Record) (string, error) {
	if name := p.zones.get(r.Zone); name != "" {
		return name, nil
	}
	var refused error
	for _, apex := range apexes(r) {
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
		case err == nil:
			p.zones.put(r, apex, apex)
			return apex, nil
		case status == http.StatusForbidden: // also for zones of other accounts
			if refused == nil {
				refused = err
			}
		case status != http.StatusNotFound:
			return "", err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", fault.Misconfiguredf(
		"PresentError",
		"Akamai has no zone for %s that this API client can see: create it, or give the client's user access to its group",
		r.FQDN,
	)
}

// akamaiSet is a record set.
type akamaiSet struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"`
	Values []string `json:"rdata"`
}

// Present adds the value to the record set.
func (p *akamai) Present(ctx context.Context, r Record) error { return p.replace(ctx, r, true) }

// CleanUp removes the value from the record set.
func (p *akamai) CleanUp(ctx context.Context, r Record) error { return p.replace(ctx, r, false) }

func (p *akamai) replace(ctx context.Context, r Record, add bool) error {
	zone, err := p.zone(ctx, r)
	if err != nil {
		return err
	}
	return swap(r, func() error { return p.replaceOnce(ctx, zone, r, add) })
}

// replaceOnce writes the set if it has to change. It succeeds only if the set was read with the
// desired values.
func (p *akamai) replaceOnce(ctx context.Context, zone string, r Record, add bool) error {
	name := strings.TrimSuffix(r.FQDN, ".")
	path := fmt.Sprintf("/config-dns/v2/zones/%s/names/%s/types/TXT", url.PathEscape(zone), url.PathEscape(name))
	var set akamaiSet
	status, err := p.send(ctx, call{method: http.MethodGet, path: path, out: &set, needs: akamaiNeeds})
	exists := status != http.StatusNotFound
	if !exists {
		set, err = akamaiSet{Name: name, Type: "TXT", TTL: int(r.TTL.Seconds())}, nil
	}
	if err != nil {
		return err
	}
	ours := func(value string) bool { return unquoted(value) == r.Value }
	if slices.ContainsFunc(set.Values, ours) == add {
		return nil
	}
	next := call{method: http.MethodPut, path: path, needs: akamaiNeeds}
	if add {
		set.Values = append(set.Values, quote(r.Value))
	} else {
		set.Values = slices.DeleteFunc(set.Values, ours)
	}
	switch {
	case !exists:
		next.method = http.MethodPost
	case len(set.Values) == 0:
		next.method = http.MethodDelete
	}
	if next.method != http.MethodDelete {
		next.in = set
	}
	status, err = p.send(ctx, next)
	switch {
	case err == nil:
		return errConflict // succeeds once it is read with these values
	// Another client is changing the zone, or has made or removed the set.
	case status == http.StatusConflict, status == http.StatusNotFound && exists,
		status == http.StatusBadRequest && exists && strings.Contains(err.Error(), "does not exist"):
		return fmt.Errorf("%w: %w", errConflict, err)
	case status == http.StatusNotFound:
		p.zones.forget(r.Zone)
	}
	return err
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
