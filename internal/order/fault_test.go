package order

import (
	"errors"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
)

// TestNoFaultThatPassesEndsAnOrder makes every action fail in every way in which servers, networks
// and the limiter can fail.
func TestNoFaultThatPassesEndsAnOrder(t *testing.T) {
	faults := map[string]error{
		"no answer":               fault.Transientf("", "%w", errors.New("connection refused")),
		"500":                     account.Fault("", now, &acme.Problem{Status: 500}),
		"502 of a proxy":          account.Fault("", now, &acme.Problem{Status: 502}),
		"503":                     account.Fault("", now, &acme.Problem{Status: 503, RetryAfter: now.Add(time.Minute)}),
		"429":                     account.Fault("", now, &acme.Problem{Status: 429, RetryAfter: now.Add(time.Minute)}),
		"a nonce that is refused": account.Fault("", now, &acme.Problem{Type: acme.ProblemBadNonce, Status: 400}),
		"a page to visit": account.Fault(
			"",
			now,
			&acme.Problem{Type: acme.ProblemUserActionRequired, Status: 403},
		),
		"a reply that is cut": account.Fault("", now, &acme.NoReply{Action: "authorization", Err: errors.New("EOF")}),
		"a reply that is no ACME": fault.Transientf(
			"UnreadableReply",
			"%w",
			&acme.ProtocolError{Action: "authorization"},
		),
		"a key that was changed": fault.Transientf(
			"AccountChanged",
			"%w",
			&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403},
		),
		"an account that was lost":  account.ErrRecovered,
		"a CA that knows no more":   fault.Limitedf("ErrVerifyACMEAccount", now.Add(time.Minute), "it knows no account"),
		"no place in the limiter":   &limiter.ErrBusy{After: time.Second},
		"an issuer that is changed": fault.Misconfiguredf("IssuerNotReady", "it was changed"),
	}
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
			if acmestatus.Finished(d.Status.State) {
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
		if d := Decide(observed(func(o *Observation) { o.Blocked = err })); acmestatus.Finished(d.Status.State) ||
			d.Again == 0 && d.Err == nil {
			t.Errorf("blocked by %s: %s, again after %s", name, d.Status.State, d.Again)
		}
	}
}
