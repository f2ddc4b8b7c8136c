package acme

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultTimeout is how long one exchange may take.
	DefaultTimeout = 30 * time.Second
	// maxBody is the maximum size of a reply. An order of 100 names takes 20 kB, a chain less than 95
	// kB.
	maxBody = 512 << 10
	// maxNonceTries is the maximum number of attempts for a request if the server refuses each nonce.
	maxNonceTries = 20
	// directoryLife is how long a directory is used before it is fetched again.
	directoryLife = time.Hour
	// sameTime is the largest difference at which two clocks count as equal: a Date header has a
	// precision of one second, and its reply takes time to arrive.
	sameTime = 2 * time.Second
	// maxNonces is the maximum number of unused nonces to keep.
	maxNonces = 64
)

// Client sends requests to the CA of one directory. It is safe for concurrent use. Only Directory
// must be set.
type Client struct {
	// Directory is the URL of the directory resource, section 7.1.1. It must be https.
	Directory string
	// HTTP sends the requests: it says which roots are trusted and which proxy is used. If nil, those
	// of the system and of the environment (SSL_CERT_FILE, HTTPS_PROXY). Its CheckRedirect is not
	// called: the Client refuses redirects.
	HTTP *http.Client
	// UserAgent is sent with each request, as section 6.1 requires. It should name the program and its
	// version.
	UserAgent string
	// Timeout bounds one exchange. DefaultTimeout if zero.
	Timeout time.Duration
	// Now is the clock. time.Now if nil.
	Now func() time.Time
	// Before, if set, is called before each HTTP exchange. If it returns an error, nothing is sent,
	// and the call returns that error.
	Before func(context.Context) error
	// Observe, if set, is called after each HTTP exchange. It must not block.
	Observe func(Exchange)

	mu      sync.Mutex
	dir     *Directory
	fetched time.Time
	nonces  []string
}

// Exchange is one HTTP request and its result.
type Exchange struct {
	// Action is the requested resource, such as "newOrder" or "authorization". It has a bounded number
	// of values.
	Action string
	// Scheme, Host and Method are those of the request.
	Scheme, Host, Method string
	// Status is the HTTP status, or 0 if there was no reply.
	Status int
	// Duration is the time until the reply was read.
	Duration time.Duration
	// RetryAfter is the time from the Retry-After field of the reply, or zero.
	RetryAfter time.Time
}

// Reply holds the header fields of a reply.
type Reply struct {
	// Location is the URL of the resource, if the server sent one.
	Location string `json:"-"`
	// RetryAfter is when to repeat the request, or zero if the server did not say.
	RetryAfter time.Time `json:"-"`
	// Links are the links of the reply, RFC 8288.
	Links []Link `json:"-"`
}

// NoReply is the error of a request that was sent and whose reply is missing or incomplete. The
// server may have executed the request.
type NoReply struct {
	// Action is the requested resource.
	Action string
	Err    error
}

func (e *NoReply) Error() string { return e.Action + ": " + e.Err.Error() }
func (e *NoReply) Unwrap() error { return e.Err }

// ProtocolError is a reply that violates the protocol.
type ProtocolError struct {
	// Action is the requested resource, and URL its location.
	Action, URL string
	// Reason says what is wrong with the reply.
	Reason string
	// Location is the URL of a new resource that the reply names, although its body cannot be read.
	Location string
}

// Error returns the requested resource and the reason.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s at %s: the reply is not valid ACME: %s", e.Action, e.URL, e.Reason)
}

// ForeignURLError means that a URL, such as that of an order, belongs to another server than the
// client's. No request was sent.
type ForeignURLError struct {
	// Action is the resource to request, and URL its location.
	Action, URL string
	// Reason says why the URL cannot be of this server.
	Reason string
}

// Error returns the resource that was not requested, and why.
func (e *ForeignURLError) Error() string {
	return fmt.Sprintf("%s: a URL that is not of this server: %s", e.Action, e.Reason)
}

// errTooLarge is a reply over maxBody.
var errTooLarge = fmt.Errorf("it is larger than %d KiB", maxBody>>10)

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// message is a reply with its body.
type message struct {
	Reply
	status int
	media  string
	body   []byte
	nonce  string
}

// exchange sends one request and reads the reply. A status of 400 and above is returned as a
// *Problem, together with the message.
func (c *Client) exchange(
	ctx context.Context,
	action, method, target string,
	body []byte,
	accept string,
) (*message, error) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", action, err)
	}
	if request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s: %s is not an https URL", action, target)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/jose+json")
	}
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	agent := "perennial-acme"
	if c.UserAgent != "" {
		agent = c.UserAgent + " " + agent
	}
	request.Header.Set("User-Agent", agent)

	client := http.Client{}
	if c.HTTP != nil {
		client = *c.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	if c.Before != nil {
		if err := c.Before(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", action, err)
		}
	}
	// Durations use the real clock, even if the caller's clock is simulated.
	began := time.Now()
	status := 0
	var retryAfter time.Time
	defer func() {
		if c.Observe != nil {
			c.Observe(Exchange{Action: action, Scheme: request.URL.Scheme, Host: request.URL.Host, Method: method,
				Status: status, Duration: time.Since(began), RetryAfter: retryAfter})
		}
	}()
	var sent atomic.Bool
	request = request.WithContext(
		httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}),
	)
	response, err := client.Do(request)
	if err != nil && sent.Load() {
		return nil, &NoReply{action, err}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", action, err)
	}
	defer response.Body.Close()
	status = response.StatusCode
	m := &message{status: status}
	now := c.now()
	theirs, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil || now.Sub(theirs).Abs() <= sameTime {
		theirs = now
	}
	if at, ok := parseRetryAfter(response.Header.Get("Retry-After"), theirs); ok {
		m.RetryAfter = now.Add(at.Sub(theirs)) // a date is by the server's clock, and ours may be ahead
	}
	retryAfter = m.RetryAfter
	m.Links = parseLinks(response.Header.Values("Link"), request.URL)
	m.Location = response.Header.Get("Location")
	m.media, _, _ = mime.ParseMediaType(response.Header.Get("Content-Type"))
	if nonce := response.Header.Get("Replay-Nonce"); validNonce(nonce) {
		m.nonce = nonce
	}
	if m.body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1)); err == nil {
		err = ctx.Err() // a server that notices the cancellation may end its reply as if it were complete
	}
	switch {
	case err != nil:
		return nil, &NoReply{action, fmt.Errorf("read the reply: %w", err)}
	case len(m.body) > maxBody:
		return nil, &ProtocolError{Action: action, URL: target, Reason: errTooLarge.Error()}
	case status >= 400:
		p := parseProblem(status, m.media, m.body, m.Links)
		p.Action, p.RetryAfter = action, m.RetryAfter
		return m, p
	case status >= 300:
		return nil, &ProtocolError{Action: action, URL: target, Reason: fmt.Sprintf("status %d: redirects are not followed",
			status)}
	}
	return m, nil
}

// Owns returns a *ForeignURLError if a URL cannot be one that this server has handed out. It
// requests at most the directory.
func (c *Client) Owns(ctx context.Context, url string) error {
	return c.owns(ctx, "look at a URL", url)
}

func (c *Client) owns(ctx context.Context, action, target string) error {
	dir, err := c.directory(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if err := dir.origins.check(target); err != nil {
		return &ForeignURLError{action, target, err.Error()}
	}
	return nil
}

// post sends a signed request. A nil payload is a POST-as-GET, section 6.3. If kid is empty, the
// request carries the public key.
func (c *Client) post(
	ctx context.Context,
	action, target string,
	key crypto.Signer,
	kid string,
	payload any,
	accept string,
) (*message, error) {
	var content []byte
	if payload != nil {
		var err error
		if content, err = json.Marshal(payload); err != nil {
			return nil, fmt.Errorf("%s: %w", action, err)
		}
	}
	// A URL that was stored is checked again before it is used.
	if err := c.owns(ctx, action, target); err != nil {
		return nil, err
	}
	nonce := c.takeNonce()
	for try := 1; ; try++ {
		if nonce == "" {
			var err error
			if nonce, err = c.newNonce(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", action, err)
			}
		}
		body, err := signJWS(protected{URL: target, Nonce: nonce, KeyID: kid}, content, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", action, err)
		}
		m, err := c.exchange(ctx, action, http.MethodPost, target, body, accept)
		if m != nil && IsProblem(err, ProblemBadNonce) && try < maxNonceTries {
			// The refusal has a fresh nonce: use it for this request.
			nonce = m.nonce
			continue
		}
		if m != nil {
			c.putNonce(m.nonce)
		}
		if err != nil {
			return nil, err
		}
		if m.Location != "" {
			if m.Location, err = c.resolve(target, m.Location); err != nil {
				return nil, &ProtocolError{Action: action, URL: target, Reason: "Location: " + err.Error()}
			}
		}
		return m, nil
	}
}

// resolve makes a URL absolute and checks its origin.
func (c *Client) resolve(base, raw string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	u, err := b.Parse(raw)
	if err != nil {
		return "", errors.New("not a URL")
	}
	c.mu.Lock()
	o := c.dir.origins
	c.mu.Unlock()
	return u.String(), o.check(u.String())
}

// origins are the scheme, host and port of URLs that a server may hand out.
type origins []string

// maxURL is the maximum length of a server's URL.
const maxURL = 2048

// check reports why an untrusted URL is invalid, if it is.
func (o origins) check(raw string) error {
	if len(raw) > maxURL {
		return errors.New("a URL that is too long")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%q is not a URL", clean(raw, 100))
	case u.Scheme != "https":
		return fmt.Errorf("%s is not an https URL", clean(raw, 200))
	case u.User != nil:
		return errors.New("a URL with a user name")
	case !slices.Contains(o, origin(u)):
		return fmt.Errorf("%s is not on a host that the directory names", clean(raw, 200))
	}
	return nil
}

func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return strings.ToLower(u.Scheme + "://" + u.Hostname() + ":" + port)
}

// decode reads a JSON body.
func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("not the JSON that was expected: %s", clean(err.Error(), 200))
	}
	return nil
}

// invalid wraps a non-nil error in a ProtocolError.
func invalid(action, target string, err error) error {
	if err == nil {
		return nil
	}
	return &ProtocolError{Action: action, URL: target, Reason: err.Error()}
}
