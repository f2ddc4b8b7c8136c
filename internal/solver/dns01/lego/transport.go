package lego

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perennial-pki/perennial/internal/outside"
)

const (
	// requestTimeout bounds one request to a service, and maxReply bounds its answer.
	requestTimeout = 30 * time.Second
	maxReply       = 16 << 20 // some services always return the whole zone
	maxRedirects   = 3
	maxSaid        = 64 << 10 // of an answer in which an error is looked for
)

// exchange records the last answer of the service in one call, because lego's errors contain only
// its text.
type exchange struct {
	mu         sync.Mutex
	status     int
	retryAfter string
	// from is the host that answered, and said is the beginning of its answer. They are set for hosts
	// whose answers must not appear in messages.
	from string
	said []byte
	// quiet says that such a host has answered during this call.
	quiet bool
}

// begin resets the record for a new request.
func (x *exchange) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.retryAfter, x.from, x.said = 0, "", "", nil
}

func (x *exchange) note(status int, retryAfter string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.retryAfter = status, retryAfter
}

func (x *exchange) hush(from string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.from, x.quiet = from, true
}

func (x *exchange) hear(said []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.said = append(x.said, said[:min(len(said), maxSaid-len(x.said))]...)
}

// told returns the error text of a failed call to a host that the author of an issuer has named. It
// has only the status and the error text of outside.Problem. Otherwise the author could read from
// services that only this process can reach.
func (x *exchange) told(name string, err error) string {
	if x.status == 0 {
		if u := new(url.Error); errors.As(err, &u) {
			return fmt.Sprintf("%s: %s", name, outside.NoAnswer(u.Err))
		}
		return fmt.Sprintf("%s: lego gave up after the service had answered", name)
	}
	text := fmt.Sprintf("%s: %s answers with status %d", name, x.from, x.status)
	if x.status < 300 {
		text = fmt.Sprintf("%s: the answers of %s are not what lego expects", name, x.from)
	}
	if said := outside.Problem(x.said); said != "" {
		text += ": " + said
	}
	return text
}

type exchangeKey struct{}

// door is the transport of a provider's requests.
type door struct {
	http.RoundTripper
	// known are the hosts whose answers may appear in messages. If tells is set, all hosts' answers
	// may.
	known []string
	tells bool
	// running is the exchange of the call that is under way. Some of lego's requests do not have its
	// context.
	running atomic.Pointer[exchange]
}

// newClient makes the HTTP client of a provider from its settings and the rights of their author.
func newClient(k *kind, v values, by Author, reach outside.Reach) (*http.Client, *door, error) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxConnsPerHost = 4
	base.TLSClientConfig = &tls.Config{InsecureSkipVerify: v.flag("insecureSkipVerify")} //nolint:gosec // the user says so
	pair, err := clientCertificate(v)
	if err != nil {
		return nil, nil, err
	}
	if pair != nil {
		base.TLSClientConfig.Certificates = []tls.Certificate{*pair}
	}
	d := &door{RoundTripper: reach.Transport(base), known: k.hosts, tells: by != Tenant}
	return &http.Client{
		Timeout:   requestTimeout,
		Transport: d,
		// Never send credentials to another host.
		CheckRedirect: func(r *http.Request, before []*http.Request) error {
			if last := before[len(before)-1].URL; len(before) > maxRedirects || r.URL.Host != last.Host ||
				r.URL.Scheme != last.Scheme {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, d, nil
}

// quiet reports whether the call that is under way has an answer that must not appear in messages.
func (d *door) quiet() bool {
	x := d.running.Load()
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.quiet
}

func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = d.running.Load()
	}
	if x == nil {
		x = &exchange{} // the request belongs to no call
	}
	x.begin()
	told := d.tells || slices.Contains(d.known, strings.ToLower(r.URL.Hostname()))
	response, err := d.RoundTripper.RoundTrip(r)
	if err != nil {
		if !told {
			err = outside.NoAnswer(err)
		}
		return nil, err
	}
	x.note(response.StatusCode, response.Header.Get("Retry-After"))
	body := &capped{ReadCloser: response.Body, left: maxReply}
	if !told {
		x.hush(r.URL.Scheme + "://" + r.URL.Host)
		body.hear = x.hear
	}
	response.Body = body
	return response, nil
}

// capped is a response body that fails when it is too long.
type capped struct {
	io.ReadCloser
	left int
	hear func([]byte) // may be nil
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxReply)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	if c.hear != nil {
		c.hear(p[:n])
	}
	return n, err
}
