package challenge

import (
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/account/accounttest"
	"github.com/perennial-pki/perennial/internal/acmestatus"
)

// TestNoFaultThatPassesEndsAChallenge makes every action fail in every way in which servers,
// networks and the limiter can fail.
func TestNoFaultThatPassesEndsAChallenge(t *testing.T) {
	faults := accounttest.PassingFaults(now)
	before := map[Action][]set{
		Admit: nil, ReadAuthorization: nil, Present: nil, Check: {presented(time.Minute)},
		Restore: {presented(10 * time.Minute)}, Accept: {presented(time.Minute)}, Count: {accepted, invalid},
		Diagnose: {accepted, invalid},
	}
	for action, behind := range before {
		for name, err := range faults {
			d := Decide(observed(append(behind, did(action, err))...))
			if acmestatus.IsFinal(d.Status.State) {
				t.Errorf("%s, %s: it ends as %s: %s", action, name, d.Status.State, d.Status.Reason)
			}
			if d.Action == Wait && d.Again == 0 && d.Err == nil {
				t.Errorf("%s, %s: it never comes back", action, name)
			}
			if d.Again > 2*time.Hour {
				t.Errorf("%s, %s: it comes back after %s", action, name, d.Again)
			}
		}
	}
	for name, err := range faults {
		if d := Decide(observed(func(o *Observation) { o.Blocked = err })); acmestatus.IsFinal(d.Status.State) ||
			d.Again == 0 && d.Err == nil {
			t.Errorf("blocked by %s: %s, again after %s", name, d.Status.State, d.Again)
		}
	}
}
