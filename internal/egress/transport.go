package egress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Transport returns a transport for requests to hosts that users name. It connects only within the
// reach.
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

// CloseIdleConnections closes the idle connections of both transports, for http.Client.
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
		if proxy != nil { // the proxy alone resolves names
			if a, ok := addressOf(r.URL.Hostname()); ok && !o.reach.Allows(a) {
				return nil, &BlockedAddressError{a.Unmap().WithZone("")}
			}
			return o.proxied.RoundTrip(r)
		}
	}
	return o.direct.RoundTrip(r)
}

// NoReplyReason returns the reason why a request got no answer. It repeats nothing that the host
// sent: the author of an issuer could otherwise read from services that only this process can reach
// and that do not speak HTTP.
func NoReplyReason(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	var refused *BlockedAddressError
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

// ErrorText returns the error text in the JSON body of an error response, from one of the entries
// that services commonly use. Nothing else of a body is returned, for the reason given at
// NoReplyReason.
func ErrorText(body []byte) string {
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
	// limitedFor is how long the controller waits after a rate-limit response without Retry-After.
	limitedFor = time.Minute
	// maxLimited bounds the wait that a Retry-After asks for.
	maxLimited = time.Hour
)

// RetryAt returns when to ask a service again by its Retry-After, in seconds or as a date, at most
// an hour from now.
func RetryAt(retryAfter string, now time.Time) time.Time {
	wait := limitedFor
	if seconds, err := strconv.Atoi(retryAfter); err == nil {
		wait = time.Duration(min(max(seconds, 1), int(maxLimited/time.Second))) * time.Second
	} else if at, err := http.ParseTime(retryAfter); err == nil {
		wait = at.Sub(now)
	}
	return now.Add(min(max(wait, time.Second), maxLimited))
}
