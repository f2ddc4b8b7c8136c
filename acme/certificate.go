package acme

import (
	"context"
	"crypto"
	"fmt"
)

// Certificate is an issued certificate with its chain, section 7.4.2.
type Certificate struct {
	// URL is the location of the certificate.
	URL string
	// ChainPEM is the leaf and the certificates above it. This package does not check it.
	ChainPEM []byte
	// Alternates are the URLs of other chains for the same leaf.
	Alternates []string
	Reply
}

const mediaChain = "application/pem-certificate-chain"

// Certificate fetches a certificate, at Order.Certificate or one of the Alternates.
func (c *Client) Certificate(ctx context.Context, a Account, url string) (Certificate, error) {
	m, err := c.post(ctx, "certificate", url, a.Key, a.URL, nil, mediaChain)
	if err != nil {
		return Certificate{}, err
	}
	if m.media != mediaChain {
		return Certificate{}, &ProtocolError{Action: "certificate", URL: url, Reason: fmt.Sprintf("its type is %q, not %s",
			clean(m.media, 60), mediaChain)}
	}
	return Certificate{URL: url, ChainPEM: m.body, Alternates: m.related("alternate"), Reply: m.Reply}, nil
}

// RevocationReason is the reason of a revocation, RFC 5280 section 5.3.1.
type RevocationReason int

// The reasons that subscribers may give at public CAs.
const (
	ReasonUnspecified          RevocationReason = 0
	ReasonKeyCompromise        RevocationReason = 1
	ReasonAffiliationChanged   RevocationReason = 3
	ReasonSuperseded           RevocationReason = 4
	ReasonCessationOfOperation RevocationReason = 5
)

// Revoke revokes a certificate as the account that it was issued to, or that is authorized for all
// of its names, section 7.6. If it was revoked before, the error is a Problem of type
// alreadyRevoked.
func (c *Client) Revoke(ctx context.Context, a Account, certDER []byte, reason RevocationReason) error {
	return c.revoke(ctx, a.Key, a.URL, certDER, reason)
}

// RevokeWithKey revokes a certificate with its private key instead of an account key.
func (c *Client) RevokeWithKey(ctx context.Context, key crypto.Signer, certDER []byte, reason RevocationReason) error {
	return c.revoke(ctx, key, "", certDER, reason)
}

func (c *Client) revoke(
	ctx context.Context,
	key crypto.Signer,
	kid string,
	certDER []byte,
	reason RevocationReason,
) error {
	dir, err := c.directory(ctx)
	if err != nil {
		return err
	}
	if dir.RevokeCert == "" {
		return unsupported("revocation")
	}
	_, err = c.post(ctx, "revokeCert", dir.RevokeCert, key, kid, struct {
		Certificate string           `json:"certificate"`
		Reason      RevocationReason `json:"reason"`
	}{encode(certDER), reason}, "")
	return err
}
