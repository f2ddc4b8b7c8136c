package lifecycle_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestAKillAtAnyWriteLosesNothing kills the controller at each of its writes, once before and once
// after the write reached the server, starts it again, and checks the final state.
func TestAKillAtAnyWriteLosesNothing(t *testing.T) {
	reuse := func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever }
	external := func(crt *cmapi.Certificate) {
		crt.Spec.IssuerRef.Group, crt.Spec.IssuerRef.Kind = "test.example.com", "Issuer"
	}
	rehearsed := func(crt *cmapi.Certificate) { crt.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{Name: "staging"} }
	for _, scenario := range []struct {
		name  string
		crt   *cmapi.Certificate
		renew bool
	}{
		{name: "the first certificate", crt: certificate("a", "ca")},
		{name: "the first certificate of an issuer of another process", crt: certificate("a", "ca", external)},
		{name: "the first certificate, after a rehearsal", crt: certificate("a", "ca", rehearsed)},
		{name: "the first certificate of an issuer of another process, after a rehearsal", crt: certificate("a", "ca", external, rehearsed)},
		{name: "a renewal", crt: certificate("a", "ca"), renew: true},
		{name: "a renewal that keeps the key", crt: certificate("a", "ca", reuse), renew: true},
		{name: "a renewal at an issuer of another process", crt: certificate("a", "ca", external), renew: true},
		{name: "a renewal at an issuer of another process that keeps the key", crt: certificate("a", "ca", external, reuse), renew: true},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			killAtEach(t, scenario.crt, scenario.renew)
		})
	}
}

// killAtEach kills the controller at each write, before and after it, until it makes no more.
func killAtEach(t *testing.T, crt *cmapi.Certificate, renew bool) {
	for n := 1; ; n++ {
		survived := true
		for _, after := range []bool{false, true} {
			if killAt(t, n, after, crt.DeepCopy(), renew) {
				survived = false
			}
		}
		if survived {
			if n < 4 {
				t.Fatalf("the controller wrote only %d times: nothing was tested", n-1)
			}
			return
		}
		if n > 40 {
			t.Fatal("the controller does not stop writing")
		}
	}
}

// killAt kills the controller at its n-th write. It reports whether there was such a write.
func killAt(t *testing.T, n int, after bool, crt *cmapi.Certificate, renew bool) (died bool) {
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.caIssuer("staging", 24*time.Hour)
	w.externalIssuer()
	w.create(crt)
	revision := 1
	if renew {
		first := w.run(controller.Options{})
		w.untilReady(crt.Name, 1)
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
		w.renew(crt.Name)
		revision = 2
	}
	end := cluster.NewLife(n, after)
	mortalRun := w.run(controller.Options{WrapClient: end.Wrap})
	finished := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(finished)
		watcher, err := w.Watch(ctx, &cmapi.CertificateList{}, client.InNamespace(w.namespace))
		if err != nil {
			return
		}
		defer watcher.Stop()
		for e := range watcher.ResultChan() {
			if crt, ok := e.Object.(*cmapi.Certificate); ok && ready(revision)(crt) == nil {
				return
			}
		}
	}()
	select {
	case <-end.Died():
		died = true
	case <-finished:
	}
	cancel()
	if err := mortalRun.Stop(); err != nil {
		t.Fatal(err)
	}
	w.run(controller.Options{})
	w.untilReady(crt.Name, revision)
	at := fmt.Sprintf("killed at write %d (after it: %t)", n, after)
	cluster.Eventually(t, func() error { // what is left over is deleted before or with the last status
		if keys := w.nextKeys(); len(keys) != 0 {
			return fmt.Errorf("%s: %d next private keys are left", at, len(keys))
		}
		if requests := w.requests(); len(requests) != 1 {
			return fmt.Errorf("%s: %d requests are left, want 1", at, len(requests))
		}
		return nil
	})
	leaf := w.leaf(w.secret(crt.Name))
	now := w.getCertificate(crt.Name)
	if *now.Status.Revision != revision {
		t.Errorf("%s: revision %d, want %d: a certificate was issued once more", at, *now.Status.Revision, revision)
	}
	if !now.Status.NotAfter.Time.Equal(leaf.NotAfter) {
		t.Errorf("%s: the status speaks of another certificate than the Secret holds", at)
	}
	return died
}
