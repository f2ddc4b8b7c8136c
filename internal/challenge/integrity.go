package challenge

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/challenge/desired"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// verify sees whether a Challenge is what its Order and issuer ask for, before their credentials
// are used for it. Admission policies let no other user write one; but it may be older than they
// are.
func (r *Reconciler) verify(ctx context.Context, i *signer.Issuer, by acme.Account,
	ch *cmacme.Challenge) error {
	order := &cmacme.Order{}
	owner := metav1.GetControllerOf(ch)
	if owner == nil || owner.Kind != "Order" {
		return fault.Misconfiguredf(desired.NotOfOrder,
			"the Challenge belongs to no Order, so that nothing is set up for it: delete it")
	}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: ch.Namespace, Name: owner.Name}, order,
		client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil || order.UID != owner.UID {
		return fault.Misconfiguredf(desired.NotOfOrder,
			"the Order of the Challenge does not exist, so that nothing is set up for it: delete it")
	}
	should, err := desired.Instead(order, i.GetSpec().ACME, by, ch)
	if err != nil {
		return err
	}
	if is := desired.Difference(should, ch); is != "" {
		return fault.Misconfiguredf(desired.NotOfOrder,
			"the Challenge is not what its Order and its issuer ask for: %s differs, so that nothing is set up for it; delete "+
				"it, and the Order makes another", is)
	}
	return nil
}

// mayCleanUp sees whether the credentials of an issuer may be used to take away what a Challenge
// has set up. What was set up by this controller, as the status says that it alone writes, is taken
// away with the settings that it was set up with, also if the issuer has others by now. Where the
// status does not say so, as the process ended before it could, the solver must be one of the
// issuer, or the Challenge what its Order asks for.
func (r *Reconciler) mayCleanUp(ctx context.Context, i *signer.Issuer, ch *cmacme.Challenge) error {
	if r.Guard != nil {
		if err := r.Guard(i); err != nil {
			return err
		}
	}
	if ch.Status.Presented || ch.Status.Processing || i.Kind != signer.KindClusterIssuer ||
		ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 {
		return nil
	}
	if spec := i.GetSpec().ACME; spec != nil && likeProof(ch) && slices.ContainsFunc(spec.Solvers,
		func(s cmacme.ACMEChallengeSolver) bool {
			return equality.Semantic.DeepEqual(desired.WithoutSelector(s), desired.WithoutSelector(ch.Spec.Solver))
		}) {
		return nil
	}
	session, err := r.Accounts.Session(ctx, i, nil, nil)
	if err != nil {
		return err
	}
	return r.verify(ctx, i, session.Account, ch)
}

// likeProof reports whether name and value of a TXT record can be those of a proof: taking it away
// harms no other record.
func likeProof(ch *cmacme.Challenge) bool {
	return (ch.Spec.RecordName == "" || strings.Contains(ch.Spec.RecordName, "._acme-challenge.")) &&
		len(ch.Spec.Key) == len(acme.DNS01Value(""))
}
