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
// certificate must be signed by the next. Extra are names that the CA has added of itself.
func (r *Reconciler) check(order *cmacme.Order, chainPEM []byte, now time.Time) (extra []string, err error) {
	chain, err := r.Limits.DecodeChainPEM(chainPEM)
	if err != nil {
		return nil, err
	}
	csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	leaf := chain[0]
	key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(csr.PublicKey) {
		return nil, errors.New("it is for another key")
	}
	if !now.Before(leaf.NotAfter) {
		return nil, fmt.Errorf("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, name := range order.Spec.DNSNames {
		if !slices.ContainsFunc(leaf.DNSNames, func(s string) bool { return strings.EqualFold(s, name) }) {
			return nil, fmt.Errorf("%q is not among its names", name)
		}
	}
	for _, s := range order.Spec.IPAddresses {
		if ip := net.ParseIP(s); !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return nil, fmt.Errorf("%s is not among its addresses", s)
		}
	}
	for i := range len(chain) - 1 {
		if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
			return nil, fmt.Errorf("its certificate %d is not signed by the next one: %w", i+1, err)
		}
	}
	for _, name := range leaf.DNSNames {
		if !slices.ContainsFunc(order.Spec.DNSNames, func(s string) bool { return strings.EqualFold(s, name) }) && !strings.EqualFold(name, order.Spec.CommonName) {
			extra = append(extra, name)
		}
	}
	for _, ip := range leaf.IPAddresses {
		if !slices.ContainsFunc(order.Spec.IPAddresses, func(s string) bool { return ip.Equal(net.ParseIP(s)) }) {
			extra = append(extra, ip.String())
		}
	}
	return extra, nil
}
