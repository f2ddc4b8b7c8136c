package shim

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestWhatPassesWithinAMinuteIsNotSaid(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	a, b := Mistake{Field: "a", Message: "1"}, Mistake{Field: "b", Message: "1"}
	again := func(words string) Mistake { return Mistake{Field: "c", Message: words, failed: "cannot be created"} }
	var s reportMemory
	object := request("Ingress", "shop", "web")
	for i, step := range []struct {
		at       time.Duration
		mistakes []Mistake
		want     string
		wait     time.Duration
	}{
		{0, []Mistake{a}, "", time.Minute},
		{30 * time.Second, []Mistake{a, b}, "", 30 * time.Second},
		{time.Minute, []Mistake{a, b}, "a: 1", 30 * time.Second},
		{90 * time.Second, []Mistake{a, b}, "a: 1; b: 1", 0},
		{100 * time.Second, []Mistake{b}, "b: 1", 0},
		{110 * time.Second, []Mistake{a, b}, "b: 1", time.Minute}, // it had gone
		{120 * time.Second, nil, "", 0},
		{130 * time.Second, []Mistake{again("at 1")}, "", time.Minute},
		{190 * time.Second, []Mistake{again("at 2")}, "c: at 2", 0},    // the words are others, what fails is not
		{100 * time.Second, []Mistake{again("at 2")}, "", time.Minute}, // a clock that was set back
	} {
		settled, wait := s.settle(object, step.mistakes, start.Add(step.at))
		if got := text(settled); got != step.want || wait != step.wait {
			t.Errorf("step %d: says %q and waits %s, want %q and %s", i, got, wait, step.want, step.wait)
		}
	}
	s.forget(object)
	if len(s.objects) != 0 {
		t.Error("an object that is gone is remembered")
	}
}

func TestWhichWritesAreRefused(t *testing.T) {
	kind := schema.GroupResource{Group: "cert-manager.io", Resource: "certificates"}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"a quota or a policy":     {apierrors.NewForbidden(kind, "a", errors.New("exceeded quota")), true},
		"a webhook":               {apierrors.NewBadRequest("admission webhook denied the request"), true},
		"too large":               {apierrors.NewRequestEntityTooLargeError("limit"), true},
		"a conflict":              {apierrors.NewConflict(kind, "a", nil), false},
		"too many requests":       {apierrors.NewTooManyRequests("later", 1), false},
		"a webhook that is away":  {apierrors.NewInternalError(errors.New("failed calling webhook")), false},
		"a server that is away":   {errors.New("connection refused"), false},
		"a server that is slow":   {apierrors.NewServerTimeout(kind, "create", 1), false},
		"a namespace that is not": {apierrors.NewNotFound(corev1.Resource("namespaces"), "a"), true},
	} {
		m, failure := writeFailed("Certificate a", "cannot be created", test.err)
		if got := failure == nil; got != test.want || m.failed == "" {
			t.Errorf("%s: refused is %t, the mistake is %+v", name, got, m)
		}
	}
}
