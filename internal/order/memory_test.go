package order

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/ratelimit"
)

func TestUnfinishedOrdersThatAreDeletedLeaveNothingInMemory(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).
		WithIndex(&cmacme.Order{}, byOpen, func(o client.Object) []string { return openOf(o.(*cmacme.Order)) }).Build()
	r := &Reconciler{
		Client: c, Clock: clocktesting.NewFakePassiveClock(now), RateLimits: &ratelimit.Ledgers{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]()),
	}
	defer r.queue.ShutDown()
	account := acme.Account{URL: "https://ca.example/acct/1"}
	const orders = 1000
	for n := range orders {
		order := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprintf("order-%d", n), UID: types.UID(fmt.Sprint(n)),
		}}
		order.Spec.DNSNames = []string{fmt.Sprintf("%d.example.com", n/2)} // each has a duplicate
		r.memory.Of(order).Due.Start(now)
		if first, err := r.duplicateOf(t.Context(), order, account); err != nil || (first != nil) != (n%2 == 1) {
			t.Fatalf("order %d waits for %v, %v", n, first, err)
		}
		r.duplicates.finalize(order)
	}
	if r.memory.Len() != orders {
		t.Fatalf("%d of %d orders are remembered", r.memory.Len(), orders)
	}
	for n := range orders {
		key := types.NamespacedName{Namespace: "shop", Name: fmt.Sprintf("order-%d", n)}
		if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.memory.Len(); n != 0 {
		t.Errorf("%d of %d orders that are gone are remembered", n, orders)
	}
	if d := &r.duplicates; len(d.known) != 0 || len(d.sending) != 0 {
		t.Errorf("%d known and %d being sent of %d orders that are gone", len(d.known), len(d.sending), orders)
	}
}
