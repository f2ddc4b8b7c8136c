package order

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestAnOrderSaysWhatItsChallengesWaitForIfThatTakesLong(t *testing.T) {
	created := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	challenge := func(name, reason string, state cmacme.State) cmacme.Challenge {
		return cmacme.Challenge{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)},
			Spec:       cmacme.ChallengeSpec{Type: cmacme.ACMEChallengeTypeHTTP01, DNSName: name},
			Status:     cmacme.ChallengeStatus{State: state, Reason: reason},
		}
	}
	for name, test := range map[string]struct {
		challenges []cmacme.Challenge
		after      time.Duration
		want       string
		next       time.Duration
	}{
		"nothing at first": {[]cmacme.Challenge{challenge("a.example.com", "not seen", cmacme.Pending)}, time.Second, "", reportAfter},
		"what it waits for, later": {[]cmacme.Challenge{challenge("a.example.com", "not seen", cmacme.Pending)}, reportAfter,
			"HTTP-01 of a.example.com: not seen (pending since 2026-06-01T12:00:00Z)", 0},
		"nothing of those that are over": {[]cmacme.Challenge{
			challenge("a.example.com", "done", cmacme.Valid), challenge("b.example.com", "not seen", cmacme.Pending),
		}, reportAfter,
			"HTTP-01 of b.example.com: not seen (pending since 2026-06-01T12:00:00Z)", 0},
		"nothing if nothing is known": {[]cmacme.Challenge{challenge("a.example.com", "", "")}, reportAfter, "", 0},
		"not of too many": {[]cmacme.Challenge{
			challenge("a.example.com", "no", ""), challenge("b.example.com", "no", ""), challenge("c.example.com", "no", ""), challenge("d.example.com", "no", ""),
			challenge("e.example.com", "no", ""),
		}, reportAfter, "HTTP-01 of a.example.com: no (pending since 2026-06-01T12:00:00Z); " +
			"HTTP-01 of b.example.com: no (pending since 2026-06-01T12:00:00Z); " +
			"HTTP-01 of c.example.com: no (pending since 2026-06-01T12:00:00Z); and " +
			"2 more", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, next := waiting(test.challenges, created.Add(test.after))
			want := time.Time{}
			if test.next > 0 {
				want = created.Add(test.next)
			}
			if got != test.want || !next.Equal(want) {
				t.Errorf("%q, next %s", got, next)
			}
		})
	}

	// A reason that changes all the time is not written all the time.
	now, writes := created.Add(time.Minute), 0
	d := decider{Decision: &Decision{}, st: &cmacme.OrderStatus{}, m: &Memory{}}
	for i := range 60 {
		was := d.st.Reason
		d.Now, d.Challenges = now, []cmacme.Challenge{challenge("a.example.com", time.Duration(i).String(), cmacme.Pending)}
		d.reportWaiting()
		if d.st.Reason != was {
			writes++
		}
		now = now.Add(time.Second)
	}
	if writes != 2 {
		t.Errorf("%d writes in a minute", writes)
	}
}
