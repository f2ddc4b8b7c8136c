// Package azure simulates the parts of Azure that the Azure DNS solver uses: Entra ID, which issues
// tokens for passwords and for the tokens of federated workloads, the metadata service of machines,
// and the Resource Manager with public and private zones. They speak the real protocols; a real DNS
// server answers for the zones.
package azure

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

const (
	manager   = "https://management.azure.com"
	assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// Cloud is a simulated Azure with one subscription.
type Cloud struct {
	// Tenant is the ID of the tenant, and Subscription that of the subscription.
	Tenant, Subscription string
	// Passwords are the passwords of applications, and Federated the accepted tokens of workloads, by
	// client ID.
	Passwords, Federated map[string]string
	// Machine holds the identities of the machine by their name in a request: a client ID, a resource
	// ID, or "" for the machine's own.
	Machine map[string]string
	// Access says which identities may change the records of a zone, which is GROUP/TYPE/NAME. They
	// cannot see other zones.
	Access map[string][]string
	// DNS receives the TXT records.
	DNS *dnsserver.Server

	mu     sync.Mutex
	tokens map[string]string // identities by token
	sets   map[string]*set   // by zone and name
	last   int
	calls  []string
}

type set struct {
	etag     string
	ttl      int
	values   []string
	metadata map[string]string
}

// Sites returns the services by their host names on the internet or on the machine's own network.
func (c *Cloud) Sites() map[string]http.Handler {
	return map[string]http.Handler{
		"login.microsoftonline.com": http.HandlerFunc(
			c.login,
		),
		"management.azure.com": http.HandlerFunc(c.manager),
		"169.254.169.254":      http.HandlerFunc(c.metadata),
	}
}

// Put sets the values of a name in a zone, GROUP/TYPE/NAME.
func (c *Cloud) Put(zone, name string, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(zone, name, &set{ttl: 300, values: values, metadata: map[string]string{"owner": "another"}})
}

// Values returns the values of a name.
func (c *Cloud) Values(zone, name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sets[zone+" "+name]; s != nil {
		return slices.Clone(s.values)
	}
	return nil
}

// Calls returns the served requests, each with the client.
func (c *Cloud) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// write replaces a record set, or removes it if the new one is nil.
func (c *Cloud) write(zone, name string, s *set) {
	if c.sets == nil {
		c.sets = map[string]*set{}
	}
	if s == nil {
		delete(c.sets, zone+" "+name)
		c.DNS.SetTXT(name)
		return
	}
	c.last++
	s.etag = fmt.Sprintf("00000000-0000-0000-0000-%012d", c.last)
	c.sets[zone+" "+name] = s
	c.DNS.SetTXT(name, s.values...)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (c *Cloud) grant(w http.ResponseWriter, identity string) {
	token := "eyJ" + rand.Text()
	if c.tokens == nil {
		c.tokens = map[string]string{}
	}
	c.tokens[token] = identity
	answer(
		w,
		http.StatusOK,
		map[string]any{
			"token_type":     "Bearer",
			"expires_in":     3599,
			"ext_expires_in": 3599,
			"access_token":   token,
			"resource":       manager,
		},
	)
}

// login is Entra ID.
func (c *Cloud) login(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := "https://login.microsoftonline.com/" + c.Tenant
	refuse := func(code, description string) {
		answer(
			w,
			http.StatusUnauthorized,
			map[string]any{"error": code, "error_description": description, "error_codes": []int{7000215}},
		)
	}
	switch r.URL.Path {
	case "/common/discovery/instance":
		answer(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{
				map[string]any{
					"preferred_network": "login.microsoftonline.com",
					"preferred_cache":   "login.windows.net",
					"aliases":           []string{"login.microsoftonline.com", "login.windows.net"},
				},
			},
		})
	case "/" + c.Tenant + "/v2.0/.well-known/openid-configuration":
		answer(w, http.StatusOK, map[string]any{
			"token_endpoint":         base + "/oauth2/v2.0/token",
			"authorization_endpoint": base + "/oauth2/v2.0/authorize",
			"issuer":                 base + "/v2.0",
		})
	case "/" + c.Tenant + "/oauth2/v2.0/token":
		if err := r.ParseForm(); err != nil {
			refuse("invalid_request", err.Error())
			return
		}
		id := r.Form.Get("client_id")
		switch f := r.Form; {
		case f.Get("grant_type") != "client_credentials" ||
			!slices.Contains(strings.Fields(f.Get("scope")), manager+"/.default"):
			refuse("invalid_request", "AADSTS900144: "+f.Encode())
		case f.Get("client_assertion") != "" && f.Get("client_assertion_type") == assertion &&
			c.Federated[id] == f.Get("client_assertion"),
			f.Get("client_secret") != "" && c.Passwords[id] == f.Get("client_secret"):
			c.calls = append(c.calls, "token "+id)
			c.grant(w, id)
		default:
			refuse("invalid_client", "AADSTS7000215: Invalid client secret provided. Trace ID: 1\r\nTimestamp: now")
		}
	default:
		answer(
			w,
			http.StatusBadRequest,
			map[string]any{"error": "invalid_tenant", "error_description": "AADSTS90002: Tenant not found."},
		)
	}
}

// metadata is the metadata service of the machine (IMDS).
func (c *Cloud) metadata(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	query := r.URL.Query()
	named := query.Get("client_id") + query.Get("msi_res_id") + query.Get("mi_res_id")
	identity, found := c.Machine[named]
	switch {
	case r.URL.Path != "/metadata/identity/oauth2/token":
		http.NotFound(w, r)
	case r.Header.Get("Metadata") != "true" || strings.TrimSuffix(query.Get("resource"), "/") != manager:
		answer(
			w,
			http.StatusBadRequest,
			map[string]string{"error": "invalid_request", "error_description": "Required metadata header not specified"},
		)
	case !found:
		answer(
			w,
			http.StatusBadRequest,
			map[string]string{"error": "invalid_request", "error_description": "Identity not found"},
		)
	default:
		c.calls = append(c.calls, "metadata token "+identity)
		c.grant(w, identity)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

// manager is the Resource Manager.
func (c *Cloud) manager(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	caller := c.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/subscriptions/"+c.Subscription+"/resourceGroups/"), "/")
	versions := map[string]string{"dnsZones": "2018-05-01", "privateDnsZones": "2020-06-01"}
	switch {
	case caller == "":
		refuse(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is invalid.")
		return
	case len(parts) < 5 || strings.Join(parts[1:3], "/") != "providers/Microsoft.Network" ||
		r.URL.Query().Get("api-version") != versions[parts[3]]:
		refuse(w, http.StatusBadRequest, "InvalidResourceType", r.URL.RequestURI())
		return
	}
	zone := parts[0] + "/" + parts[3] + "/" + parts[4]
	c.calls = append(c.calls, r.Method+" "+zone+" "+caller)
	if !slices.Contains(c.Access[zone], caller) {
		refuse(
			w,
			http.StatusForbidden,
			"AuthorizationFailed",
			fmt.Sprintf("The client '%s' does not have authorization to perform action on '%s'.", caller, zone),
		)
		return
	}
	if len(parts) == 5 {
		answer(w, http.StatusOK, map[string]any{"name": parts[4], "properties": map[string]any{}})
		return
	}
	if len(parts) != 7 || parts[5] != "TXT" {
		refuse(w, http.StatusNotFound, "NotFound", r.URL.Path)
		return
	}
	name := strings.TrimPrefix(parts[6]+"."+parts[4], "@.")
	is := c.sets[zone+" "+name]
	etag := ""
	if is != nil {
		etag = is.etag
	}
	if match, none := r.Header.Get(
		"If-Match",
	), r.Header.Get(
		"If-None-Match",
	); match != "" && match != etag ||
		none == "*" && is != nil {
		refuse(
			w,
			http.StatusPreconditionFailed,
			"PreconditionFailed",
			"The condition '"+match+none+"' in the If-Match header was not satisfied.",
		)
		return
	}
	keys := map[string][2]string{"dnsZones": {"TTL", "TXTRecords"}, "privateDnsZones": {"ttl", "txtRecords"}}[parts[3]]
	type text struct {
		Value []string `json:"value"`
	}
	switch {
	case is == nil && r.Method == http.MethodGet:
		refuse(
			w,
			http.StatusNotFound,
			"NotFound",
			"The resource record '"+parts[6]+"' does not exist in resource group '"+parts[0]+"'.",
		)
	case r.Method == http.MethodGet:
		texts := []text{}
		for _, v := range is.values {
			texts = append(texts, text{[]string{v}})
		}
		answer(
			w,
			http.StatusOK,
			map[string]any{
				"name":       parts[6],
				"etag":       is.etag,
				"properties": map[string]any{keys[0]: is.ttl, keys[1]: texts, "metadata": is.metadata, "fqdn": name + "."},
			},
		)
	case r.Method == http.MethodDelete:
		c.write(zone, name, nil)
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPut:
		var asked struct{ Properties map[string]json.RawMessage }
		next := &set{}
		var texts []text
		if json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked) != nil ||
			json.Unmarshal(asked.Properties[keys[0]], &next.ttl) != nil ||
			json.Unmarshal(asked.Properties[keys[1]], &texts) != nil ||
			len(texts) == 0 ||
			next.ttl < 1 {
			refuse(w, http.StatusBadRequest, "BadRequest", "The request body is not a TXT record set.")
			return
		}
		if given := asked.Properties["metadata"]; given != nil {
			_ = json.Unmarshal(given, &next.metadata)
		}
		for _, t := range texts {
			next.values = append(next.values, strings.Join(t.Value, ""))
		}
		c.write(zone, name, next)
		answer(w, http.StatusOK, map[string]any{"name": parts[6], "etag": next.etag})
	}
}
