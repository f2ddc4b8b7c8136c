package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Statuses of accounts, orders, authorizations and challenges, section 7.1.6.
const (
	StatusPending     = "pending"
	StatusReady       = "ready"
	StatusProcessing  = "processing"
	StatusValid       = "valid"
	StatusInvalid     = "invalid"
	StatusDeactivated = "deactivated"
	StatusExpired     = "expired"
	StatusRevoked     = "revoked"
)

// OrderRequest holds the parameters of a new order, section 7.4.
type OrderRequest struct {
	Identifiers []Identifier `json:"identifiers"`
	// NotBefore and NotAfter request a validity period. Many CAs refuse an order that has them.
	NotBefore *time.Time `json:"notBefore,omitempty"`
	NotAfter  *time.Time `json:"notAfter,omitempty"`
	// Profile is one of Meta.Profiles.
	Profile string `json:"profile,omitempty"`
	// Replaces is the CertID of the certificate that the new one is to replace, RFC 9773 section 5.
	Replaces string `json:"replaces,omitempty"`
}

// Order is a request for a certificate, section 7.1.3.
type Order struct {
	// URL identifies the order.
	URL string `json:"-"`
	// Status is pending, ready, processing, valid or invalid.
	Status string `json:"status"`
	// Expires is when the server expires an order that is not valid.
	Expires     *time.Time   `json:"expires,omitempty"`
	Identifiers []Identifier `json:"identifiers"`
	NotBefore   *time.Time   `json:"notBefore,omitempty"`
	NotAfter    *time.Time   `json:"notAfter,omitempty"`
	Profile     string       `json:"profile,omitempty"`
	// Replaces is the CertID of the order request, if the server returns it.
	Replaces string `json:"replaces,omitempty"`
	// Error says why the order is invalid.
	Error *Problem `json:"error,omitempty"`
	// Authorizations are URLs, in no particular order.
	Authorizations []string `json:"authorizations"`
	// Finalize is the URL to send the CSR to.
	Finalize string `json:"finalize"`
	// Certificate is the URL of the certificate when the status is valid.
	Certificate string `json:"certificate,omitempty"`
	Reply       `json:"-"`
}

// NewOrder creates an order. The order may be ready at once, and for an identical request the
// server may return an existing order.
func (c *Client) NewOrder(ctx context.Context, a Account, r OrderRequest) (Order, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Order{}, err
	}
	m, err := c.post(ctx, "newOrder", dir.NewOrder, a.Key, a.URL, r, "")
	if err != nil {
		return Order{}, err
	}
	if m.Location == "" {
		return Order{}, &ProtocolError{Action: "newOrder", URL: dir.NewOrder,
			Reason: "there is no Location, which is the order's URL"}
	}
	o, err := c.order(m, "newOrder", m.Location, dir)
	var wrong *ProtocolError
	if errors.As(err, &wrong) && !json.Valid(m.body) {
		wrong.Location = m.Location // the caller can read the order again there
	}
	return o, err
}

// Order reads an order by POST-as-GET, section 7.1.3. While the order is processing, call it again
// after the RetryAfter.
func (c *Client) Order(ctx context.Context, a Account, url string) (Order, error) {
	m, err := c.post(ctx, "order", url, a.Key, a.URL, nil, "")
	if err != nil {
		return Order{}, err
	}
	return c.orderAt(ctx, m, "order", url)
}

// Finalize sends the CSR for an order that is ready. It does not wait: the returned order is
// processing or valid. If the order is not ready, the error is a Problem of type orderNotReady:
// read the order and follow its status.
func (c *Client) Finalize(ctx context.Context, a Account, o Order, csrDER []byte) (Order, error) {
	m, err := c.post(ctx, "finalize", o.Finalize, a.Key, a.URL, struct {
		CSR string `json:"csr"`
	}{encode(csrDER)}, "")
	if err != nil {
		return Order{}, err
	}
	return c.orderAt(ctx, m, "finalize", o.URL)
}

func (c *Client) orderAt(ctx context.Context, m *message, action, url string) (Order, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Order{}, err
	}
	return c.order(m, action, url, dir)
}

func (c *Client) order(m *message, action, url string, dir *Directory) (Order, error) {
	o, err := parseOrder(m.body, dir.origins)
	if err != nil {
		return Order{}, invalid(action, url, err)
	}
	o.URL, o.Reply = url, m.Reply
	return o, nil
}

func parseOrder(body []byte, from origins) (Order, error) {
	var o Order
	if err := decode(body, &o); err != nil {
		return Order{}, err
	}
	switch o.Status {
	case StatusPending, StatusReady, StatusProcessing, StatusValid, StatusInvalid:
	default:
		return Order{}, fmt.Errorf("%q is no status of an order", clean(o.Status, 40))
	}
	if len(o.Identifiers) == 0 {
		return Order{}, errors.New("the order has no identifiers")
	}
	for _, u := range o.Authorizations {
		if err := from.check(u); err != nil {
			return Order{}, fmt.Errorf("authorizations: %w", err)
		}
	}
	if err := from.check(o.Finalize); err != nil {
		return Order{}, fmt.Errorf("finalize: %w", err)
	}
	if o.Status == StatusValid || o.Certificate != "" {
		if err := from.check(o.Certificate); err != nil {
			return Order{}, fmt.Errorf("certificate: %w", err)
		}
	}
	return o, nil
}
