package challenge

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// finalizerManager owns the finalizer of Challenges. It is cert-manager's, which by server-side
// apply can remove only a finalizer that its own field manager owns. So an installation can be
// given back to it while challenges are under way.
const finalizerManager = "cert-manager-challenges"

// protect sets the finalizer and returns the Challenge as it is then.
func (r *Reconciler) protect(ctx context.Context, ch *cmacme.Challenge) (*cmacme.Challenge, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(cmacme.SchemeGroupVersion.WithKind("Challenge"))
	u.SetNamespace(ch.Namespace)
	u.SetName(ch.Name)
	u.SetUID(ch.UID) // an apply does not bring back one that was deleted
	u.SetFinalizers([]string{cmacme.ACMEDomainQualifiedFinalizer})
	err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(finalizerManager),
		client.ForceOwnership, client.DisableReadYourWritesConsistency) // it would watch all Challenges twice
	if err != nil {
		return nil, fmt.Errorf("set finalizer: %w", err)
	}
	next := ch.DeepCopy()
	next.Finalizers, next.ResourceVersion = u.GetFinalizers(), u.GetResourceVersion()
	r.memory.Of(next).written = next
	return next, nil
}

// unprotected says in the status why a Challenge has no finalizer, without which nothing is
// presented. It returns the error to retry after.
func (r *Reconciler) unprotected(ctx context.Context, ch *cmacme.Challenge, err error) error {
	next := ch.DeepCopy()
	next.Status.State = cmp.Or(next.Status.State, cmacme.Pending)
	next.Status.Reason = reasonOf(fmt.Errorf(
		"nothing is presented without the finalizer, by which it is removed again: %w",
		err))
	if !equality.Semantic.DeepEqual(next.Status, ch.Status) {
		if _, failure := r.writeStatus(ctx, ch, next); failure != nil {
			return errors.Join(err, failure)
		}
	}
	return err
}
