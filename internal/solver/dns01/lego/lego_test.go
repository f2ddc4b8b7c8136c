package lego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/challenge/dns01"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/solver"
)

func record(name, token string) Record {
	authorization := token + ".thumbprint"
	return Record{
		FQDN: "_acme-challenge." + name + ".", Zone: "example.com.", Value: acme.DNS01Value(authorization),
		Domain: name, Token: token, KeyAuthorization: authorization,
	}
}

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
	return &door{RoundTripper: r, tells: true}
}

// finish repeats a call until it is over.
func finish(t *testing.T, do func(context.Context, Record) error, r Record) error {
	t.Helper()
	for {
		err := do(t.Context(), r)
		if later := new(solver.Later); !errors.As(err, &later) {
			return err
		}
	}
}

func mustFinish(t *testing.T, do func(context.Context, Record) error, r Record) {
	t.Helper()
	if err := finish(t, do, r); err != nil {
		t.Fatal(err)
	}
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

func TestARecordIsRemovedAlsoByAProcessThatDidNotMakeIt(t *testing.T) {
	for what, test := range map[string]struct {
		name    string
		secret  map[string]string
		service func(*zone) http.Handler
		// loses says that CleanUp removes other values, too. doubled says that one value stays if it was
		// made twice.
		loses, doubled bool
	}{
		"single values, found by name and value":     {name: "technitium", secret: map[string]string{"apiToken": "good-token", "baseURL": "http://dns.example.com"}, service: technitiumAPI},
		"the whole record set is replaced":           {name: "pdns", secret: map[string]string{"apiKey": "good-token", "host": "http://dns.example.com"}, service: powerDNSAPI},
		"the ID is kept in memory, one for a record": {name: "vercel", secret: map[string]string{"authToken": "good-token"}, service: vercelAPI},
		"the ID is kept in memory, records may be there twice": {name: "netlify", secret: map[string]string{"token": "good-token"}, service: netlifyAPI,
			doubled: true},
		"the zone is kept in memory":         {name: "openprovider", secret: map[string]string{"username": "someone", "password": "good-token"}, service: openproviderAPI},
		"that it was made is kept in memory": {name: "gandiv5", secret: map[string]string{"personalAccessToken": "good-token"}, service: gandiAPI, loses: true},
	} {
		t.Run(what, func(t *testing.T) {
			z := newZone("somebody else's")
			process := standIn(t, test.name, test.secret, test.service(z))
			rest := []string{"somebody else's"}
			if test.loses {
				z, rest = newZone(), []string{}
				process = standIn(t, test.name, test.secret, test.service(z))
			}
			r := record("www.example.com", "token-1")

			first := process()
			mustFinish(t, first.Present, r)
			mustFinish(t, first.Present, r) // it may be called again
			if got := z.all(); !slices.Contains(got, r.Value) || len(got) != len(rest)+1 {
				t.Fatalf("after Present there is %q", got)
			}
			mustFinish(t, first.CleanUp, r)
			mustFinish(t, first.CleanUp, r)
			if got := z.all(); !slices.Equal(got, rest) {
				t.Fatalf("after CleanUp there is %q, not %q", got, rest)
			}

			r = record("www.example.com", "token-2")
			mustFinish(t, process().Present, r)
			mustFinish(t, process().CleanUp, r)
			if test.doubled {
				rest = append([]string{r.Value}, rest...)
				slices.Sort(rest)
			}
			if got := z.all(); !slices.Equal(got, rest) {
				t.Errorf("after CleanUp by another process there is %q, not %q", got, rest)
			}
		})
	}
}

func TestTwoValuesAtOneNameDoNotDisturbEachOther(t *testing.T) {
	z := newZone("somebody else's")
	p := standIn(t, "pdns", map[string]string{"apiKey": "good-token", "host": "http://dns.example.com"}, powerDNSAPI(z))()
	apex, wildcard := record("www.example.com", "token-1"), record("www.example.com", "token-2")
	var group sync.WaitGroup
	for _, r := range []Record{apex, wildcard} {
		group.Go(func() {
			if err := finish(t, p.Present, r); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := z.all(); len(got) != 3 {
		t.Fatalf("there is %q", got)
	}
	mustFinish(t, p.CleanUp, apex)
	if got := z.all(); len(got) != 2 || !slices.Contains(got, wildcard.Value) {
		t.Errorf("after CleanUp of the other there is %q", got)
	}
}

func TestNothingComesFromTheEnvironment(t *testing.T) {
	var seen sync.Map // what was asked for by a variable
	poisoned := httptest.NewServer(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store("an endpoint: "+r.URL.String(), true) }),
	)
	defer poisoned.Close()
	file := filepath.Join(t.TempDir(), "poison")
	if err := os.WriteFile(file, []byte("poison"), 0o600); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, list := range variables {
		for _, v := range list {
			switch {
			case strings.Contains(v, "URL"),
				strings.Contains(v, "ENDPOINT"),
				strings.Contains(v, "HOST"),
				strings.Contains(v, "SERVER"):
				t.Setenv(v, poisoned.URL)
			case strings.HasSuffix(v, "TTL"), strings.Contains(v, "TIMEOUT"), strings.Contains(v, "INTERVAL"):
				t.Setenv(v, "66666")
			default:
				t.Setenv(v, "poison")
				t.Setenv(v+"_FILE", file)
			}
			count++
		}
	}
	if count < 500 {
		t.Fatalf("only %d variables are known", count)
	}
	// These use their own client with a fixed address, or work only for names of one domain.
	aside := []string{"manageengine", "nicru", "omglol", "servercow"}
	for i := range kinds {
		k := &kinds[i]
		if slices.Contains(aside, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			asked := 0
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
				for _, part := range []string{r.URL.String(), fmt.Sprint(r.Header), string(body)} {
					if strings.Contains(part, "poison") || strings.Contains(part, "66666") || strings.Contains(part, poisoned.URL) {
						t.Errorf("a variable arrived: %s", part)
					}
				}
				w.WriteHeader(http.StatusNotFound)
			}))
			defer service.Close()
			to, err := url.Parse(service.URL)
			if err != nil {
				t.Fatal(err)
			}
			v, err := k.read(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range k.settings {
				if _, found := v[s.name]; found && s.in == "" || s.name == "tlsCert" || s.name == "tlsKey" || s.form == flag {
					continue
				}
				switch s.form {
				case address:
					v[s.name] = service.URL
				case number:
					v[s.name] = "300"
				case pairs:
					v[s.name] = "www:given,www.example.com:given,_acme-challenge.www.example.com:given"
				case lists:
					v[s.name] = "www.example.com:1:2,_acme-challenge.www.example.com:1:2"
				default:
					v[s.name] = "given"
					if s.name == "zoneName" {
						v[s.name] = "example.com"
					}
					if lower := strings.ToLower(
						s.name,
					); strings.Contains(lower, "url") || strings.Contains(lower, "endpoint") || strings.Contains(lower, "server") || lower == "hostname" ||
						lower == "baseurl" {
						v[s.name] = service.URL
					}
				}
			}
			feed, err := feeding()
			if err != nil {
				t.Fatal(err)
			}
			p := &Provider{
				kind:  k,
				now:   time.Now,
				ended: map[string]*call{},
				made:  map[string]time.Time{},
				gone:  map[string]time.Time{},
				backend: &adapter{
					kind: k, feed: feed, make: func() (challenge.Provider, error) {
						return k.make(v, &http.Client{Transport: rewrite{to}, Timeout: 5 * time.Second})
					},
				},
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err = p.backend.present(ctx, record("www.example.com", "token"))
			if asked == 0 {
				t.Errorf("its service was not asked: %v", err)
			}
		})
	}
	seen.Range(func(what, _ any) bool { t.Errorf("by a variable lego came to %v", what); return true })
}

func TestDefaultsAreThoseOfLego(t *testing.T) {
	for _, list := range variables {
		for _, v := range list {
			if value, found := os.LookupEnv(v); found { // the environment of the test may have one
				t.Setenv(v, value)
				os.Unsetenv(v)
			}
		}
	}
	for i := range kinds {
		k := &kinds[i]
		v, err := k.read(nil, nil)
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		config := reflect.ValueOf(inLego[k.name]()).Elem()
		for _, s := range k.settings {
			field := config.FieldByName(fields[k.name][s.name])
			if field.IsZero() {
				continue // some are in NewDNSProvider
			}
			want := fmt.Sprint(field.Interface())
			if got := v[s.name]; got != want {
				t.Errorf("%s: %s is %q here, and %q in lego", k.name, s.name, got, want)
			}
		}
	}
}

func first[T any](v T, _ error) T { return v }

func TestSettings(t *testing.T) {
	for what, test := range map[string]struct {
		name, config string
		secret       map[string]string
		says         string
	}{
		"a provider that is not there":           {name: "nobody", says: `there is no provider "nobody": docs/dns-providers.md lists all`},
		"one that Perennial has itself":          {name: "route53", says: `for "route53" use dns01.route53`},
		"a setting that is not there":            {name: "hetzner", config: `{"apiTokn": "x"}`, says: `dns01.provider.config: provider hetzner has no setting "apiTokn": it has apiKey (in the Secret), apiToken (in the Secret), ttl`},
		"an entry of the Secret that is not one": {name: "hetzner", secret: map[string]string{"token": "x"}, says: `the Secret of dns01.provider.secretRef: provider hetzner has no setting "token"`},
		"a secret in the issuer":                 {name: "hetzner", config: `{"apiToken": "s3cret"}`, says: `apiToken is secret: put it into a Secret`},
		"a setting twice":                        {name: "hetzner", config: `{"ttl": 60}`, secret: map[string]string{"ttl": "60"}, says: "ttl is in dns01.provider.config, too"},
		"no object": {name: "hetzner", config: `["ttl"]`, says: "dns01.provider.config is " +
			"no object of settings"},
		"an object in it": {name: "hetzner", config: `{"ttl": {}}`, says: "ttl must be a string, " +
			"a number, true or false"},
		"a number that is none": {name: "hetzner", config: `{"ttl": "soon"}`, says: "ttl must be a number"},
		"a flag that is none":   {name: "efficientip", config: `{"insecureSkipVerify": "yes"}`, says: "insecureSkipVerify must be true or false"},
		"a URL that is none": {name: "pdns", config: `{"host": "ns1.example.com"}`, says: "host must be a URL that " +
			"begins with http:// or https://"},
		"pairs that are none":  {name: "hurricane", secret: map[string]string{"credentials": "example.com"}, says: "credentials must have the form name:value,name:value"},
		"a host elsewhere":     {name: "otc", config: `{"identityEndpoint": "https://169.254.169.254/"}`, says: "of a host in otc.t-systems.com"},
		"too long":             {name: "hetzner", secret: map[string]string{"apiToken": strings.Repeat("x", maxSetting+1)}, says: "apiToken is longer than"},
		"a key that is none":   {name: "regru", config: `{"username": "a"}`, secret: map[string]string{"password": "b", "tlsCert": "c", "tlsKey": "d"}, says: "tlsCert: decode certificate chain: no PEM block found"},
		"exec in a cluster":    {name: "exec", config: `{"program": "/bin/true"}`, says: `"exec" can only be used with perenniald`},
		"manual in a cluster":  {name: "manual", says: `"manual" can only be used with perenniald`},
		"httpreq in a cluster": {name: "httpreq", config: `{"endpoint": "http://127.0.0.1"}`, says: `"httpreq" can only be used with perenniald`},
	} {
		t.Run(what, func(t *testing.T) {
			secret := map[string][]byte{}
			for k, v := range test.secret {
				secret[k] = []byte(v)
			}
			_, err := New(test.name, []byte(test.config), secret, Tenant, time.Now)
			if err == nil || !strings.Contains(err.Error(), test.says) || fault.Of(err).Class != fault.Misconfigured {
				t.Errorf("it says %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("a secret is told")
			}
		})
	}
}

func TestWhatIsWrongIsToldWithoutTheSecret(t *testing.T) {
	for what, test := range map[string]struct {
		name, config string
		secret       bool
		by           Author
		says         string
	}{
		"all is there":                  {name: "hetzner", config: `{"ttl": 60}`, secret: true},
		"no Secret where one is needed": {name: "gandiv5", secret: true},
		"a name that there is not":      {name: "hetzer", secret: true, says: `there is no provider "hetzer"`},
		"a setting that there is not":   {name: "hetzner", config: `{"token": "x"}`, secret: true, says: `provider hetzner has no setting "token": it has`},
		"a setting of another form":     {name: "hetzner", config: `{"ttl": "long"}`, secret: true, says: "ttl must be a number"},
		"a secret in the issuer":        {name: "hetzner", config: `{"apiToken": "x"}`, says: "apiToken is secret"},
		"a Secret is needed": {name: "abion", says: "dns01.provider.secretRef: provider abion needs " +
			"apiKey: put it into a Secret"},
		"a setting is needed, and a Secret": {name: "artfiles", says: "dns01.provider.config: provider artfiles needs " +
			"username"},
		"what may be in the Secret":  {name: "artfiles", secret: true},
		"a program in a cluster":     {name: "exec", config: `{"program": "/bin/true"}`, by: Admin, says: "only be used with perenniald"},
		"a program":                  {name: "exec", config: `{"program": "/bin/true"}`, by: Owner},
		"a program without its path": {name: "exec", by: Owner, says: "exec needs program"},
		"nothing is needed":          {name: "manual", by: Owner},
		"what Perennial has itself":  {name: "route53", says: `for "route53" use dns01.route53`},
		"what cannot be used":        {name: "plesk", says: `"plesk" cannot be used`},
	} {
		err := Check(test.name, []byte(test.config), nil, !test.secret, test.by)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCredentialsThatAreMissingAreNamed(t *testing.T) {
	p, err := New("hetzner", nil, nil, Tenant, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	err = finish(t, p.Present, record("www.example.com", "token"))
	if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "credentials missing") ||
		!strings.Contains(err.Error(), "apiToken (in the Secret)") {
		t.Errorf("it says %v", err)
	}
}

func TestAddressesOfThisMachineAreNotReachedFromACluster(t *testing.T) {
	z := newZone()
	server := httptest.NewServer(powerDNSAPI(z))
	defer server.Close()
	secret := map[string][]byte{"apiKey": []byte("good-token")}
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	elsewhere := httptest.NewServer(http.RedirectHandler(server.URL, http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	for _, host := range []string{server.URL, "http://localhost" + port, "http://169.254.169.254", "http://[::1]" + port, "http://[fd00:ec2::254]", "http://[::ffff:127.0.0.1]" + port} {
		p, err := New("pdns", fmt.Appendf(nil, `{"host": %q}`, host), secret, Tenant, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		err = finish(t, p.Present, record("www.example.com", "token"))
		if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "an address of this machine") {
			t.Errorf("%s: %v", host, err)
		}
	}
	p, err := New("pdns", fmt.Appendf(nil, `{"host": %q}`, server.URL), secret, Owner, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mustFinish(t, p.Present, record("www.example.com", "token"))
	// Credentials are not sent to the target of a redirect either.
	if p, err = New("pdns", fmt.Appendf(nil, `{"host": %q}`, elsewhere.URL), secret, Owner, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, p.Present, record("www.example.com", "other")); err == nil {
		t.Error("a redirect to another host was followed")
	}
}

// asTenant makes a provider with the transport for a Tenant. The handler replaces its service.
func asTenant(
	t *testing.T,
	name string,
	config []byte,
	secret map[string][]byte,
	by Author,
	service http.Handler,
) *Provider {
	t.Helper()
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	to, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(name, config, secret, by, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	p.door.RoundTripper = rewrite{to}
	return p
}

func TestWhatAHostThatATenantNamesAnswersIsToldOnlyAsAnError(t *testing.T) {
	const hidden = "root:x:0:0 of an internal page"
	for what, test := range map[string]struct {
		by          Author
		name, host  string
		status      int
		body        string
		says        string
		class       fault.Class
		tellsHidden bool
	}{
		"a page":                          {name: "pdns", host: "http://10.0.0.1:8081", status: 200, body: hidden, says: "the answers of http://10.0.0.1:8081 are not what lego expects", class: fault.Transient},
		"a page with a status":            {name: "pdns", host: "http://10.0.0.1:8081", status: 404, body: hidden, says: "http://10.0.0.1:8081 answers with status 404", class: fault.Misconfigured},
		"a secret in JSON":                {name: "pdns", host: "http://10.0.0.1:8081", status: 500, body: `{"password": "` + hidden + `"}`, says: "answers with status 500", class: fault.Transient},
		"an error in JSON":                {name: "pdns", host: "http://10.0.0.1:8081", status: 422, body: `{"error": "Domain is not canonical", "x": "` + hidden + `"}`, says: "answers with status 422: Domain is not canonical", class: fault.Misconfigured},
		"credentials":                     {name: "pdns", host: "http://10.0.0.1:8081", status: 401, body: hidden, says: "pdns refuses the credentials: pdns: http://10.0.0.1:8081 answers with status 401. Correct the Secret", class: fault.Misconfigured},
		"a page, to an administrator":     {by: Admin, name: "pdns", host: "http://10.0.0.1:8081", status: 404, body: hidden, says: hidden, class: fault.Misconfigured, tellsHidden: true},
		"a page of the service's own":     {name: "autodns", status: 400, body: hidden, says: hidden, class: fault.Misconfigured, tellsHidden: true},
		"a page in the place of its own":  {name: "autodns", host: "http://10.0.0.1", status: 400, body: hidden, says: "answers with status 400", class: fault.Misconfigured},
		"an error with a status of a yes": {name: "technitium", host: "http://10.0.0.1:5380", status: 200, body: `{"status": "error", "errorMessage": "No such zone was found"}`, says: "No such zone was found", class: fault.Transient},
	} {
		t.Run(what, func(t *testing.T) {
			at := map[string]string{"pdns": "host", "technitium": "baseURL", "autodns": "endpoint"}[test.name]
			config := fmt.Appendf(nil, `{%q: %q}`, at, test.host)
			if test.host == "" {
				config = nil
			}
			secret := map[string]map[string][]byte{
				"pdns": {"apiKey": []byte("good-token")}, "technitium": {"apiToken": []byte("good-token")},
				"autodns": {"username": []byte("someone"), "password": []byte("good-token")},
			}[test.name]
			p := asTenant(t, test.name, config, secret, test.by, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			err := finish(t, p.Present, record("www.example.com", "token"))
			if err == nil || !strings.Contains(err.Error(), test.says) || fault.Of(err).Class != test.class {
				t.Errorf("it says %v, %v", err, fault.Of(err).Class)
			}
			if err != nil && strings.Contains(err.Error(), hidden) != test.tellsHidden {
				t.Errorf("it tells %v", err)
			}
		})
	}
}

func TestErrorsHaveAClassAndTellNoSecret(t *testing.T) {
	const key = "s3cret/key+with=signs"
	answer, after := http.StatusUnauthorized, ""
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(answer)
		fmt.Fprintf(w, "%s is not good, nor is %s: %s", key, url.QueryEscape(key), r.URL)
	})
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for code, class := range map[int]fault.Class{401: fault.Misconfigured, 403: fault.Misconfigured, 404: fault.Misconfigured, 429: fault.Limited, 500: fault.Transient, 503: fault.Limited} {
		answer, after = code, "90"
		if code == 503 { // the other form
			after = now.Add(90 * time.Second).Format(http.TimeFormat)
		}
		// dode has its token in the URL.
		for name, secret := range map[string]map[string]string{"pdns": {"apiKey": key, "host": "http://dns.example.com"}, "dode": {"token": key}} {
			p := standIn(t, name, secret, service)()
			p.now = func() time.Time { return now }
			err := finish(t, p.Present, record("www.example.com", "token"))
			f := fault.Of(err)
			if err == nil || f.Class != class || class == fault.Limited && !f.Until.Equal(now.Add(90*time.Second)) {
				t.Errorf("%s, status %d: %+v", name, code, f)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || len(err.Error()) > 2*maxText) {
				t.Errorf("%s tells %v", name, err)
			}
		}
	}
	p := standIn(t, "dode", map[string]string{"token": key}, service)()
	p.backend.(*adapter).make = func() (challenge.Provider, error) {
		v, _ := p.kind.read(nil, map[string][]byte{"token": []byte(key)})
		return p.kind.make(v, &http.Client{Transport: through(unreachable{})})
	}
	if err := finish(
		t,
		p.Present,
		record("www.example.com", "token"),
	); fault.Of(err).Class != fault.Transient ||
		strings.Contains(err.Error(), "s3cret") {
		t.Errorf("it says %v", err)
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

// slow is a backend that waits for the test.
type slow struct{ begin, end chan struct{} }

func (s slow) present(context.Context, Record) error {
	s.begin <- struct{}{}
	<-s.end
	return nil
}

func (s slow) cleanUp(context.Context, Record) error { panic("an answer that nobody thought of") }

func TestAProviderThatTakesLongKeepsNobodyWaiting(t *testing.T) {
	s := slow{make(chan struct{}, 1), make(chan struct{})}
	p := &Provider{
		kind:    &kind{name: "slow"},
		backend: s,
		now:     time.Now,
		ended:   map[string]*call{},
		made:    map[string]time.Time{},
		gone:    map[string]time.Time{},
	}
	one, other := record("www.example.com", "one"), record("www.example.com", "other")
	var later *solver.Later
	if err := p.Present(t.Context(), one); !errors.As(err, &later) || !strings.Contains(later.Why, "at work") {
		t.Fatalf("it says %v", err)
	}
	<-s.begin
	if err := p.Present(t.Context(), other); !errors.As(err, &later) || !strings.Contains(later.Why, "other changes") {
		t.Fatalf("the other is told %v", err)
	}
	close(s.end)
	mustFinish(t, p.Present, one)
	mustFinish(t, p.Present, other)
	if err := finish(
		t,
		p.CleanUp,
		one,
	); fault.Of(err).Class != fault.Transient ||
		!strings.Contains(err.Error(), "lego gave up") {
		t.Errorf("a panic is told as %v", err)
	}
	if len(s.begin) != 1 {
		t.Error("the second Present of one record made it again, or that of the other did not")
	}
}

// pile is a service in which a record exists as often as it is made.
type pile struct{ made int }

func (p *pile) present(context.Context, Record) error {
	p.made++
	return nil
}

func (p *pile) cleanUp(context.Context, Record) error {
	if p.made == 0 {
		return errors.New("there is no such record")
	}
	p.made--
	return nil
}

func TestARecordThatIsSeenNowhereIsMadeAgainOnce(t *testing.T) {
	service := &pile{}
	p := &Provider{
		kind:    &kind{name: "pile"},
		backend: service,
		now:     time.Now,
		ended:   map[string]*call{},
		made:    map[string]time.Time{},
		gone:    map[string]time.Time{},
	}
	r := record("www.example.com", "one")
	mustFinish(t, p.Present, r)
	mustFinish(t, p.Restore, r)
	if service.made != 1 {
		t.Errorf("one that was only late is there %d times", service.made)
	}
	service.made = 0
	mustFinish(t, p.Restore, r)
	if service.made != 1 {
		t.Errorf("one that was lost is there %d times", service.made)
	}
	mustFinish(t, p.CleanUp, r)
	if service.made != 0 {
		t.Errorf("it is there %d times in the end", service.made)
	}
}

func TestWhereOnlyOneValueCanBe(t *testing.T) {
	for what, test := range map[string]struct {
		name, fqdn, place string
		exclusive         bool
	}{
		"a service that has values beside each other": {"pdns", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
		"one at each name":                            {"hurricane", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", true},
		"one for all names of an account":             {"duckdns", "_acme-challenge.b.a.duckdns.org.", "a.duckdns.org.", true},
		"one for all names, at the shortest":          {"duckdns", "_acme-challenge.a.duckdns.org.", "a.duckdns.org.", true},
		"a person":                                    {"manual", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
		"nobody":                                      {"nobody", "_acme-challenge.a.example.com.", "_acme-challenge.a.example.com.", false},
	} {
		if got := Place(test.name, test.fqdn); got != test.place || Exclusive(test.name) != test.exclusive {
			t.Errorf("%s: %s, exclusive: %v", what, got, Exclusive(test.name))
		}
	}
}

func TestLegoFindsWhatTheSolverFound(t *testing.T) {
	f, err := feeding()
	if err != nil {
		t.Fatal(err)
	}
	look := func(ctx context.Context, domain string) (string, string) {
		info := dns01.GetChallengeInfo(ctx, domain, "key")
		zone, err := dns01.DefaultClient().FindZoneByFqdn(ctx, info.EffectiveFQDN)
		if err != nil {
			return info.EffectiveFQDN, err.Error()
		}
		return info.EffectiveFQDN, zone
	}
	t.Setenv("LEGO_DISABLE_CNAME_SUPPORT", "") // that feeding took away is not for this test alone
	for what, x := range map[string]finding{
		"the record is at the name itself": {"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."},
		"a CNAME is followed":              {"_acme-challenge.www.example.com.", "www.challenges.example.net.", "challenges.example.net."},
		"the zone is below another":        {"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "www.example.com."},
	} {
		t.Run(what, func(t *testing.T) {
			if name, zone := look(f.with(t.Context(), x), "www.example.com"); name != x.effective || zone != x.zone {
				t.Errorf("lego found %s in %s", name, zone)
			}
		})
	}
	// Without a finding no server gets a query.
	if name, zone := look(
		t.Context(),
		"www.example.com",
	); name != "_acme-challenge.www.example.com." ||
		!strings.Contains(zone, "start of authority") {
		t.Errorf("lego found %s in %s", name, zone)
	}
}

// hanging is a service that does not answer before the end of the test. asked receives its
// requests.
func hanging(asked chan<- string, end <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
		<-end
		w.WriteHeader(http.StatusServiceUnavailable)
	})
}

func TestWhatOthersFindOfANameHoldsUpNobody(t *testing.T) {
	ours := record("www.example.com", "ours")
	for what, theirs := range map[string]Record{
		"a zone of their own making at a name below":  {FQDN: "_acme-challenge.a.www.example.com.", Zone: "www.example.com.", Domain: "a.www.example.com"},
		"a zone of their own making at the same name": {FQDN: ours.FQDN, Zone: "www.example.com.", Domain: ours.Domain},
		"a zone above":                     {FQDN: ours.FQDN, Zone: "com.", Domain: ours.Domain},
		"a CNAME at the same name":         {FQDN: "www.challenges.example.net.", Zone: "example.net.", Domain: ours.Domain},
		"the same zone, under our name":    {FQDN: ours.FQDN, Zone: ours.Zone, Domain: ours.Domain},
		"our name as the zone of a record": {FQDN: ours.FQDN, Zone: ours.FQDN, Domain: ours.Domain},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			theirs.Token, theirs.KeyAuthorization = "theirs", "theirs.thumbprint"
			theirs.Value = acme.DNS01Value(theirs.KeyAuthorization)
			asked, end := make(chan string, 1), make(chan struct{})
			z := newZone()
			secret := map[string]string{"authToken": "good-token"}
			tenant := standIn(t, "vercel", secret, hanging(asked, end))()
			t.Cleanup(func() { // before the service of the tenant is closed
				close(end)
				if err := finish(t, tenant.Present, theirs); err == nil {
					t.Error("the call that hung has made the record")
				}
			})
			begun := tenant.Present(t.Context(), theirs)
			if later := new(solver.Later); !errors.As(begun, &later) {
				t.Fatalf("it does not hang: %v", begun)
			}
			if at, want := <-asked, "/v2/domains/"+strings.TrimSuffix(theirs.Zone, ".")+"/records"; at != want {
				t.Errorf("the tenant's service was asked for %s, not %s", at, want)
			}
			mustFinish(t, standIn(t, "vercel", secret, vercelAPI(z))().Present, ours)
			if got := z.all(); !slices.Equal(got, []string{ours.Value}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestCallsAtOnceFindEachItsOwn(t *testing.T) {
	f, err := feeding()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		x := finding{"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."}
		switch i % 4 {
		case 1:
			x.zone = "www.example.com."
		case 2:
			x.effective, x.zone = "www.challenges.example.net.", "challenges.example.net."
		case 3:
			x.effective, x.zone = "www.challenges.example.net.", "example.net."
		}
		group.Go(func() {
			ctx := f.with(t.Context(), x)
			for range 50 {
				name := dns01.GetChallengeInfo(ctx, "www.example.com", "key").EffectiveFQDN
				if zone, err := dns01.DefaultClient().
					FindZoneByFqdn(ctx, name); err != nil || name != x.effective ||
					zone != x.zone {
					t.Errorf("for %+v lego found %s in %s, %v", x, name, zone, err)
				}
			}
		})
	}
	group.Wait()
}

func TestACallThatEndsBeforeItAsksKeepsNobodyFromAsking(t *testing.T) {
	f, err := feeding()
	if err != nil {
		t.Fatal(err)
	}
	x := finding{"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."}
	for what, hangUp := range map[string]func(t *testing.T){
		"as it is over": func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			over := httptrace.WithClientTrace(f.with(ctx, finding{zone: "example.net."}), &httptrace.ClientTrace{ConnectStart: func(string, string) { cancel() }})
			if _, err := new(net.Dialer).DialContext(over, "udp", f.at); !errors.Is(err, context.Canceled) {
				t.Errorf("it connects: %v", err)
			}
		},
		"after it has connected": func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(f.with(t.Context(), finding{zone: "example.net."}), "udp", f.at)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		},
	} {
		t.Run(what, func(t *testing.T) {
			hangUp(t)
			if zone, err := dns01.DefaultClient().
				FindZoneByFqdn(f.with(t.Context(), x), x.effective); err != nil ||
				zone != x.zone {
				t.Errorf("lego found %s, %v", zone, err)
			}
		})
	}
}

func TestAProgramMakesTheRecord(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	script := "#!/bin/sh\necho \"$@\" >> " + dir + "/calls\n[ \"$1\" != cleanup ] || { echo the zone is locked; exit " +
		"3; }\nsleep 30 &\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := newProgram(values{"program": path})
	if err != nil {
		t.Fatal(err)
	}
	r := record("www.example.com", "token")
	if err := p.present(t.Context(), r); err != nil { // although something that it has started goes on
		t.Fatal(err)
	}
	if err := p.cleanUp(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the zone is locked") {
		t.Errorf("a failure says %v", err)
	}
	p.raw = true
	_ = p.cleanUp(t.Context(), r)
	got, err := os.ReadFile(dir + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(
		"present %s %s\ncleanup %s %s\ncleanup -- www.example.com token %s\n",
		r.FQDN,
		r.Value,
		r.FQDN,
		r.Value,
		r.KeyAuthorization,
	)
	if string(got) != want {
		t.Errorf("the program was called with\n%swant\n%s", got, want)
	}
	for config, says := range map[string]string{`{}`: "exec needs program", `{"program": "dns"}`: "no absolute path", `{"program": "/dns", "mode": "raw"}`: "is not RAW"} {
		if _, err := New("exec", []byte(config), nil, Owner, time.Now); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// A new dependency of lego makes this test fail.
func TestOnlyAFewModulesAreNeeded(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	base, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "github.com/perennial-pki/perennial/internal/solver").
		Output()
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.Fields(string(base)) // what is there without lego
	allowed := []string{
		"github.com/go-acme/lego/v5",
		"github.com/miekg/dns",
		"github.com/cenkalti/backoff/v5",
		"github.com/google/go-querystring",
		"github.com/pquerna/otp",
		"github.com/hashicorp/go-retryablehttp",
		// and what lego itself, go-retryablehttp and otp need
		"github.com/go-jose/go-jose/v4",
		"github.com/hashicorp/go-cleanhttp",
		"github.com/boombuler/barcode",
	}
	for _, module := range strings.Fields(string(out)) {
		if !slices.Contains(ours, module) && !slices.Contains(allowed, module) &&
			!strings.HasPrefix(module, "golang.org/x/") {
			t.Errorf("module %s is needed", module)
			ours = append(ours, module)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("hetzner", []byte(`{"ttl": 60}`), []byte("s3cret"))
	f.Add("hurricane", []byte(`{}`), []byte("a:b,c:d"))
	f.Add("selfhostdev2", []byte(`{"recordsMapping": "a:1:2"}`), []byte("a:b"))
	f.Fuzz(func(t *testing.T, name string, config, secret []byte) {
		k, err := find(name)
		if err != nil {
			return
		}
		entries := map[string][]byte{}
		for _, s := range k.settings {
			if s.secret {
				entries[s.name] = secret
			}
		}
		v, err := k.read(config, entries)
		if err != nil {
			return
		}
		for _, s := range k.settings {
			if err := s.check(v[s.name]); v[s.name] != "" && err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
		if k.make != nil {
			switch name { // these ask their service
			case "namecheap", "rackspace":
				return
			}
			_, _ = k.make(v, &http.Client{Transport: unreachable{}})
		}
	})
}
