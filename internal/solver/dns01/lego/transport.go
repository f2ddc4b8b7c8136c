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

	"github.com/perennial-pki/perennial/internal/egress"
)

const (
	// requestTimeout bounds one request to a service, and maxReply bounds its answer.
	requestTimeout = 30 * time.Second
	maxReply       = 16 << 20 // some services always return the whole zone
	maxRedirects   = 3
	maxKept        = 64 << 10 // of an answer in which an error is looked for
)

// exchange records the last answer of the service in one call, because lego's errors contain only
// its text.
type exchange struct {
	mu         sync.Mutex
	status     int
	retryAfter string
	// host is the host that answered, and body is the beginning of its answer. They are set for hosts
	// whose answers must not appear in messages.
	host string
	body []byte
	// hidden says that such a host has answered during this call.
	hidden bool
}

// begin resets the record for a new request.
func (x *exchange) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.retryAfter, x.host, x.body = 0, "", "", nil
}

// note stores the status of an answer.
func (x *exchange) note(status int, retryAfter string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.retryAfter = status, retryAfter
}

// hide says that the answer is of a host whose answers must not appear in messages.
func (x *exchange) hide(host string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.host, x.hidden = host, true
}

// keep stores a part of the answer.
func (x *exchange) keep(body []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.body = append(x.body, body[:min(len(body), maxKept-len(x.body))]...)
}

// hiddenError returns the error text of a failed call to a host that the author of an issuer has
// named. It has only the status and the error text of egress.ErrorText. Otherwise the author could
// read from services that only this process can reach.
func (x *exchange) hiddenError(name string, err error) string {
	if x.status == 0 {
		if u := new(url.Error); errors.As(err, &u) {
			return fmt.Sprintf("%s: %s", name, egress.NoReplyReason(u.Err))
		}
		return fmt.Sprintf("%s: lego gave up after the service had answered", name)
	}
	text := fmt.Sprintf("%s: %s answers with status %d", name, x.host, x.status)
	if x.status < 300 {
		text = fmt.Sprintf("%s: the answers of %s are not what lego expects", name, x.host)
	}
	if problem := egress.ErrorText(x.body); problem != "" {
		text += ": " + problem
	}
	return text
}

type exchangeKey struct{}

// transport is the transport of a provider's requests.
type transport struct {
	http.RoundTripper
	// knownHosts are the hosts whose answers may appear in messages. If showsAll is set, all hosts'
	// answers may.
	knownHosts []string
	showsAll   bool
	// running is the exchange of the call that is under way. Some of lego's requests do not have its
	// context.
	running atomic.Pointer[exchange]
}

// newClient makes the HTTP client of a provider from its settings and the rights of their author.
func newClient(k *kind, v values, by Author, reach egress.Reach) (*http.Client, *transport, error) {
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
	d := &transport{RoundTripper: reach.Transport(base), knownHosts: k.hosts, showsAll: by != Tenant}
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

// isHidden reports whether the call that is under way has an answer that must not appear in
// messages.
func (d *transport) isHidden() bool {
	x := d.running.Load()
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.hidden
}

// RoundTrip sends a request and records its answer.
func (d *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = d.running.Load()
	}
	if x == nil {
		x = &exchange{} // the request belongs to no call
	}
	x.begin()
	shown := d.showsAll || slices.Contains(d.knownHosts, strings.ToLower(r.URL.Hostname()))
	response, err := d.RoundTripper.RoundTrip(r)
	if err != nil {
		if !shown {
			err = egress.NoReplyReason(err)
		}
		return nil, err
	}
	x.note(response.StatusCode, response.Header.Get("Retry-After"))
	body := &capped{ReadCloser: response.Body, left: maxReply}
	if !shown {
		x.hide(r.URL.Scheme + "://" + r.URL.Host)
		body.keep = x.keep
	}
	response.Body = body
	return response, nil
}

// capped is a response body that fails when it is too long.
type capped struct {
	io.ReadCloser
	left int
	keep func([]byte) // may be nil
}

// Read reads the answer up to the limit.
func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxReply)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	if c.keep != nil {
		c.keep(p[:n])
	}
	return n, err
}
