package dns01

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// maxReply is the most that is read of a reply.
	maxReply = 4 << 20
	// maxProblem is the most that is told of an error.
	maxProblem = 300
	// maxPages is the most pages of a list that are read.
	maxPages = 50
	// limitedFor is how long we stay away from an API that says that we ask too much, and not for how long.
	limitedFor = time.Minute
)

// rest is a JSON API over HTTP.
type rest struct {
	// name is how people call the service, for messages.
	name string
	base string
	// header has the credentials.
	header http.Header
	client *http.Client
	now    func() time.Time
	// problem finds the text of an error in its body. The body itself if nil.
	problem func(body []byte) string
	// refused makes the error of a status that is not 2xx. What such statuses usually mean if nil.
	refused func(ctx context.Context, code int, body []byte) error
}

// restClient sends the requests of all APIs. Redirects would carry credentials elsewhere.
var restClient = &http.Client{
	Timeout:       attempt,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// do sends a request and decodes its answer. The error of a status is a fault of its class; status is that of the answer.
func (r *rest) do(ctx context.Context, method, path string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return 0, err
	}
	maps.Copy(request.Header, r.header)
	request.Header.Set("User-Agent", "perennial")
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	client := r.client
	if client == nil {
		client = restClient
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fault.Transientf("PresentError", "%s cannot be reached: %w", r.name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return response.StatusCode, fault.Transientf("PresentError", "read the answer of %s: %w", r.name, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		if r.refused != nil {
			return response.StatusCode, r.refused(ctx, response.StatusCode, text)
		}
		return response.StatusCode, r.refusal(response, text)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			return response.StatusCode, fault.Transientf("PresentError", "%s answers with something else than JSON: %w", r.name, err)
		}
	}
	return response.StatusCode, nil
}

// refusal says what a status means for the next attempt.
func (r *rest) refusal(response *http.Response, body []byte) error {
	text := string(body)
	if r.problem != nil {
		text = r.problem(body)
	}
	text = brief(text)
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fault.Misconfiguredf("PresentError", "%s refuses the credentials (status %d): %s. Correct the Secret, or what its token may do", r.name, code, text)
	case code == http.StatusTooManyRequests:
		wait := limitedFor
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
			wait = min(time.Duration(seconds)*time.Second, time.Hour)
		}
		return fault.Limitedf("PresentError", r.now().Add(wait), "%s says that it is asked too much: %s", r.name, text)
	case code >= 500:
		return fault.Transientf("PresentError", "%s is in trouble (status %d): %s", r.name, code, text)
	default:
		return fault.Misconfiguredf("PresentError", "%s refuses the request (status %d): %s", r.name, code, text)
	}
}

// brief makes the text of others fit for one line of ours.
func brief(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, ""))
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return strings.TrimSpace(text)
}

// apexes are the names of the zones that a record may be in, the longest first: where DNS says the apex is, and then, as the controller may
// see other zones than the service has, from the name upwards.
func apexes(r Record) []string {
	all := []string{strings.TrimSuffix(r.Zone, ".")}
	for name := strings.TrimSuffix(r.FQDN, "."); strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		if name != all[0] {
			all = append(all, name)
		}
	}
	return all
}

// unquoted is a TXT value as some services return it, with quotes.
func unquoted(s string) string { return strings.Trim(s, `"`) }
