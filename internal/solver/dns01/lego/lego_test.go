package lego

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// finish repeats a call until it is over.
func finish(t *testing.T, do func(context.Context, Record) error, r Record) error {
	t.Helper()
	for {
		err := do(t.Context(), r)
		if later := new(solver.RetryLaterError); !errors.As(err, &later) {
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
		"the ID is kept in memory, records may be there twice": {name: "netlify",
			secret: map[string]string{"token": "good-token"}, service: netlifyAPI,
			doubled: true},
		"the zone is kept in memory":         {name: "openprovider", secret: map[string]string{"username": "someone", "password": "good-token"}, service: openproviderAPI},
		"that it was made is kept in memory": {name: "gandiv5", secret: map[string]string{"personalAccessToken": "good-token"}, service: gandiAPI, loses: true},
	} {
		t.Run(what, func(t *testing.T) {
			z := newZone("of another client")
			process := standIn(t, test.name, test.secret, test.service(z))
			rest := []string{"of another client"}
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
	z := newZone("of another client")
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

func TestAddressesOfThisMachineAreNotReachedFromACluster(t *testing.T) {
	z := newZone()
	server := httptest.NewServer(powerDNSAPI(z))
	defer server.Close()
	secret := map[string][]byte{"apiKey": []byte("good-token")}
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	elsewhere := httptest.NewServer(http.RedirectHandler(server.URL, http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	for _, host := range []string{server.URL, "http://localhost" + port, "http://169.254.169.254", "http://[::1]" +
		port, "http://[fd00:ec2::254]", "http://[::ffff:127.0.0.1]" + port} {
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
	p.transport.RoundTripper = rewrite{to}
	return p
}

func TestOfHostsThatATenantNamesMessagesHaveOnlyErrorTexts(t *testing.T) {
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
	base, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}",
		"github.com/perennial-pki/perennial/internal/solver").
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
