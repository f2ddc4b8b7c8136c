package acme

import (
	"context"
	"net/http"
)

// maxNonce is the maximum length of a nonce.
const maxNonce = 512

// validNonce reports whether a nonce is base64url, section 6.5.1.
func validNonce(s string) bool { return s != "" && len(s) <= maxNonce && isBase64URL(s) }

// newNonce fetches a nonce, section 7.2.
func (c *Client) newNonce(ctx context.Context) (string, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return "", err
	}
	m, err := c.exchange(ctx, "newNonce", http.MethodHead, dir.NewNonce, nil, "")
	if err != nil {
		return "", err
	}
	if m.nonce == "" {
		return "", &ProtocolError{Action: "newNonce", URL: dir.NewNonce, Reason: "there is no Replay-Nonce"}
	}
	return m.nonce, nil
}

// takeNonce returns the most recent unused nonce, or "". Servers expire old nonces.
func (c *Client) takeNonce() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.nonces)
	if n == 0 {
		return ""
	}
	nonce := c.nonces[n-1]
	c.nonces = c.nonces[:n-1]
	return nonce
}

func (c *Client) putNonce(nonce string) {
	if nonce == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.nonces) == maxNonces {
		copy(c.nonces, c.nonces[1:])
		c.nonces = c.nonces[:maxNonces-1]
	}
	c.nonces = append(c.nonces, nonce)
}
