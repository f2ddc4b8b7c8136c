package acme

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Authorization is the permission of an account to obtain certificates for an identifier, given or
// still to be proven, section 7.1.4.
type Authorization struct {
	// URL identifies the authorization.
	URL string `json:"-"`
	// Status is pending, valid, invalid, deactivated, expired or revoked.
	Status string `json:"status"`
	// Identifier is the name, without "*." for a wildcard.
	Identifier Identifier `json:"identifier"`
	Wildcard   bool       `json:"wildcard,omitempty"`
	// Expires is the time after which the authorization cannot be used.
	Expires *time.Time `json:"expires,omitempty"`
	// Challenges are the ways to prove control. One valid challenge is enough.
	Challenges []Challenge `json:"challenges"`
	Reply      `json:"-"`
}

// Authorization reads an authorization by POST-as-GET, section 7.5. Until its status is valid or
// invalid, call it again after the RetryAfter.
func (c *Client) Authorization(ctx context.Context, a Account, url string) (Authorization, error) {
	return c.authorization(ctx, a, url, nil)
}

// DeactivateAuthorization deactivates an authorization, section 7.5.2. An order that needs it
// becomes invalid.
func (c *Client) DeactivateAuthorization(ctx context.Context, a Account, url string) (Authorization, error) {
	return c.authorization(ctx, a, url, statusChange{StatusDeactivated})
}

// NewAuthorization creates an authorization without an order (pre-authorization), section 7.4.1.
// Few CAs offer it.
func (c *Client) NewAuthorization(ctx context.Context, a Account, id Identifier) (Authorization, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Authorization{}, err
	}
	if dir.NewAuthz == "" {
		return Authorization{}, unsupported("authorizations without an order")
	}
	m, err := c.post(ctx, "newAuthz", dir.NewAuthz, a.Key, a.URL, struct {
		Identifier Identifier `json:"identifier"`
	}{id}, "")
	if err != nil {
		return Authorization{}, err
	}
	z, err := parseAuthorization(m.body, dir.origins)
	if err != nil {
		return Authorization{}, invalid("newAuthz", dir.NewAuthz, err)
	}
	if m.Location == "" {
		return Authorization{}, &ProtocolError{Action: "newAuthz", URL: dir.NewAuthz,
			Reason: "there is no Location, which is the authorization's URL"}
	}
	z.URL, z.Reply = m.Location, m.Reply
	return z, nil
}

func (c *Client) authorization(ctx context.Context, a Account, url string, payload any) (Authorization, error) {
	m, err := c.post(ctx, "authorization", url, a.Key, a.URL, payload, "")
	if err != nil {
		return Authorization{}, err
	}
	dir, err := c.directory(ctx)
	if err != nil {
		return Authorization{}, err
	}
	z, err := parseAuthorization(m.body, dir.origins)
	if err != nil {
		return Authorization{}, invalid("authorization", url, err)
	}
	z.URL, z.Reply = url, m.Reply
	return z, nil
}

func parseAuthorization(body []byte, from origins) (Authorization, error) {
	var z Authorization
	if err := decode(body, &z); err != nil {
		return Authorization{}, err
	}
	switch z.Status {
	case StatusPending, StatusValid, StatusInvalid, StatusDeactivated, StatusExpired, StatusRevoked:
	default:
		return Authorization{}, fmt.Errorf("%q is no status of an authorization", clean(z.Status, 40))
	}
	if z.Identifier.Value == "" {
		return Authorization{}, errors.New("the authorization has no identifier")
	}
	for i := range z.Challenges {
		if err := z.Challenges[i].check(from); err != nil {
			return Authorization{}, fmt.Errorf("challenges[%d]: %w", i, err)
		}
	}
	return z, nil
}
