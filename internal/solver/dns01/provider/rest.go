package provider

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/version"
)

const (
	// maxReply bounds the part of a reply that is read.
	maxReply = 4 << 20
	// maxProblem bounds the text of an error in messages.
	maxProblem = 300
	// maxPages bounds the pages of a list that are read.
	maxPages = 50
)

// rest is a JSON API over HTTP.
type rest struct {
	// name is the name of the service in messages.
	name string
	base string
	// header has the credentials, unless sign adds them to a request with this body.
	header http.Header
	sign   func(request *http.Request, body []byte) error
	client *http.Client
	now    func() time.Time
	// problem finds the text of an error in its body. If it is nil or finds nothing, egress.ErrorText
	// does.
	problem func(body []byte) string
	// refused makes the error of a status that is not 2xx. If nil, refusal does.
	refused func(ctx context.Context, code int, body []byte) error
	// credentials says where the credentials are, in messages about a refusal. If empty, it is "the
	// Secret".
	credentials string
	// secrets are removed from error texts, because a service may repeat them. The header that sign
	// adds is also removed.
	secrets []string
	// busy reports whether a refusal with a status other than 429 is a rate limit. It may be nil.
	busy func(body []byte) bool
}

type call struct {
	method, path string
	// header is set besides the credentials.
	header http.Header
	// in is sent, and the answer is decoded to out, unless they are nil.
	in, out any
	// needs is the permission that the credentials need, in the terms of the service. It may be empty.
	needs string
	// isDone reports whether a refusal means that there is nothing to do. It may be nil.
	isDone func(status int, body []byte) bool
	// isConflict reports whether a refusal is an errConflict. It may be nil.
	isConflict func(status int, body []byte) bool
}

// restClient sends the requests of all APIs, and those for their credentials.
var restClient = newRestClient(egress.Anywhere())

// newRestClient makes a client that does not follow redirects, because they would send credentials
// to other hosts.
func newRestClient(reach egress.Reach) *http.Client {
	return &http.Client{
		Timeout:       Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     capped{reach.Transport(http.DefaultTransport.(*http.Transport).Clone())},
	}
}

// capped bounds the length of answers, also of those that a library reads.
type capped struct{ http.RoundTripper }

// RoundTrip sends a request and bounds its answer.
func (c capped) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	capBody(response)
	return response, nil
}

func capBody(response *http.Response) {
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxReply), response.Body}
}

// do sends a request and decodes the answer. It returns the status of the answer. The error for a
// status has a class of package fault.
func (r *rest) do(ctx context.Context, method, path string, in, out any) (status int, err error) {
	return r.send(ctx, call{method: method, path: path, in: in, out: out})
}

// send is do with more options.
func (r *rest) send(ctx context.Context, c call) (status int, err error) {
	request, err := r.request(ctx, c)
	if err != nil {
		return 0, err
	}
	response, err := cmp.Or(r.client, restClient).Do(request)
	if err != nil {
		if err = egress.NoReplyReason(err); egress.IsBlockedAddress(err) {
			return 0, fault.Misconfiguredf(
				"PresentError", "%s cannot be reached: %w: %s", r.name, err, egress.BlockedAddressAdvice,
			)
		}
		return 0, fault.Transientf("PresentError", "%s cannot be reached: %w", r.name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return response.StatusCode, fault.Transientf("PresentError", "read the answer of %s: %w", r.name, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return response.StatusCode, r.refusalOf(ctx, c, response, text)
	}
	if c.out != nil {
		if err := json.Unmarshal(text, c.out); err != nil {
			return response.StatusCode, fault.Transientf(
				"PresentError",
				"%s answers with something else than JSON: %w",
				r.name,
				err,
			)
		}
	}
	return response.StatusCode, nil
}

// request makes the request of a call, with credentials.
func (r *rest) request(ctx context.Context, c call) (*http.Request, error) {
	var body []byte
	if c.in != nil {
		var err error
		if body, err = json.Marshal(c.in); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, c.method, r.base+c.path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, r.header)
	maps.Copy(request.Header, c.header)
	request.Header.Set("User-Agent", version.UserAgent("perennial"))
	request.Header.Set("Accept", "application/json")
	if c.in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.sign != nil {
		if err := r.sign(request, body); err != nil {
			return nil, err
		}
	}
	hasControl := func(v string) bool { return strings.ContainsFunc(v, unicode.IsControl) }
	for _, values := range request.Header {
		if slices.ContainsFunc(values, hasControl) { // the error would say that the service does not answer
			return nil, fault.Misconfiguredf(
				"PresentError",
				"the credentials for %s cannot be sent, as there is a line break or another control character in them. Correct %s",
				r.name,
				r.from(),
			)
		}
	}
	return request, nil
}

// refusalOf returns the error of a call whose status is not 2xx, or nil if there is nothing to do.
func (r *rest) refusalOf(ctx context.Context, c call, response *http.Response, body []byte) error {
	status := response.StatusCode
	if c.isDone != nil && c.isDone(status, body) {
		return nil
	}
	if r.refused != nil {
		return r.refused(ctx, status, body)
	}
	err := r.refusal(response, body, c.needs)
	if c.isConflict != nil && c.isConflict(status, body) {
		return fmt.Errorf("%w: %w", errConflict, err)
	}
	return err
}

// isStatus reports whether a refusal has one of these statuses.
func isStatus(statuses ...int) func(int, []byte) bool {
	return func(status int, _ []byte) bool { return slices.Contains(statuses, status) }
}

// refusal returns the error for a status, with its class.
func (r *rest) refusal(response *http.Response, body []byte, needs string) error {
	text := ""
	if r.problem != nil {
		text = r.problem(body)
	}
	if text = r.redact(response, cmp.Or(text, egress.ErrorText(body))); text != "" {
		text = ": " + text
	}
	after := response.Header.Get("Retry-After")
	switch code := response.StatusCode; {
	case code == http.StatusTooManyRequests || r.busy != nil && r.busy(body):
		return fault.Limitedf(
			"PresentError",
			egress.RetryAt(after, r.now()),
			"%s says that it is asked too much%s",
			r.name,
			text,
		)
	case code == http.StatusServiceUnavailable && after != "":
		return fault.Limitedf(
			"PresentError",
			egress.RetryAt(after, r.now()),
			"%s is in trouble (status %d)%s",
			r.name,
			code,
			text,
		)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		may := "what its token may do"
		if needs != "" {
			may = "allow them " + needs
		}
		return fault.Misconfiguredf(
			"PresentError",
			"%s refuses the credentials (status %d)%s. Correct %s, or %s",
			r.name,
			code,
			text,
			r.from(),
			may,
		)
	case code >= 500:
		return fault.Transientf("PresentError", "%s is in trouble (status %d)%s", r.name, code, text)
	default:
		return fault.Misconfiguredf("PresentError", "%s refuses the request (status %d)%s", r.name, code, text)
	}
}

// from says where the credentials are.
func (r *rest) from() string { return cmp.Or(r.credentials, "the Secret") }

// redact returns the error text of a service as one line, without the credentials of the request.
func (r *rest) redact(response *http.Response, text string) string {
	secrets := slices.Clone(r.secrets)
	if response.Request != nil {
		_, sent, _ := strings.Cut(response.Request.Header.Get("Authorization"), " ")
		secrets = append(secrets, sent)
	}
	return brief(egress.Redact(text, secrets...))
}

// brief returns an untrusted text as one line.
func brief(text string) string { return egress.SingleLine(text, maxProblem) }

// oauthError returns the text of an error of an OAuth token endpoint, RFC 6749 section 5.2. It is
// empty if the body has none.
func oauthError(body []byte) string {
	var reply struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &reply) != nil || reply.Error == "" {
		return ""
	}
	return strings.TrimSpace(reply.Error + ": " + reply.Description)
}

// tokenRefusal is the error of a service that gives no token for the credentials.
func (r *rest) tokenRefusal(name string, response *http.Response, body []byte) error {
	tokens := rest{name: name, credentials: r.credentials, secrets: r.secrets, now: r.now, problem: oauthError}
	if response.StatusCode == http.StatusBadRequest { // RFC 6749 section 5.2: also for a key that is unknown
		return fault.Misconfiguredf(
			"PresentError",
			"%s gives no token for the credentials: %s. Correct %s",
			name,
			r.redact(response, cmp.Or(oauthError(body), egress.ErrorText(body), "it does not say why")),
			r.credentials,
		)
	}
	return tokens.refusal(response, body, "to get tokens")
}
