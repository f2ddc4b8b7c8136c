// Package http01 answers HTTP-01 challenges, RFC 8555 section 8.3, from the controller itself: one
// server has the tokens of all Challenges in its cache, so that no challenge needs a server of its
// own.
package http01

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// byToken is the field index of HTTP-01 Challenges by their token.
	byToken = "spec.token"

	checkTimeout = 10 * time.Second
	maxRedirects = 10
	// maxAnswer is larger than any key authorization.
	maxAnswer = 1 << 10
	// maxHeader bounds the header of an answer.
	maxHeader = 16 << 10
	// minToken is the minimum length of tokens: 128 bits (RFC 8555 section 8.3).
	minToken    = 22
	readTimeout = 5 * time.Second
)

// Solver answers HTTP-01 challenges.
type Solver struct {
	// Cache has the Challenges, and the EndpointSlices of Service.
	Cache client.Reader
	// Direct reads from and writes to the API server, past all caches.
	Direct client.Client

	// Namespace limits the solver to the Challenges of one namespace. If empty, all count.
	Namespace string
	// Mode is the default mode of solvers. If empty, it is Shared.
	Mode cmacme.HTTP01SolverMode
	// Listens says that Handler is served.
	Listens bool
	// Service is the Service of the controller's replicas. Its port http serves Handler. The objects
	// for each Challenge route requests to its endpoints. If its name is empty, requests arrive
	// without such objects.
	Service types.NamespacedName
	// WithoutTargetRef leaves targetRef out of EndpointSlices, for ingress controllers that only
	// accept pods in the namespace of the Service.
	WithoutTargetRef bool
	// Webroot, if set, is a directory of a web server in which the proofs are written. Then the fields
	// above have no effect.
	Webroot string
	// Labels are added to the objects that are made for a Challenge.
	Labels map[string]string
	// Pods are the settings of solver pods.
	Pods PodSettings

	// Site connects to the sites of challenges for the self-check.
	Site solver.Site
	// Now returns the time from which waits are counted.
	Now func() time.Time

	made    made
	reads   solver.ReadLimiter
	editing locks
}

// AddIndexes adds the index that Handler needs.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &cmacme.Challenge{}, byToken, func(o client.Object) []string {
		if ch := o.(*cmacme.Challenge); ch.Spec.Type == cmacme.ACMEChallengeTypeHTTP01 {
			return []string{ch.Spec.Token}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index Challenges by token: %w", err)
	}
	return nil
}

// Handler answers for all tokens, each only on the host of its Challenge.
func (s *Solver) Handler() http.Handler {
	return answer(func(r *http.Request, token, host string) (string, error) { return s.find(r.Context(), token, host) })
}

// answer answers requests for tokens with the result of proof for the token and the requested host.
// It also answers "/" and "/healthz", for the health checks of load balancers.
func answer(proof func(r *http.Request, token, host string) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == "/" || r.URL.Path == "/healthz" {
			w.WriteHeader(http.StatusOK)
			return
		}
		token, found := strings.CutPrefix(r.URL.Path, acme.HTTP01Path(""))
		if !found || token == "" || strings.Contains(token, "/") {
			http.NotFound(w, r)
			return
		}
		text, err := proof(r, token, hostname(r.Host))
		switch {
		case err != nil:
			http.Error(w, "not available", http.StatusServiceUnavailable)
		case text == "":
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.WriteString(w, text)
		}
	})
}

// find returns the key authorization for a token on a host, or "". The cache of a replica may lag
// behind the writes of the leader, so find asks the API server before it returns "".
// solver.ReadLimiter limits that, because any client can send requests.
func (s *Solver) find(ctx context.Context, token, host string) (string, error) {
	var list cmacme.ChallengeList
	if err := s.Cache.List(ctx, &list, client.MatchingFields{byToken: token}, client.UnsafeDisableDeepCopy,
		client.DisableReadYourWritesConsistency); err != nil {
		return "", err
	}
	if len(list.Items) > 0 || len(token) < minToken {
		return keyOf(list.Items, token, host), nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	end, ok := s.reads.Begin(ctx, s.Now)
	if !ok {
		return "", errBusy
	}
	err := s.Direct.List(ctx, &list, solver.ListOptionsForHost(s.Namespace, host)...)
	key := keyOf(list.Items, token, host)
	end(key != "")
	return key, err
}

// keyOf returns the key authorization for a token on a host, or "".
func keyOf(all []cmacme.Challenge, token, host string) string {
	for i := range all {
		if ch := &all[i]; ch.Spec.Type == cmacme.ACMEChallengeTypeHTTP01 && ch.Spec.Token == token &&
			sameHost(ch.Spec.DNSName, host) {
			return ch.Spec.Key
		}
	}
	return ""
}

// sameHost reports whether two hosts are the same name or address.
func sameHost(a, b string) bool {
	return pki.ComparableDNSName(pki.ComparableIP(a)) == pki.ComparableDNSName(pki.ComparableIP(b))
}

var errBusy = errors.New("too many requests for unknown tokens")

// hostname returns the host of a Host header without the port. An IPv6 address has no brackets and
// is in its shortest form.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String() // there are several ways to write one
	}
	return host
}

// Check requests the token from the site as the ACME server will. If the site does not answer,
// Check creates missing routing objects again.
func (s *Solver) Check(ctx context.Context, _ *signer.Issuer, ch *cmacme.Challenge) (solver.CheckResult, error) {
	views, err := s.Look(ctx, ch)
	if err != nil {
		return solver.CheckResult{}, err
	}
	seen := solver.EvaluateSite(URL(ch.Spec.DNSName, ch.Spec.Token), views, ch, s.Now())
	if seen.Visible {
		return seen, nil
	}
	why, err := s.restoreObjects(ctx, ch)
	if why != "" {
		seen.Why += "; " + why
	}
	return seen, err
}

// Look asks each address of the site for the token.
func (s *Solver) Look(ctx context.Context, ch *cmacme.Challenge) ([]solver.EndpointView, error) {
	if err := limiter.Acquire(ctx, solver.TargetOf(ch)); err != nil {
		return nil, err
	}
	defer limiter.Release(ctx)
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, URL(ch.Spec.DNSName, ch.Spec.Token), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", version.UserAgent("perennial-http01-check"))
	return s.Site.Views(ctx, ch.Spec.DNSName, func(ctx context.Context, dial solver.Dial) solver.EndpointView {
		return read(request.Clone(ctx), ch.Spec.Key, dial)
	}), nil
}

// read sends a request and compares the answer with the key authorization.
func read(request *http.Request, want string, dial solver.Dial) solver.EndpointView {
	at := request.URL
	client := http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			DisableKeepAlives:      true,
			ResponseHeaderTimeout:  checkTimeout,
			MaxResponseHeaderBytes: maxHeader,
			TLSClientConfig: &tls.Config{
				InsecureSkipVerify: true,
			}, // ACME servers follow redirects to sites with any certificate
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			at = r.URL
			return redirect(r, via)
		},
	}
	response, err := client.Do(request)
	led := ""
	if at != request.URL {
		led = fmt.Sprintf("leads to %s, which ", shortened(at.Redacted()))
	}
	if err != nil {
		return solver.EndpointView{Shows: fmt.Sprintf("%scannot be read: %s", led, cause(err))}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return solver.EndpointView{Shows: fmt.Sprintf("%sanswers with status %d", led, response.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return solver.EndpointView{Shows: fmt.Sprintf("%scannot be read: %s", led, cause(err))}
	}
	answer := strings.TrimRight(string(body), " \t\r\n")
	switch {
	case answer == want:
		return solver.EndpointView{Matches: true}
	case led != "": // do not show what an internal server may have sent
		return solver.EndpointView{
			Shows: led + "answers, but with something else: another server receives the requests for this host",
		}
	}
	return solver.EndpointView{
		Shows: fmt.Sprintf(
			"answers, but with something else (%s): another server receives the requests for this host",
			shortened(answer),
		),
	}
}

// shortened quotes the beginning of a text from outside.
func shortened(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// URL returns the URL that the ACME server requests.
func URL(name, token string) string {
	if addr, err := netip.ParseAddr(name); err == nil && addr.Is6() {
		name = "[" + name + "]"
	}
	return (&url.URL{Scheme: "http", Host: name, Path: acme.HTTP01Path(token)}).String()
}

// redirect allows the redirects that ACME servers follow: to ports 80 and 443.
func redirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return refusal(fmt.Sprintf("more than %d redirects", maxRedirects))
	}
	if port := r.URL.Port(); port != "" && port != "80" && port != "443" {
		return refusal(fmt.Sprintf("redirected to port %s, where ACME servers do not follow", port))
	}
	return nil
}

// refusal says why a redirect is not followed.
type refusal string

// Error returns the text of the refusal.
func (r refusal) Error() string { return string(r) }

// cause leaves out the URL, because the caller names it, and what a server sent that does not speak
// HTTP: any user that requests certificates chooses the host, and could read from internal
// services.
func cause(err error) error {
	var r refusal
	if errors.As(err, &r) {
		return r
	}
	return egress.NoReplyReason(err)
}
