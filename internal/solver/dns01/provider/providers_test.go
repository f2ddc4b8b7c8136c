package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/version"
)

// store is a service with the records of the zone example.com, and what a token may do there.
type store struct {
	records map[string]entry // by ID
	last    int
}

type entry struct{ name, value string }

func (s *store) add(name, value string) string {
	s.last++
	id := fmt.Sprint(s.last)
	s.records[id] = entry{strings.TrimSuffix(name, "."), unquoted(value)}
	return id
}

func (s *store) values() []string {
	var all []string
	for _, e := range s.records {
		all = append(all, e.name+"="+e.value)
	}
	slices.Sort(all)
	return all
}

// cloudflareServer speaks the API of Cloudflare.
func cloudflareServer(t *testing.T, s *store) *httptest.Server {
	t.Helper()
	reply := func(w http.ResponseWriter, result any) {
		_ = json.NewEncoder(w).
			Encode(map[string]any{"success": true, "errors": []any{}, "result": result,
				"result_info": map[string]int{"total_pages": 1}})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" &&
			(r.Header.Get("X-Auth-Email") != "a@example.com" || r.Header.Get("X-Auth-Key") != "good") {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(
				w,
				`{"success": false, "errors": [{"code": 9109, "message": "Invalid access token", "error_chain": [{"code": 6003, "message": "Invalid request headers"}]}]}`,
			)
			return
		}
		path := strings.TrimPrefix(r.URL.Path, "/zones")
		switch {
		case path == "":
			var zones []map[string]string
			if r.URL.Query().Get("name") == "example.com" {
				zones = append(zones, map[string]string{"id": "z1", "name": "example.com"})
			}
			reply(w, zones)
		case r.Method == http.MethodGet && path == "/z1/dns_records":
			var all []cloudflareRecord
			for id, e := range s.records {
				if e.name == r.URL.Query().Get("name") {
					all = append(all, cloudflareRecord{ID: id, Type: "TXT", Name: e.name, Content: quote(e.value)})
				}
			}
			reply(w, all)
		case r.Method == http.MethodPost && path == "/z1/dns_records":
			var record cloudflareRecord
			if err := json.NewDecoder(r.Body).Decode(&record); err != nil {
				t.Error(err)
			}
			record.ID = s.add(record.Name, record.Content)
			reply(w, record)
		case r.Method == http.MethodDelete:
			delete(s.records, path[strings.LastIndex(path, "/")+1:])
			reply(w, nil)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// digitalOceanServer speaks the API of DigitalOcean.
func digitalOceanServer(t *testing.T, s *store) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"id": "unauthorized", "message": "Unable to authenticate you"}`)
			return
		}
		rest, found := strings.CutPrefix(r.URL.Path, "/v2/domains/example.com/records")
		switch {
		case !found:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"id": "not_found", "message": "The resource you were accessing could not be found."}`)
		case r.Method == http.MethodGet:
			all := []map[string]any{}
			for id, e := range s.records {
				if e.name == r.URL.Query().Get("name") {
					var n int
					_, _ = fmt.Sscan(id, &n)
					all = append(
						all,
						map[string]any{"id": n, "type": "TXT", "name": strings.TrimSuffix(e.name, ".example.com"), "data": e.value},
					)
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"domain_records": all, "links": map[string]any{}})
		case r.Method == http.MethodPost:
			var record digitalOceanRecord
			if err := json.NewDecoder(r.Body).Decode(&record); err != nil {
				t.Error(err)
			}
			s.add(record.Name, record.Data)
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{}`)
		case r.Method == http.MethodDelete:
			delete(s.records, strings.TrimPrefix(rest, "/"))
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestProvidersAddAndRemoveOneValue(t *testing.T) {
	name, other := "_acme-challenge.www.example.com.", "_acme-challenge.example.com."
	for service, make := range map[string]func(*testing.T, *store, string) Provider{
		"cloudflare": func(t *testing.T, s *store, token string) Provider {
			return &recordSets[cloudflareRecords]{api: newCloudflare(cloudflareServer(t, s).URL, token, "", "")}
		},
		"digitalocean": func(t *testing.T, s *store, token string) Provider {
			return &recordSets[digitalOceanRecords]{api: newDigitalOcean(digitalOceanServer(t, s).URL, token)}
		},
	} {
		t.Run(service, func(t *testing.T) {
			s := &store{records: map[string]entry{}}
			s.add(name, "of another client")
			s.add(other, "ours")
			before := s.values()
			p := make(t, s, "good")
			// The apex may be somewhere else than where the controller sees it.
			for _, zone := range []string{"example.com.", "www.example.com."} {
				r := Record{FQDN: name, Zone: zone, Value: "ours", TTL: time.Minute}
				twice(t, func() error { return p.Present(t.Context(), r) })
				if got := s.values(); len(got) != 3 || !slices.Contains(got, "_acme-challenge.www.example.com=ours") {
					t.Errorf("it has %v", got)
				}
				// Another process, which remembers nothing, removes it.
				twice(t, func() error { return make(t, s, "good").CleanUp(t.Context(), r) })
				if got := s.values(); !slices.Equal(got, before) {
					t.Errorf("afterwards it has %v", got)
				}
			}
			err := make(t, s, "wrong").Present(t.Context(), Record{FQDN: name, Zone: "example.com.", Value: "v"})
			if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "refuses the credentials") ||
				strings.Contains(err.Error(), "wrong") {
				t.Errorf("a wrong token: %v", err)
			}
			err = make(
				t,
				s,
				"good",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.org.", Zone: "example.org.", Value: "v"})
			if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "_acme-challenge.example.org.") {
				t.Errorf("a foreign zone: %v", err)
			}
		})
	}
}

func TestCloudflareTakesTheKeyOfAnAccount(t *testing.T) {
	s := &store{records: map[string]entry{}}
	p := &recordSets[cloudflareRecords]{api: newCloudflare(cloudflareServer(t, s).URL, "", "a@example.com", "good")}
	if err := p.Present(
		t.Context(),
		Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"},
	); err != nil ||
		len(s.values()) != 1 {
		t.Errorf("%v, %v", err, s.values())
	}
}

func TestACMEDNSSetsTheValueOfItsAccount(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if agent := r.UserAgent(); agent != version.UserAgent("perennial") {
			t.Errorf("User-Agent %q", agent)
		}
		if r.Header.Get("X-Api-User") != "u" || r.Header.Get("X-Api-Key") != "p" || r.URL.Path != "/update" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var update map[string]string
		if err := json.NewDecoder(r.Body).Decode(&update); err != nil {
			t.Error(err)
		}
		got = update["subdomain"] + "=" + update["txt"]
	}))
	defer server.Close()
	accounts := `{"example.com": {"username": "u", "password": "p", "fulldomain": "x.auth.example.org", "subdomain": "x", "allowfrom": []}}`
	p, err := newACMEDNS(server.URL, accounts, "example.com", "_acme-challenge.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Present(t.Context(), Record{FQDN: "x.auth.example.org.", Value: "v"}); err != nil || got != "x=v" {
		t.Errorf("%q, %v", got, err)
	}
	got = ""
	err = p.Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Value: "v"})
	if fault.Of(err).Class != fault.Misconfigured ||
		!strings.Contains(err.Error(), "let _acme-challenge be a CNAME to x.auth.example.org") ||
		got != "" {
		t.Errorf("without a CNAME: %v, %q", err, got)
	}
	for name, says := range map[string]string{accounts: "no account for", "{": "not a JSON object"} {
		if _, err := newACMEDNS(
			server.URL,
			name,
			"example.net",
			"_acme-challenge.example.net",
		); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWhatAnAPIRefuses(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		status int
		header http.Header
		class  fault.Class
	}{
		"too much":               {http.StatusTooManyRequests, http.Header{"Retry-After": {"30"}}, fault.Limited},
		"too much, until a date": {http.StatusTooManyRequests, http.Header{"Retry-After": {"Thu, 01 Jan 2026 00:01:30 GMT"}}, fault.Limited},
		"too much, in the past":  {http.StatusTooManyRequests, http.Header{"Retry-After": {"Thu, 01 Jan 2015 00:01:30 GMT"}}, fault.Limited},
		"too much, for ever":     {http.StatusTooManyRequests, nil, fault.Limited},
		"trouble":                {http.StatusBadGateway, nil, fault.Transient},
		"trouble for a while":    {http.StatusServiceUnavailable, http.Header{"Retry-After": {"30"}}, fault.Limited},
		"trouble until a date": {http.StatusServiceUnavailable, http.Header{"Retry-After": {"Thu, 01 Jan 2026 " +
			"00:01:30 GMT"}}, fault.Limited},
		"trouble for an unknown time": {http.StatusServiceUnavailable, nil, fault.Transient},
		"a bad request":               {http.StatusUnprocessableEntity, nil, fault.Misconfigured},
		"a redirect":                  {http.StatusFound, http.Header{"Location": {"https://evil.example"}}, fault.Misconfigured},
		"no JSON":                     {http.StatusOK, nil, fault.Transient},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range test.header {
					w.Header()[k] = v
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, strings.Repeat("<html>\n", 1000))
			}))
			defer server.Close()
			api := &rest{name: "the service", base: server.URL, now: func() time.Time { return now }}
			var out struct{}
			_, err := api.do(t.Context(), http.MethodGet, "/", nil, &out)
			if err != nil && strings.Contains(err.Error(), "<html>") {
				t.Errorf("its body is in the message: %v", err)
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Class != test.class || len(err.Error()) > 600 || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if test.class == fault.Limited && (f.Until.Before(now) || f.Until.After(now.Add(2*time.Minute))) {
				t.Errorf("until %s", f.Until)
			}
		})
	}
}

func TestErrorsContainNoCredentialsThatAServiceRepeats(t *testing.T) {
	const secret = "s3cret/key+with=signs"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		said := fmt.Sprintf("%s is not good, nor is %s", secret, url.QueryEscape(secret))
		for name, values := range r.Header {
			if name == "Authorization" || strings.HasPrefix(name, "X-A") {
				said += fmt.Sprintf(", %s: %s", name, values[0])
			}
		}
		_ = json.NewEncoder(w).
			Encode(map[string]any{"message": said, "errors": []any{map[string]any{"message": said, "code": 1}}})
	}))
	defer server.Close()
	now := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	akamai := newAkamai(server.URL, edgeGrid{clientToken: secret, clientSecret: secret, accessToken: secret, now: now})
	account, err := newACMEDNS(
		server.URL,
		`{"example.com": {"username": "u", "password": "`+secret+`", "subdomain": "x"}}`,
		"example.com",
		"_acme-challenge.example.com",
	)
	if err != nil {
		t.Fatal(err)
	}
	google, azure := newCloudDNS(server.URL, "p", "z"), newAzureDNS(server.URL, "s", "g", "example.com", azureKinds[""])
	bearer := func(r *http.Request, _ []byte) error {
		r.Header.Set("Authorization", "Bearer "+secret)
		return nil
	}
	google.sign, azure.sign = bearer, bearer
	for name, p := range map[string]Provider{
		"Cloudflare with a token": &recordSets[cloudflareRecords]{api: newCloudflare(server.URL, secret, "", "")},
		"Cloudflare with a key":   &recordSets[cloudflareRecords]{api: newCloudflare(server.URL, "", "a@example.com", secret)},
		"DigitalOcean":            &recordSets[digitalOceanRecords]{api: newDigitalOcean(server.URL, secret)},
		"acme-dns":                account,
		"Akamai":                  &recordSets[*akamaiSet]{api: akamai},
		"Cloud DNS":               &recordSets[cloudDNSSets]{api: google},
		"Azure":                   &recordSets[*azureSet]{api: azure},
	} {
		err := p.Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"})
		if err == nil || strings.Contains(err.Error(), "s3cret") ||
			!strings.Contains(err.Error(), "*** is not good, nor is ***") {
			t.Errorf("%s: %v", name, err)
		}
	}
	response := &http.Response{StatusCode: http.StatusBadRequest}
	azure.secrets = []string{secret}
	body, err := json.Marshal(map[string]string{"error": "invalid_client", "error_description": secret})
	if err != nil {
		t.Fatal(err)
	}
	if err := azure.tokenRefusal("Azure", response, body); strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Azure's tokens: %v", err)
	}
}

func TestACredentialThatCannotBeSentIsAFaultOfTheSecret(t *testing.T) {
	const secret = "s3cret\nand another line"
	for name, p := range map[string]Provider{
		"Cloudflare with a token": &recordSets[cloudflareRecords]{api: newCloudflare("http://service", secret, "", "")},
		"Cloudflare with a key": &recordSets[cloudflareRecords]{
			api: newCloudflare("http://service", "", "a@example.com", secret),
		},
		"Akamai": &recordSets[*akamaiSet]{api: newAkamai("http://service", edgeGrid{clientToken: secret, now: time.Now})},
	} {
		err := p.Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"})
		if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "a line break") ||
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// roundTripper answers every request with the same body.
type roundTripper []byte

func (body roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{},
		Body:       io.NopCloser(bytes.NewReader(body)),
		Request:    r,
	}, nil
}

func FuzzServiceReplies(f *testing.F) {
	f.Add(
		[]byte(
			`{"success": true, "result": [{"id": "z1", "name": "example.com", "type": "TXT", "content": "v"}], "result_info": {"total_pages": 1}}`,
		),
	)
	f.Add(
		[]byte(
			`{"managedZones": [{"name": "z", "dnsName": "example.com."}], "rrsets": [{"name": "_acme-challenge.example.com.", "type": "TXT", "rrdatas": ["v"]}], "id": "1"}`,
		),
	)
	f.Add(
		[]byte(
			`{"etag": "e", "type": "PRIMARY", "ttl": 60, "rdata": ["v"], "properties": {"TXTRecords": [{"value": ["v"]}]}}`,
		),
	)
	f.Add(
		[]byte(`{"domain_records": [{"id": 1, "type": "TXT", "name": "a", "data": "v"}], "links": {"pages": {"next": "x"}}}`),
	)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"}
		client := &http.Client{Transport: roundTripper(body)}
		c, d := newCloudflare("http://service", "t", "", ""), newDigitalOcean("http://service", "t")
		g, z := newCloudDNS("http://service", "p", ""), newAzureDNS("http://service", "s", "g", "", azureKinds[""])
		k := newAkamai("http://service", edgeGrid{now: time.Now})
		c.client, d.client, g.client, z.client, k.client = client, client, client, client, client
		for _, p := range []Provider{
			&recordSets[cloudflareRecords]{api: c}, &recordSets[digitalOceanRecords]{api: d},
			&recordSets[cloudDNSSets]{api: g}, &recordSets[*azureSet]{api: z}, &recordSets[*akamaiSet]{api: k},
		} {
			_ = p.Present(t.Context(), r) // whatever it says, it comes to an end
			_ = p.CleanUp(t.Context(), r)
		}
	})
}

func FuzzACMEDNSAccounts(f *testing.F) {
	f.Add(
		"https://auth.example.org",
		`{"example.com": {"username": "u", "password": "p", "fulldomain": "x.auth.example.org", "subdomain": "x"}}`,
	)
	f.Add("%", `{"example.com": {}}`)
	f.Add("auth.example.org", `[]`)
	f.Fuzz(func(t *testing.T, host, accounts string) {
		p, err := newACMEDNS(host, accounts, "example.com", "_acme-challenge.example.com")
		if err == nil {
			p.client = &http.Client{Transport: roundTripper(`{"txt": "v"}`)}
			err = p.Present(t.Context(), Record{FQDN: "x.auth.example.org.", Value: "v"})
		}
		var classified *fault.Error
		if err != nil && !errors.As(err, &classified) {
			t.Errorf("not classified: %v", err)
		}
	})
}
