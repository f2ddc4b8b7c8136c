package order

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// CAs answer who asks for the names of an order that is open already with that order, if it is the same account, as RFC 8555 section 7.4 lets them and
// Let's Encrypt does. Two Orders would share it, and only that which finalizes first gets a certificate. So the second asks when the first has finalized.

// byOpen is the field index of Orders that the CA has taken and that are not over, by what they ask for.
const byOpen = "status.open"

// twinPatience is how long an order waits for another that does not come to an end, as its challenges cannot be solved. Then it may be that it shares its
// order with that one, and has to ask again if that is finalized first.
const twinPatience = 15 * time.Minute

// openOf is what an Order that is open at the CA asks for, and nothing for others.
func openOf(order *cmacme.Order) []string {
	if order.Status.URL == "" || finished(order.Status.State) {
		return nil
	}
	return []string{wish(order)}
}

// wish is equal for Orders that the CA may take for the same.
func wish(order *cmacme.Order) string { return order.Spec.Profile + " " + allNames(order) }

// twins are the Orders that are being sent, and those that wait for another. The zero value is ready.
type twins struct {
	mu sync.Mutex
	// sent is who sends what, by account and wish, until the cache has its URL.
	sent map[string]types.NamespacedName
	// behind are those who wait for one.
	behind map[types.NamespacedName]map[types.NamespacedName]bool
}

// wait notes that one waits for another. The lock must be held.
func (t *twins) wait(first, key types.NamespacedName) {
	if t.behind == nil {
		t.behind = map[types.NamespacedName]map[types.NamespacedName]bool{}
	}
	if t.behind[first] == nil {
		t.behind[first] = map[types.NamespacedName]bool{}
	}
	t.behind[first][key] = true
}

// written says that an order is in the cache as it is, and no longer being sent.
func (t *twins) written(key types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for what, by := range t.sent { // the few that are being sent
		if by == key {
			delete(t.sent, what)
		}
	}
}

// over says that nobody has to wait for an order any more, and returns who did.
func (t *twins) over(key types.NamespacedName) map[types.NamespacedName]bool {
	t.written(key)
	t.mu.Lock()
	defer t.mu.Unlock()
	waited := t.behind[key]
	delete(t.behind, key)
	return waited
}

// over lets those look who wait for an order.
func (r *Reconciler) over(key types.NamespacedName) {
	for other := range r.twins.over(key) {
		r.queue.Add(reconcile.Request{NamespacedName: other})
	}
}

// first returns the order that is to be finalized before this one is sent, if there is one. If there is none, this one is being sent from now on, until
// it is written or over. Nobody is over between the look at them and the note that they are waited for.
func (r *Reconciler) first(ctx context.Context, order *cmacme.Order, by acme.Account) (first *types.NamespacedName, err error) {
	now, key, what := r.Clock.Now(), client.ObjectKeyFromObject(order), by.URL+" "+wish(order)
	t := &r.twins
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, taken := t.sent[what]; taken && other != key {
		t.wait(other, key)
		return &other, nil
	}
	var list cmacme.OrderList
	if err := r.Client.List(ctx, &list, cached(byOpen, wish(order))...); err != nil {
		return nil, err
	}
	for n := range list.Items {
		o := &list.Items[n]
		other := client.ObjectKeyFromObject(o)
		if o.UID == order.UID || !sameHost(o.Status.URL, by.URL) || r.finalized.is(string(o.UID)) || now.Sub(r.open.since(other.String(), now)) >= twinPatience {
			continue
		}
		i, err := r.Scope.Get(ctx, r.Client, o.Namespace, o.Spec.IssuerRef)
		if err != nil {
			return nil, err
		}
		if i != nil && i.GetStatus().ACME != nil && i.GetStatus().ACME.URI == by.URL {
			t.wait(other, key)
			return &other, nil
		}
	}
	if t.sent == nil {
		t.sent = map[string]types.NamespacedName{}
	}
	t.sent[what] = key
	return nil, nil
}

// behind has an order wait for another, and says so if that takes long. It returns when to look again, should nobody call.
func (r *Reconciler) behind(order *cmacme.Order, first types.NamespacedName) reconcile.Result {
	now := r.Clock.Now()
	waited := now.Sub(r.waits.since(client.ObjectKeyFromObject(order).String(), now))
	if waited < tellAfter {
		return reconcile.Result{RequeueAfter: tellAfter - waited} // then it is said
	}
	which := "an Order of another namespace" // of which nothing may be told here
	if first.Namespace == order.Namespace {
		which = "the Order " + first.Name
	}
	order.Status.Reason = fmt.Sprintf("Waiting for %s, which asks for the same names with the same account: the CA "+
		"would answer both with one order", which)
	return reconcile.Result{RequeueAfter: time.Minute} // the other one may be open for too long by then
}
