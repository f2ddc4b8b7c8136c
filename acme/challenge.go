package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base32"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Types of challenges.
const (
	ChallengeHTTP01       = "http-01"        // section 8.3
	ChallengeDNS01        = "dns-01"         // section 8.4
	ChallengeTLSALPN01    = "tls-alpn-01"    // RFC 8737
	ChallengeDNSAccount01 = "dns-account-01" // draft-ietf-acme-dns-account-label
	ChallengeDNSPersist01 = "dns-persist-01" // draft-ietf-acme-dns-persist
)

// Challenge is one way to prove control of an identifier, section 8.
type Challenge struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	// Status is pending, processing, valid or invalid.
	Status    string     `json:"status"`
	Validated *time.Time `json:"validated,omitempty"`
	// Error is the result of the server's last failed validation.
	Error *Problem `json:"error,omitempty"`
	// Token is part of the key authorization. dns-persist-01 has none.
	Token string `json:"token,omitempty"`
	// IssuerDomainNames are the CA's names for dns-persist-01: a record contains one of them. A valid
	// challenge has one to ten. The list is empty if the server sent an invalid one: do not use that
	// challenge.
	IssuerDomainNames []string `json:"issuer-domain-names,omitempty"`
	Reply             `json:"-"`
}

const (
	maxToken       = 255
	maxIssuerNames = 10
)

// check reports why a challenge is invalid, if it is. Challenges of unknown types pass, because
// they are not used.
func (ch *Challenge) check(from origins) error {
	if err := from.check(ch.URL); err != nil {
		return err
	}
	switch ch.Type {
	case ChallengeHTTP01, ChallengeDNS01, ChallengeTLSALPN01, ChallengeDNSAccount01:
		// Section 8.1. It becomes part of a path.
		if ch.Token == "" || len(ch.Token) > maxToken || !isBase64URL(ch.Token) {
			return fmt.Errorf("the token of %s is not base64url", ch.Type)
		}
	case ChallengeDNSPersist01:
		// The draft may still change, and other challenges of the authorization remain usable.
		if len(ch.IssuerDomainNames) > maxIssuerNames || !all(ch.IssuerDomainNames, isDomainName) {
			ch.IssuerDomainNames = nil
		}
	}
	return nil
}

func all(list []string, is func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !is(s) })
}

func isDomainName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

// AcceptChallenge asks the server to validate the challenge, section 7.5.1. The server does so
// asynchronously.
func (c *Client) AcceptChallenge(ctx context.Context, a Account, url string) (Challenge, error) {
	return c.challenge(ctx, a, url, struct{}{})
}

// Challenge reads a challenge by POST-as-GET, section 7.1.5. If the challenge failed, its Error
// says why.
func (c *Client) Challenge(ctx context.Context, a Account, url string) (Challenge, error) {
	return c.challenge(ctx, a, url, nil)
}

func (c *Client) challenge(ctx context.Context, a Account, url string, payload any) (Challenge, error) {
	m, err := c.post(ctx, "challenge", url, a.Key, a.URL, payload, "")
	if err != nil {
		return Challenge{}, err
	}
	dir, err := c.directory(ctx)
	if err != nil {
		return Challenge{}, err
	}
	var ch Challenge
	if err := decode(m.body, &ch); err != nil {
		return Challenge{}, invalid("challenge", url, err)
	}
	if err := ch.check(dir.origins); err != nil {
		return Challenge{}, invalid("challenge", url, err)
	}
	ch.Reply = m.Reply
	return ch, nil
}

// KeyAuthorization joins a token with the account's key, section 8.1.
func KeyAuthorization(token string, key crypto.PublicKey) (string, error) {
	print, err := Thumbprint(key)
	if err != nil {
		return "", err
	}
	return token + "." + print, nil
}

// HTTP01Path is the path under which the key authorization is served on port 80, section 8.3.
func HTTP01Path(token string) string { return "/.well-known/acme-challenge/" + token }

// DNS01Name is the name of the TXT record for a domain, section 8.4, without a trailing dot. It is
// the same for a wildcard.
func DNS01Name(domain string) string { return "_acme-challenge." + strings.TrimPrefix(domain, "*.") }

// DNS01Value is the value of the TXT record, section 8.4.
func DNS01Value(keyAuthorization string) string {
	sum := sha256.Sum256([]byte(keyAuthorization))
	return encode(sum[:])
}

// DNSAccount01Name is the name of the TXT record for a domain of dns-account-01. It is different
// for each account.
func DNSAccount01Name(accountURL, domain string) string {
	sum := sha256.Sum256([]byte(accountURL))
	label := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
	return "_" + label + "._acme-challenge." + strings.TrimPrefix(domain, "*.")
}

// TLSALPN01Protocol is the ALPN protocol that only ACME servers offer, RFC 8737 section 6.2.
const TLSALPN01Protocol = "acme-tls/1"

// acmeIdentifier is the extension with the digest of the key authorization, RFC 8737 section 6.1.
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// TLSALPN01Extension is the OID of the acmeIdentifier extension, which must be critical, RFC 8737
// section 6.1. Its value is the SHA-256 digest of the key authorization as an OCTET STRING.
func TLSALPN01Extension() asn1.ObjectIdentifier { return slices.Clone(acmeIdentifier) }

// TLSALPN01Certificate creates the certificate that answers a tls-alpn-01 challenge, RFC 8737
// section 3, for a domain or, RFC 8738 section 6, an address. It is valid for a week around now.
func TLSALPN01Certificate(id Identifier, keyAuthorization string, now time.Time) (*tls.Certificate, error) {
	sum := sha256.Sum256([]byte(keyAuthorization))
	digest, err := asn1.Marshal(sum[:])
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "ACME challenge"},
		NotBefore:    now.Add(-24 * time.Hour), NotAfter: now.Add(6 * 24 * time.Hour),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: digest}},
	}
	switch id.Type {
	case IdentifierDNS:
		template.DNSNames = []string{id.Value}
	case IdentifierIP:
		ip := net.ParseIP(id.Value)
		if ip == nil {
			return nil, fmt.Errorf("%q is not an IP address", id.Value)
		}
		template.IPAddresses = []net.IP{ip}
	default:
		return nil, fmt.Errorf("tls-alpn-01 is not defined for identifiers of type %q", id.Type)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of a tls-alpn-01 challenge: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// TLSALPN01ServerName is the server name (SNI) in the CA's handshake: the domain or, RFC 8738
// section 6, the reverse name of the address.
func TLSALPN01ServerName(id Identifier) (string, error) {
	if id.Type != IdentifierIP {
		return id.Value, nil
	}
	addr, err := netip.ParseAddr(id.Value)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address", id.Value)
	}
	addr = addr.Unmap()
	var b strings.Builder
	bytes := addr.AsSlice()
	if addr.Is4() {
		for i := len(bytes) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "%d.", bytes[i])
		}
		return b.String() + "in-addr.arpa", nil
	}
	for i := len(bytes) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", bytes[i]&0xf, bytes[i]>>4)
	}
	return b.String() + "ip6.arpa", nil
}
