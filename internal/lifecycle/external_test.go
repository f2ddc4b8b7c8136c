package lifecycle

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/internal/external"
)

// TestAnExternalIssuerThatChangesIsAskedAgain has a request that an external issuer refused.
func TestAnExternalIssuerThatChangesIsAskedAgain(t *testing.T) {
	there := external.State{Found: external.Exists, Generation: "uid.1"}
	with := func(generation string, ready metav1.ConditionStatus, since time.Duration) func(*scene) external.State {
		return func(s *scene) external.State {
			at := metav1.NewTime(s.Now.Add(since))
			return external.State{Found: external.Exists, Generation: generation, Ready: ready, Since: &at}
		}
	}
	as := func(state external.State) func(*scene) external.State {
		return func(*scene) external.State { return state }
	}
	for name, test := range map[string]struct {
		was   string
		is    func(*scene) external.State
		after time.Duration
		again bool
	}{
		"it did not change":      {"uid.1", as(there), 5 * time.Minute, false},
		"its spec changed":       {"uid.1", with("uid.2", "", 0), time.Second, true},
		"it was made anew":       {"uid.1", with("other.1", "", 0), time.Second, true},
		"it appeared":            {noExternal, as(there), time.Second, true},
		"it is still missing":    {noExternal, as(external.State{Found: external.Missing}), 5 * time.Minute, false},
		"it cannot be read":      {"uid.1", as(external.State{Found: external.Forbidden}), 5 * time.Minute, false},
		"nothing was remembered": {"", as(there), 5 * time.Minute, false},
		"it became ready":        {"uid.1", with("uid.1", metav1.ConditionTrue, 2*time.Second), 2 * time.Minute, true},
		"it became ready a moment ago": {
			"uid.1", with("uid.1", metav1.ConditionTrue, 2*time.Second), 10 * time.Second, false},
		"it was ready when it refused": {"uid.1", with("uid.1", metav1.ConditionTrue, -time.Hour), 5 * time.Minute, false},
		"it became unready after it had refused": {
			"uid.1", with("uid.1", metav1.ConditionFalse, 2*time.Second), 5 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.external()
			s.requested().failed("Failed")
			delete(s.Next.Annotations, issuerAnnotation)
			if test.was != "" {
				s.Next.Annotations[issuerAnnotation] = test.was
			}
			state := test.is(s)
			s.decided()
			s.after(test.after)
			s.External = state
			d := Decide(s.Observation)
			if again := d.Request != nil || len(d.DeleteRequests) > 0; again != test.again {
				t.Errorf("it is asked again: %t; conditions %+v", again, d.Status.Conditions)
			}
			if !test.again && externalGeneration(state) != "" &&
				(d.Again.IsZero() || d.Again.After(s.Now.Add(external.Interval))) {
				t.Errorf("it is looked at next: %s", d.Again)
			}
		})
	}
}
