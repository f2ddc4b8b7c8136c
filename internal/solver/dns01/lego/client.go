package lego

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
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// requestTimeout bounds one request to a service, and maxReply what is read of its answer.
	requestTimeout = 30 * time.Second
	maxReply       = 16 << 20 // of services that have no other answer than the whole zone
	maxRedirects   = 3
	// limitedFor is how long we stay away from a service that says that we ask too much, and not for how long.
	limitedFor = time.Minute
)

// errLocal is why an address is not connected to.
var errLocal = errors.New("the address is one of this machine, or of its network's metadata service, which providers may not be at")

// notPublic are addresses of metadata services that no property of the address tells.
var notPublic = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16")}

// forbidden reports whether an issuer must not make us connect to an address. Addresses of private networks are allowed: there are DNS
// servers with an API.
func forbidden(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return true
	}
	for _, n := range notPublic {
		if a == n {
			return true
		}
	}
	return false
}

// exchange is what the service answered last in one call, of which lego's errors tell only the text.
type exchange struct {
	mu         sync.Mutex
	status     int
	retryAfter time.Duration
}

func (x *exchange) note(status int, retryAfter time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.status, x.retryAfter = status, retryAfter
}

type exchangeKey struct{}

// door is the transport of a provider's requests.
type door struct {
	direct, proxied http.RoundTripper
	local           bool
}

// newClient makes the HTTP client of one provider. If local is set, it may connect to addresses of this machine.
func newClient(local bool, v values) (*http.Client, error) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxConnsPerHost = 4
	if v.flag("insecureSkipVerify") {
		base.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the user says so
	}
	if v["tlsCert"] != "" || v["tlsKey"] != "" {
		pair, err := tls.X509KeyPair([]byte(v["tlsCert"]), []byte(v["tlsKey"]))
		if err != nil {
			return nil, errors.New("tlsCert and tlsKey are no certificate and its key, in PEM")
		}
		base.TLSClientConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	direct := base.Clone()
	direct.Proxy = nil
	if !local {
		// The address is judged when it is connected to: a name may lead elsewhere each time it is looked up.
		direct.DialContext = (&net.Dialer{Timeout: requestTimeout, ControlContext: func(_ context.Context, _, at string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(at)
			if err != nil || forbidden(a.Addr()) {
				return errLocal
			}
			return nil
		}}).DialContext
	}
	return &http.Client{
		Timeout:   requestTimeout,
		Transport: &door{direct: direct, proxied: base, local: local},
		// Credentials stay with the host that they are for.
		CheckRedirect: func(r *http.Request, before []*http.Request) error {
			if last := before[len(before)-1].URL; len(before) > maxRedirects || r.URL.Host != last.Host || r.URL.Scheme != last.Scheme {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, nil
}

func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = &exchange{} // of nobody
	}
	x.note(0, 0)
	through := d.direct
	proxy, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !d.local && forbidden(a) {
			return nil, errLocal
		}
		through = d.proxied
	}
	response, err := through.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	wait := limitedFor
	if n, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && n > 0 {
		wait = min(time.Duration(n)*time.Second, time.Hour)
	}
	x.note(response.StatusCode, wait)
	response.Body = &capped{ReadCloser: response.Body, left: maxReply}
	return response, nil
}

// capped is a body that fails when it is too long.
type capped struct {
	io.ReadCloser
	left int
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxReply)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// escaped are the ways in which a secret may stand in a text.
func escaped(s string) []string {
	quoted := strconv.Quote(s)
	return []string{s, url.QueryEscape(s), url.PathEscape(s), quoted[1 : len(quoted)-1]}
}
