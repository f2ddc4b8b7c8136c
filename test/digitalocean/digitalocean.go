// Package digitalocean simulates the part of DigitalOcean that the solver uses: its API, for a
// token. It speaks the real protocol; a real DNS server answers for the domains.
package digitalocean

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

// Host is the name of the API.
const Host = "api.digitalocean.com"

// API is the API for one account.
type API struct {
	Token   string
	Domains []string
	// DNS receives the TXT records.
	DNS *dnsserver.Server

	mu      sync.Mutex
	records []record
	last    int
	calls   []string
}

// record has a name relative to its domain, as in the API.
type record struct {
	ID     int    `json:"id"`
	Type   string `json:"type"`
	Name   string `json:"name"`
	Data   string `json:"data"`
	TTL    int    `json:"ttl"`
	domain string
}

func (r record) full() string {
	if r.Name == "@" {
		return r.domain
	}
	return r.Name + "." + r.domain
}

// Sites returns the services by their public host names.
func (a *API) Sites() map[string]http.Handler { return map[string]http.Handler{Host: a} }

// Put adds a TXT record at a name below a domain.
func (a *API) Put(domain, name, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(record{Type: "TXT", Name: relative(name, domain), Data: value, TTL: 300, domain: domain})
}

// Values returns the values of a name.
func (a *API) Values(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.values(name)
}

// Calls returns the served requests.
func (a *API) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

func (a *API) values(name string) []string {
	var all []string
	for _, r := range a.records {
		if r.full() == name {
			all = append(all, r.Data)
		}
	}
	return all
}

func (a *API) add(r record) record {
	a.last++
	r.ID = a.last
	a.records = append(a.records, r)
	a.DNS.SetTXT(r.full(), a.values(r.full())...)
	return r
}

// relative returns a name as in the API. A name that ends with a dot is absolute, as in a zone
// file.
func relative(name, domain string) string {
	name, _ = strings.CutSuffix(name, ".")
	if name == domain {
		return "@"
	}
	return strings.TrimSuffix(name, "."+domain)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, id, message string) {
	answer(
		w,
		status,
		map[string]string{"id": id, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"},
	)
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+a.Token {
		refuse(w, http.StatusUnauthorized, "Unauthorized", "Unable to authenticate you")
		return
	}
	a.calls = append(a.calls, r.Method+" "+r.URL.Path)
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/domains/"), "/")
	switch {
	case len(parts) < 2 || len(parts) > 3 || parts[1] != "records" || !slices.Contains(a.Domains, parts[0]):
		refuse(w, http.StatusNotFound, "not_found", "The resource you were accessing could not be found.")
	case len(parts) == 2 && r.Method == http.MethodGet:
		a.list(w, r, parts[0])
	case len(parts) == 2 && r.Method == http.MethodPost:
		var asked record
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked)
		asked.domain, asked.Name = parts[0], relative(asked.Name, parts[0])
		switch {
		case err != nil || asked.Type != "TXT" || asked.Name == "" || strings.HasSuffix(asked.Name, "."):
			refuse(w, http.StatusUnprocessableEntity, "unprocessable_entity", "Name is invalid")
		case asked.Data == "":
			refuse(w, http.StatusUnprocessableEntity, "unprocessable_entity", "Data can't be blank")
		case asked.TTL < 30:
			refuse(w, http.StatusUnprocessableEntity, "unprocessable_entity", "Ttl must be greater than or equal to 30")
		default:
			answer(w, http.StatusCreated, map[string]any{"domain_record": a.add(asked)})
		}
	case len(parts) == 3 && r.Method == http.MethodDelete:
		i := slices.IndexFunc(
			a.records,
			func(is record) bool { return is.domain == parts[0] && strconv.Itoa(is.ID) == parts[2] },
		)
		if i < 0 {
			refuse(w, http.StatusNotFound, "not_found", "The resource you were accessing could not be found.")
			return
		}
		name := a.records[i].full()
		a.records = slices.Delete(a.records, i, i+1)
		a.DNS.SetTXT(name, a.values(name)...)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "The method is not allowed.")
	}
}

// list answers with a page of a domain's records, which are filtered by full name and type.
func (a *API) list(w http.ResponseWriter, r *http.Request, domain string) {
	query := r.URL.Query()
	all := []record{}
	for _, is := range a.records {
		if is.domain == domain && (query.Get("name") == "" || query.Get("name") == is.full()) &&
			(query.Get("type") == "" || query.Get("type") == is.Type) {
			all = append(all, is)
		}
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(query.Get(name)); err == nil && n > 0 {
			return n
		}
		return otherwise
	}
	page, size := number("page", 1), min(number("per_page", 20), 200)
	links := map[string]any{}
	if page*size < len(all) {
		query.Set("page", strconv.Itoa(page+1))
		links["pages"] = map[string]string{"next": fmt.Sprintf("https://%s%s?%s", Host, r.URL.Path, query.Encode())}
	}
	answer(w, http.StatusOK, map[string]any{
		"domain_records": all[min((page-1)*size, len(all)):min(page*size, len(all))],
		"links":          links,
		"meta":           map[string]int{"total": len(all)},
	})
}
