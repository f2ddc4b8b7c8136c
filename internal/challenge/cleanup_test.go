package challenge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/challenge/desired"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

// limiting is a solver with a service that is rate-limited until a time.
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
	for wait, want := range map[time.Duration]time.Duration{
		time.Second: cleanUpAgain, 3 * time.Minute: 3 * time.Minute, time.Hour: cleanUpLimit,
	} {
		r := &Reconciler{
			Client: fake.NewClientBuilder().
				WithScheme(scheme).
				Build(),
			Clock:   clocktesting.NewFakePassiveClock(now),
			Events:  record.NewFakeRecorder(1),
			Solvers: map[cmacme.ACMEChallengeType]solver.Solver{cmacme.ACMEChallengeTypeDNS01: limiting{until: now.Add(wait)}},
		}
		at := metav1.NewTime(now)
		ch := &cmacme.Challenge{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:         "shop",
				Name:              "c",
				UID:               "u",
				DeletionTimestamp: &at,
				Finalizers:        []string{cmacme.ACMEDomainQualifiedFinalizer},
			},
		}
		ch.Spec.Type, ch.Status.Presented = cmacme.ACMEChallengeTypeDNS01, true
		if got, err := r.cleanUp(t.Context(), ch); err != nil || got.RequeueAfter != want {
			t.Errorf("asked to wait for %s, it comes back after %s, %v", wait, got.RequeueAfter, err)
		}
	}
}

func TestDecideCleanUp(t *testing.T) {
	limit := now.Add(5 * time.Minute)
	foreign := &unproven{`ClusterIssuer "a"`, fault.Misconfiguredf(desired.NotOfOrder, "the Order does not exist")}
	for name, test := range map[string]struct {
		err        error
		presented  bool
		processing bool
		late       bool
		again      time.Duration
		events     string
		gaveUpSays string
	}{
		"it is removed":                    {presented: true},
		"it fails":                         {err: errors.New("refused"), presented: true, again: cleanUpAgain, events: "CleanUpError"},
		"its service says when":            {err: fault.Limitedf("", now.Add(time.Minute), "busy"), presented: true, again: time.Minute, events: "CleanUpError"},
		"its service says too late a time": {err: fault.Limitedf("", now.Add(time.Hour), "busy"), presented: true, again: 5 * time.Minute, events: "CleanUpError"},
		"it is in progress":                {err: &solver.RetryLaterError{After: time.Second}, presented: true, again: time.Second},
		"the user has to do it":            {err: &solver.RetryLaterError{After: time.Second, Ask: true}, presented: true, again: time.Second, events: "ActionRequired"},
		"the limiter has no place":         {err: &limiter.ErrBusy{After: 2 * time.Second}, presented: true, again: 2 * time.Second},
		"it was never presented":           {err: fault.Misconfiguredf("", "no Secret")},
		"it was never presented, for now":  {err: errors.New("refused"), again: cleanUpAgain, events: "CleanUpError"},
		"its credentials are gone":         {err: fault.Misconfiguredf("", "no Secret"), presented: true, again: cleanUpAgain, events: "CleanUpError"},
		"it failed for too long":           {err: errors.New("refused"), presented: true, late: true, events: "CleanUpError", gaveUpSays: "stays: remove it by hand"},
		"nothing proves that it is ours": {err: foreign, presented: true, events: "CleanUpError",
			gaveUpSays: "the credentials of ClusterIssuer \"a\" are not used"},
		"nothing proves that a failed one is ours": {err: foreign, processing: true, events: "CleanUpError",
			gaveUpSays: "may be there"},
		"nothing proves that it is ours, but there is nothing": {err: foreign},
		"it failed for too long, if at all":                    {err: errors.New("refused"), late: true, events: "CleanUpError", gaveUpSays: "may be there"},
	} {
		t.Run(name, func(t *testing.T) {
			ch, at := observed().Challenge, now
			ch.Status.Presented, ch.Status.Processing = test.presented, test.processing
			if test.late {
				at = limit
			}
			d := decideCleanUp(ch, test.err, at, limit)
			var events []string
			for _, e := range d.Events {
				events = append(events, e.Reason)
			}
			if got := strings.Join(events, " "); d.Again != test.again || got != test.events {
				t.Errorf("again after %s with events %q, not after %s with %q", d.Again, got, test.again, test.events)
			}
			if (d.GaveUp == "") != (test.gaveUpSays == "") || !strings.Contains(d.GaveUp, test.gaveUpSays) {
				t.Errorf("it gives up with %q", d.GaveUp)
			}
		})
	}
}
