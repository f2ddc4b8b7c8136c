package secrets

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

func labelled(namespace, name string, size int) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u", ResourceVersion: "1",
			Labels:      map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true", "more": "label"},
			Annotations: map[string]string{"a": strings.Repeat("x", size/2)}},
		Data: map[string][]byte{"b": make([]byte, size/2)},
	}
}

type deletions struct{ handler cache.ResourceEventHandler }

func (d *deletions) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	d.handler = h
	return nil, nil
}

func TestTheCacheOfSecretsIsBounded(t *testing.T) {
	const kept = 10
	b := &Bound{namespace: 1 << 20, all: 3 << 20}
	events := &deletions{}
	if err := b.Watch(events); err != nil {
		t.Fatal(err)
	}
	put := func(namespace, name string, size int) bool {
		got, err := b.Transform(labelled(namespace, name, size))
		if err != nil {
			t.Fatal(err)
		}
		secret := got.(*corev1.Secret)
		if Cached(secret) {
			return true
		}
		if n := sizeOf(secret); n > 2<<10 || secret.UID != "u" || secret.ResourceVersion != "1" ||
			secret.Labels[cmapi.PartOfCertManagerControllerLabelKey] != "true" {
			t.Errorf("of %s/%s %d bytes are kept: %+v", namespace, name, n, secret.ObjectMeta)
		}
		return false
	}
	n := 0
	for i := range 1000 {
		if put("tenant", fmt.Sprint(i), 100<<10) {
			n++
		}
	}
	if n != kept {
		t.Errorf("%d are cached, not %d", n, kept)
	}
	if !put("other", "small", 10<<10) {
		t.Error("a tenant takes others their place")
	}
	// A changed Secret keeps its share of the bound, and a deleted one frees it.
	if !put("tenant", "0", 100<<10) || put("tenant", "new", 100<<10) {
		t.Error("a Secret is counted twice, or not at all")
	}
	events.handler.OnDelete(labelled("tenant", "0", 0))
	events.handler.OnDelete(cache.DeletedFinalStateUnknown{Obj: labelled("tenant", "1", 0)})
	events.handler.OnDelete(labelled("tenant", "1", 0))
	if !put("tenant", "new", 100<<10) || !put("tenant", "newer", 100<<10) || put("tenant", "newest", 100<<10) {
		t.Error("what is gone is still counted, or twice")
	}
	for i := range 100 {
		put(fmt.Sprint("n", i), "s", 1000<<10)
	}
	if b.sum > b.all {
		t.Errorf("%d bytes are cached in all", b.sum)
	}
	stripped := strip(labelled("a", "b", 10))
	if again, err := b.Transform(stripped); err != nil || again != any(stripped) {
		t.Error("what is stripped is not stripped again")
	}
}
