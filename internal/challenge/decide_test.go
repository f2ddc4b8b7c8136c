package challenge

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/solver"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// set changes an observation of a challenge that was created a minute ago and not worked on yet.
type set func(*Observation)

func observed(all ...set) Observation {
	ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "www", UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute)),
	}}
	ch.Spec.DNSName, ch.Spec.URL = "www.example.com", "https://ca.example/chall/1"
	ch.Spec.Type = cmacme.ACMEChallengeTypeDNS01
	ch.Status.State = cmacme.Pending
	o := Observation{Now: now, Challenge: ch}
	for _, change := range all {
		change(&o)
	}
	return o
}

// What a challenge has behind it.

func presented(ago time.Duration) set {
	return func(o *Observation) {
		at := metav1.NewTime(now.Add(-ago))
		st := &o.Challenge.Status
		st.Presented, st.Processing, st.PresentedAt, st.Reason = true, true, &at, "Waiting"
	}
}

func accepted(o *Observation) {
	presented(time.Minute)(o)
	o.Challenge.Status.State = cmacme.Processing
}

func limitedSlots(o *Observation) { o.Capacity, o.Slot.Place = 1, "x." }

func mayStand(o *Observation) { o.Challenge.Status.Processing = true }

func seen(ago time.Duration) set {
	return func(o *Observation) { o.Memory.Seen.Time = now.Add(-ago) }
}

// What was done in this pass.

func did(a Action, err error) set { return func(o *Observation) { o.Done, o.Err = a, err } }

func authorization(status string) set {
	return func(o *Observation) { o.Done, o.Authorization.Status = ReadAuthorization, status }
}

func refusal(p *acme.Problem) set {
	return func(o *Observation) {
		o.Done, o.Err = Accept, &fault.Error{Class: fault.Refused, Err: p}
		o.Refusal = o.Err
	}
}

func sight(s solver.CheckResult) set { return func(o *Observation) { o.Done, o.Sight = Check, &s } }

func invalid(o *Observation) {
	o.Authorization = acme.Authorization{Status: acme.StatusInvalid, Challenges: []acme.Challenge{
		{URL: "https://ca.example/chall/1", Error: &acme.Problem{Type: acme.ProblemDNS, Detail: "no such name"}},
	}}
}

func expiredAt(at time.Time) set { return func(o *Observation) { o.Authorization.Expires = &at } }

func sibling(s Sibling) set {
	return func(o *Observation) {
		s.Key = types.NamespacedName{Namespace: "shop", Name: "wildcard"}
		o.Siblings = append(o.Siblings, s)
	}
}

func waitInstead(d time.Duration) set {
	return func(o *Observation) { o.Challenge.Spec.Solver.WaitInsteadOfSelfCheck = &metav1.Duration{Duration: d} }
}

func waitAfter(d time.Duration) set {
	return func(o *Observation) { o.Challenge.Spec.Solver.WaitForRecordToPropagate = &metav1.Duration{Duration: d} }
}

// decided is what is expected of a decision. Fields that are zero are expected to be, but for those
// that say otherwise.
type decided struct {
	action Action
	// state is pending if it is empty.
	state cmacme.State
	// reason is a part of the reason; of any if it is empty.
	reason string
	again  time.Duration
	slot   SlotUse
	err    bool
	// events are the reasons of all, those that are reported at once first.
	events string
	// also reports what else is wrong.
	also func(Decision) string
}

func TestDecide(t *testing.T) {
	silent := errors.New("connection refused")
	transient := fault.Transientf("", "%w", silent)
	stuck := &limiter.ErrBusy{Target: limiter.Target{Name: "the ACME server"}, Stuck: true}
	busy := fault.Limitedf("", now.Add(10*time.Minute), "asked too much")
	for name, test := range map[string]struct {
		o    Observation
		want decided
	}{
		// A pass begins.
		"a new challenge asks for a slot": {observed(), decided{action: Admit}},
		"one that is blocked says why": {
			observed(
				func(o *Observation) { o.Blocked = fault.Misconfiguredf("IssuerNotFound", "there is no issuer") },
			),
			decided{reason: "there is no issuer", again: 15 * time.Second, slot: Yield}},
		"one that is presented is checked, without asking the CA": {
			observed(presented(time.Minute)),
			decided{action: Check},
		},
		"one that cert-manager presented is presented from now on": {
			observed(presented(0), func(o *Observation) { o.Challenge.Status.PresentedAt = nil }),
			decided{action: Check, also: func(d Decision) string {
				if d.Status.PresentedAt == nil || !d.Status.PresentedAt.Time.Equal(now) {
					return "it does not say when it was presented"
				}
				return ""
			}}},
		"one that says that it is presented in an hour is presented from now on": {
			observed(presented(-time.Hour)),
			decided{action: Check, also: func(d Decision) string {
				if !d.Status.PresentedAt.Time.Equal(now) {
					return "it was presented at " + d.Status.PresentedAt.String()
				}
				return ""
			}}},
		"one that was accepted asks the CA": {
			observed(accepted),
			decided{action: ReadAuthorization, state: cmacme.Processing},
		},
		"one that was accepted waits as long as the CA said": {
			observed(accepted, func(o *Observation) { o.Memory.Poll.Next(now, now.Add(5*time.Minute)) }),
			decided{state: cmacme.Processing, again: 5 * time.Minute}},
		"one that is limited waits": {
			observed(func(o *Observation) { o.LimitedFor = time.Hour }), decided{again: time.Hour}},
		"one that is limited and presented waits no longer than it is given": {
			observed(presented(90*time.Minute), func(o *Observation) { o.LimitedFor = time.Hour }),
			decided{again: 30 * time.Minute}},
		"one that came to nothing for two hours fails": {
			observed(presented(2 * time.Hour)),
			decided{
				state: cmacme.Errored, reason: "given up after it was presented for 2h0m0s: Waiting", slot: Yield,
				events: "Failed",
			}},

		// The scheduler.
		"no slot yet": {
			observed(did(Admit, nil), limitedSlots, func(o *Observation) {
				other := metav1.ObjectMeta{Namespace: "shop", Name: "other"}
				o.Slot.Again, o.Slot.Ahead = time.Minute, []*cmacme.Challenge{{ObjectMeta: other}}
			}),
			decided{
				reason: "Waiting for its turn at x, where the DNS provider can have only one value at once, " +
					"after other",
				again: time.Minute,
			}},
		"a slot, and the CA may know the name already": {
			observed(did(Admit, nil), func(o *Observation) { o.Slot.Free = true }),
			decided{action: ReadAuthorization}},
		"a slot, while it is being presented": {
			observed(did(Admit, nil), func(o *Observation) { o.Slot.Free = true; o.Memory.Presenting.Start(now) }),
			decided{action: Present}},
		"the place cannot be found": {
			observed(did(Admit, transient)), decided{reason: "connection refused", slot: Yield, err: true}},

		// Every state of an authorization, RFC 8555 section 7.1.6, before it is presented.
		"pending: it is presented": {
			observed(authorization(acme.StatusPending)),
			decided{action: Present, events: "Started"},
		},
		"pending, where slots are few: first it is written that it may stand there": {
			observed(authorization(acme.StatusPending), limitedSlots), decided{slot: Keep, events: "Started"}},
		"pending, and that was written": {
			observed(authorization(acme.StatusPending), limitedSlots, mayStand),
			decided{action: Present, events: "Started"}},
		"valid: there is nothing to do but count it": {
			observed(authorization(acme.StatusValid)),
			decided{action: Count},
		},
		"invalid: it is counted": {
			observed(authorization(acme.StatusInvalid)),
			decided{action: Count},
		},
		"deactivated: it lapses": {observed(authorization(acme.StatusDeactivated)),
			decided{state: cmacme.Expired, reason: "the authorization is deactivated", events: "Failed"}},
		"expired: it lapses": {observed(authorization(acme.StatusExpired)),
			decided{state: cmacme.Expired, reason: "the authorization is expired", events: "Failed"}},
		"revoked: it lapses": {observed(authorization(acme.StatusRevoked)),
			decided{state: cmacme.Expired, reason: "the authorization is revoked", events: "Failed"}},

		// Presenting.
		"it is presented": {observed(did(Present, nil)), decided{action: Check, events: "Presented"}},
		"presenting is in progress": {
			observed(did(Present, &solver.RetryLaterError{After: 3 * time.Second})),
			decided{again: 3 * time.Second, slot: Keep}},
		"presenting is delayed by what the user should know": {
			observed(did(Present, &solver.RetryLaterError{After: time.Second, Tell: true, Why: "a record will be lost"})),
			decided{reason: "a record will be lost", again: time.Second, slot: Keep, events: "ForeignRecords"}},
		"which is said once": {
			observed(did(Present, &solver.RetryLaterError{After: time.Second, Tell: true, Why: "a record will be lost"}),
				func(o *Observation) { o.Memory.Delayed = "a record will be lost" }),
			decided{reason: "a record will be lost", again: time.Second, slot: Keep}},
		"presenting takes so long that the CA is asked again": {
			observed(
				did(Present, &solver.RetryLaterError{After: time.Second}),
				func(o *Observation) { o.Memory.Presenting.Start(now.Add(-2 * time.Minute)) },
			),
			decided{again: time.Second, slot: Keep, also: func(d Decision) string {
				if !d.Memory.Presenting.IsZero() {
					return "it is not forgotten that it is being presented"
				}
				return ""
			}}},
		"presenting fails": {
			observed(did(Present, transient)),
			decided{reason: "connection refused", slot: Yield, err: true, events: "PresentError"}},
		"presenting finds no place in the limiter": {
			observed(did(Present, stuck)), decided{reason: "Waiting for its turn at the ACME server", err: true}},
		"presenting is refused for good": {
			observed(did(Present, fault.Refusedf("", "no such zone"))),
			decided{state: cmacme.Errored, reason: "no such zone", slot: Yield, events: "PresentError Failed"}},
		"presenting is refused where it may stand all the same": {
			observed(did(Present, fault.Refusedf("", "no such zone")), limitedSlots, mayStand),
			decided{state: cmacme.Errored, reason: "no such zone", slot: Yield,
				events: "PresentError Failed", also: func(d Decision) string {
					if !d.Status.Processing {
						return "it does not say that it may stand there"
					}
					return ""
				}}},
		"the service limits": {
			observed(did(Present, busy)),
			decided{reason: "asked too much", again: 10 * time.Minute, slot: Yield, events: "PresentError"}},
		"the solver is misconfigured": {
			observed(did(Present, fault.Misconfiguredf("", "there is no Secret")), func(o *Observation) {
				o.Challenge.CreationTimestamp = metav1.NewTime(now.Add(-20 * time.Minute))
			}),
			decided{reason: "there is no Secret", again: 2 * time.Minute, slot: Yield, events: "PresentError"}},

		// Checking.
		"the proof is seen": {
			observed(presented(time.Minute), sight(solver.CheckResult{Visible: true})),
			decided{action: Accept},
		},
		"the proof is not seen yet": {
			observed(presented(time.Minute), sight(solver.CheckResult{Why: "not there"})),
			decided{reason: "Waiting for DNS-01 challenge propagation: not there", again: checkAgain}},
		"nor after five minutes": {
			observed(presented(5*time.Minute), sight(solver.CheckResult{Why: "not there"})),
			decided{reason: "not there", again: checkSlowly}},
		"nor after twenty minutes": {
			observed(presented(20*time.Minute), sight(solver.CheckResult{Why: "not there"})),
			decided{reason: "not there", again: checkRare}},
		"the user has to do something": {
			observed(presented(time.Minute), sight(solver.CheckResult{Why: "no record", Ask: "create the CNAME"})),
			decided{reason: "no record", again: checkAgain, events: "ActionRequired"}},
		"which is asked for once": {
			observed(presented(time.Minute), sight(solver.CheckResult{Why: "no record", Ask: "create the CNAME"}),
				func(o *Observation) { o.Memory.Asked = "create the CNAME" }),
			decided{reason: "no record", again: checkAgain}},
		"the check fails": {
			observed(presented(time.Minute), did(Check, transient)),
			decided{reason: "connection refused", slot: Yield, err: true}},
		"nothing can be seen from here": {
			observed(presented(time.Minute), sight(solver.CheckResult{Visible: true, Unseen: "no way out"})),
			decided{action: Accept}},
		"it was seen just now":    {observed(presented(time.Minute), seen(5*time.Second)), decided{action: Accept}},
		"it was seen a while ago": {observed(presented(time.Minute), seen(time.Minute)), decided{action: Check}},
		"a wait instead of the check": {
			observed(presented(time.Minute), waitInstead(3*time.Minute)),
			decided{reason: "Waiting instead of a self check: 3m0s", again: 2 * time.Minute}},
		"the end of that wait": {
			observed(presented(time.Minute), waitInstead(time.Minute)),
			decided{action: Accept},
		},
		"a wait after the check": {
			observed(presented(time.Minute), sight(solver.CheckResult{Visible: true}), waitAfter(time.Minute)),
			decided{reason: "Waiting after the proof could be seen: 1m0s", again: time.Minute},
		},
		"the end of the wait after": {
			observed(
				presented(time.Minute), sight(solver.CheckResult{Visible: true}), seen(time.Minute), waitAfter(time.Minute),
			),
			decided{action: Accept}},

		// Siblings: the CA's resolver caches the record.
		"a sibling is not visible yet": {
			observed(presented(time.Minute), sight(solver.CheckResult{Visible: true}), sibling(Sibling{})),
			decided{reason: "Waiting for the value of wildcard in the same record", again: checkAgain,
				also: func(d Decision) string {
					if len(d.Wake) != 1 {
						return "the sibling is not woken"
					}
					return ""
				}}},
		"a sibling is to come": {
			observed(presented(time.Minute), sight(solver.CheckResult{Visible: true}),
				func(o *Observation) { o.Siblings = []Sibling{{}} }),
			decided{reason: "Waiting for the value of another Challenge in the same record", again: checkAgain,
				also: func(d Decision) string {
					if len(d.Wake) > 0 {
						return "a Challenge without a name is woken"
					}
					return ""
				}}},
		"all siblings are visible": {
			observed(presented(time.Minute), seen(5*time.Second), sibling(Sibling{Visible: true})),
			decided{action: Accept}},
		"a sibling was accepted": {
			observed(presented(time.Minute), seen(5*time.Second), sibling(Sibling{Accepted: true})),
			decided{action: Accept},
		},
		"a sibling cannot be presented": {
			observed(presented(time.Minute), seen(5*time.Second), sibling(Sibling{Failed: true})),
			decided{action: Accept},
		},
		"a sibling was waited for a minute": {
			observed(
				presented(2*time.Minute), sight(solver.CheckResult{Visible: true}), seen(time.Minute), sibling(Sibling{}),
			),
			decided{action: Accept},
		},
		"nothing can be seen of it, nor of a sibling": {
			observed(
				presented(time.Minute), sight(solver.CheckResult{Visible: true, Unseen: "no way out"}), sibling(Sibling{}),
			),
			decided{action: Accept}},

		// A proof that is lost.
		"it is seen nowhere, too early to be lost": {
			observed(presented(time.Minute), sight(solver.CheckResult{Why: "gone", Lost: true})),
			decided{reason: "gone", again: checkAgain}},
		"it is lost: the name may be authorized by another": {
			observed(presented(5*time.Minute), sight(solver.CheckResult{Why: "gone", Lost: true})),
			decided{action: ReadAuthorization, reason: "gone"}},
		"it is lost, and needed": {
			observed(presented(5*time.Minute), sight(solver.CheckResult{Lost: true}), authorization(acme.StatusPending)),
			decided{action: Restore}},
		"it is lost, and was authorized by another": {
			observed(presented(5*time.Minute), sight(solver.CheckResult{Lost: true}), authorization(acme.StatusValid)),
			decided{action: Count}},
		"it was restored five minutes ago, which is too early for the next time": {
			observed(presented(15*time.Minute), sight(solver.CheckResult{Why: "gone", Lost: true}),
				func(o *Observation) { o.Memory.Restored.Time = now.Add(-5 * time.Minute) }),
			decided{reason: "gone", again: checkRare}},
		"it is restored": {
			observed(presented(5*time.Minute), did(Restore, nil)),
			decided{again: checkSlowly, events: "PresentedAgain"},
		},
		"it is being restored": {
			observed(presented(5*time.Minute), did(Restore, &solver.RetryLaterError{After: time.Second})),
			decided{again: time.Second}},
		"it cannot be restored": {
			observed(presented(5*time.Minute), did(Restore, transient)),
			decided{again: checkSlowly, events: "PresentError"}},
		"it is seen before the call that restores it ends": {
			observed(
				presented(5*time.Minute), sight(solver.CheckResult{Visible: true}),
				func(o *Observation) { o.Memory.Restoring.Start(now) },
			),
			decided{action: Accept, events: "PresentedAgain"}},

		// Accepting, and every state of a challenge after that.
		"the CA looks": {
			observed(presented(time.Minute), did(Accept, nil)),
			decided{
				state: cmacme.Processing, reason: "The ACME server is looking at the challenge",
				again: 250 * time.Millisecond,
			}},
		"the CA looks, and says until when": {
			observed(
				presented(time.Minute), did(Accept, nil),
				func(o *Observation) { o.RetryAfter = now.Add(7 * time.Second) },
			),
			decided{state: cmacme.Processing, again: 7 * time.Second}},
		"the CA looks at what cannot be seen from here": {
			observed(
				presented(time.Minute), sight(solver.CheckResult{Visible: true, Unseen: "no way out"}), did(Accept, nil),
			),
			decided{
				state: cmacme.Processing, reason: "nothing can be seen from here: no way out",
				again: 250 * time.Millisecond, events: "SelfCheckSkipped",
			}},
		"the CA does not answer": {
			observed(presented(time.Minute), did(Accept, transient)),
			decided{reason: "connection refused", slot: Yield, err: true}},
		"the CA refuses to look": {
			observed(presented(time.Minute), refusal(&acme.Problem{Type: acme.ProblemMalformed, Status: 400})),
			decided{action: ReadAuthorization}},
		"the CA refuses to look, and the authorization is pending": {
			observed(
				presented(time.Minute), refusal(&acme.Problem{Type: acme.ProblemMalformed, Status: 400}),
				authorization(acme.StatusPending), did(ReadAuthorization, nil),
			),
			decided{state: cmacme.Errored, reason: "malformed", slot: Yield, events: "Failed"}},
		"the CA refuses to look, as the authorization has expired": {
			observed(presented(time.Minute), refusal(&acme.Problem{Type: acme.ProblemMalformed, Status: 400}),
				authorization(acme.StatusPending), did(ReadAuthorization, nil), expiredAt(now.Add(-time.Second))),
			decided{state: cmacme.Expired, reason: "the authorization is expired", events: "Failed"}},
		"the CA refuses to look, as the name is authorized": {
			observed(
				presented(time.Minute), refusal(&acme.Problem{Type: acme.ProblemMalformed, Status: 400}),
				did(ReadAuthorization, nil), authorization(acme.StatusValid),
			),
			decided{action: Count}},
		"the CA is looking": {
			observed(accepted, authorization(acme.StatusPending)),
			decided{state: cmacme.Processing, again: time.Second}},
		"the CA is looking, and says until when": {
			observed(
				accepted, authorization(acme.StatusPending),
				func(o *Observation) { o.Authorization.RetryAfter = now.Add(20 * time.Second) },
			),
			decided{state: cmacme.Processing, again: 20 * time.Second}},
		"the CA accepts the proof": {
			observed(accepted, authorization(acme.StatusValid)),
			decided{action: Count, state: cmacme.Processing},
		},
		"and it is counted": {
			observed(accepted, authorization(acme.StatusValid), did(Count, nil)),
			decided{state: cmacme.Valid, reason: "Successfully authorized domain", events: "DomainVerified"}},
		"the CA refuses the proof": {
			observed(accepted, invalid, did(ReadAuthorization, nil)),
			decided{action: Count, state: cmacme.Processing},
		},
		"which is counted, and explained": {
			observed(accepted, invalid, did(Count, nil)), decided{action: Diagnose, state: cmacme.Processing}},
		"and fails": {
			observed(
				accepted, invalid, did(Diagnose, nil), func(o *Observation) { o.Diagnosis = "DNSSEC is broken" },
			),
			decided{state: cmacme.Invalid, reason: "DNSSEC is broken", events: "Failed"}},
		"an authorization that failed before anything was presented is not explained": {
			observed(invalid, did(Count, nil)),
			decided{state: cmacme.Invalid, reason: "no such name", events: "Failed"}},
		"it cannot be counted, so that it is read again": {
			observed(accepted, invalid, did(Count, transient)),
			decided{state: cmacme.Processing, reason: "connection refused", slot: Yield, err: true}},
		"nor explained": {
			observed(accepted, invalid, did(Diagnose, stuck)),
			decided{state: cmacme.Processing, reason: "Waiting for its turn at the ACME server", err: true}},

		// Faults of the CA.
		"the account was registered again": {
			observed(accepted, did(ReadAuthorization, account.ErrRecovered)),
			decided{state: cmacme.Processing, again: account.RetryRecovered, slot: Yield}},
		"the CA limits": {
			observed(accepted, did(ReadAuthorization, busy)),
			decided{state: cmacme.Processing, reason: "asked too much", again: 10 * time.Minute, slot: Yield}},
		"the CA no longer knows the authorization": {
			observed(accepted, did(ReadAuthorization, &fault.Error{Class: fault.Refused, Err: &acme.Problem{
				Type: acme.ProblemMalformed, Status: http.StatusNotFound, Action: "authorization"}})),
			decided{
				state: cmacme.Expired, reason: "the CA no longer knows the authorization", slot: Yield,
				events: "Failed",
			}},
		"the authorization is of another account": {
			observed(accepted, did(ReadAuthorization, &fault.Error{Class: fault.Refused, Err: &acme.Problem{
				Type: acme.ProblemUnauthorized, Status: http.StatusForbidden, Action: "authorization"}})),
			decided{
				state: cmacme.Expired, reason: "the authorization was made by another account", slot: Yield,
				events: "Failed",
			}},
		"the issuer has another server": {
			observed(accepted, did(ReadAuthorization, &fault.Error{Class: fault.Refused, Err: &acme.ForeignURLError{
				Action: "authorization", Reason: "it is of old.example"}})),
			decided{
				state: cmacme.Expired, reason: "the issuer has another server by now: it is of old.example",
				slot: Yield, events: "Failed",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.o.Challenge.DeepCopy()
			d := Decide(test.o)
			test.want.compare(t, d)
			if !equality.Semantic.DeepEqual(before, test.o.Challenge) {
				t.Error("it changed the observation")
			}
		})
	}
}

func (want decided) compare(t *testing.T, d Decision) {
	t.Helper()
	if want.state == "" {
		want.state = cmacme.Pending
	}
	if d.Action != want.action || d.Status.State != want.state {
		t.Errorf("it does %q in state %q, not %q in state %q", d.Action, d.Status.State, want.action, want.state)
	}
	if !strings.Contains(d.Status.Reason, want.reason) {
		t.Errorf("it says %q, not %q", d.Status.Reason, want.reason)
	}
	if d.Again != want.again || (d.Err != nil) != want.err {
		t.Errorf("again after %s, error %v; want %s, error %t", d.Again, d.Err, want.again, want.err)
	}
	if d.Slot != want.slot {
		t.Errorf("the slot is for %d, not for %d", d.Slot, want.slot)
	}
	var events []string
	for _, e := range slices.Concat(d.Done, d.Events) {
		events = append(events, e.Reason)
	}
	if got := strings.Join(events, " "); got != want.events {
		t.Errorf("events are %q, not %q", got, want.events)
	}
	if want.also != nil {
		if wrong := want.also(d); wrong != "" {
			t.Error(wrong)
		}
	}
	// Whatever happens, a challenge that is not finished comes back.
	if d.Action == Wait && d.Again == 0 && d.Err == nil && d.Slot != Keep && !acmestatus.IsFinal(d.Status.State) {
		t.Error("it never comes back")
	}
}
