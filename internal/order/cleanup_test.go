package order

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

// limiting is a solver whose service says when it may be asked again.
type limiting struct {
	solver.Solver
	until time.Time
}

func (l limiting) CleanUp(context.Context, *signer.Issuer, *cmacme.Challenge) error {
	return fault.Limitedf("PresentError", l.until, "the service says that it is asked too much")
}

func TestACleanUpWaitsAsLongAsAServiceSays(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	scheme := runtime.NewScheme()
	if err := cmapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for wait, want := range map[time.Duration]time.Duration{time.Second: cleanUpAgain, 3 * time.Minute: 3 * time.Minute, time.Hour: cleanUpLimit} {
		r := &ChallengeReconciler{
			Client: fake.NewClientBuilder().WithScheme(scheme).Build(), Clock: clocktesting.NewFakePassiveClock(now), Events: record.NewFakeRecorder(1),
			Solvers: map[cmacme.ACMEChallengeType]solver.Solver{cmacme.ACMEChallengeTypeDNS01: limiting{until: now.Add(wait)}},
		}
		at := metav1.NewTime(now)
		ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c", UID: "u", DeletionTimestamp: &at, Finalizers: []string{cmacme.ACMEDomainQualifiedFinalizer}}}
		ch.Spec.Type, ch.Status.Presented = cmacme.ACMEChallengeTypeDNS01, true
		if got, err := r.cleanUp(t.Context(), ch); err != nil || got.RequeueAfter != want {
			t.Errorf("asked to wait for %s, it comes back after %s, %v", wait, got.RequeueAfter, err)
		}
	}
}
