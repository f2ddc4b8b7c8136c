package pki

import (
	"crypto"
)

// EncodeKeyDER returns the content of the block of [EncodeKeyPEM], which cert-manager stores as
// key.der. It returns nil for a key or encoding that EncodeKeyPEM refuses.
func EncodeKeyDER(key crypto.Signer, enc KeyEncoding) []byte {
	_, der, err := marshalKey(key, enc)
	if err != nil {
		return nil
	}
	return der
}

// CombinedPEM returns key and chain in one file with an empty line between them, which
// cert-manager stores as tls-combined.pem.
func CombinedPEM(keyPEM, chainPEM []byte) []byte {
	combined := make([]byte, 0, len(keyPEM)+1+len(chainPEM))
	combined = append(combined, keyPEM...)
	combined = append(combined, '\n')
	return append(combined, chainPEM...)
}
