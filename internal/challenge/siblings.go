package challenge

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
)

// siblingWait is the longest time that a challenge with a visible proof waits for the value of a
// sibling.
const siblingWait = time.Minute

// Sibling is an unfinished challenge of the same Order with a value in the same TXT record, as
// those of example.com and *.example.com have.
type Sibling struct {
	// Key is empty if the Challenge has not been seen yet, and only its Order says that it will come.
	Key types.NamespacedName
	// Visible reports whether its value can be seen, and Accepted whether the CA was asked to look.
	Visible, Accepted bool
	// Failed reports whether it failed to be presented.
	Failed bool
}

// awaited returns the first sibling with a value that is not visible yet. A CA's resolver caches
// the record as it first reads it. If the CA looks before the values of the siblings are there, the
// siblings fail. It returns nil after siblingWait, and for siblings that cannot be presented.
func (d *decider) awaited() *Sibling {
	if d.Now.Sub(d.m.Seen.Start(d.Now)) >= siblingWait {
		return nil
	}
	for n := range d.Siblings {
		if s := &d.Siblings[n]; !s.Visible && !s.Accepted && !s.Failed {
			return s
		}
	}
	return nil
}

// siblings returns those of a challenge.
func (r *Reconciler) siblings(ctx context.Context, ch *cmacme.Challenge) (siblings []Sibling) {
	owner := metav1.GetControllerOf(ch)
	if owner == nil || ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 || r.capacity(ch) > 0 {
		return nil
	}
	var list cmacme.ChallengeList
	options := append(cached(ByOrder, string(owner.UID)), client.InNamespace(ch.Namespace))
	if err := r.Client.List(ctx, &list, options...); err != nil {
		return nil // only a cache that is stopping fails
	}
	known := 0
	for i := range list.Items {
		other := &list.Items[i]
		if other.Spec.DNSName != ch.Spec.DNSName {
			continue
		}
		known++
		if other.UID == ch.UID || other.Spec.Type != ch.Spec.Type || acmestatus.ProofUnneeded(other) {
			continue
		}
		key := client.ObjectKeyFromObject(other)
		visible, failed := r.slots.progress(key)
		siblings = append(siblings, Sibling{
			Key: key, Accepted: other.Status.State == cmacme.Processing, Failed: failed,
			// What was seen in a pass counts before that pass has written its status.
			Visible: visible || other.Status.Presented && other.Spec.Solver.WaitInsteadOfSelfCheck != nil,
		})
	}
	if known < r.challengesOfName(ctx, ch, owner.Name) {
		siblings = append(siblings, Sibling{})
	}
	return siblings
}

// challengesOfName returns how many Challenges an Order has, or will have, for the name of a
// challenge: one for the name and one for its wildcard. They are created one after the other. It
// returns 0 if the Order is not known.
func (r *Reconciler) challengesOfName(ctx context.Context, ch *cmacme.Challenge, order string) (n int) {
	var o cmacme.Order
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: ch.Namespace, Name: order}, &o,
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return 0
	}
	for _, z := range o.Status.Authorizations {
		if z.Identifier == ch.Spec.DNSName && z.InitialState == cmacme.Pending {
			n++
		}
	}
	return n
}
