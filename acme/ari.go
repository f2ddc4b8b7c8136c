package acme

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// RenewalInfo is the CA's suggestion for the renewal of a certificate, RFC 9773 section 4.2.
// RetryAfter is when to request it again.
type RenewalInfo struct {
	SuggestedWindow Window `json:"suggestedWindow"`
	// ExplanationURL is a page that explains the window.
	ExplanationURL string `json:"explanationURL,omitempty"`
	Reply          `       json:"-"`
}

// Window is a span of time. Its end is after its start.
type Window struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// RenewalInfo fetches the renewal information of a CertID. The request is not signed and needs no
// account.
func (c *Client) RenewalInfo(ctx context.Context, certID string) (RenewalInfo, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return RenewalInfo{}, err
	}
	if dir.RenewalInfo == "" {
		return RenewalInfo{}, unsupported("renewal information")
	}
	target := strings.TrimSuffix(dir.RenewalInfo, "/") + "/" + url.PathEscape(certID)
	m, err := c.exchange(ctx, "renewalInfo", http.MethodGet, target, nil, "application/json")
	if err != nil {
		return RenewalInfo{}, err
	}
	info, err := parseRenewalInfo(m.body)
	if err != nil {
		return RenewalInfo{}, invalid("renewalInfo", target, err)
	}
	info.Reply = m.Reply
	return info, nil
}

func parseRenewalInfo(body []byte) (RenewalInfo, error) {
	var info RenewalInfo
	if err := decode(body, &info); err != nil {
		return RenewalInfo{}, err
	}
	w := info.SuggestedWindow
	if w.Start.IsZero() || !w.End.After(w.Start) {
		return RenewalInfo{}, errors.New("the suggested window does not end after its start")
	}
	if w.Start.UTC().Year() < 1 || w.End.UTC().Year() > 9999 {
		return RenewalInfo{}, errors.New("the suggested window is in years that cannot be written down")
	}
	if u, err := url.Parse(
		info.ExplanationURL,
	); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") ||
		len(info.ExplanationURL) > maxURL ||
		clean(info.ExplanationURL, maxURL) != info.ExplanationURL {
		info.ExplanationURL = "" // it is shown to people, and nothing depends on it
	}
	return info, nil
}

// CertID identifies a certificate in renewal information and in orders that replace it, RFC 9773
// section 4.1: the key identifier of its issuer and its serial number.
func CertID(cert *x509.Certificate) (string, error) {
	if len(cert.AuthorityKeyId) == 0 {
		return "", errors.New("the certificate has no authority key identifier")
	}
	if cert.SerialNumber == nil || cert.SerialNumber.Sign() <= 0 {
		return "", errors.New("the certificate has no positive serial number")
	}
	der, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return "", err
	}
	var serial asn1.RawValue
	if _, err := asn1.Unmarshal(der, &serial); err != nil {
		return "", err
	}
	return encode(cert.AuthorityKeyId) + "." + encode(serial.Bytes), nil
}
