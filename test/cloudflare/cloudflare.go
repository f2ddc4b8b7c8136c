// Package cloudflare simulates the part of Cloudflare that the solver uses: its API, for a token or
// the global key of an account. It speaks the real protocol; a real DNS server answers for the
// zones.
package cloudflare

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
const Host = "api.cloudflare.com"

// API is the API for one account.
type API struct {
	// Token is a token that may read the zones and edit their DNS. Email and Key belong to the
	// account.
	Token, Email, Key string
	// Zones are the names of the zones, by ID.
	Zones map[string]string
	// DNS receives the TXT records.
	DNS *dnsserver.Server

	mu      sync.Mutex
	records []record
	last    int
	calls   []string
}

type record struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Content string `json:"content"`
	TTL     int    `json:"ttl"`
	zone    string
}

// Sites returns the services by their public host names.
func (a *API) Sites() map[string]http.Handler { return map[string]http.Handler{Host: a} }

// Put adds a TXT record with a value without quotes.
func (a *API) Put(zone, name, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(record{Type: "TXT", Name: name, Content: `"` + value + `"`, TTL: 300, zone: zone})
}

// Values returns the values of a name, without their quotes.
func (a *API) Values(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.values(name)
}

// Calls returns the served requests, each with its credential: "token" or "key".
func (a *API) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

func (a *API) values(name string) []string {
	var all []string
	for _, r := range a.records {
		if r.Name == name {
			all = append(all, strings.Trim(r.Content, `"`))
		}
	}
	return all
}

func (a *API) add(r record) record {
	a.last++
	r.ID = fmt.Sprintf("%032x", a.last)
	a.records = append(a.records, r)
	a.DNS.SetTXT(r.Name, a.values(r.Name)...)
	return r
}

type fault struct {
	Code    int     `json:"code"`
	Message string  `json:"message"`
	Chain   []fault `json:"error_chain,omitempty"`
}

func refuse(w http.ResponseWriter, status, code int, message string, chain ...fault) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).
		Encode(
			map[string]any{"success": false, "errors": []fault{{code, message, chain}}, "messages": []any{}, "result": nil},
		)
}

func answer(w http.ResponseWriter, result any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).
		Encode(map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
}

// list answers with a page of a list. The default size of a page is 20 entries.
func list[T any](w http.ResponseWriter, r *http.Request, all []T) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && n > 0 {
			return n
		}
		return otherwise
	}
	page, size := number("page", 1), number("per_page", 20)
	shown := all[min((page-1)*size, len(all)):min(page*size, len(all))]
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"success":  true,
		"errors":   []any{},
		"messages": []any{},
		"result":   append([]T{}, shown...),
		"result_info": map[string]int{
			"page":        page,
			"per_page":    size,
			"count":       len(shown),
			"total_count": len(all),
			"total_pages": (len(all) + size - 1) / size,
		},
	})
}

// credential returns the credential of a request, or "" if it has no valid one.
func (a *API) credential(h http.Header) string {
	switch {
	case a.Token != "" && h.Get("Authorization") == "Bearer "+a.Token:
		return "token"
	case a.Key != "" && h.Get("X-Auth-Email") == a.Email && h.Get("X-Auth-Key") == a.Key:
		return "key"
	}
	return ""
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	credential := a.credential(r.Header)
	if credential == "" {
		refuse(w, http.StatusForbidden, 9109, "Invalid access token")
		return
	}
	rest, found := strings.CutPrefix(r.URL.Path, "/client/v4/zones")
	a.calls = append(a.calls, r.Method+" "+rest+" "+credential)
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	zone := a.Zones[parts[0]]
	switch {
	case found && rest == "" && r.Method == http.MethodGet:
		a.listZones(w, r)
	case !found || len(parts) < 2 || len(parts) > 3 || parts[1] != "dns_records":
		refuse(
			w,
			http.StatusBadRequest,
			7003,
			"Could not route to "+r.URL.Path+", perhaps your object identifier is invalid?",
		)
	case zone == "":
		refuse(w, http.StatusForbidden, 10000, "Authentication error")
	case len(parts) == 2 && r.Method == http.MethodGet:
		a.listRecords(w, r, parts[0])
	case len(parts) == 2 && r.Method == http.MethodPost:
		a.create(w, r, parts[0], zone)
	case len(parts) == 3 && r.Method == http.MethodDelete:
		i := slices.IndexFunc(a.records, func(is record) bool { return is.zone == parts[0] && is.ID == parts[2] })
		if i < 0 {
			refuse(w, http.StatusNotFound, 81044, "Record does not exist.")
			return
		}
		name := a.records[i].Name
		a.records = slices.Delete(a.records, i, i+1)
		a.DNS.SetTXT(name, a.values(name)...)
		answer(w, map[string]string{"id": parts[2]})
	default:
		refuse(w, http.StatusMethodNotAllowed, 10405, "Method not allowed for this authentication scheme")
	}
}

// listZones answers with the zones that have the name that is searched for, or with all.
func (a *API) listZones(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	var all []entry
	for id, name := range a.Zones {
		if want := r.URL.Query().Get("name"); want == "" || want == name {
			all = append(all, entry{id, name})
		}
	}
	list(w, r, all)
}

// create adds a TXT record to a zone.
func (a *API) create(w http.ResponseWriter, r *http.Request, zoneID, zone string) {
	var asked record
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked)
	asked.zone = zoneID
	switch {
	case err != nil || asked.Type != "TXT" || !strings.HasSuffix("."+asked.Name, "."+zone):
		refuse(
			w,
			http.StatusBadRequest,
			1004,
			"DNS Validation Error",
			fault{Code: 9005, Message: "Content for the record is invalid."},
		)
	case asked.TTL != 1 && (asked.TTL < 60 || asked.TTL > 86400):
		refuse(
			w,
			http.StatusBadRequest,
			1004,
			"DNS Validation Error",
			fault{Code: 9021, Message: "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic."},
		)
	case slices.Contains(a.values(asked.Name), strings.Trim(asked.Content, `"`)):
		refuse(w, http.StatusBadRequest, 81058, "An identical record already exists.")
	default:
		answer(w, a.add(asked))
	}
}

// listRecords answers with the records of a zone that are searched for.
func (a *API) listRecords(w http.ResponseWriter, r *http.Request, zoneID string) {
	query := r.URL.Query()
	var all []record
	for _, is := range a.records {
		if is.zone == zoneID && (query.Get("name") == "" || query.Get("name") == is.Name) &&
			(query.Get("type") == "" || query.Get("type") == is.Type) {
			all = append(all, is)
		}
	}
	list(w, r, all)
}
