package outside

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Transport makes that of requests to hosts that others name, within their reach.
func (r Reach) Transport(base *http.Transport) http.RoundTripper {
	if r.anywhere {
		return base
	}
	direct := base.Clone()
	direct.Proxy = nil
	dialer := r.Dialer()
	dialer.Timeout = dialTimeout
	direct.DialContext = dialer.DialContext
	return &guarded{direct: direct, proxied: base, reach: r}
}

// dialTimeout bounds one attempt to connect.
const dialTimeout = 30 * time.Second

type guarded struct {
	direct, proxied *http.Transport
	reach           Reach
}

// CloseIdleConnections is that of http.Client.
func (o *guarded) CloseIdleConnections() {
	o.direct.CloseIdleConnections()
	o.proxied.CloseIdleConnections()
}

func (o *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.proxied.Proxy != nil {
		proxy, err := o.proxied.Proxy(r)
		if err != nil {
			return nil, err
		}
		if proxy != nil { // which alone knows where names lead
			if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !o.reach.Allows(a) {
				return nil, &Refused{a.Unmap().WithZone("")}
			}
			return o.proxied.RoundTrip(r)
		}
	}
	return o.direct.RoundTrip(r)
}

// NoAnswer says why a request got no answer. It tells nothing of what came in its place: where an
// issuer names the host, its author would read by that from services that only this process can
// reach, and that speak something else than HTTP.
func NoAnswer(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &op):
		return op
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("it does not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closes the connection without an answer")
	}
	return errors.New("it does not answer as an HTTP server does")
}

// Problem is what the body of an error says: a JSON object with a text in one of the entries in
// which services say it. Other bodies are not told, nor are other entries, for the same reason as
// in NoAnswer.
func Problem(body []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return ""
	}
	var said []string
	for _, name := range []string{"title", "detail", "error", "error_description", "message", "errorMessage", "msg"} {
		text := ""
		var below struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(fields[name], &text) != nil && json.Unmarshal(fields[name], &below) == nil {
			text = below.Message
		}
		if text = strings.TrimSpace(text); text != "" && !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	return strings.Join(said, ": ")
}

const (
	// limitedFor is how long we stay away from a service that says that we ask too much, and not for
	// how long.
	limitedFor = time.Minute
	// maxLimited is how long we stay away at most, whatever it says.
	maxLimited = time.Hour
)

// RetryAt is when a service wants to be asked again, at most an hour from now: by its Retry-After,
// in seconds or as a date.
func RetryAt(retryAfter string, now time.Time) time.Time {
	wait := limitedFor
	if seconds, err := strconv.Atoi(retryAfter); err == nil {
		wait = time.Duration(min(max(seconds, 1), int(maxLimited/time.Second))) * time.Second
	} else if at, err := http.ParseTime(retryAfter); err == nil {
		wait = at.Sub(now)
	}
	return now.Add(min(max(wait, time.Second), maxLimited))
}
