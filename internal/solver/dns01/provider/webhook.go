package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	restclient "k8s.io/client-go/rest"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// API is the Kubernetes API server, which forwards requests to webhooks.
type API struct {
	base   string
	client *http.Client
}

// NewAPI makes an API from the configuration of a client and the HTTP client that was made from it.
func NewAPI(cfg *restclient.Config, client *http.Client) (*API, error) {
	base, _, err := restclient.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("address of the Kubernetes API: %w", err)
	}
	c := *client
	// The transport adds the controller's token to every request, so a redirect by a webhook could
	// send it to any host.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &API{base: strings.TrimSuffix(base.String(), "/"), client: &c}, nil
}

const (
	// webhookTimeout bounds one request to a webhook, as the API server does. Some webhooks wait for
	// their service.
	webhookTimeout = time.Minute
	// webhookVersion is the version of every webhook's group.
	webhookVersion = "v1alpha1"
	// webhookValues is how many values webhooks can have at one name. cert-manager never proves a name
	// twice at the same time, so many webhooks can only set the whole record set.
	webhookValues = 1
	// webhookSolvers bounds the solver names in a message.
	webhookSolvers = 10
)

var webhookService = service{
	field:      "webhook",
	configured: func(s *spec) bool { return s.Webhook != nil },
	check:      func(_ *Factory, _ *signer.Issuer, s *spec) error { return checkWebhook(s.Webhook) },
	verify: func(ctx context.Context, f *Factory, _ *signer.Issuer, s *spec) error {
		if f.API == nil {
			return nil
		}
		w, err := newWebhook(f.API, s.Webhook, challengeRequest{})
		if err != nil {
			return err
		}
		return w.checkAPIService(ctx)
	},
	open: func(_ context.Context, f *Factory, r request, _ credentials) (Provider, error) {
		w, err := newWebhook(f.API, r.spec().Webhook, challengeRequest{
			UID: string(r.challenge.UID), DNSName: r.challenge.Spec.DNSName, ResourceNamespace: r.issuer.SecretNamespace,
			AllowAmbientCredentials: f.Ambient.allows(r.issuer),
		})
		if err == nil && r.issuer.Kind == signer.KindClusterIssuer {
			w.unnamed = unnamed(r.issuer.SecretNamespace, r.spec().Webhook.Config)
		}
		return w, err
	},
	traits: traits(Traits{Capacity: webhookValues, Timeout: webhookTimeout}),
	endpoint: func(s *spec) string {
		return fmt.Sprintf("the webhook %s/%s", s.Webhook.GroupName, s.Webhook.SolverName)
	},
}

// The actions of a challengeRequest.
const (
	actionPresent = "Present"
	actionCleanUp = "CleanUp"
)

// challengePayload is what cert-manager's webhooks take and return: kind ChallengePayload of
// webhook.acme.cert-manager.io/v1alpha1.
type challengePayload struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Request    *challengeRequest  `json:"request,omitempty"`
	Response   *challengeResponse `json:"response,omitempty"`
}

type challengeRequest struct {
	UID    string `json:"uid"`
	Action string `json:"action"`
	// Type is dns-01.
	Type string `json:"type"`
	// DNSName is the name in the certificate, without "*.".
	DNSName string `json:"dnsName"`
	// Key is the value of the TXT record.
	Key string `json:"key"`
	// ResourceNamespace is where the Secrets are that the configuration names.
	ResourceNamespace       string                `json:"resourceNamespace"`
	ResolvedFQDN            string                `json:"resolvedFQDN,omitempty"`
	ResolvedZone            string                `json:"resolvedZone,omitempty"`
	AllowAmbientCredentials bool                  `json:"allowAmbientCredentials"`
	Config                  *apiextensionsv1.JSON `json:"config,omitempty"`
}

type challengeResponse struct {
	Success bool   `json:"success"`
	Status  status `json:"status"`
}

// status is the part of a metav1.Status for users.
type status struct {
	Message string `json:"message"`
}

// webhook changes records by an aggregated API server with cert-manager's webhook protocol.
type webhook struct {
	rest
	group, solver string
	request       challengeRequest // without what Present and CleanUp add
	// unnamed replaces what is not repeated of the webhook's messages: users of a ClusterIssuer read
	// them, and may not know its Secrets. Nil if nothing is replaced.
	unnamed *strings.Replacer
}

// unnamed returns what replaces the namespace of a ClusterIssuer's Secrets, and the names of those
// that a configuration has, such as apiTokenSecretRef.name and secretName.
func unnamed(namespace string, config *apiextensionsv1.JSON) *strings.Replacer {
	pairs := []string{namespace + "/", "", namespace, "the namespace of its Secrets"}
	var parsed any
	if config != nil && json.Unmarshal(config.Raw, &parsed) == nil {
		for _, name := range secretNames(parsed, "", false) {
			pairs = append(pairs, name, "(see webhook.config)")
		}
	}
	return strings.NewReplacer(pairs...)
}

// secretNames returns the texts of a JSON value that stand at a key with "secret" in it, or at
// "name" below such a key. The value itself stands at key.
func secretNames(value any, key string, below bool) (names []string) {
	isSecret := strings.Contains(strings.ToLower(key), "secret")
	switch v := value.(type) {
	case string:
		if v != "" && (isSecret || below && key == "name") {
			names = append(names, v)
		}
	case []any:
		for _, item := range v {
			names = append(names, secretNames(item, key, below)...)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			names = append(names, secretNames(v[k], k, below || isSecret)...)
		}
	}
	return names
}

// quote returns a message of the webhook as it is repeated.
func (w *webhook) quote(text string) string {
	if w.unnamed != nil {
		text = w.unnamed.Replace(text)
	}
	return brief(text)
}

// checkWebhook checks the names of a webhook.
func checkWebhook(spec *cmacme.ACMEIssuerDNS01ProviderWebhook) error {
	// Both become part of the path of a request that is made with the rights of the controller.
	if problems := validation.IsDNS1123Subdomain(spec.GroupName); len(problems) > 0 {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.webhook.groupName: %q is not the name of an API group: %s",
			spec.GroupName,
			problems[0],
		)
	}
	if problems := content.IsPathSegmentName(spec.SolverName); spec.SolverName == "" || len(problems) > 0 {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.webhook.solverName: %q is not the name of a solver: %s",
			spec.SolverName,
			strings.Join(problems, ", "),
		)
	}
	return nil
}

// newWebhook makes the provider of a solver. The request has all but the record.
func newWebhook(api *API, spec *cmacme.ACMEIssuerDNS01ProviderWebhook, request challengeRequest) (*webhook, error) {
	if err := checkWebhook(spec); err != nil {
		return nil, err
	}
	request.Type, request.Config = "dns-01", spec.Config
	w := &webhook{group: spec.GroupName, solver: spec.SolverName, request: request,
		rest: rest{name: "the API server", base: api.base, client: api.client}}
	w.refused = w.refusal
	return w, nil
}

// Present has the value added.
func (w *webhook) Present(ctx context.Context, r Record) error { return w.ask(ctx, actionPresent, r) }

// CleanUp has the value removed.
func (w *webhook) CleanUp(ctx context.Context, r Record) error { return w.ask(ctx, actionCleanUp, r) }

func (w *webhook) ask(ctx context.Context, action string, r Record) error {
	request := w.request
	request.Action, request.Key, request.ResolvedFQDN, request.ResolvedZone = action, r.Value, r.FQDN, r.Zone
	// The apiVersion is that of the protocol, not of the webhook's group, as in all clients of these
	// webhooks.
	var reply challengePayload
	if _, err := w.do(
		ctx,
		http.MethodPost,
		w.path()+"/"+url.PathEscape(w.solver),
		challengePayload{
			APIVersion: "webhook.acme.cert-manager.io/v1alpha1",
			Kind:       "ChallengePayload",
			Request:    &request,
		},
		&reply,
	); err != nil {
		return err
	}
	switch {
	case reply.Response == nil:
		return fault.Transientf("PresentError", "the webhook %s answers without a response", w.fullName())
	case reply.Response.Success:
		return nil
	case reply.Response.Status.Message == "":
		return fault.Transientf("PresentError", "the webhook %s fails, and does not say why: see its log", w.fullName())
	}
	return fault.Transientf("PresentError", "the webhook %s says: %s", w.fullName(),
		w.quote(reply.Response.Status.Message))
}

func (w *webhook) path() string       { return "/apis/" + w.group + "/" + webhookVersion }
func (w *webhook) apiService() string { return webhookVersion + "." + w.group }
func (w *webhook) fullName() string   { return w.group + "/" + w.solver }

// refusal returns the error for the status of a refused request. If the request did not reach the
// webhook, it finds out the reason.
func (w *webhook) refusal(ctx context.Context, code int, body []byte) error {
	text := w.quote(egress.ErrorText(body)) // a metav1.Status has its words in message
	if text == "" {
		text = "it does not say why"
	}
	switch code {
	case http.StatusForbidden, http.StatusNotFound, http.StatusServiceUnavailable:
		if err := w.missing(ctx); err != nil {
			return err
		}
	case http.StatusUnauthorized:
		return fault.Misconfiguredf(
			"PresentError",
			"the webhook %s does not know the controller (status 401): let it read the ConfigMap "+
				"extension-apiserver-authentication in kube-system",
			w.fullName(),
		)
	}
	if code == http.StatusForbidden {
		return fault.Misconfiguredf(
			"PresentError",
			"the controller may not ask the webhook %s: %s. Bind the webhook's ClusterRole, mostly called "+
				"<webhook>:domain-solver, to the controller's ServiceAccount",
			w.fullName(),
			text,
		)
	}
	if code >= 500 || code == http.StatusTooManyRequests { // 429 is from the API server under load
		return fault.Transientf("PresentError", "the webhook %s is in trouble (status %d): %s", w.fullName(), code, text)
	}
	return fault.Misconfiguredf("PresentError", "the webhook %s refuses the request (status %d): %s", w.fullName(), code,
		text)
}

// plain returns a client for requests to the API server itself.
func (w *webhook) plain() *rest {
	return &rest{name: w.name, base: w.base, client: w.client, refused: func(_ context.Context, code int, _ []byte) error {
		return fmt.Errorf("status %d", code)
	}}
}

// checkAPIService returns an error if the APIService of a webhook does not exist, is not one of a
// webhook, or is not available. It returns nil if it cannot be read.
func (w *webhook) checkAPIService(ctx context.Context) error {
	var service struct {
		Spec struct {
			Service *struct{ Namespace, Name string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Reason, Message string }
		}
	}
	code, err := w.plain().
		do(ctx, http.MethodGet, "/apis/apiregistration.k8s.io/v1/apiservices/"+w.apiService(), nil, &service)
	switch {
	case code == http.StatusNotFound:
		return fault.Missingf(
			"PresentError",
			"there is no APIService %s: install the webhook that serves the group %s, or correct dns01.webhook.groupName",
			w.apiService(),
			w.group,
		)
	case err != nil:
		return nil
	case service.Spec.Service == nil:
		return fault.Misconfiguredf(
			"PresentError",
			"APIService %s is of the API server itself, so it is no webhook: correct dns01.webhook.groupName",
			w.apiService(),
		)
	}
	at := service.Spec.Service.Namespace + "/" + service.Spec.Service.Name
	for _, c := range service.Status.Conditions {
		if c.Type == "Available" && c.Status != "True" {
			return fault.Missingf(
				"PresentError",
				"APIService %s is not available (%s: %s): does the webhook behind Service %s run?",
				w.apiService(),
				brief(c.Reason),
				brief(c.Message),
				at,
			)
		}
	}
	return nil
}

// missing returns an error for the missing part of a webhook: its APIService, the server behind it,
// or the solver in that server. It returns nil if nothing is missing or it cannot be found out.
func (w *webhook) missing(ctx context.Context) error {
	if err := w.checkAPIService(ctx); err != nil {
		return err
	}
	var served struct {
		Resources []struct{ Name string }
	}
	if _, err := w.plain().do(ctx, http.MethodGet, w.path(), nil, &served); err != nil {
		return nil
	}
	var names []string
	for _, r := range served.Resources {
		names = append(names, brief(r.Name))
	}
	if slices.Contains(names, w.solver) {
		return nil
	}
	slices.Sort(names)
	return fault.Misconfiguredf(
		"PresentError",
		"the webhook behind APIService %s has no solver %q, it has %s: correct dns01.webhook.solverName",
		w.apiService(),
		w.solver,
		strings.Join(names[:min(len(names), webhookSolvers)], ", "),
	)
}
