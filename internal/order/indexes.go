package order

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/signer"
)

// byIssuer is the field index of unfinished Orders by signer.Key.
const byIssuer = "spec.issuerRef"

// AddIndexes adds the indexes of Orders.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := errors.Join(
		indexer.IndexField(ctx, &cmacme.Order{}, byIssuer, func(o client.Object) []string {
			order := o.(*cmacme.Order)
			if acmestatus.IsFinal(order.Status.State) {
				return nil
			}
			return []string{signer.Key(order.Namespace, order.Spec.IssuerRef)}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, byProtected, func(o client.Object) []string {
			if !protected(o.(*cmacme.Order)) {
				return nil
			}
			return []string{o.GetAnnotations()[cmapi.CertificateNameKey]}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, signer.ByRequestUID, func(o client.Object) []string {
			owner := metav1.GetControllerOf(o)
			if owner == nil || acmestatus.IsFinal(o.(*cmacme.Order).Status.State) {
				return nil
			}
			return []string{string(owner.UID)}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, byOpen, func(o client.Object) []string { return openOf(o.(*cmacme.Order)) }),
		indexer.IndexField(
			ctx,
			&cmacme.Order{},
			byNames,
			func(o client.Object) []string { return namesOf(o.(*cmacme.Order)) },
		),
	)
	if err != nil {
		return fmt.Errorf("index Orders: %w", err)
	}
	return nil
}

// cached are the options of a list from an index, without a copy. The caller must not change what
// it gets.
func cached(index, value string) []client.ListOption {
	return []client.ListOption{
		client.MatchingFields{
			index: value,
		},
		client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true},
	}
}
