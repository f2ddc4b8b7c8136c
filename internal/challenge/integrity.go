package challenge

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/challenge/desired"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// verify sees whether a Challenge is what its Order and issuer ask for, and the Order was made for
// an approved request, before the credentials of the issuer are used for it. Admission policies let
// no other user write one; but it may be older than they are.
func (r *Reconciler) verify(ctx context.Context, i *signer.Issuer, by acme.Account,
	ch *cmacme.Challenge) error {
	order, err := r.compare(ctx, i, by, ch)
	if err != nil {
		return leftAlone(err)
	}
	return r.Origin.Check(ctx, order)
}

// leftAlone adds to the error of a Challenge that is not of its Order what follows from that.
func leftAlone(err error) error {
	if err == nil || fault.Of(err).Reason != desired.NotOfOrder {
		return err
	}
	return fault.Annotate(err,
		", so that nothing is set up for it: delete it, and its Order makes another if it needs one")
}

// compare sees whether a Challenge is what its Order and issuer ask for, and returns the Order.
func (r *Reconciler) compare(ctx context.Context, i *signer.Issuer, by acme.Account,
	ch *cmacme.Challenge) (*cmacme.Order, error) {
	order := &cmacme.Order{}
	owner := metav1.GetControllerOf(ch)
	if owner == nil || owner.Kind != "Order" {
		return nil, fault.Misconfiguredf(desired.NotOfOrder,
			"the Challenge belongs to no Order")
	}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: ch.Namespace, Name: owner.Name}, order,
		client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err != nil || order.UID != owner.UID {
		return nil, fault.Misconfiguredf(desired.NotOfOrder,
			"the Order of the Challenge does not exist")
	}
	should, err := desired.Instead(order, i.GetSpec().ACME, by, ch)
	if err != nil {
		return nil, err
	}
	if is := desired.Difference(should, ch); is != "" {
		return nil, fault.Misconfiguredf(desired.NotOfOrder,
			"the Challenge is not what its Order and its issuer ask for: %s differs", is)
	}
	return order, nil
}

// prove returns an error unless the controller made a Challenge, or would make the same one now.
// The status of a Challenge that is older than the policies proves nothing.
func (r *Reconciler) prove(ctx context.Context, i *signer.Issuer, ch *cmacme.Challenge) error {
	if sealed, err := r.Seals.Sealed(ctx, ch); err != nil || sealed {
		return err
	}
	if i.GetSpec().ACME == nil {
		return fault.Misconfiguredf(desired.NotOfOrder, "there is no longer an ACME %s to compare the Challenge with", i)
	}
	session, err := r.Accounts.Session(ctx, i, nil, nil)
	if err != nil {
		return err
	}
	_, err = r.compare(ctx, i, session.Account, ch)
	if failure := fault.Of(err); err != nil && failure.Reason == desired.NoSolver {
		return fault.Misconfiguredf(desired.NotOfOrder, "the Challenge is not what its issuer asks for: %w", err)
	}
	return err
}

// statusUnproven reports whether the status of a Challenge says that it is presented, and nothing
// proves that the controller made it. Such a status may be forged, by a user that could write
// Challenges before there were admission policies, and must not keep others from a slot.
func (r *Reconciler) statusUnproven(ctx context.Context, ch *cmacme.Challenge) bool {
	if !ch.Status.Presented {
		return false
	}
	if sealed, err := r.Seals.Sealed(ctx, ch); err != nil || sealed {
		return false // if the key of the seals cannot be read, the next pass finds out
	}
	i, err := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	return err != nil || i == nil || r.prove(ctx, i, ch) != nil
}

// mayCleanUp sees whether the credentials of an issuer may be used to take away what a Challenge
// has set up. What the controller set up is taken away with the settings that it was set up with,
// also if the issuer has others by now, or the Order is gone. If nothing proves that the controller
// made the Challenge, the credentials of a ClusterIssuer are not used.
func (r *Reconciler) mayCleanUp(ctx context.Context, i *signer.Issuer, ch *cmacme.Challenge) error {
	if r.Guard != nil {
		if err := r.Guard(i); err != nil {
			return err
		}
	}
	if i.Kind != signer.KindClusterIssuer || ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 {
		return nil
	}
	err := r.prove(ctx, i, ch)
	if err != nil && fault.Of(err).Reason == desired.NotOfOrder {
		return &unproven{i.String(), err}
	}
	return err
}

// unproven is the error of a clean-up for which the credentials of a ClusterIssuer are not used.
type unproven struct {
	issuer string
	err    error
}

func (u *unproven) Error() string {
	return fmt.Sprintf("Nothing proves that the controller made the Challenge, so that the "+
		"credentials of %s are not used: %s",
		u.issuer, u.err)
}

func (u *unproven) Unwrap() error { return u.err }
