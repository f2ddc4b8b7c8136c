package lego

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/perennial-pki/perennial/pki"
)

// clientCertificate reads the certificate that a provider shows to its service, with the chain
// after it, from the settings tlsCert and tlsKey. It returns nil if there is none.
func clientCertificate(v values) (*tls.Certificate, error) {
	if v["tlsCert"] == "" && v["tlsKey"] == "" {
		return nil, nil
	}
	chain, err := pki.DecodeChainPEM([]byte(v["tlsCert"]))
	if err != nil {
		return nil, fmt.Errorf("tlsCert: %w", err)
	}
	key, err := pki.DecodeKeyPEM([]byte(v["tlsKey"]))
	if err != nil {
		return nil, fmt.Errorf("tlsKey: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("tlsKey is not the key of the first certificate in tlsCert: correct one of them")
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}
