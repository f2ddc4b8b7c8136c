package provider

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/internal/fault"
)

const digitalOceanAPI = "https://api.digitalocean.com"

const digitalOceanField = "dns01.digitalocean.tokenSecretRef"

var digitalOceanService = service{
	field:      "digitalocean",
	configured: func(s *spec) bool { return s.DigitalOcean != nil },
	references: func(s *spec) []reference {
		return []reference{referenceTo(digitalOceanField, s.DigitalOcean.Token)}
	},
	open: func(_ context.Context, f *Factory, _ request, c credentials) (Provider, error) {
		return openOnce(&f.opened, "digitalocean", []string{c[digitalOceanField]}, func() (Provider, error) {
			p := newDigitalOcean(digitalOceanAPI, c[digitalOceanField])
			p.now = f.Now
			return &recordSets[digitalOceanRecords]{api: p}, nil
		})
	},
}

// digitalOcean adds and removes single records.
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

// digitalOceanRecords are the TXT records at a name.
type digitalOceanRecords []digitalOceanRecord

func (all digitalOceanRecords) has(value string) bool {
	return slices.ContainsFunc(all, func(r digitalOceanRecord) bool { return r.Data == value })
}

// digitalOceanPage is a page of a list of records.
type digitalOceanPage struct {
	Records []digitalOceanRecord `json:"domain_records"`
	Links   struct {
		Pages struct {
			Next string `json:"next"`
		} `json:"pages"`
	} `json:"links"`
}

func (p *digitalOcean) records(domain string) string {
	return "/v2/domains/" + url.PathEscape(domain) + "/records"
}

func (*digitalOcean) zoneNamed(Record) (string, error) { return "", nil }

// zoneAt lists records, because tokens may be allowed nothing else.
func (p *digitalOcean) zoneAt(ctx context.Context, apex string) (string, error) {
	status, err := p.do(ctx, http.MethodGet, p.records(apex)+"?per_page=1", nil, nil)
	if status == http.StatusNotFound {
		return "", errNoZone
	}
	return apex, err
}

func (*digitalOcean) noZone(r Record, _ string) error {
	return fault.Misconfiguredf(
		"PresentError",
		"DigitalOcean has no domain for %s that this token can see",
		r.FQDN,
	)
}

func (p *digitalOcean) read(ctx context.Context, domain string, r Record) (digitalOceanRecords, error) {
	var all digitalOceanRecords
	for page := 1; page <= maxPages; page++ {
		query := url.Values{
			"type":     {"TXT"},
			"name":     {strings.TrimSuffix(r.FQDN, ".")},
			"per_page": {"200"},
			"page":     {fmt.Sprint(page)},
		}
		var reply digitalOceanPage
		status, err := p.do(ctx, http.MethodGet, p.records(domain)+"?"+query.Encode(), nil, &reply)
		if status == http.StatusNotFound {
			return nil, goneZone{p.noZone(r, "")}
		}
		if err != nil {
			return nil, err
		}
		for _, record := range reply.Records {
			if record.Type == "TXT" {
				all = append(all, record)
			}
		}
		if reply.Links.Pages.Next == "" {
			break
		}
	}
	return all, nil
}

func (p *digitalOcean) write(ctx context.Context, domain string, r Record, was digitalOceanRecords,
	add bool) (string, error) {
	if add {
		_, err := p.do(ctx, http.MethodPost, p.records(domain), digitalOceanRecord{
			Type: "TXT", Name: r.FQDN, Data: r.Value, TTL: int(r.TTL.Seconds()),
		}, nil)
		return "", err
	}
	for _, record := range was {
		if record.Data != r.Value {
			continue
		}
		status, err := p.do(ctx, http.MethodDelete, fmt.Sprintf("%s/%d", p.records(domain), record.ID), nil, nil)
		if err != nil && status != http.StatusNotFound {
			return "", err
		}
	}
	return "", nil
}
