package earlyissuance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/perennial-pki/perennial/internal/fault"
)

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

func newStore(c client.Client, clock *clocktesting.FakePassiveClock) *Store {
	return &Store{Client: c, Namespace: "system", Clock: clock, Log: logr.Discard()}
}

func count(t *testing.T, s *Store, name types.NamespacedName) func() {
	t.Helper()
	undo, err := s.Count(t.Context(), name, SecretOverwritten)
	if err != nil {
		t.Fatal(err)
	}
	return undo
}

func counted(t *testing.T, s *Store, name types.NamespacedName) int {
	t.Helper()
	r, err := s.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return r.Counted
}

func TestTheCountSurvivesARestartAndNothingIsWrittenWithoutOne(t *testing.T) {
	writes := 0
	clock := clocktesting.NewFakePassiveClock(began)
	c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			writes++
			return c.Create(ctx, o, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch,
			options ...client.PatchOption) error {
			writes++
			return c.Patch(ctx, o, p, options...)
		},
	})
	s := newStore(c, clock)
	for n := range 10000 {
		name := types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(n)}
		s.Started(name, false)
		s.Issued(name, began.Add(60*24*time.Hour))
		if n := counted(t, s, name); n != 0 {
			t.Fatalf("counted is %d", n)
		}
	}
	if writes != 0 {
		t.Errorf("%d writes for issuances that do not count", writes)
	}
	count(t, s, web)
	count(t, s, web)
	s = newStore(c, clock)
	if n := counted(t, s, web); n != 2 {
		t.Errorf("after a restart %d are counted, want 2", n)
	}
	if n := counted(t, s, types.NamespacedName{Namespace: "shop", Name: "other"}); n != 0 {
		t.Errorf("of another Certificate %d are counted", n)
	}
	if writes != 2 {
		t.Errorf("%d writes, want 2", writes)
	}
	var all corev1.ConfigMapList
	if err := c.List(t.Context(), &all); err != nil || len(all.Items) != 1 || all.Items[0].Namespace != "system" {
		t.Fatalf("%v, ConfigMaps %+v", err, all.Items)
	}
	if text := all.Items[0].Data[entry]; strings.Contains(text, "web") || strings.Contains(text, "shop") {
		t.Errorf("it names the Certificate: %s", text)
	}
}

func TestTwoProcessesPutTheirCountsTogether(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(began)
	c := fake.NewClientBuilder().Build()
	first, second := newStore(c, clock), newStore(c, clock)
	for _, s := range []*Store{first, second} {
		counted(t, s, web) // both have read that there is nothing
	}
	count(t, first, web)
	count(t, first, web)
	clock.SetTime(began.Add(time.Minute))
	count(t, second, web)
	if n := counted(t, newStore(c, clock), web); n != 2 {
		t.Errorf("%d are counted, want 2: the most that either knows", n)
	}
	// The ConfigMap is deleted: what is known is written again.
	var all corev1.ConfigMapList
	if err := c.List(t.Context(), &all); err != nil || len(all.Items) != 1 {
		t.Fatal(err, all.Items)
	}
	if err := c.Delete(t.Context(), &all.Items[0]); err != nil {
		t.Fatal(err)
	}
	count(t, second, web)
	if n := counted(t, newStore(c, clock), web); n != 3 {
		t.Errorf("%d are counted, want 3", n)
	}
}

func TestWhatCouldNotBeStartedOrWrittenDoesNotCount(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(began)
	refuse := false
	c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if refuse {
				return apierrors.NewForbidden(corev1.Resource("configmaps"), o.GetName(), errors.New("exceeded quota: few"))
			}
			return c.Create(ctx, o, options...)
		},
	})
	s := newStore(c, clock)
	refuse = true
	_, err := s.Count(t.Context(), web, SecretOverwritten)
	if e := fault.Of(err); err == nil || e.Class != fault.Refused || e.Reason != ReasonNotSaved ||
		e.Error() != "forbidden: exceeded quota: few" {
		t.Errorf("the error is %+v", err)
	}
	if n := counted(t, s, web); n != 0 {
		t.Errorf("%d are counted after a write that failed", n)
	}
	refuse = false
	count(t, s, web)()
	if n := counted(t, s, web); n != 0 {
		t.Errorf("%d are counted after undo", n)
	}
}

func TestWhatIsForgottenIsDropped(t *testing.T) {
	all := histories{}
	for n := range maxHistories + 500 {
		all[fmt.Sprintf("%032x", n)] = History{Counted: 1, Last: began.Add(time.Duration(n) * time.Millisecond)}
	}
	all["long ago"] = History{Counted: 3, Last: began.Add(-3 * time.Hour)}
	text, err := all.encode(began.Add(time.Minute))
	if err != nil || len(text) > maxText {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	got, err := decode(text)
	if err != nil || len(got) != maxHistories {
		t.Fatalf("%d histories, %v", len(got), err)
	}
	if _, ok := got["long ago"]; ok {
		t.Error("one that is forgotten is there")
	}
	if _, ok := got[fmt.Sprintf("%032x", maxHistories+499)]; !ok {
		t.Error("the latest is not there")
	}
}

func FuzzDecode(f *testing.F) {
	text, _ := histories{"a": {Counted: 2, Last: began, Edited: [2]time.Time{began, began.Add(-time.Minute)},
		Other: began}, "b": {Counted: 1, Last: began}}.encode(began)
	f.Add(text)
	f.Add([]byte("null"))
	f.Add([]byte(`{"a":{"n":99}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := decode(text)
		if err != nil {
			return
		}
		again, err := maps.Clone(all).encode(began)
		if err != nil {
			return // a year that JSON has no words for
		}
		if _, err := decode(again); err != nil {
			t.Errorf("cannot read what was written of %q: %v", text, err)
		}
		for _, h := range all {
			if wait := h.Next(SecretOverwritten, began).Sub(began); wait > maxFloor {
				t.Errorf("%+v waits for %s", h, wait)
			}
		}
	})
}
