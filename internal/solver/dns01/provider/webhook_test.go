package provider

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	restclient "k8s.io/client-go/rest"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// webhookAt makes a webhook behind an API server.
func webhookAt(t testing.TB, host string, client *http.Client) *webhook {
	t.Helper()
	api, err := NewAPI(&restclient.Config{Host: host}, client)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWebhook(api, &cmacme.ACMEIssuerDNS01ProviderWebhook{
		GroupName: "acme.example.com", SolverName: "zone", Config: &apiextensionsv1.JSON{Raw: []byte(`{"a":1}`)},
	}, challengeRequest{UID: "u", DNSName: "example.com", ResourceNamespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWebhookAnswers(t *testing.T) {
	record := Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"}
	elsewhere := httptest.NewServer(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }),
	)
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		status int
		body   string
		class  fault.Class
		says   string
	}{
		"success":                     {201, `{"kind":"ChallengePayload","response":{"uid":"u","success":true,"status":{"message":"ignored"}}}`, "", ""},
		"success with another status": {200, `{"response":{"success":true}}`, "", ""},
		"a failure":                   {201, `{"response":{"success":false,"status":{"status":"Failed","message":"no such\nzone"}}}`, fault.Transient, "the webhook acme.example.com/zone says: no such zone"},
		"a failure without a reason":  {201, `{"response":{"success":false}}`, fault.Transient, "does not say why"},
		"no response":                 {201, `{}`, fault.Transient, "without a response"},
		"no JSON":                     {201, `hello`, fault.Transient, "something else than JSON"},
		"a webhook that trusts no client": {401, `{"message":"Unauthorized"}`, fault.Misconfigured, "let it read the " +
			"ConfigMap extension-apiserver-authentication in kube-system"},
		"a webhook that panics": {500, `{"message":"this request caused apiserver to panic"}`, fault.Transient, "is in trouble (status 500): this request caused"},
		"a webhook that is new": {422, `{"message":"what is this?"}`, fault.Misconfigured, "refuses the request " +
			"(status 422): what is this?"},
		"an API server that is busy": {429, `{"message":"Too many requests, please try again later."}`, fault.Transient, "is in trouble (status 429): Too many requests"},
		"a redirect":                 {307, ``, fault.Misconfigured, "refuses the request (status 307)"},
		"an answer without end":      {201, `{"response":{"success":true},"x":"` + strings.Repeat("x", maxReply) + `"}`, fault.Transient, "something else than JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []byte
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/apis/acme.example.com/v1alpha1/zone" {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				got, _ = io.ReadAll(r.Body)
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer api.Close()
			err := webhookAt(t, api.URL, api.Client()).CleanUp(t.Context(), record)
			if test.says == "" && err != nil ||
				test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || fault.Of(err).Class != test.class) {
				t.Errorf("it says: %v", err)
			}
			if want := `{"apiVersion":"webhook.acme.cert-manager.io/v1alpha1","kind":"ChallengePayload","request":{"uid":"u","action":"CleanUp","type":"dns-01",` +
				`"dnsName":"example.com","key":"v","resourceNamespace":"shop","resolvedFQDN":"_acme-challenge.example.com.","resolvedZone":"example.com.",` +
				`"allowAmbientCredentials":false,"config":{"a":1}}}`; string(
				got,
			) != want {
				t.Errorf("it was asked %s", got)
			}
		})
	}
}

// says answers every request with the same response.
type says struct {
	code int
	body []byte
}

func (s says) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.code, Body: io.NopCloser(bytes.NewReader(s.body)), Header: http.Header{}}, nil
}

func FuzzWebhook(f *testing.F) {
	f.Add(201, []byte(`{"response":{"success":true}}`))
	f.Add(201, []byte(`{"response":{"success":false,"status":{"message":"no"}}}`))
	f.Add(
		404,
		[]byte(
			`{"kind":"APIService","spec":{"service":{"name":"w"}},"status":{"conditions":[{"type":"Available","status":"False"}]}}`,
		),
	)
	f.Add(503, []byte(`{"resources":[{"name":"zone"}]}`))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		if code < 200 || code > 599 {
			return
		}
		err := webhookAt(
			t,
			"https://api.example",
			&http.Client{Transport: says{code, body}},
		).Present(t.Context(), Record{FQDN: "a.", Zone: "a.", Value: "v"})
		var classified *fault.Error
		if err != nil && !errors.As(err, &classified) {
			t.Errorf("not classified: %v", err)
		}
		if err != nil && (len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Errorf("not a line: %q", err)
		}
	})
}

func TestNamesOfSecretsAreFoundInAConfiguration(t *testing.T) {
	for name, test := range map[string]struct {
		config, message, want string
	}{
		"a reference": {`{"apiTokenSecretRef": {"name": "payroll", "key": "token"}}`,
			`secret "payroll" has no key token`, `secret "(see webhook.config)" has no key token`},
		"a name alone": {`{"zone": "a.example", "secretName": "payroll"}`,
			`cannot read payroll for a.example`, `cannot read (see webhook.config) for a.example`},
		"in a list": {`{"accounts": [{"keySecret": {"name": "payroll"}}]}`, `payroll?`, `(see webhook.config)?`},
		"with its namespace": {`{"secretName": "payroll"}`, `secrets cert-manager/payroll in cert-manager`,
			`secrets (see webhook.config) in the namespace of its Secrets`},
		"other names":      {`{"name": "zone"}`, `no zone`, `no zone`},
		"no configuration": {``, `cert-manager`, `the namespace of its Secrets`},
	} {
		t.Run(name, func(t *testing.T) {
			var config *apiextensionsv1.JSON
			if test.config != "" {
				config = &apiextensionsv1.JSON{Raw: []byte(test.config)}
			}
			if got := unnamed("cert-manager", config).Replace(test.message); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
