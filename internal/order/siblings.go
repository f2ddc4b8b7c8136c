package order

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// siblingWait bounds how long a challenge whose record is visible waits for the value of a sibling.
const siblingWait = time.Minute

// siblings returns the unfinished challenges of the same Order whose values belong in the same TXT
// record, as those of example.com and *.example.com do.
func (r *ChallengeReconciler) siblings(ctx context.Context, ch *cmacme.Challenge) ([]*cmacme.Challenge, error) {
	owner := metav1.GetControllerOf(ch)
	if owner == nil || ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 || r.room(ch) > 0 {
		return nil, nil
	}
	var list cmacme.ChallengeList
	if err := r.Client.List(ctx, &list, client.InNamespace(ch.Namespace),
		client.MatchingFields{byOrder: string(owner.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var same []*cmacme.Challenge
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID != ch.UID && other.Spec.Type == ch.Spec.Type && other.Spec.DNSName == ch.Spec.DNSName && !ended(other) {
			same = append(same, other)
		}
	}
	return same, nil
}

// awaits returns the first sibling whose value is not visible yet. A CA's resolver caches the record
// set that it finds first: a challenge that is accepted before its siblings' values are there makes
// them fail. It returns nil after siblingWait, and for siblings that cannot be presented.
func (r *ChallengeReconciler) awaits(ch *cmacme.Challenge, siblings []*cmacme.Challenge, now time.Time) *cmacme.Challenge {
	if now.Sub(r.seen.since(string(ch.UID), now)) >= siblingWait {
		return nil
	}
	for _, other := range siblings {
		visible := other.Status.Presented && (other.Spec.Solver.WaitInsteadOfSelfCheck != nil || r.seen.is(string(other.UID)))
		accepted := other.Status.State == cmacme.Processing
		if !visible && !accepted && !r.admission.triedInVain(client.ObjectKeyFromObject(other)) {
			return other
		}
	}
	return nil
}

// triedInVain reports whether presenting a challenge has failed.
func (a *admission) triedInVain(key types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, found := a.tried[key]
	return found
}
