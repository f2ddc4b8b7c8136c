package lego

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge"
)

// rewrite sends every request to the stand-in of its service, for any address.
type rewrite struct{ to *url.URL }

func (rw rewrite) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Was-For", r.URL.Host)
	r.URL.Scheme, r.URL.Host = rw.to.Scheme, rw.to.Host
	return http.DefaultTransport.RoundTrip(r)
}

// standIn makes a provider whose service is the handler.
func standIn(t *testing.T, name string, secret map[string]string, service http.Handler) func() *Provider {
	t.Helper()
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string][]byte{}
	for k, v := range secret {
		entries[k] = []byte(v)
	}
	return func() *Provider {
		p, err := New(name, nil, entries, Owner, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		a := p.backend.(*adapter)
		v, err := a.kind.read(nil, entries)
		if err != nil {
			t.Fatal(err)
		}
		a.make = func() (challenge.Provider, error) {
			return a.kind.make(v, &http.Client{Transport: through(rewrite{to})})
		}
		return p
	}
}

func through(r http.RoundTripper) http.RoundTripper {
	return &transport{RoundTripper: r, showsAll: true}
}

// zone is the content of a service: TXT values by ID.
type zone struct {
	mu     sync.Mutex
	last   int
	values map[string]string
}

func newZone(foreign ...string) *zone {
	z := &zone{values: map[string]string{}}
	for _, v := range foreign {
		z.add(v)
	}
	return z
}

func (z *zone) add(v string) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.last++
	id := fmt.Sprint(z.last)
	z.values[id] = v
	return id
}

func (z *zone) set(values []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.values = map[string]string{}
	for i, v := range values {
		z.values[fmt.Sprint("s", i)] = v
	}
}

func (z *zone) remove(id string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.values, id)
}

func (z *zone) removeValue(v string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for id, is := range z.values {
		if is == v {
			delete(z.values, id)
		}
	}
}

func (z *zone) all() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	all := []string{}
	for _, v := range z.values {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}

func (z *zone) has(id string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	_, found := z.values[id]
	return found
}

func unquote(s string) string { return strings.Trim(s, `"`) }

func decode(r *http.Request, to any) bool {
	return json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(to) == nil
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// technitiumAPI speaks the HTTP API of Technitium DNS Server: single values, found by name and
// value.
func technitiumAPI(z *zone) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("token") != "good-token" {
			reply(
				w,
				http.StatusOK,
				map[string]string{"status": "invalid-token", "errorMessage": "Invalid token or session expired."},
			)
			return
		}
		switch r.URL.Path {
		case "/api/zones/records/add":
			if !slices.Contains(z.all(), r.FormValue("text")) {
				z.add(r.FormValue("text"))
			}
		case "/api/zones/records/delete":
			z.removeValue(r.FormValue("text"))
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		reply(w, http.StatusOK, map[string]any{"status": "ok", "response": map[string]any{}})
	})
}

// powerDNSAPI speaks the API of PowerDNS: a record set is replaced as a whole.
func powerDNSAPI(z *zone) http.Handler {
	type set struct {
		Name       string              `json:"name"`
		Type       string              `json:"type"`
		TTL        int                 `json:"ttl"`
		ChangeType string              `json:"changetype,omitempty"`
		Records    []map[string]any    `json:"records"`
		Comments   []map[string]string `json:"comments"`
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-API-Key") != "good-token":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "Unauthorized")
		case r.URL.Path == "/api":
			reply(w, http.StatusOK, []map[string]any{{"url": "/api/v1", "version": 1}})
		case strings.HasSuffix(r.URL.Path, "/notify"):
			reply(w, http.StatusOK, map[string]string{"result": "Notification queued"})
		case r.Method == http.MethodGet:
			s := set{Name: "_acme-challenge.www.example.com.", Type: "TXT", TTL: 60}
			for _, v := range z.all() {
				s.Records = append(s.Records, map[string]any{"content": `"` + v + `"`, "disabled": false})
			}
			answer := map[string]any{
				"id":     "example.com.",
				"name":   "example.com.",
				"url":    "/api/v1/servers/localhost/zones/example.com.",
				"kind":   "Master",
				"rrsets": []set{s},
			}
			if len(s.Records) == 0 {
				answer["rrsets"] = []set{}
			}
			reply(w, http.StatusOK, answer)
		case r.Method == http.MethodPatch:
			var change struct {
				Sets []set `json:"rrsets"`
			}
			if !decode(r, &change) || len(change.Sets) != 1 {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			var values []string
			if change.Sets[0].ChangeType == "REPLACE" {
				for _, rr := range change.Sets[0].Records {
					values = append(values, unquote(fmt.Sprint(rr["content"])))
				}
			}
			z.set(values)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// netlifyAPI speaks the API of Netlify: records with IDs, which lego keeps by token. It takes the
// same record twice.
func netlifyAPI(z *zone) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const path = "/api/v1/dns_zones/example_com/dns_records"
		id := strings.TrimPrefix(r.URL.Path, path+"/")
		switch {
		case r.Header.Get("Authorization") != "Bearer good-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost && r.URL.Path == path:
			var in map[string]any
			if !decode(r, &in) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			in["id"] = z.add(fmt.Sprint(in["value"]))
			reply(w, http.StatusCreated, in)
		case r.Method == http.MethodDelete && z.has(id):
			z.remove(id)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// vercelAPI speaks the API of Vercel: records with IDs. The same record gets the same ID.
func vercelAPI(z *zone) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		switch {
		case r.Header.Get("Authorization") != "Bearer good-token":
			w.WriteHeader(http.StatusForbidden)
		case r.Method == http.MethodPost && r.URL.Path == "/v2/domains/example.com/records":
			var in struct{ Value string }
			if !decode(r, &in) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			z.removeValue(in.Value)
			reply(w, http.StatusOK, map[string]string{"uid": z.add(in.Value)})
		case r.Method == http.MethodDelete && z.has(id):
			z.remove(id)
			reply(w, http.StatusOK, map[string]string{})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// gandiAPI speaks the LiveDNS API of Gandi: record sets, which lego removes as a whole, if it
// remembers that it made them.
func gandiAPI(z *zone) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer good-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path != "/v5/livedns/domains/example.com/records/_acme-challenge.www/TXT":
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodGet:
			reply(
				w,
				http.StatusOK,
				map[string]any{"rrset_name": "_acme-challenge.www", "rrset_type": "TXT", "rrset_ttl": 300, "rrset_values": z.all()},
			)
		case r.Method == http.MethodPut:
			var in struct {
				Values []string `json:"rrset_values"`
			}
			if !decode(r, &in) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			var values []string
			for _, v := range in.Values {
				values = append(values, unquote(v))
			}
			z.set(values)
			reply(w, http.StatusCreated, map[string]string{"message": "DNS Record Created"})
		case r.Method == http.MethodDelete:
			z.set(nil)
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// openproviderAPI speaks the API of Openprovider: values are removed by name and value, of a zone
// whose ID lego keeps by token.
func openproviderAPI(z *zone) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1beta/auth/login":
			reply(w, http.StatusOK, map[string]any{"code": 0, "data": map[string]any{"token": "session", "reseller_id": 1}})
		case r.Header.Get("Authorization") != "Bearer session":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet && r.URL.Path == "/v1beta/dns/zones":
			reply(
				w,
				http.StatusOK,
				map[string]any{
					"code": 0,
					"data": map[string]any{"results": []map[string]any{{"id": 7, "name": "example.com"}}, "total": 1},
				},
			)
		case r.Method == http.MethodPut && r.URL.Path == "/v1beta/dns/zones/example.com":
			var in struct {
				Records struct {
					Add, Remove []struct{ Value string }
				}
			}
			if !decode(r, &in) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			for _, a := range in.Records.Add {
				if !slices.Contains(z.all(), a.Value) {
					z.add(a.Value)
				}
			}
			for _, a := range in.Records.Remove {
				z.removeValue(a.Value)
			}
			reply(w, http.StatusOK, map[string]any{"code": 0, "data": map[string]any{"success": true}})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}
