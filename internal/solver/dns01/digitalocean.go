package dns01

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/perennial-pki/perennial/internal/fault"
)

const digitalOceanAPI = "https://api.digitalocean.com"

// digitalOcean adds and removes single records, which it finds by name and value.
type digitalOcean struct{ rest }

func newDigitalOcean(base, token string) *digitalOcean {
	return &digitalOcean{
		rest{
			name:    "DigitalOcean",
			base:    base,
			secrets: []string{token},
			header:  http.Header{"Authorization": {"Bearer " + token}},
		},
	}
}

type digitalOceanRecord struct {
	ID   int64  `json:"id,omitempty"`
	Type string `json:"type"`
	Name string `json:"name"`
	Data string `json:"data"`
	TTL  int    `json:"ttl,omitempty"`
}

// find returns the domain of a record, and the records in it that have the value.
func (p *digitalOcean) find(ctx context.Context, r Record) (domain string, found []digitalOceanRecord, err error) {
	for _, apex := range apexes(r) {
		for page := 1; page <= maxPages; page++ {
			var reply struct {
				Records []digitalOceanRecord `json:"domain_records"`
				Links   struct {
					Pages struct {
						Next string `json:"next"`
					} `json:"pages"`
				} `json:"links"`
			}
			query := url.Values{
				"type":     {"TXT"},
				"name":     {strings.TrimSuffix(r.FQDN, ".")},
				"per_page": {"200"},
				"page":     {fmt.Sprint(page)},
			}
			status, err := p.do(ctx, http.MethodGet, "/v2/domains/"+url.PathEscape(apex)+"/records?"+query.Encode(), nil, &reply)
			if status == http.StatusNotFound {
				break
			}
			if err != nil {
				return "", nil, err
			}
			domain = apex
			for _, record := range reply.Records {
				if record.Type == "TXT" && record.Data == r.Value {
					found = append(found, record)
				}
			}
			if reply.Links.Pages.Next == "" {
				break
			}
		}
		if domain != "" {
			return domain, found, nil
		}
	}
	return "", nil, fault.Misconfiguredf(
		"PresentError",
		"DigitalOcean has no domain for %s that this token can see",
		r.FQDN,
	)
}

// Present adds a record with the value, unless there is one.
func (p *digitalOcean) Present(ctx context.Context, r Record) error {
	domain, found, err := p.find(ctx, r)
	if err != nil || len(found) > 0 {
		return err
	}
	_, err = p.do(ctx, http.MethodPost, "/v2/domains/"+url.PathEscape(domain)+"/records", digitalOceanRecord{
		Type: "TXT", Name: r.FQDN, Data: r.Value, TTL: int(r.TTL.Seconds()),
	}, nil)
	return err
}

// CleanUp removes the records with the value.
func (p *digitalOcean) CleanUp(ctx context.Context, r Record) error {
	domain, found, err := p.find(ctx, r)
	if err != nil {
		return err
	}
	for _, record := range found {
		status, err := p.do(
			ctx,
			http.MethodDelete,
			fmt.Sprintf("/v2/domains/%s/records/%d", url.PathEscape(domain), record.ID),
			nil,
			nil,
		)
		if err != nil && status != http.StatusNotFound {
			return err
		}
	}
	return nil
}
