package dns01

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/perennial-pki/perennial/internal/fault"
)

const cloudflareAPI = "https://api.cloudflare.com/client/v4"

// cloudflare adds and removes single records, which it finds by name and value.
type cloudflare struct {
	rest
	zones zoneNames
}

type cloudflareReply[T any] struct {
	Success bool              `json:"success"`
	Errors  []cloudflareError `json:"errors"`
	Result  T                 `json:"result"`
	Info    struct {
		Pages int `json:"total_pages"`
	} `json:"result_info"`
}

type cloudflareError struct {
	Code    int               `json:"code"`
	Message string            `json:"message"`
	Chain   []cloudflareError `json:"error_chain"`
}

type cloudflareRecord struct {
	ID      string `json:"id,omitempty"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Content string `json:"content"`
	TTL     int    `json:"ttl,omitempty"`
}

// The codes of an error for a record that is there already.
const (
	cloudflareExists    = 81057
	cloudflareIdentical = 81058
)

// newCloudflare makes the provider, with a token or, if that is empty, with an e-mail address and
// the key of the whole account.
func newCloudflare(base, token, email, key string) *cloudflare {
	p := &cloudflare{
		rest: rest{
			name:    "Cloudflare",
			base:    base,
			header:  http.Header{},
			secrets: []string{token, key},
			problem: func(body []byte) string {
				var reply cloudflareReply[json.RawMessage]
				if json.Unmarshal(body, &reply) != nil || len(reply.Errors) == 0 {
					return ""
				}
				var all []string
				for _, e := range reply.Errors {
					all = append(all, fmt.Sprintf("%s (%d)", e.Message, e.Code))
					for _, c := range e.Chain {
						all = append(all, fmt.Sprintf("%s (%d)", c.Message, c.Code))
					}
				}
				return strings.Join(all, ", ")
			},
		},
	}
	if token != "" {
		p.header.Set("Authorization", "Bearer "+token)
	} else {
		p.header.Set("X-Auth-Email", email)
		p.header.Set("X-Auth-Key", key)
	}
	return p
}

// zone finds the ID of the zone of a record.
func (p *cloudflare) zone(ctx context.Context, r Record) (string, error) {
	if id := p.zones.get(r.Zone); id != "" {
		return id, nil
	}
	for _, apex := range apexes(r) {
		var reply cloudflareReply[[]struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		}]
		if _, err := p.do(ctx, http.MethodGet, "/zones?"+url.Values{"name": {apex}}.Encode(), nil, &reply); err != nil {
			return "", err
		}
		for _, z := range reply.Result {
			if fqdn(z.Name) == fqdn(apex) {
				p.zones.put(r, apex, z.ID)
				return z.ID, nil
			}
		}
	}
	return "", fault.Misconfiguredf(
		"PresentError",
		"Cloudflare has no zone for %s that this token can see: give it Zone:Read and DNS:Edit for the zone",
		r.FQDN,
	)
}

// find returns the records that have the value.
func (p *cloudflare) find(ctx context.Context, zone string, r Record) ([]cloudflareRecord, error) {
	var found []cloudflareRecord
	for page := 1; page <= maxPages; page++ {
		var reply cloudflareReply[[]cloudflareRecord]
		query := url.Values{
			"type":     {"TXT"},
			"name":     {strings.TrimSuffix(r.FQDN, ".")},
			"per_page": {"100"},
			"page":     {fmt.Sprint(page)},
		}
		if status, err := p.do(
			ctx,
			http.MethodGet,
			"/zones/"+url.PathEscape(zone)+"/dns_records?"+query.Encode(),
			nil,
			&reply,
		); err != nil {
			if status == http.StatusNotFound || status == http.StatusForbidden {
				p.zones.forget(r.Zone)
			}
			return nil, err
		}
		for _, record := range reply.Result {
			if record.Type == "TXT" && fqdn(record.Name) == r.FQDN && unquoted(record.Content) == r.Value {
				found = append(found, record)
			}
		}
		if page >= reply.Info.Pages {
			break
		}
	}
	return found, nil
}

// Present adds a record with the value, unless there is one.
func (p *cloudflare) Present(ctx context.Context, r Record) error {
	zone, err := p.zone(ctx, r)
	if err != nil {
		return err
	}
	found, err := p.find(ctx, zone, r)
	if err != nil || len(found) > 0 {
		return err
	}
	_, err = p.do(ctx, http.MethodPost, "/zones/"+url.PathEscape(zone)+"/dns_records", cloudflareRecord{
		Type: "TXT", Name: strings.TrimSuffix(r.FQDN, "."), Content: quote(r.Value), TTL: int(r.TTL.Seconds()),
	}, nil)
	if err != nil &&
		(strings.Contains(err.Error(), fmt.Sprintf("(%d)", cloudflareExists)) || strings.Contains(err.Error(), fmt.Sprintf("(%d)", cloudflareIdentical))) {
		return nil // another client was faster
	}
	return err
}

// CleanUp removes the records with the value.
func (p *cloudflare) CleanUp(ctx context.Context, r Record) error {
	zone, err := p.zone(ctx, r)
	if err != nil {
		return err
	}
	found, err := p.find(ctx, zone, r)
	if err != nil {
		return err
	}
	for _, record := range found {
		status, err := p.do(
			ctx,
			http.MethodDelete,
			"/zones/"+url.PathEscape(zone)+"/dns_records/"+url.PathEscape(record.ID),
			nil,
			nil,
		)
		if err != nil && status != http.StatusNotFound {
			return err
		}
	}
	return nil
}
