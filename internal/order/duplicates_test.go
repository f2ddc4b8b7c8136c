package order

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestAnOrderWaitsOnlyForADuplicateThatProgresses(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	challenge := func(created time.Duration, state cmacme.State, presented time.Duration) cmacme.Challenge {
		ch := cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(created)}}
		ch.Status.State = state
		if presented > 0 {
			at := ago(presented)
			ch.Status.Presented, ch.Status.PresentedAt = true, &at
		}
		return ch
	}
	for name, test := range map[string]struct {
		created    time.Duration
		state      cmacme.State
		challenges []cmacme.Challenge
		progresses bool
	}{
		"it has just been created":            {created: time.Minute, state: cmacme.Pending, progresses: true},
		"no Challenge can be created":         {created: time.Hour, state: cmacme.Pending},
		"its Challenge has just been created": {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Minute, "", 0)}, true},
		"its Challenge cannot be presented":   {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Hour, "", 0)}, false},
		"it is presented":                     {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Hour, "", time.Minute)}, true},
		"what is presented is not seen":       {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Hour, cmacme.Pending, 10*time.Minute)}, false},
		"the CA validates":                    {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Hour, cmacme.Processing, time.Hour)}, true},
		"one is valid, the other stuck":       {time.Hour, cmacme.Pending, []cmacme.Challenge{challenge(time.Hour, cmacme.Valid, time.Hour), challenge(time.Hour, "", 0)}, false},
		"it is ready":                         {time.Hour, cmacme.Ready, []cmacme.Challenge{challenge(time.Hour, cmacme.Valid, time.Hour)}, true},
		"the CA issues":                       {created: time.Hour, state: cmacme.Processing, progresses: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(test.created)}}
			o.Status.State = test.state
			if progresses(o, test.challenges, now) != test.progresses {
				t.Errorf("progresses is %v", !test.progresses)
			}
		})
	}
}
