package issuer

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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
			[]string{"Ready=False InvalidSolver", "SolversValid=False InvalidSolver"},
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
