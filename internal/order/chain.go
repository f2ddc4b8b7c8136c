package order

import (
	"crypto"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// tops reports whether the issuer of the last certificate of a chain has the common name.
func (r *Reconciler) tops(chainPEM []byte, commonName string) bool {
	chain, err := r.Limits.DecodeChainPEM(chainPEM)
	return err == nil && chain[len(chain)-1].Issuer.CommonName == commonName
}

// check reports what is wrong with a chain for an order: it must be for the key and the names that were asked for, valid now, and each
// certificate must be signed by the next.
func (r *Reconciler) check(order *cmacme.Order, chainPEM []byte, now time.Time) error {
	chain, err := r.Limits.DecodeChainPEM(chainPEM)
	if err != nil {
		return err
	}
	csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
	if err != nil {
		return fmt.Errorf("spec.request: %w", err)
	}
	leaf := chain[0]
	key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(csr.PublicKey) {
		return errors.New("it is for another key")
	}
	if !now.Before(leaf.NotAfter) {
		return fmt.Errorf("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, name := range order.Spec.DNSNames {
		if !slices.ContainsFunc(leaf.DNSNames, func(s string) bool { return strings.EqualFold(s, name) }) {
			return fmt.Errorf("%q is not among its names", name)
		}
	}
	for _, s := range order.Spec.IPAddresses {
		if ip := net.ParseIP(s); !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return fmt.Errorf("%s is not among its addresses", s)
		}
	}
	for i := range len(chain) - 1 {
		if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
			return fmt.Errorf("its certificate %d is not signed by the next one: %w", i+1, err)
		}
	}
	return nil
}
