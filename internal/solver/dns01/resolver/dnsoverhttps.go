package resolver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/egress"
)

// defaultHTTPSClient is the client for DNS over HTTPS. It does not follow redirects, because a user
// names a server, and not other hosts.
var defaultHTTPSClient = NewHTTPSClient(egress.Anywhere())

// NewHTTPSClient makes a client for DNS servers with URLs within reach.
func NewHTTPSClient(reach egress.Reach) *http.Client {
	return &http.Client{
		Transport:     reach.Transport(http.DefaultTransport.(*http.Transport).Clone()),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// exchangeHTTPS sends a query by RFC 8484.
func exchangeHTTPS(ctx context.Context, client *http.Client, server string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	const media = "application/dns-message"
	q.Id = 0 // section 4.1
	packed, err := q.Pack()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", media)
	request.Header.Set("Accept", media)
	response, err := client.Do(request)
	if err != nil {
		return nil, requestError(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return nil, fmt.Errorf(
			"status %d: it redirects, and redirects are not followed: name the URL that answers",
			response.StatusCode,
		)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || kind != media {
		return nil, fmt.Errorf("it does not answer with %s: is that the URL of a DNS server?", media)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDoH+1))
	if err = cmp.Or(err, ctx.Err()); err != nil { // at the deadline a body may look complete
		return nil, err
	}
	if len(body) > maxDoH {
		return nil, errors.New("the answer is too long")
	}
	m := new(dns.Msg)
	if err := m.Unpack(body); err != nil {
		return nil, fmt.Errorf("the answer cannot be read: %w", err)
	}
	if m.Truncated { // no other transport returns a longer answer
		return nil, errors.New("the answer is cut off")
	}
	return m, nil
}
