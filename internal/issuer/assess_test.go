package issuer

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// TestWhatWasFoundOutAboutAnIssuerIsSaidOnce says each finding twice: the second time nothing
// changes and no event is written.
func TestWhatWasFoundOutAboutAnIssuerIsSaidOnce(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	good := signer.Readiness{Reason: "ACMEAccountRegistered", Message: "registered"}
	with := func(change func(*signer.Readiness)) signer.Readiness {
		r := good
		change(&r)
		return r
	}
	outage := errors.New("no answer")
	oneSolver := &signer.SolverProblem{Reason: "InvalidSolver", Message: "spec.acme.solvers[1]: wrong"}
	for name, test := range map[string]struct {
		found      signer.Readiness
		err        error
		conditions []string
		events     []string
	}{
		"all is well": {good, nil, []string{"Ready=True ACMEAccountRegistered"}, []string{"Normal ACMEAccountRegistered"}},
		"one solver is wrong": {with(func(r *signer.Readiness) { r.Solvers = oneSolver }), nil,
			[]string{"Ready=True ACMEAccountRegistered", "SolversValid=False InvalidSolver"},
			[]string{"Normal ACMEAccountRegistered", "Warning InvalidSolver"}},
		"the only solver is wrong": {
			with(func(r *signer.Readiness) { r.Solvers = oneSolver }), fault.Misconfiguredf("InvalidSolver",
				"no solver can be used"),
			[]string{"Ready=False InvalidSolver", "SolversValid=False InvalidSolver", "Stalled=True InvalidSolver"},
			[]string{"Warning InvalidSolver", "Warning InvalidSolver"}},
		"the CA does not answer, and the account is known": {
			with(func(r *signer.Readiness) { r.Unreachable, r.UnreachableReason = outage, "Unreachable" }), nil,
			[]string{"Ready=True ACMEAccountRegistered", "Unreachable=True Unreachable"},
			[]string{"Normal ACMEAccountRegistered", "Warning Unreachable"}},
		"the CA does not answer, and there is no account": {
			with(func(r *signer.Readiness) { r.Unreachable, r.UnreachableReason = outage, "Unreachable" }),
			&fault.Error{Class: fault.Transient, Reason: "ErrRegisterACMEAccount", Err: outage},
			[]string{"Ready=False ErrRegisterACMEAccount", "Unreachable=True Unreachable"},
			[]string{"Warning ErrRegisterACMEAccount"}},
		"the Kubernetes API refuses": {good, fault.Transientf("ErrRegisterACMEAccount", "store: forbidden"),
			[]string{"Ready=False ErrRegisterACMEAccount"}, []string{"Warning ErrRegisterACMEAccount"}},
		"an error without a reason": {
			good, errors.New("something"), []string{"Ready=False Error"}, []string{"Warning Error"}},
	} {
		t.Run(name, func(t *testing.T) {
			status := &cmapi.IssuerStatus{}
			var events []string
			for _, e := range assess(status, test.found, test.err, 3, now) {
				events = append(events, e.kind+" "+e.reason)
			}
			var conditions []string
			for _, c := range status.Conditions {
				conditions = append(conditions, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
			}
			slices.Sort(conditions)
			if !slices.Equal(conditions, test.conditions) || !slices.Equal(events, test.events) {
				t.Errorf("conditions %q, events %q", conditions, events)
			}
			before := status.DeepCopy()
			if again := assess(status, test.found, test.err, 3, now.Add(time.Hour)); len(again) > 0 {
				t.Errorf("it is said again: %+v", again)
			}
			if fmt.Sprint(before.Conditions) != fmt.Sprint(status.Conditions) {
				t.Errorf("the status changes: %+v", status.Conditions)
			}
			assess(status, good, nil, 3, now)
			if len(status.Conditions) != 1 {
				t.Errorf("it is not taken back: %+v", status.Conditions)
			}
		})
	}
}

func TestAnIssuerIsStalledWhenOnlyAPersonCanHelp(t *testing.T) {
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const soon, late = fault.MissingGrace - time.Second, fault.MissingGrace
	for name, test := range map[string]struct {
		err                 error
		atOnce, soon, later bool
	}{
		"the settings are wrong": {fault.Misconfiguredf("UnsupportedType", "not supported"), true, true, true},
		"a Secret is missing":    {fault.Missingf("ErrGetKeyPair", "create it"), false, false, true},
		"the CA refuses":         {fault.Refusedf("ErrRegisterACMEAccount", "no"), true, true, true},
		"the CA does not answer": {fault.Transientf("ErrRegisterACMEAccount", "no answer"), false, false, false},
		"the CA limits":          {fault.Limitedf("RateLimited", start.Add(time.Hour), "later"), false, false, false},
		"the CA is not valid yet": {
			&fault.Error{Class: fault.Misconfigured, Reason: "ErrInvalidKeyPair", Until: start.Add(time.Hour),
				Err: errors.New("not yet")}, false, false, false},
		"the Kubernetes API refuses the account key": {
			fault.Transientf("ErrRegisterACMEAccount", "store: %w",
				apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "account", errors.New("quota"))),
			true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			status := &cmapi.IssuerStatus{}
			assess(status, signer.Readiness{}, test.err, 3, start)
			check(t, status, test.atOnce)
			assess(status, signer.Readiness{}, test.err, 3, start.Add(soon))
			check(t, status, test.soon)
			assess(status, signer.Readiness{}, test.err, 3, start.Add(late))
			check(t, status, test.later)
			assess(status, signer.Readiness{Reason: "KeyPairVerified"}, nil, 3, start.Add(late))
			check(t, status, false)
		})
	}
}

// check looks for the condition Stalled, which says what Ready does.
func check(t *testing.T, status *cmapi.IssuerStatus, want bool) {
	t.Helper()
	ready := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionReady)
	is := cmapi.GetIssuerCondition(status, cmapi.IssuerConditionStalled)
	if (is != nil) != want || want && (is.Reason != ready.Reason || is.Message != ready.Message || is.Status != "True") {
		t.Errorf("Stalled is %+v beside Ready %+v, want it there: %t", is, ready, want)
	}
}
