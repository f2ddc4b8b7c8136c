package challenge

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestUnfinishedChallengesThatAreDeletedLeaveNothingInMemory(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{
		Client: fake.NewClientBuilder().WithScheme(scheme).Build(), Clock: clocktesting.NewFakePassiveClock(now),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]()),
	}
	defer r.queue.ShutDown()
	const challenges = 1000
	key := func(n int) types.NamespacedName {
		return types.NamespacedName{Namespace: "shop", Name: fmt.Sprintf("challenge-%d", n)}
	}
	for n := range challenges {
		ch := observed().Challenge
		ch.Name, ch.UID = key(n).Name, types.UID(key(n).Name)
		r.memory.Of(ch).Seen.Start(now)
		r.slots.see(ch, false)
		r.slots.update(client.ObjectKeyFromObject(ch), func(e *entry) { e.Failed, e.Resting = now, true })
	}
	if r.memory.Len() != challenges || len(r.slots.entries) != challenges {
		t.Fatalf("%d and %d of %d challenges are remembered", r.memory.Len(), len(r.slots.entries), challenges)
	}
	for n := range challenges {
		if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: key(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if r.memory.Len() != 0 || len(r.slots.entries) != 0 {
		t.Errorf("%d and %d of %d challenges that are gone are remembered", r.memory.Len(), len(r.slots.entries), challenges)
	}
}
