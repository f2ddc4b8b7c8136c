package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 of ES384 and ES512
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// protected is the protected header of a request, section 6.2.
type protected struct {
	Algorithm string `json:"alg"`
	Nonce     string `json:"nonce,omitempty"`
	URL       string `json:"url"`
	// Of these two exactly one is set.
	Key   json.RawMessage `json:"jwk,omitempty"`
	KeyID string          `json:"kid,omitempty"`
}

// jws is the flattened JSON serialization, RFC 7515 section 7.2.2.
type jws struct {
	Protected string `json:"protected"`
	Payload   string `json:"payload"`
	Signature string `json:"signature"`
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func isBase64URL(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// algorithm is the signature algorithm of a key, RFC 7518 section 3.1.
type algorithm struct {
	name string
	hash crypto.Hash
	// size is the length of one of the two integers of an ECDSA signature.
	size int
}

func algorithmOf(key crypto.PublicKey) (algorithm, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return algorithm{"RS256", crypto.SHA256, 0}, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return algorithm{"ES256", crypto.SHA256, 32}, nil
		case elliptic.P384():
			return algorithm{"ES384", crypto.SHA384, 48}, nil
		case elliptic.P521():
			return algorithm{"ES512", crypto.SHA512, 66}, nil
		}
		return algorithm{}, fmt.Errorf(
			"account keys on the curve %s are not supported: use P-256 or P-384",
			key.Curve.Params().Name,
		)
	}
	return algorithm{}, fmt.Errorf("account keys of type %T are not supported: use ECDSA or RSA", key)
}

// signJWS signs a payload. The header's algorithm and, if it has no key ID, its key are filled in.
func signJWS(header protected, payload []byte, key crypto.Signer) ([]byte, error) {
	if key == nil {
		return nil, errors.New("the account has no key")
	}
	alg, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	header.Algorithm = alg.name
	if header.KeyID == "" {
		if header.Key, err = jwk(key.Public()); err != nil {
			return nil, err
		}
	}
	head, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	m := jws{Protected: encode(head), Payload: encode(payload)}
	h := alg.hash.New()
	h.Write([]byte(m.Protected + "." + m.Payload))
	signature, err := key.Sign(rand.Reader, h.Sum(nil), alg.hash)
	if err != nil {
		return nil, fmt.Errorf("sign with the account key: %w", err)
	}
	if alg.size > 0 {
		if signature, err = joined(signature, alg.size); err != nil {
			return nil, err
		}
	}
	m.Signature = encode(signature)
	return json.Marshal(m)
}

// joined turns the ASN.1 signature of a crypto.Signer into the two integers of RFC 7518 section
// 3.4.
func joined(der []byte, size int) ([]byte, error) {
	var s struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &s)
	if err != nil || len(rest) > 0 || s.R.Sign() <= 0 || s.S.Sign() <= 0 || s.R.BitLen() > 8*size ||
		s.S.BitLen() > 8*size {
		return nil, errors.New("the account key made a signature that is not ECDSA")
	}
	out := make([]byte, 2*size)
	s.R.FillBytes(out[:size])
	s.S.FillBytes(out[size:])
	return out, nil
}

// bindJWS binds an account key to an external account, section 7.3.4.
func bindJWS(b ExternalAccountBinding, target string, key crypto.PublicKey) (json.RawMessage, error) {
	payload, err := jwk(key)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(protected{Algorithm: "HS256", URL: target, KeyID: b.KeyID})
	if err != nil {
		return nil, err
	}
	m := jws{Protected: encode(head), Payload: encode(payload)}
	mac := hmac.New(sha256.New, b.MACKey)
	mac.Write([]byte(m.Protected + "." + m.Payload))
	m.Signature = encode(mac.Sum(nil))
	return json.Marshal(m)
}

// jwk is a public key in the form that RFC 7638 defines for thumbprints: only the required members,
// in lexical order.
func jwk(key crypto.PublicKey) (json.RawMessage, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return json.Marshal(struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{encode(big.NewInt(int64(key.E)).Bytes()), "RSA", encode(key.N.Bytes())})
	case *ecdsa.PublicKey:
		alg, err := algorithmOf(key)
		if err != nil {
			return nil, err
		}
		point, err := key.Bytes() // 4, X, Y
		if err != nil {
			return nil, fmt.Errorf("account key: %w", err)
		}
		return json.Marshal(struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{key.Curve.Params().Name, "EC", encode(point[1 : 1+alg.size]), encode(point[1+alg.size:])})
	}
	_, err := algorithmOf(key)
	return nil, err
}

// Thumbprint identifies a public key, RFC 7638 with SHA-256.
func Thumbprint(key crypto.PublicKey) (string, error) {
	b, err := jwk(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return encode(sum[:]), nil
}
