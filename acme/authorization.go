package acme

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Authorization is the proof, given or still to give, that an account may have certificates for an
// identifier, section 7.1.4.
type Authorization struct {
	// URL is where the authorization is.
	URL string `json:"-"`
	// Status is pending, valid, invalid, deactivated, expired or revoked.
	Status string `json:"status"`
	// Identifier is the name, without "*." for a wildcard.
	Identifier Identifier `json:"identifier"`
	Wildcard   bool       `json:"wildcard,omitempty"`
	// Expires is until when it is of use.
	Expires *time.Time `json:"expires,omitempty"`
	// Challenges are the ways to give the proof, of which one is enough.
	Challenges []Challenge `json:"challenges"`
	Reply      `json:"-"`
}

// Authorization reads an authorization by POST-as-GET, section 7.5: until its status is valid or
// invalid, again after its RetryAfter.
func (c *Client) Authorization(ctx context.Context, a Account, url string) (Authorization, error) {
	return c.authorization(ctx, a, url, nil)
}

// DeactivateAuthorization gives an authorization up, section 7.5.2. An order that needs it becomes
// invalid.
func (c *Client) DeactivateAuthorization(ctx context.Context, a Account, url string) (Authorization, error) {
	return c.authorization(ctx, a, url, statusChange{StatusDeactivated})
}

// NewAuthorization asks for an authorization that no order needs yet, section 7.4.1. Few CAs offer
// that.
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
