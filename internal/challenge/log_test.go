package challenge

import (
	"strings"
	"testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestTransitionsAreLogged(t *testing.T) {
	for name, test := range map[string]struct {
		was, is cmacme.ChallengeStatus
		want    string
	}{
		"it is presented":   {cmacme.ChallengeStatus{Processing: true}, cmacme.ChallengeStatus{Presented: true, State: cmacme.Pending}, "challenge presented"},
		"the CA looks":      {cmacme.ChallengeStatus{Presented: true}, cmacme.ChallengeStatus{Presented: true, State: cmacme.Processing}, "challenge accepted by the CA"},
		"both in one pass":  {cmacme.ChallengeStatus{}, cmacme.ChallengeStatus{Presented: true, State: cmacme.Processing}, "challenge presented, challenge accepted by the CA"},
		"it succeeds":       {cmacme.ChallengeStatus{State: cmacme.Processing}, cmacme.ChallengeStatus{State: cmacme.Valid}, "challenge valid"},
		"it fails":          {cmacme.ChallengeStatus{State: cmacme.Processing}, cmacme.ChallengeStatus{State: cmacme.Invalid}, "challenge invalid"},
		"another reason":    {cmacme.ChallengeStatus{}, cmacme.ChallengeStatus{Reason: "x"}, ""},
		"its slot is freed": {cmacme.ChallengeStatus{Presented: true, State: cmacme.Valid}, cmacme.ChallengeStatus{State: cmacme.Valid}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(transitions(&test.was, &test.is), ", "); got != test.want {
				t.Errorf("it logs %q, not %q", got, test.want)
			}
		})
	}
}
