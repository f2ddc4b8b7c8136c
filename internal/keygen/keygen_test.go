package keygen

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/pki"
)

var rsa = pki.KeySpec{Algorithm: pki.RSA, Size: 4096}

func idOf(namespace, name string) ID {
	return ID{Certificate: types.NamespacedName{Namespace: namespace, Name: name}, UID: types.UID(name)}
}

// bench is a pool with keys that the test finishes.
type bench struct {
	*Pool
	t     *testing.T
	woken chan types.NamespacedName
	go1   chan error // lets one key be done

	mu    sync.Mutex
	begun []pki.KeySpec
}

func newBench(t *testing.T, size int) *bench {
	b := &bench{t: t, woken: make(chan types.NamespacedName, 1000), go1: make(chan error)}
	b.Pool = newPool(size, func(spec pki.KeySpec) (crypto.Signer, error) {
		b.mu.Lock()
		b.begun = append(b.begun, spec)
		b.mu.Unlock()
		if err := <-b.go1; err != nil {
			return nil, err
		}
		return pki.KeySpec{Algorithm: pki.ECDSA}.Generate(nil)
	})
	b.OnDone(func(name types.NamespacedName) { b.woken <- name })
	return b
}

func (b *bench) finish() string {
	b.go1 <- nil
	return (<-b.woken).String()
}

func (b *bench) get(id ID) crypto.Signer {
	b.t.Helper()
	key, since, err := b.Get(id, rsa, time.Now())
	if err != nil || since.IsZero() {
		b.t.Fatal(since, err)
	}
	return key
}

func TestNamespacesTakeTurns(t *testing.T) {
	b := newBench(t, 1)
	for n := range 60 {
		b.get(idOf("greedy", fmt.Sprint(n)))
	}
	b.get(idOf("modest", "a"))
	b.get(idOf("modest", "b"))
	b.get(idOf("other", "a"))
	var order []string
	for range 6 {
		order = append(order, b.finish())
	}
	if want := []string{"greedy/0", "greedy/1", "modest/a", "other/a", "greedy/2", "modest/b"}; !slices.Equal(order,
		want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
	for len(b.turns) > 0 || len(b.busy) > 0 {
		b.finish()
	}
}

func TestOneNamespaceLeavesRoomForOthers(t *testing.T) {
	b := newBench(t, 4)
	for n := range 10 {
		b.get(idOf("greedy", fmt.Sprint(n)))
	}
	if n := b.busy["greedy"]; n != 2 {
		t.Errorf("a namespace has %d keys generated at once, want 2", n)
	}
	b.get(idOf("modest", "a"))
	if n := b.busy["modest"]; n != 1 {
		t.Error("another namespace waits")
	}
	for range 11 {
		b.finish()
	}
}

func TestAKeyIsKeptUntilItIsDropped(t *testing.T) {
	b := newBench(t, 2)
	id := idOf("shop", "web")
	if first, second := b.get(id), b.get(id); first != nil || second != nil {
		t.Fatal("there is a key already")
	}
	b.finish()
	key := b.get(id)
	if key == nil || b.get(id) != key {
		t.Fatal("the key is not kept")
	}
	rehearsal := id
	rehearsal.Rehearsal = true
	if b.get(rehearsal) != nil {
		t.Error("a rehearsal gets the key of the certificate")
	}
	again := id
	again.UID = "another"
	if b.get(again) != nil {
		t.Error("another Certificate of the name gets the key")
	}
	b.finish()
	b.finish()
	b.Drop(id.Certificate)
	if len(b.jobs) != 0 {
		t.Errorf("%d keys are left", len(b.jobs))
	}
	if b.get(id) != nil {
		t.Error("the key is there after Drop")
	}
	// The spec changes while the key is generated: it is of no use, and does not wake.
	if key, _, _ := b.Get(id, pki.KeySpec{Algorithm: pki.RSA, Size: 2048}, time.Now()); key != nil {
		t.Error("a key of another size is returned")
	}
	b.go1 <- nil
	b.finish()
	if key, _, _ := b.Get(id, pki.KeySpec{Algorithm: pki.RSA, Size: 2048}, time.Now()); key == nil {
		t.Error("the key is not there")
	}
	if len(b.woken) != 0 {
		t.Error("a key that is of no use wakes")
	}
}

func TestAFailureIsReportedOnceAndTriedAgain(t *testing.T) {
	b := newBench(t, 2)
	id := idOf("shop", "web")
	b.get(id)
	b.go1 <- errors.New("no entropy")
	<-b.woken
	if _, _, err := b.Get(id, rsa, time.Now()); err == nil {
		t.Fatal("the failure is not told")
	}
	b.get(id)
	b.finish()
	if b.get(id) == nil {
		t.Error("there is no key")
	}
}

func TestWhatWaitsAndIsDroppedIsNotGenerated(t *testing.T) {
	b := newBench(t, 1)
	b.get(idOf("a", "1"))
	b.get(idOf("a", "2"))
	b.get(idOf("b", "1"))
	b.Drop(types.NamespacedName{Namespace: "a", Name: "2"})
	b.Drop(types.NamespacedName{Namespace: "b", Name: "1"})
	b.finish()
	if b.get(idOf("c", "1")); b.finish() != "c/1" {
		t.Error("what was dropped was generated")
	}
	if len(b.begun) != 2 || len(b.turns) != 0 || len(b.waiting) != 0 {
		t.Errorf("%d were generated; %v wait", len(b.begun), b.waiting)
	}
}

func TestRealKeys(t *testing.T) {
	p := New()
	done := make(chan types.NamespacedName, 1)
	p.OnDone(func(name types.NamespacedName) { done <- name })
	id := idOf("shop", "web")
	if _, since, _ := p.Get(id, pki.KeySpec{Size: 2048}, time.Now()); time.Since(since) > time.Minute {
		t.Errorf("asked for at %s", since)
	}
	<-done
	key, _, err := p.Get(id, pki.KeySpec{Size: 2048}, time.Now())
	if err != nil || key == nil || len((pki.KeySpec{Size: 2048}).Differences(key.Public())) > 0 {
		t.Errorf("the key is %v, %v", key, err)
	}
}
