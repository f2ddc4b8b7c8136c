package challenge

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// byIssuer is the field index of unfinished Challenges by signer.Key.
	byIssuer = "spec.issuerRef"
	// ByOrder is the field index of Challenges by the UID of their Order.
	ByOrder = "metadata.ownerReferences.order"
)

// AddIndexes adds the indexes of Challenges.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := errors.Join(
		indexer.IndexField(ctx, &cmacme.Challenge{}, byIssuer, func(o client.Object) []string {
			ch := o.(*cmacme.Challenge)
			if acmestatus.IsFinal(ch.Status.State) && ch.DeletionTimestamp == nil {
				return nil
			}
			return []string{signer.Key(ch.Namespace, ch.Spec.IssuerRef)}
		}),
		indexer.IndexField(ctx, &cmacme.Challenge{}, ByOrder, func(o client.Object) []string {
			if owner := metav1.GetControllerOf(o); owner != nil {
				return []string{string(owner.UID)}
			}
			return nil
		}),
	)
	if err != nil {
		return fmt.Errorf("index Challenges: %w", err)
	}
	return nil
}

// cached are the options of a list from an index, without a copy. The caller must not change what
// it gets.
func cached(index, value string) []client.ListOption {
	return []client.ListOption{
		client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true},
	}
}
