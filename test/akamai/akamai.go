// Package akamai simulates the part of Akamai that the Edge DNS solver uses: its API, which
// verifies the signature of every request, and accepts one change of a zone at a time. It speaks
// the real protocol; a real DNS server answers for the zones.
package akamai

//lint:file-ignore ST1005 The words of the errors are Akamai's.

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

// API is an API host of Akamai with one client.
type API struct {
	// Host is the name that the client was given.
	Host                                   string
	ClientToken, ClientSecret, AccessToken string
	// Zones are the types of zones by name.
	Zones map[string]string
	// Conflicts is the number of changes that are refused because another client is changing the zone.
	Conflicts int
	// DNS receives the TXT records.
	DNS *dnsserver.Server

	mu     sync.Mutex
	sets   map[string]set // by name
	nonces []string
	calls  []string
}

type set struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"`
	Values []string `json:"rdata"`
}

// Sites returns the services by their public host names.
func (a *API) Sites() map[string]http.Handler { return map[string]http.Handler{a.Host: a} }

// Put sets the values of a name, without their quotes.
func (a *API) Put(name string, values ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := set{Name: name, Type: "TXT", TTL: 300}
	for _, v := range values {
		s.Values = append(s.Values, `"`+v+`"`)
	}
	a.write(name, s)
}

// Values returns the values of a name, without their quotes.
func (a *API) Values(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return unquoted(a.sets[name].Values)
}

// Calls returns the served requests.
func (a *API) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

func unquoted(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Trim(v, `"`))
	}
	return all
}

func (a *API) write(name string, s set) {
	if a.sets == nil {
		a.sets = map[string]set{}
	}
	if len(s.Values) == 0 {
		delete(a.sets, name)
	} else {
		a.sets[name] = s
	}
	a.DNS.SetTXT(name, unquoted(s.Values)...)
}

func refuse(w http.ResponseWriter, status int, kind, title, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).
		Encode(
			map[string]any{
				"type": "https://problems.luna.akamaiapis.net/" + kind, "title": title, "detail": detail,
				"status": status,
			},
		)
}

var authorization = regexp.MustCompile(
	`^(EG1-HMAC-SHA256 client_token=([^;]+);access_token=([^;]+);timestamp=([^;]+);nonce=([^;]+);)signature=(.+)$`,
)

func mac(key, text string) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// Verify checks that the signature of a request to the host is valid and not a replay.
func (a *API) Verify(r *http.Request, body []byte) error {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return fmt.Errorf("the Authorization header is malformed")
	}
	head, client, access, stamp, nonce, signature := m[1], m[2], m[3], m[4], m[5], m[6]
	at, err := time.Parse("20060102T15:04:05-0700", stamp)
	if err != nil || time.Since(at).Abs() > 30*time.Second {
		return fmt.Errorf("Invalid authorization timestamp")
	}
	hash := ""
	if r.Method == http.MethodPost && len(body) > 0 {
		sum := sha256.Sum256(body[:min(len(body), 128<<10)])
		hash = base64.StdEncoding.EncodeToString(sum[:])
	}
	text := strings.Join([]string{r.Method, "https", a.Host, r.URL.RequestURI(), "", hash, head}, "\t")
	switch {
	case client != a.ClientToken || access != a.AccessToken:
		return fmt.Errorf("Invalid authorization client token")
	case slices.Contains(a.nonces, nonce):
		return fmt.Errorf("Duplicate nonce")
	case !hmac.Equal([]byte(signature), []byte(mac(mac(a.ClientSecret, stamp), text))):
		return fmt.Errorf("The signature does not match")
	}
	a.nonces = append(a.nonces, nonce)
	return nil
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad-request", "Bad Request", err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, r.Method+" "+r.URL.Path)
	if err := a.Verify(r, body); err != nil {
		refuse(w, http.StatusUnauthorized, "-/pep-authn/deny", "Not authorized", err.Error())
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/config-dns/v2/zones/"), "/")
	kind, found := a.Zones[parts[0]]
	name := ""
	if len(parts) == 5 {
		name = parts[2]
	}
	is, exists := a.sets[name]
	switch {
	case !found:
		refuse(w, http.StatusNotFound, "authoritative-dns/notFound", "Not Found", "Zone \""+parts[0]+"\" not found.")
	case len(parts) == 1:
		_ = json.NewEncoder(w).Encode(map[string]string{"zone": parts[0], "type": kind, "activationState": "ACTIVE"})
	case len(parts) != 5 || parts[1] != "names" || parts[3] != "types" || parts[4] != "TXT" ||
		!strings.HasSuffix("."+name, "."+parts[0]):
		refuse(w, http.StatusBadRequest, "authoritative-dns/badRequest", "Bad Request", r.URL.Path)
	case r.Method == http.MethodGet && !exists, r.Method == http.MethodDelete && !exists:
		refuse(
			w,
			http.StatusNotFound,
			"authoritative-dns/notFound",
			"Not Found",
			"Record name \""+name+"\" of type TXT not found.",
		)
	case r.Method == http.MethodGet:
		_ = json.NewEncoder(w).Encode(is)
	case a.Conflicts > 0:
		a.Conflicts--
		refuse(
			w,
			http.StatusConflict,
			"authoritative-dns/concurrentZoneModification",
			"Concurrent Zone Modification",
			"The zone is being modified. Please try your request again.",
		)
	case r.Method == http.MethodPost && exists:
		refuse(w, http.StatusConflict, "authoritative-dns/recordsetAlreadyExists", "Record set already exists", name)
	case r.Method == http.MethodPut && !exists:
		refuse(w, http.StatusBadRequest, "authoritative-dns/badRequest", "Bad Request", "The record set does not exist.")
	case r.Method == http.MethodDelete:
		a.write(name, set{})
		w.WriteHeader(http.StatusNoContent)
	default:
		var s set
		if err := json.Unmarshal(
			body,
			&s,
		); err != nil || s.Name != name || s.Type != "TXT" || len(s.Values) == 0 ||
			s.TTL < 30 {
			refuse(w, http.StatusBadRequest, "authoritative-dns/badRequest", "Bad Request", "The body is not a TXT record set.")
			return
		}
		a.write(name, s)
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusCreated)
		}
		_ = json.NewEncoder(w).Encode(s)
	}
}
