package acme

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
)

// Account is an account with a CA, section 7.1.2. Calls need only its URL and Key.
type Account struct {
	// URL identifies the account. It is the Location of the reply to NewAccount.
	URL string `json:"-"`
	// Key signs the account's requests: ECDSA on P-256 or P-384, or RSA.
	Key crypto.Signer `json:"-"`

	// Status is valid, deactivated or revoked.
	Status string `json:"status"`
	// Contact are URLs such as mailto:admin@example.com. Some CAs accept them but do not return them.
	Contact              []string `json:"contact,omitempty"`
	TermsOfServiceAgreed bool     `json:"termsOfServiceAgreed,omitempty"`
	// OrdersURL is where the list of orders is, if the CA has one. See Orders.
	OrdersURL string `json:"orders,omitempty"`
	Reply     `json:"-"`
}

// AccountRequest holds the parameters of a new account.
type AccountRequest struct {
	Key                  crypto.Signer
	Contact              []string
	TermsOfServiceAgreed bool
	// ExternalAccountBinding is required if Meta.ExternalAccountRequired is true.
	ExternalAccountBinding *ExternalAccountBinding
}

// ExternalAccountBinding proves that the account belongs to a customer of the CA, section 7.3.4.
type ExternalAccountBinding struct {
	KeyID string
	// MACKey is the decoded key. CAs issue it in base64url.
	MACKey []byte
}

// NewAccount registers the key, section 7.3. If the CA already has an account with this key,
// NewAccount returns it unchanged.
func (c *Client) NewAccount(ctx context.Context, r AccountRequest) (Account, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Account{}, err
	}
	payload := struct {
		Contact              []string        `json:"contact,omitempty"`
		TermsOfServiceAgreed bool            `json:"termsOfServiceAgreed,omitempty"`
		Binding              json.RawMessage `json:"externalAccountBinding,omitempty"`
	}{Contact: r.Contact, TermsOfServiceAgreed: r.TermsOfServiceAgreed}
	if r.ExternalAccountBinding != nil {
		if r.Key == nil {
			return Account{}, errors.New("newAccount: the account has no key")
		}
		if payload.Binding, err = bindJWS(*r.ExternalAccountBinding, dir.NewAccount, r.Key.Public()); err != nil {
			return Account{}, fmt.Errorf("newAccount: %w", err)
		}
	}
	return c.register(ctx, dir, r.Key, payload)
}

// FindAccount returns the account of a key, section 7.3.1. If there is none, the error is a Problem
// of type accountDoesNotExist.
func (c *Client) FindAccount(ctx context.Context, key crypto.Signer) (Account, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Account{}, err
	}
	return c.register(ctx, dir, key, struct {
		OnlyReturnExisting bool `json:"onlyReturnExisting"`
	}{true})
}

func (c *Client) register(ctx context.Context, dir *Directory, key crypto.Signer, payload any) (Account, error) {
	m, err := c.post(ctx, "newAccount", dir.NewAccount, key, "", payload, "")
	if err != nil {
		return Account{}, err
	}
	if m.Location == "" {
		return Account{}, &ProtocolError{Action: "newAccount", URL: dir.NewAccount,
			Reason: "there is no Location, which is the account's URL"}
	}
	return c.account(m, "newAccount", m.Location, key)
}

func (c *Client) account(m *message, action, target string, key crypto.Signer) (Account, error) {
	a, err := parseAccount(m.body)
	if err != nil {
		return Account{}, invalid(action, target, err)
	}
	a.URL, a.Key, a.Reply = target, key, m.Reply
	return a, nil
}

// parseAccount reads an account. Fields may be missing: some CAs do not return contacts.
func parseAccount(body []byte) (a Account, err error) { return a, decode(body, &a) }

// GetAccount reads the account.
func (c *Client) GetAccount(ctx context.Context, a Account) (Account, error) {
	m, err := c.post(ctx, "account", a.URL, a.Key, a.URL, nil, "")
	if err != nil {
		return Account{}, err
	}
	return c.account(m, "account", a.URL, a.Key)
}

// UpdateContact replaces the contacts of the account, section 7.3.2. An empty contact removes all
// of them.
func (c *Client) UpdateContact(ctx context.Context, a Account, contact []string) (Account, error) {
	if contact == nil {
		contact = []string{}
	}
	return c.updateAccount(ctx, a, struct {
		Contact []string `json:"contact"`
	}{contact})
}

// DeactivateAccount deactivates the account permanently, section 7.3.6.
func (c *Client) DeactivateAccount(ctx context.Context, a Account) (Account, error) {
	return c.updateAccount(ctx, a, statusChange{StatusDeactivated})
}

type statusChange struct {
	Status string `json:"status"`
}

func (c *Client) updateAccount(ctx context.Context, a Account, payload any) (Account, error) {
	m, err := c.post(ctx, "account", a.URL, a.Key, a.URL, payload, "")
	if err != nil {
		return Account{}, err
	}
	updated, err := c.account(m, "account", a.URL, a.Key)
	if err == nil && updated.OrdersURL == "" { // some replies leave out fields that do not change
		updated.OrdersURL = a.OrdersURL
	}
	return updated, err
}

// ChangeKey replaces the key of the account, section 7.3.5, and returns the account with the new
// key. If the CA already has an account with the new key, the error is a Problem with status 409.
func (c *Client) ChangeKey(ctx context.Context, a Account, key crypto.Signer) (Account, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Account{}, err
	}
	if dir.KeyChange == "" {
		return Account{}, unsupported("key changes")
	}
	if a.Key == nil {
		return Account{}, errors.New("keyChange: the account has no key")
	}
	old, err := jwk(a.Key.Public())
	if err != nil {
		return Account{}, fmt.Errorf("keyChange: %w", err)
	}
	payload, err := json.Marshal(struct {
		Account string          `json:"account"`
		OldKey  json.RawMessage `json:"oldKey"`
	}{a.URL, old})
	if err != nil {
		return Account{}, err
	}
	// The inner signature proves possession of the new key. It has no nonce.
	inner, err := signJWS(protected{URL: dir.KeyChange}, payload, key)
	if err != nil {
		return Account{}, fmt.Errorf("keyChange: %w", err)
	}
	m, err := c.post(ctx, "keyChange", dir.KeyChange, a.Key, a.URL, json.RawMessage(inner), "")
	if err != nil {
		return Account{}, err
	}
	a.Key, a.Reply = key, m.Reply
	return a, nil
}

// OrderList is a page of the orders of an account, section 7.1.2.1.
type OrderList struct {
	// Orders are URLs.
	Orders []string `json:"orders"`
	// Next is the URL of the next page, or empty.
	Next  string `json:"-"`
	Reply `json:"-"`
}

// Orders reads a page of the list of orders, at Account.OrdersURL or OrderList.Next.
func (c *Client) Orders(ctx context.Context, a Account, page string) (OrderList, error) {
	m, err := c.post(ctx, "orders", page, a.Key, a.URL, nil, "")
	if err != nil {
		return OrderList{}, err
	}
	dir, err := c.directory(ctx)
	if err != nil {
		return OrderList{}, err
	}
	list, err := parseOrders(m.body, dir.origins)
	if err != nil {
		return OrderList{}, invalid("orders", page, err)
	}
	list.Reply = m.Reply
	if next := m.related("next"); len(next) > 0 && next[0] != page {
		list.Next = next[0]
	}
	return list, nil
}

func parseOrders(body []byte, from origins) (OrderList, error) {
	var list OrderList
	if err := decode(body, &list); err != nil {
		return OrderList{}, err
	}
	for _, u := range list.Orders {
		if err := from.check(u); err != nil {
			return OrderList{}, fmt.Errorf("orders: %w", err)
		}
	}
	return list, nil
}
