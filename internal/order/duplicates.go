package order

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge"
)

// A CA may answer a request for the names of an order that is already open for the same account
// with that order: RFC 8555 section 7.4 allows it, and Let's Encrypt does it. Two Orders would
// share it, and only the one that finalizes first would get a certificate. So a duplicate is sent
// only after the first one was finalized.

// byOpen is the field index of Orders that the CA has accepted and that are not finished, by their
// order key.
const byOpen = "status.open"

// progressWithin is the time within which something must have happened to an Order for a duplicate
// to wait for it. After that the duplicate is sent. The two may share an order at the CA then, and
// the second asks again if the first is finalized before.
const progressWithin = 5 * time.Minute

// openOf returns the order key of an Order that is open at the CA, and nothing for others.
func openOf(order *cmacme.Order) []string {
	if order.Status.URL == "" || acmestatus.IsFinal(order.Status.State) {
		return nil
	}
	return []string{orderKey(order)}
}

// orderKey is equal for Orders that the CA may answer with the same order.
func orderKey(order *cmacme.Order) string { return order.Spec.Profile + " " + allNames(order) }

// duplicates remembers the Orders that are being sent, and those that wait for another. The zero
// value is ready.
type duplicates struct {
	mu sync.Mutex
	// sending has the Order that is being sent, by account and order key, until the cache has its URL.
	sending map[string]types.NamespacedName
	// known is what is remembered of an Order that others may wait for.
	known map[types.NamespacedName]*duplicate
}

type duplicate struct {
	uid types.UID
	// finalized says that the CA was asked to finalize it.
	finalized bool
	// waiting are the Orders that wait for it.
	waiting map[types.NamespacedName]bool
}

// of returns what is remembered of an Order. The lock must be held.
func (d *duplicates) of(key types.NamespacedName, uid types.UID) *duplicate {
	known := d.known[key]
	switch {
	case known == nil:
		known = &duplicate{uid: uid, waiting: map[types.NamespacedName]bool{}}
	case uid == "" || known.uid == uid:
		return known
	case known.uid == "": // so far only its name was known
		known.uid = uid
		return known
	default: // another one of the same name
		known = &duplicate{uid: uid, waiting: known.waiting}
	}
	if d.known == nil {
		d.known = map[types.NamespacedName]*duplicate{}
	}
	d.known[key] = known
	return known
}

// finalize notes that the CA was asked to finalize an Order.
func (d *duplicates) finalize(order *cmacme.Order) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of(client.ObjectKeyFromObject(order), order.UID).finalized = true
}

// sent notes that the cache has the URL of an Order, or that it was not sent.
func (d *duplicates) sent(key types.NamespacedName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for what, sending := range d.sending { // there are few
		if sending == key {
			delete(d.sending, what)
		}
	}
}

// takeWaiting returns the Orders that wait for one, and clears them: they need not wait any more.
func (d *duplicates) takeWaiting(key types.NamespacedName) (waiting map[types.NamespacedName]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.known[key]; known != nil {
		waiting, known.waiting = known.waiting, map[types.NamespacedName]bool{}
	}
	return waiting
}

// end forgets an Order, and returns those that wait for it.
func (d *duplicates) end(key types.NamespacedName) (waiting map[types.NamespacedName]bool) {
	d.sent(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.known[key]; known != nil {
		waiting = known.waiting
	}
	delete(d.known, key)
	return waiting
}

// wakeDuplicates queues the Orders that wait for one.
func (r *Reconciler) wakeDuplicates(key types.NamespacedName) {
	r.duplicates.sent(key)
	r.enqueue(r.duplicates.takeWaiting(key))
}

// forget drops everything that is remembered of an Order that is finished or gone.
func (r *Reconciler) forget(key types.NamespacedName) {
	r.memory.Drop(key)
	r.enqueue(r.duplicates.end(key))
}

func (r *Reconciler) enqueue(orders map[types.NamespacedName]bool) {
	for key := range orders {
		r.queue.Add(reconcile.Request{NamespacedName: key})
	}
}

// duplicateOf returns the Order that must be finalized before order is sent, if there is one. If
// there is none, order counts as being sent until wakeDuplicates or sent. The lock is held
// throughout, so that no Order can finish between the search and the note that order waits for it.
func (r *Reconciler) duplicateOf(ctx context.Context, order *cmacme.Order,
	account acme.Account) (first *types.NamespacedName, err error) {
	now, key, what := r.Clock.Now(), client.ObjectKeyFromObject(order), account.URL+" "+orderKey(order)
	d := &r.duplicates
	d.mu.Lock()
	defer d.mu.Unlock()
	if other, taken := d.sending[what]; taken && other != key {
		d.of(other, "").waiting[key] = true
		return &other, nil
	}
	var list cmacme.OrderList
	if err := r.Client.List(ctx, &list, cached(byOpen, orderKey(order))...); err != nil {
		return nil, err
	}
	for n := range list.Items {
		o := &list.Items[n]
		if o.UID == order.UID || !sameHost(o.Status.URL, account.URL) {
			continue
		}
		other := client.ObjectKeyFromObject(o)
		known := d.of(other, o.UID)
		if known.finalized {
			continue
		}
		var challenges cmacme.ChallengeList
		if err := r.Client.List(ctx, &challenges, cached(challenge.ByOrder, string(o.UID))...); err != nil {
			return nil, err
		}
		if !progresses(o, challenges.Items, now) {
			continue
		}
		i, err := r.Scope.Get(ctx, r.Client, o.Namespace, o.Spec.IssuerRef)
		if err != nil {
			return nil, err
		}
		if i != nil && i.GetStatus().ACME != nil && i.GetStatus().ACME.URI == account.URL {
			known.waiting[key] = true
			return &other, nil
		}
	}
	if d.sending == nil {
		d.sending = map[string]types.NamespacedName{}
	}
	d.sending[what] = key
	return nil, nil
}

// progresses reports whether an Order that the CA has accepted may end soon: it or one of its
// Challenges changed within progressWithin, or the CA is validating or finalizing. An Order is
// stuck if a proof cannot be presented, or is not seen, for longer than that.
func progresses(order *cmacme.Order, challenges []cmacme.Challenge, now time.Time) bool {
	recent := func(t time.Time) bool { return now.Sub(t) < progressWithin }
	open := false
	for i := range challenges {
		ch := &challenges[i]
		switch at := ch.Status.PresentedAt; {
		case acmestatus.IsFinal(ch.Status.State):
			continue
		case ch.Status.State == cmacme.Processing, recent(ch.CreationTimestamp.Time), at != nil && recent(at.Time):
			return true
		}
		open = true
	}
	if open {
		return false
	}
	// An order that was just accepted has authorizations that are not read yet.
	unread := func(z cmacme.ACMEAuthorization) bool { return z.Identifier == "" }
	return len(challenges) > 0 || slices.ContainsFunc(order.Status.Authorizations, unread) ||
		order.Status.State == cmacme.Ready || order.Status.State == cmacme.Processing ||
		recent(order.CreationTimestamp.Time)
}
