// Package gcp simulates the parts of Google Cloud that the Cloud DNS solver uses: the token
// endpoint, which verifies the assertions of service accounts, the metadata server of machines, and
// Cloud DNS, where changes are pending for a while before the DNS servers have them. They speak the
// real protocols; a real DNS server answers for the zones.
package gcp

//lint:file-ignore ST1005 The words of the errors are Google's.

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

const (
	tokenURL = "https://oauth2.googleapis.com/token"
	scope    = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
)

// Cloud is a simulated Google Cloud with one project.
type Cloud struct {
	Project string
	// Zones are the DNS names of managed zones, without a trailing dot, by name. Private are the names
	// of the private zones.
	Zones   map[string]string
	Private []string
	// Machine is the service account of the machine, and Access lists the service accounts that may
	// change records.
	Machine string
	Access  []string
	// DNS receives the TXT records of the public zones when a change is done. Before that, the change
	// is pending for the time Pending.
	DNS     *dnsserver.Server
	Pending time.Duration

	mu      sync.Mutex
	keys    map[string]*rsa.PublicKey // by e-mail
	tokens  map[string]string         // e-mails by token
	sets    map[string]map[string]set // by zone and name
	pending map[string]string         // zones of the names that DNS does not answer for yet
	changes []time.Time
	calls   []string
}

type set struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"`
	Values []string `json:"rrdatas"`
}

type change struct {
	Additions []set  `json:"additions"`
	Deletions []set  `json:"deletions"`
	ID        string `json:"id"`
	Status    string `json:"status"`
}

// Key creates a service account, and returns its key, JSON.
func (c *Cloud) Key(email string) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]*rsa.PublicKey{}
	}
	c.keys[email] = &key.PublicKey
	return json.Marshal(map[string]string{
		"type":            "service_account",
		"project_id":      c.Project,
		"private_key_id":  "1",
		"client_email":    email,
		"client_id":       "1",
		"token_uri":       tokenURL,
		"auth_uri":        "https://accounts.google.com/o/oauth2/auth",
		"universe_domain": "googleapis.com",
		"private_key":     string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
}

// Sites returns the services by their public host names.
func (c *Cloud) Sites() map[string]http.Handler {
	return map[string]http.Handler{
		"oauth2.googleapis.com": http.HandlerFunc(c.token),
		"dns.googleapis.com":    http.HandlerFunc(c.dns),
	}
}

// Metadata starts the metadata server of the machine, and returns its host and port.
func (c *Cloud) Metadata() (address string, stop func()) {
	server := httptest.NewServer(http.HandlerFunc(c.metadata))
	return strings.TrimPrefix(server.URL, "http://"), server.Close
}

// Put sets the values of a name, without their quotes.
func (c *Cloud) Put(zone, name string, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := set{Name: name + ".", Type: "TXT", TTL: 300}
	for _, v := range values {
		s.Values = append(s.Values, `"`+v+`"`)
	}
	c.all(zone)[name+"."] = s
	c.DNS.SetTXT(name, values...)
}

// Values returns the values of a name, without their quotes, or none while a change of it is
// pending.
func (c *Cloud) Values(zone, name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, changing := c.pending[name+"."]; changing {
		return nil
	}
	return unquoted(c.all(zone)[name+"."].Values)
}

// Calls returns the served requests, each with the client.
func (c *Cloud) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

func (c *Cloud) all(zone string) map[string]set {
	if c.sets == nil {
		c.sets, c.pending = map[string]map[string]set{}, map[string]string{}
	}
	if c.sets[zone] == nil {
		c.sets[zone] = map[string]set{}
	}
	return c.sets[zone]
}

func unquoted(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Trim(v, `"`))
	}
	return all
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// grant creates a token.
func (c *Cloud) grant(w http.ResponseWriter, email string) {
	token := "ya29." + rand.Text()
	if c.tokens == nil {
		c.tokens = map[string]string{}
	}
	c.tokens[token] = email
	answer(w, http.StatusOK, map[string]any{"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
}

// token serves RFC 7523: it exchanges a signed assertion of a service account for a token.
func (c *Cloud) token(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	email, err := c.verify(r)
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": err.Error()})
		return
	}
	c.calls = append(c.calls, "token "+email)
	c.grant(w, email)
}

func (c *Cloud) verify(r *http.Request) (email string, err error) {
	if err := r.ParseForm(); err != nil {
		return "", err
	}
	if grant := r.Form.Get("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return "", fmt.Errorf("the grant type is %q", grant)
	}
	parts := strings.Split(r.Form.Get("assertion"), ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("the assertion is no JWT")
	}
	var header struct{ Alg string }
	var claims struct {
		Iss, Aud, Scope string
		Iat, Exp        int64
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return "", err
		}
	}
	key := c.keys[claims.Iss]
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	now := time.Now().Unix()
	switch {
	case key == nil:
		return "", fmt.Errorf("Invalid grant: account not found")
	case header.Alg != "RS256" || rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) != nil:
		return "", fmt.Errorf("Invalid JWT Signature.")
	case claims.Aud != tokenURL || claims.Scope != scope || claims.Iat > now+60 || claims.Exp < now ||
		claims.Exp-claims.Iat > 3600:
		return "", fmt.Errorf("Invalid JWT: %+v", claims)
	}
	return claims.Iss, nil
}

func (c *Cloud) metadata(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Metadata-Flavor", "Google")
	switch path := strings.TrimPrefix(r.URL.Path, "/computeMetadata/v1/"); {
	case r.Header.Get("Metadata-Flavor") != "Google":
		http.Error(w, "Missing required header", http.StatusForbidden)
	case path == "instance/service-accounts/default/token" && r.URL.Query().Get("scopes") == scope:
		c.calls = append(c.calls, "metadata token "+c.Machine)
		c.grant(w, c.Machine)
	default:
		http.NotFound(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, reason, message string) {
	answer(w, status, map[string]any{"error": map[string]any{
		"code":    status,
		"message": message,
		"errors":  []any{map[string]string{"message": message, "domain": "global", "reason": reason}},
	}})
}

func (c *Cloud) dns(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	caller := c.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	path, inProject := strings.CutPrefix(r.URL.Path, "/dns/v1/projects/"+c.Project+"/managedZones")
	switch {
	case caller == "":
		refuse(w, http.StatusUnauthorized, "authError", "Request had invalid authentication credentials.")
		return
	case !inProject || !slices.Contains(c.Access, caller):
		refuse(w, http.StatusForbidden, "forbidden", "Forbidden")
		return
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	c.calls = append(c.calls, r.Method+" "+strings.Join(parts[min(1, len(parts)):], "/")+" "+caller)
	if path == "" {
		c.listZones(w, r)
		return
	}
	zone := parts[0]
	if c.Zones[zone] == "" {
		refuse(
			w,
			http.StatusNotFound,
			"notFound",
			fmt.Sprintf("The 'parameters.managedZone' resource named '%s' does not exist.", zone),
		)
		return
	}
	switch rest := strings.Join(parts[1:], "/"); {
	case rest == "rrsets" && r.Method == http.MethodGet:
		all := []set{}
		if s, found := c.all(zone)[r.URL.Query().Get("name")]; found && r.URL.Query().Get("type") == "TXT" {
			all = append(all, s)
		}
		answer(w, http.StatusOK, map[string]any{"rrsets": all})
	case rest == "changes" && r.Method == http.MethodPost:
		c.change(w, r, zone)
	case strings.HasPrefix(rest, "changes/") && r.Method == http.MethodGet:
		var id int
		if _, err := fmt.Sscan(parts[2], &id); err != nil || id < 0 || id >= len(c.changes) {
			refuse(w, http.StatusNotFound, "notFound", "there is no such change")
			return
		}
		status := "done"
		if time.Now().Before(c.changes[id]) {
			status = "pending"
		}
		answer(w, http.StatusOK, change{ID: parts[2], Status: status})
	default:
		refuse(w, http.StatusBadRequest, "invalid", r.Method+" "+rest)
	}
}

// listZones answers with the zones that have the name that is searched for, or with all.
func (c *Cloud) listZones(w http.ResponseWriter, r *http.Request) {
	zones := []any{}
	for _, name := range slices.Sorted(maps.Keys(c.Zones)) {
		if want := r.URL.Query().Get("dnsName"); want == "" || want == c.Zones[name]+"." {
			visibility := "public"
			if slices.Contains(c.Private, name) {
				visibility = "private"
			}
			zones = append(zones, map[string]string{"name": name, "dnsName": c.Zones[name] + ".", "visibility": visibility})
		}
	}
	// A page has one zone.
	var at int
	_, _ = fmt.Sscan(r.URL.Query().Get("pageToken"), &at)
	reply := map[string]any{"managedZones": zones[min(at, len(zones)):min(at+1, len(zones))]}
	if at+1 < len(zones) {
		reply["nextPageToken"] = fmt.Sprint(at + 1)
	}
	answer(w, http.StatusOK, reply)
}

// change applies a change atomically.
func (c *Cloud) change(w http.ResponseWriter, r *http.Request, zone string) {
	var asked change
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, "parseError", err.Error())
		return
	}
	next := maps.Clone(c.all(zone))
	for i, d := range asked.Deletions {
		is, found := next[d.Name]
		switch {
		case !found:
			refuse(
				w,
				http.StatusNotFound,
				"notFound",
				fmt.Sprintf("The 'entity.change.deletions[%d]' resource named '%s (TXT)' does not exist.", i, d.Name),
			)
			return
		case is.TTL != d.TTL || !slices.Equal(is.Values, d.Values):
			refuse(
				w,
				http.StatusPreconditionFailed,
				"conditionNotMet",
				fmt.Sprintf("Precondition not met for 'entity.change.deletions[%d]'", i),
			)
			return
		}
		delete(next, d.Name)
	}
	for i, a := range asked.Additions {
		if _, found := next[a.Name]; found {
			refuse(
				w,
				http.StatusConflict,
				"alreadyExists",
				fmt.Sprintf("The resource 'entity.change.additions[%d]' named '%s (TXT)' already exists", i, a.Name),
			)
			return
		}
		if a.Type != "TXT" || !strings.HasSuffix("."+a.Name, "."+c.Zones[zone]+".") || len(a.Values) == 0 {
			refuse(w, http.StatusBadRequest, "invalid", "not in this zone")
			return
		}
		next[a.Name] = a
	}
	for _, d := range append(asked.Deletions, asked.Additions...) {
		if !slices.Contains(c.Private, zone) {
			c.pending[d.Name] = zone
		}
	}
	c.sets[zone] = next
	c.changes = append(c.changes, time.Now().Add(c.Pending))
	answer(w, http.StatusOK, change{ID: fmt.Sprint(len(c.changes) - 1), Status: "pending"})
	time.AfterFunc(c.Pending, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settle()
	})
}

// settle publishes all due changes at once, after the last change is done.
func (c *Cloud) settle() {
	for _, at := range c.changes {
		if time.Now().Before(at) {
			return
		}
	}
	for name, zone := range c.pending {
		c.DNS.SetTXT(name, unquoted(c.all(zone)[name].Values)...)
		delete(c.pending, name)
	}
}
