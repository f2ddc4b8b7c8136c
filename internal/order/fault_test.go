package order

import (
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account/accounttest"
	"github.com/perennial-pki/perennial/internal/acmestatus"
)

// TestNoFaultThatPassesEndsAnOrder makes every action fail in every way in which servers, networks
// and the limiter can fail.
func TestNoFaultThatPassesEndsAnOrder(t *testing.T) {
	faults := accounttest.PassingFaults(now)
	before := map[Action][]set{
		Admit:               nil,
		FindDuplicate:       nil,
		Send:                nil,
		CheckServer:         {open(cmacme.Pending)},
		ReadOrder:           {open(cmacme.Ready)},
		ReadAuthorizations:  {open(cmacme.Pending)},
		CheckAuthorizations: {open(cmacme.Pending), looked(acme.StatusPending)},
		MakeChallenges:      {open(cmacme.Pending)},
		CheckWanted:         {open(cmacme.Pending), read(acme.StatusReady)},
		Finalize:            {open(cmacme.Pending), read(acme.StatusReady)},
		Fetch:               {open(cmacme.Processing), read(acme.StatusValid)},
		ExplainCAA: {
			open(cmacme.Pending),
			read(acme.StatusInvalid),
		},
		CountFailures: {open(cmacme.Pending), read(acme.StatusInvalid)},
	}
	for action, behind := range before {
		for name, err := range faults {
			o := observed(append(behind, did(action, err))...)
			if action == Finalize {
				o.FinalizeErr = err
			}
			d := Decide(o)
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
