package pki

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
)

// CheckRequest reports why a request for a key of the spec is invalid, without such a key: the
// error of [Request.Check], or a CSR that would exceed the size limit.
func (l Limits) CheckRequest(r Request, spec KeySpec) error {
	if err := r.Check(spec); err != nil {
		return err
	}
	r.SignatureAlgorithm = ""
	der, err := r.csr(nil, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return err
	}
	size := len(pem.EncodeToMemory(&pem.Block{Type: labelCSR, Bytes: make([]byte, len(der)+spec.beyondEd25519())}))
	if size <= l.certificate() {
		return nil
	}
	names := len(r.DNSNames) + len(r.IPAddresses) + len(r.URIs) + len(r.EmailAddresses) + len(r.OtherNames)
	return fmt.Errorf("spec: the certificate request would have %d bytes with its %d names, and at most %d are read: "+
		"divide the names among several Certificates, or have the limit raised (--max-certificate-size)", size, names,
		l.certificate())
}

// beyondEd25519 is the additional size of a CSR with a key of the spec compared with an Ed25519
// key: public key, signature, and some bytes for the lengths of the enclosing structures.
func (s KeySpec) beyondEd25519() int {
	const lengths = 16
	switch s.algorithm() {
	case RSA:
		return 2*(s.size()/8) + 33 + 1 - 44 + 1 - 64 + lengths
	case ECDSA:
		octets := (s.size() + 7) / 8
		return 2*octets + 27 - 44 + 2*octets + 9 - 64 + lengths
	}
	return 0
}
