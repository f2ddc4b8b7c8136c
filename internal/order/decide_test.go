package order

import (
	"errors"
	"net/http"
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
	"github.com/perennial-pki/perennial/internal/challenge/desired"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// set changes an observation of an order that was created a minute ago and not sent yet.
type set func(*Observation)

func observed(all ...set) Observation {
	o := Observation{Now: now, Order: &cmacme.Order{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "www", UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute)),
	}}}
	for _, change := range all {
		change(&o)
	}
	return o
}

// What an order has behind it.

// open is an order at the CA with an authorization that was read.
func open(state cmacme.State) set {
	return func(o *Observation) {
		st := &o.Order.Status
		st.URL, st.State = "https://ca.example/order/1", state
		st.Authorizations = []cmacme.ACMEAuthorization{
			{URL: "https://ca.example/authz/1", Identifier: "www.example.com", InitialState: cmacme.Pending},
		}
	}
}

func due(in time.Duration) set { return func(o *Observation) { o.Memory.Due.Time = now.Add(in) } }

func askedToFinalize(o *Observation) { o.Memory.Finalized.Start(now.Add(-time.Minute)) }

func challengeIn(state cmacme.State, reason string) set {
	return func(o *Observation) {
		ch := cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))}}
		ch.Spec.Type, ch.Spec.DNSName = cmacme.ACMEChallengeTypeHTTP01, "www.example.com"
		ch.Status.State, ch.Status.Reason = state, reason
		o.Challenges = append(o.Challenges, ch)
	}
}

func made(m MadeChallenges) set { return func(o *Observation) { o.Done, o.Made = MakeChallenges, &m } }

// What was done in this pass.

func did(a Action, err error) set { return func(o *Observation) { o.Done, o.Err = a, err } }

// read is an order that was read at the CA, after its challenges were made.
func read(status string) set {
	return func(o *Observation) { o.Done, o.CA.Status, o.Made = ReadOrder, status, &MadeChallenges{} }
}

// looked is an order that was read although its challenges are open.
func looked(status string) set {
	return func(o *Observation) { o.Done, o.CA.Status = ReadOrder, status }
}

func finalized(status string) set {
	return func(o *Observation) {
		o.Done, o.CA.Status, o.Finalized, o.Made = Finalize, status, true, &MadeChallenges{}
	}
}

func notFinalized(p *acme.Problem) set {
	return func(o *Observation) {
		p.Action = "finalize"
		o.FinalizeErr = &fault.Error{Class: fault.Refused, Err: p}
		o.Done, o.Err, o.Made, o.CA.Status = Finalize, o.FinalizeErr, &MadeChallenges{}, acme.StatusReady
	}
}

func caProblem(p acme.Problem) set { return func(o *Observation) { o.CA.Error = &p } }

func behind(namespace string) set {
	return func(o *Observation) { o.Duplicate = &types.NamespacedName{Namespace: namespace, Name: "first"} }
}

// decided is what is expected of a decision.
type decided struct {
	action Action
	state  cmacme.State
	// reason is a part of the reason; of any if it is empty.
	reason string
	again  time.Duration
	err    bool
	events string
	also   func(Decision) string
}

func TestDecide(t *testing.T) {
	transient := fault.Transientf("", "%w", errors.New("connection refused"))
	caa := acme.Problem{Type: acme.ProblemCAA, Status: http.StatusForbidden}
	unknown := func(action string) error {
		return &fault.Error{Class: fault.Refused, Err: &acme.Problem{
			Type: acme.ProblemMalformed, Status: http.StatusNotFound, Action: action}}
	}
	failed := func(d Decision) string {
		if d.Status.FailureTime == nil || !d.Status.FailureTime.Time.Equal(now) {
			return "it does not say when it failed"
		}
		return ""
	}
	for name, test := range map[string]struct {
		o    Observation
		want decided
	}{
		// Before it is sent.
		"a new order asks for its limits": {observed(), decided{action: Admit}},
		"one that is blocked says why": {
			observed(
				func(o *Observation) { o.Blocked = fault.Misconfiguredf("IssuerNotFound", "there is no issuer") },
			),
			decided{reason: "there is no issuer", again: 15 * time.Second}},
		"its limits allow it": {observed(did(Admit, nil)), decided{action: FindDuplicate}},
		"a limit is spent": {
			observed(did(Admit, fault.Limitedf(rateLimited, now.Add(time.Hour), "50 a week"))),
			decided{reason: "50 a week", again: lineAgain}},
		"its names are paused": {
			observed(did(Admit, fault.Limitedf(paused, now.Add(time.Hour), "failed again"))),
			decided{reason: "failed again", again: time.Hour, also: func(d Decision) string {
				if d.Status.PausedUntil == nil {
					return "it does not say until when"
				}
				return ""
			}}},
		"there is no duplicate": {observed(did(FindDuplicate, nil)), decided{action: Send}},
		"a duplicate goes first": {
			observed(did(FindDuplicate, nil), behind("shop")),
			decided{again: reportAfter},
		},
		"a duplicate goes first, long": {
			observed(
				did(FindDuplicate, nil), behind("shop"),
				func(o *Observation) { o.Memory.Behind.Start(now.Add(-reportAfter)) },
			),
			decided{reason: "Waiting for the Order first", again: time.Minute},
		},
		"a duplicate of another namespace is not named": {
			observed(
				did(FindDuplicate, nil), behind("other"),
				func(o *Observation) { o.Memory.Behind.Start(now.Add(-reportAfter)) },
			),
			decided{reason: "Waiting for an Order of another namespace", again: time.Minute}},
		"it is sent": {
			observed(did(Send, nil), func(o *Observation) {
				o.CA = acme.Order{URL: "https://ca.example/order/1", Status: acme.StatusPending,
					Authorizations: []string{"a", "b"}}
			}),
			decided{state: cmacme.Pending, also: func(d Decision) string {
				if d.Status.URL == "" || len(d.Status.Authorizations) != 2 {
					return "it does not say what the CA has"
				}
				return ""
			}}},
		"it is sent, and existed before": {
			observed(
				did(Send, nil),
				func(o *Observation) { o.CA = acme.Order{URL: "https://ca.example/order/1", Status: acme.StatusValid} },
			),
			decided{state: cmacme.Ready}},
		"it is refused": {
			observed(did(Send, fault.Refusedf("", "no such name"))),
			decided{state: cmacme.Errored, reason: "no such name", events: "Failed", also: failed}},
		"the CA does not answer": {
			observed(did(Send, transient)),
			decided{reason: "connection refused. It is tried again within 2 minutes", err: true}},

		// At the CA.
		"it is seen whether the server is still the same": {
			observed(open(cmacme.Pending)),
			decided{action: CheckServer, state: cmacme.Pending},
		},
		"the issuer has another server": {
			observed(
				open(cmacme.Pending),
				did(CheckServer, fault.Transientf("", "%w",
					&acme.ForeignURLError{Action: "look at a URL", Reason: "it is of old.example"})),
			),
			decided{
				state: cmacme.Expired, reason: "the issuer has another server by now", events: "Failed", also: failed,
			}},
		"the CA limits": {
			observed(open(cmacme.Pending), did(CheckServer, nil), func(o *Observation) { o.LimitedFor = time.Hour }),
			decided{state: cmacme.Pending, again: time.Hour}},
		"its authorizations are not read": {
			observed(
				open(cmacme.Pending), did(CheckServer, nil),
				func(o *Observation) { o.Order.Status.Authorizations[0].Identifier = "" },
			),
			decided{action: ReadAuthorizations, state: cmacme.Pending}},
		"its authorizations are read": {
			observed(
				open(cmacme.Pending), did(ReadAuthorizations, nil),
				func(o *Observation) { o.Authorizations = o.Order.Status.Authorizations },
			),
			decided{state: cmacme.Pending}},
		"it waits for its challenges": {
			observed(open(cmacme.Pending), did(CheckServer, nil), due(time.Hour)),
			decided{action: MakeChallenges, state: cmacme.Pending}},
		"it waits for its challenges, and the CA was not asked for long": {
			observed(open(cmacme.Pending), did(CheckServer, nil), due(0)),
			decided{action: ReadOrder, state: cmacme.Pending}},
		"the same after a restart": {
			observed(open(cmacme.Pending), did(CheckServer, nil)),
			decided{action: ReadOrder, state: cmacme.Pending},
		},
		"it is pending, as it was": {
			observed(open(cmacme.Pending), looked(acme.StatusPending)),
			decided{action: CheckAuthorizations, state: cmacme.Pending},
		},
		"and its authorizations can be won": {
			observed(open(cmacme.Pending), looked(acme.StatusPending), did(CheckAuthorizations, nil)),
			decided{action: MakeChallenges, state: cmacme.Pending},
		},
		"and one is of no use any more": {
			observed(
				open(cmacme.Pending), looked(acme.StatusPending), did(CheckAuthorizations, nil),
				func(o *Observation) { o.Lapse = "the authorization is revoked" },
			),
			decided{state: cmacme.Expired, reason: "the authorization is revoked", events: "Failed", also: failed}},
		"it has expired meanwhile": {
			observed(
				open(cmacme.Pending), looked(acme.StatusPending),
				func(o *Observation) { at := now; o.CA.Expires = &at },
			),
			decided{state: cmacme.Expired, reason: "the order expired at", events: "Failed", also: failed}},
		"the CA does not say when it expires": {
			observed(open(cmacme.Pending), looked(acme.StatusPending), func(o *Observation) {
				o.Order.CreationTimestamp = metav1.NewTime(now.Add(-longest))
			}),
			decided{state: cmacme.Expired, reason: "and was still pending", events: "Failed", also: failed}},
		"it has failed meanwhile": {
			observed(open(cmacme.Pending), looked(acme.StatusInvalid), challengeIn(cmacme.Invalid, "no proof")),
			decided{action: CountFailures, state: cmacme.Pending}},
		"its challenges are created": {
			observed(open(cmacme.Pending), due(time.Hour), made(MadeChallenges{Created: true})),
			decided{state: cmacme.Pending, again: time.Hour}},
		"its challenges are open": {
			observed(
				open(cmacme.Pending), due(time.Hour), made(MadeChallenges{Open: true}), challengeIn(cmacme.Pending, "not seen"),
			),
			decided{state: cmacme.Pending, reason: "HTTP-01 of www.example.com: not seen", again: time.Hour}},
		"its challenges are finished": {
			observed(open(cmacme.Pending), due(time.Hour), made(MadeChallenges{})),
			decided{action: ReadOrder, state: cmacme.Pending},
		},
		"no solver fits, which is reported": {
			observed(open(cmacme.Pending), did(MakeChallenges, fault.Misconfiguredf(desired.NoSolver, "no solver"))),
			decided{state: cmacme.Pending, reason: "no solver", again: 15 * time.Second, events: "Solver"}},
		"once": {
			observed(open(cmacme.Pending), did(MakeChallenges, fault.Misconfiguredf(desired.NoSolver, "no solver")),
				func(o *Observation) { o.Memory.NoSolver = "no solver" }),
			decided{state: cmacme.Pending, reason: "no solver", again: 15 * time.Second}},

		// Every state of an order, RFC 8555 section 7.1.6, when its challenges are finished.
		"pending: the CA draws the consequence of a failed challenge": {
			observed(open(cmacme.Pending), read(acme.StatusPending), challengeIn(cmacme.Invalid, "no proof")),
			decided{action: CountFailures, state: cmacme.Pending}},
		"pending: or of one that lapsed": {
			observed(open(cmacme.Pending), read(acme.StatusPending), challengeIn(cmacme.Expired, "expired")),
			decided{
				state: cmacme.Expired, reason: "HTTP-01 of www.example.com: expired", events: "Failed", also: failed,
			}},
		"pending: the CA is asked again": {
			observed(open(cmacme.Pending), read(acme.StatusPending), challengeIn(cmacme.Valid, "")),
			decided{state: cmacme.Pending, again: time.Second}},
		"pending: an authorization was of no use from the start": {
			observed(
				open(cmacme.Pending), read(acme.StatusPending),
				func(o *Observation) { o.Order.Status.Authorizations[0].InitialState = cmacme.Expired },
			),
			decided{action: CheckAuthorizations, state: cmacme.Pending}},
		"pending: its authorizations are good": {
			observed(open(cmacme.Pending), read(acme.StatusPending), did(CheckAuthorizations, nil)),
			decided{state: cmacme.Pending, again: time.Second}},
		"ready: it is seen whether it is wanted": {
			observed(open(cmacme.Pending), read(acme.StatusReady)),
			decided{action: CheckWanted, state: cmacme.Pending},
		},
		"ready, and wanted": {
			observed(open(cmacme.Pending), read(acme.StatusReady), did(CheckWanted, nil)),
			decided{action: Finalize, state: cmacme.Pending},
		},
		"ready, and first a finalizer is set": {
			observed(
				open(cmacme.Pending), read(acme.StatusReady), did(CheckWanted, nil),
				func(o *Observation) { o.Wanted.Later = true },
			),
			decided{state: cmacme.Pending}},
		"ready, and the Certificate is gone": {
			observed(
				open(cmacme.Pending), read(acme.StatusReady), did(CheckWanted, nil),
				func(o *Observation) { o.Wanted.Deleted = true },
			),
			decided{state: cmacme.Errored, reason: "the Certificate was deleted", events: "Failed", also: failed}},
		"processing": {
			observed(open(cmacme.Ready), read(acme.StatusProcessing)),
			decided{state: cmacme.Processing, reason: "The ACME server is processing the order", again: time.Second}},
		"processing, and the CA says until when": {
			observed(
				open(cmacme.Ready), read(acme.StatusProcessing),
				func(o *Observation) { o.CA.RetryAfter = now.Add(time.Hour) },
			),
			decided{
				state: cmacme.Processing, reason: "and is asked again at 2026-12-01T13:00:00Z", again: time.Hour,
			}},
		"processing, and it is not time yet": {
			observed(open(cmacme.Processing), func(o *Observation) { o.Memory.Poll.Next(now, now.Add(time.Hour)) }),
			decided{state: cmacme.Processing, again: time.Hour}},
		"valid: the certificate is read": {
			observed(open(cmacme.Processing), read(acme.StatusValid)),
			decided{action: Fetch, state: cmacme.Processing},
		},
		"invalid, with a challenge that failed": {
			observed(open(cmacme.Pending), read(acme.StatusInvalid), challengeIn(cmacme.Invalid, "no proof")),
			decided{action: CountFailures, state: cmacme.Pending}},
		"invalid, with one that lapsed": {
			observed(open(cmacme.Pending), read(acme.StatusInvalid), challengeIn(cmacme.Expired, "expired")),
			decided{state: cmacme.Expired, reason: "expired", events: "Failed", also: failed}},
		"invalid, and it is not known why": {
			observed(open(cmacme.Ready), read(acme.StatusInvalid)),
			decided{action: CheckAuthorizations, state: cmacme.Ready},
		},
		"invalid, as an authorization lapsed": {
			observed(
				open(cmacme.Ready), read(acme.StatusInvalid), did(CheckAuthorizations, nil),
				func(o *Observation) { o.Lapse = "deactivated" },
			),
			decided{state: cmacme.Expired, reason: "deactivated", events: "Failed", also: failed}},
		"invalid, and the authorizations say nothing": {
			observed(open(cmacme.Pending), looked(acme.StatusInvalid), did(CheckAuthorizations, nil)),
			decided{action: CountFailures, state: cmacme.Pending}},
		"invalid, because of CAA records": {
			observed(open(cmacme.Ready), read(acme.StatusInvalid), caProblem(caa)),
			decided{action: ExplainCAA, state: cmacme.Ready}},
		"which are explained": {
			observed(
				open(cmacme.Ready), read(acme.StatusInvalid), caProblem(caa), did(ExplainCAA, nil),
				func(o *Observation) { o.CAA = "Add a record" },
			),
			decided{action: CountFailures, state: cmacme.Ready}},
		"invalid, and counted": {
			observed(
				open(cmacme.Pending), read(acme.StatusInvalid), challengeIn(cmacme.Invalid, "no proof"),
				did(CountFailures, nil),
			),
			decided{
				state: cmacme.Invalid, reason: "HTTP-01 of www.example.com: no proof", events: "Failed", also: failed,
			}},
		"invalid, and paused from now on": {
			observed(open(cmacme.Pending), read(acme.StatusInvalid), challengeIn(cmacme.Invalid, "no proof"),
				did(CountFailures, nil), func(o *Observation) {
					o.Paused, o.PausedUntil = []string{"www.example.com"}, now.Add(24*time.Hour)
				}),
			decided{state: cmacme.Invalid, reason: "www.example.com failed again and again",
				events: "Paused Failed", also: func(d Decision) string {
					if d.Status.PausedUntil == nil {
						return "it does not say until when"
					}
					return ""
				}}},
		"invalid, and it cannot be counted": {
			observed(open(cmacme.Pending), read(acme.StatusInvalid), did(CountFailures, transient)),
			decided{state: cmacme.Pending, reason: "connection refused", err: true}},

		// Finalizing.
		"it is finalized, and the certificate is there": {
			observed(open(cmacme.Pending), finalized(acme.StatusValid)),
			decided{action: Fetch, state: cmacme.Pending},
		},
		"it is finalized, and the CA needs a moment": {
			observed(open(cmacme.Pending), finalized(acme.StatusProcessing)),
			decided{state: cmacme.Pending, again: 100 * time.Millisecond, also: func(d Decision) string {
				if d.Memory.Finalized.IsZero() {
					return "it is not remembered that it was finalized"
				}
				return ""
			}}},
		"it is finalized, and the CA says until when": {
			observed(
				open(cmacme.Pending), finalized(acme.StatusProcessing),
				func(o *Observation) { o.CA.RetryAfter = now.Add(5 * time.Minute) },
			),
			decided{state: cmacme.Processing, reason: "and is asked again at", again: 5 * time.Minute}},
		"another pass was faster": {
			observed(open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemOrderNotReady, Status: 403})),
			decided{state: cmacme.Pending, again: time.Second}},
		"it is refused to finalize because of CAA records": {
			observed(open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemCAA, Status: 403})),
			decided{action: ExplainCAA, state: cmacme.Pending}},
		"and that is explained": {
			observed(
				open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemCAA, Status: 403}),
				did(ExplainCAA, nil), func(o *Observation) { o.CAA = "Add a record" },
			),
			decided{state: cmacme.Errored, reason: ". Add a record", events: "Failed", also: failed}},
		"the CA no longer knows what to finalize": {
			observed(open(cmacme.Pending), notFinalized(&acme.Problem{Status: http.StatusNotFound})),
			decided{
				state: cmacme.Expired, reason: "the CA no longer knows the order", events: "Failed", also: failed,
			}},
		"it is refused to finalize": {
			observed(open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403})),
			decided{action: CheckAuthorizations, state: cmacme.Pending}},
		"as an authorization lapsed": {
			observed(
				open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403}),
				did(CheckAuthorizations, nil), func(o *Observation) { o.Lapse = "deactivated" },
			),
			decided{state: cmacme.Expired, reason: "deactivated", events: "Failed", also: failed}},
		"though none did": {
			observed(
				open(cmacme.Pending), notFinalized(&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403}),
				did(CheckAuthorizations, nil),
			),
			decided{state: cmacme.Errored, reason: "unauthorized", events: "Failed", also: failed}},
		"finalizing finds no place in the limiter": {
			observed(
				open(cmacme.Pending),
				func(o *Observation) { o.Done, o.FinalizeErr = Finalize, &limiter.ErrBusy{}; o.Err = o.FinalizeErr },
			),
			decided{state: cmacme.Pending, err: true}},
		"one that was finalized lapses: another may not follow at once": {
			observed(
				open(cmacme.Pending), askedToFinalize, read(acme.StatusPending),
				func(o *Observation) { at := now; o.CA.Expires = &at },
			),
			decided{state: cmacme.Errored, reason: "the order expired", events: "Failed", also: failed}},

		// The certificate.
		"it is stored": {
			observed(
				open(cmacme.Processing), did(Fetch, nil),
				func(o *Observation) { o.Fetched.Certificate = []byte("PEM") },
			),
			decided{state: cmacme.Valid, events: "Complete"}},
		"it is stored, with a warning": {
			observed(
				open(cmacme.Processing), did(Fetch, nil),
				func(o *Observation) { o.Fetched.Warnings = []Event{{Reason: "OtherChain"}} },
			),
			decided{state: cmacme.Valid, events: "OtherChain Complete"}},
		"it is for the key of another request": {
			observed(open(cmacme.Processing), did(Fetch, nil), func(o *Observation) { o.Fetched.OtherKey = true }),
			decided{state: cmacme.Expired, reason: "for that one's key", events: "Failed", also: failed}},
		"it is not what was asked for": {
			observed(open(cmacme.Processing), did(Fetch, fault.Refusedf("InvalidCertificate", "other names"))),
			decided{state: cmacme.Errored, reason: "other names", events: "Failed", also: failed}},

		// Faults of the CA.
		"it does not answer": {
			observed(open(cmacme.Ready), did(ReadOrder, transient)),
			decided{state: cmacme.Ready, reason: "connection refused. It is tried again within 2 minutes", err: true}},
		"it limits": {
			observed(open(cmacme.Ready), did(ReadOrder, fault.Limitedf("", now.Add(2*time.Hour), "asked too much"))),
			decided{state: cmacme.Ready, reason: "asked too much", again: 2 * time.Hour}},
		"the account was registered again": {
			observed(open(cmacme.Ready), did(ReadOrder, account.ErrRecovered)),
			decided{state: cmacme.Ready, again: account.RetryRecovered}},
		"it no longer knows the order": {
			observed(open(cmacme.Ready), did(ReadOrder, unknown("order"))),
			decided{
				state: cmacme.Expired, reason: "the CA no longer knows the order", events: "Failed", also: failed,
			}},
		"it no longer knows the order that it was asked to finalize": {
			observed(open(cmacme.Processing), did(ReadOrder, unknown("order"))),
			decided{
				state: cmacme.Errored, reason: "the CA no longer knows the order", events: "Failed", also: failed,
			}},
		"a reply that cannot be read says nothing of the order": {
			observed(
				open(cmacme.Ready),
				did(ReadOrder, fault.Transientf("UnreadableReply", "%w", &acme.Problem{Status: 404, Action: "order"})),
			),
			decided{state: cmacme.Ready, reason: "It is tried again within 2 minutes", err: true}},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.o.Order.DeepCopy()
			test.want.compare(t, test.o, Decide(test.o))
			if !equality.Semantic.DeepEqual(before, test.o.Order) {
				t.Error("it changed the observation")
			}
		})
	}
}

func (want decided) compare(t *testing.T, o Observation, d Decision) {
	t.Helper()
	if d.Action != want.action || d.Status.State != want.state {
		t.Errorf("it does %q in state %q, not %q in state %q", d.Action, d.Status.State, want.action, want.state)
	}
	if !strings.Contains(d.Status.Reason, want.reason) {
		t.Errorf("it says %q, not %q", d.Status.Reason, want.reason)
	}
	if d.Again != want.again || (d.Err != nil) != want.err {
		t.Errorf("again after %s, error %v; want %s, error %t", d.Again, d.Err, want.again, want.err)
	}
	var events []string
	for _, e := range d.Events {
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
	// Whatever happens, an order that is not finished comes back, by itself or by a write.
	if d.Action == Wait && d.Again == 0 && d.Err == nil && !acmestatus.IsFinal(d.Status.State) && !o.Wanted.Later &&
		equality.Semantic.DeepEqual(o.Order.Status, d.Status) && o.Done != ReadAuthorizations {
		t.Error("it never comes back")
	}
}
