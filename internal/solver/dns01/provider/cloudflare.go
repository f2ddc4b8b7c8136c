package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const cloudflareAPI = "https://api.cloudflare.com/client/v4"

const (
	cloudflareTokenField = "dns01.cloudflare.apiTokenSecretRef"
	cloudflareKeyField   = "dns01.cloudflare.apiKeySecretRef"
)

var cloudflareService = service{
	field:      "cloudflare",
	configured: func(s *spec) bool { return s.Cloudflare != nil },
	check: func(_ *Factory, _ *signer.Issuer, s *spec) error {
		if c := s.Cloudflare; c.APIToken == nil && (c.APIKey == nil || c.Email == "") {
			return fault.Misconfiguredf(
				"InvalidSolver",
				"dns01.cloudflare names no credentials: set apiTokenSecretRef, or email and apiKeySecretRef",
			)
		}
		return nil
	},
	references: func(s *spec) []reference {
		if s.Cloudflare.APIToken != nil {
			return referenceIfSet(cloudflareTokenField, s.Cloudflare.APIToken)
		}
		return referenceIfSet(cloudflareKeyField, s.Cloudflare.APIKey)
	},
	open: func(_ context.Context, f *Factory, r request, c credentials) (Provider, error) {
		token, email, key := c[cloudflareTokenField], r.spec().Cloudflare.Email, c[cloudflareKeyField]
		return openOnce(&f.opened, "cloudflare", []string{token, email, key}, func() (Provider, error) {
			p := newCloudflare(cloudflareAPI, token, email, key)
			p.now = f.Now
			return &recordSets[cloudflareRecords]{api: p}, nil
		})
	},
}

// cloudflare adds and removes single records.
type cloudflare struct{ rest }

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

// cloudflareRecords are the TXT records at a name.
type cloudflareRecords []cloudflareRecord

func (all cloudflareRecords) has(value string) bool {
	return slices.ContainsFunc(all, func(r cloudflareRecord) bool { return unquoted(r.Content) == value })
}

func (p *cloudflare) records(zone string) string {
	return "/zones/" + url.PathEscape(zone) + "/dns_records"
}

func (*cloudflare) zoneNamed(Record) (string, error) { return "", nil }

func (p *cloudflare) zoneAt(ctx context.Context, apex string) (string, error) {
	var reply cloudflareReply[[]struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}]
	if _, err := p.do(ctx, http.MethodGet, "/zones?"+url.Values{"name": {apex}}.Encode(), nil, &reply); err != nil {
		return "", err
	}
	for _, z := range reply.Result {
		if resolver.FQDN(z.Name) == resolver.FQDN(apex) {
			return z.ID, nil
		}
	}
	return "", errNoZone
}

func (*cloudflare) noZone(r Record, _ string) error {
	return fault.Misconfiguredf(
		"PresentError",
		"Cloudflare has no zone for %s that this token can see: give it Zone:Read and DNS:Edit for the zone",
		r.FQDN,
	)
}

func (p *cloudflare) read(ctx context.Context, zone string, r Record) (cloudflareRecords, error) {
	var all cloudflareRecords
	for page := 1; page <= maxPages; page++ {
		query := url.Values{
			"type":     {"TXT"},
			"name":     {strings.TrimSuffix(r.FQDN, ".")},
			"per_page": {"100"},
			"page":     {fmt.Sprint(page)},
		}
		var reply cloudflareReply[[]cloudflareRecord]
		status, err := p.do(ctx, http.MethodGet, p.records(zone)+"?"+query.Encode(), nil, &reply)
		switch {
		case status == http.StatusNotFound || status == http.StatusForbidden:
			return nil, goneZone{err}
		case err != nil:
			return nil, err
		}
		for _, record := range reply.Result {
			if record.Type == "TXT" && resolver.FQDN(record.Name) == r.FQDN {
				all = append(all, record)
			}
		}
		if page >= reply.Info.Pages {
			break
		}
	}
	return all, nil
}

func (p *cloudflare) write(ctx context.Context, zone string, r Record, was cloudflareRecords,
	add bool) (string, error) {
	if add {
		_, err := p.send(ctx, call{method: http.MethodPost, path: p.records(zone), in: cloudflareRecord{
			Type: "TXT", Name: strings.TrimSuffix(r.FQDN, "."), Content: quote(r.Value), TTL: int(r.TTL.Seconds()),
		}, isDone: cloudflareHasRecord})
		return "", err
	}
	for _, record := range was {
		if unquoted(record.Content) != r.Value {
			continue
		}
		status, err := p.do(ctx, http.MethodDelete, p.records(zone)+"/"+url.PathEscape(record.ID), nil, nil)
		if err != nil && status != http.StatusNotFound {
			return "", err
		}
	}
	return "", nil
}

// cloudflareHasRecord reports whether a refusal says that the record exists: another client was
// faster.
func cloudflareHasRecord(_ int, body []byte) bool {
	var reply cloudflareReply[json.RawMessage]
	exists := func(e cloudflareError) bool { return e.Code == cloudflareExists || e.Code == cloudflareIdentical }
	return json.Unmarshal(body, &reply) == nil && slices.ContainsFunc(reply.Errors, func(e cloudflareError) bool {
		return exists(e) || slices.ContainsFunc(e.Chain, exists)
	})
}
