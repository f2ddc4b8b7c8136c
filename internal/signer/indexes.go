package signer

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// ByIssuer is the field index of Certificates and CertificateRequests by the issuer that they refer
// to. Its values are those of Key.
const ByIssuer = "spec.issuerRef"

// AddIndexes adds the index ByIssuer.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &cmapi.Certificate{}, ByIssuer, func(o client.Object) []string {
		return []string{Key(o.GetNamespace(), o.(*cmapi.Certificate).Spec.IssuerRef)}
	})
	if err != nil {
		return fmt.Errorf("index Certificates by issuer: %w", err)
	}
	err = indexer.IndexField(ctx, &cmapi.CertificateRequest{}, ByIssuer, func(o client.Object) []string {
		return []string{Key(o.GetNamespace(), o.(*cmapi.CertificateRequest).Spec.IssuerRef)}
	})
	if err != nil {
		return fmt.Errorf("index CertificateRequests by issuer: %w", err)
	}
	return nil
}

// OfIssuer returns the options to list the objects that refer to the issuer, from the index,
// without a copy and without waiting for our own writes: the caller must not change the result, and
// relies on its watches for later changes.
func (i *Issuer) OfIssuer() []client.ListOption {
	return []client.ListOption{
		client.MatchingFields{ByIssuer: i.Key()}, client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true},
	}
}
