package acmestatus

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestIgnoreReason(t *testing.T) {
	const finalizer = cmacme.ACMEDomainQualifiedFinalizer
	challenge := func(reason string, presented bool, finalizers ...string) *cmacme.Challenge {
		return &cmacme.Challenge{
			ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: reason, Finalizers: finalizers},
			Status:     cmacme.ChallengeStatus{Reason: reason, Presented: presented},
		}
	}
	for name, test := range map[string]struct {
		before, after *cmacme.Challenge
		passed        bool
	}{
		"words":                              {challenge("a", false), challenge("b", false), true},
		"the finalizer":                      {challenge("a", false), challenge("a", false, finalizer), true},
		"the finalizer, and another's":       {challenge("a", false, "x"), challenge("a", false, "x", finalizer), true},
		"the finalizer and words":            {challenge("a", false), challenge("b", false, finalizer), true},
		"the finalizer is taken away":        {challenge("a", false, finalizer), challenge("a", false), false},
		"another's finalizer":                {challenge("a", false, finalizer), challenge("a", false, finalizer, "x"), false},
		"words, and it is presented":         {challenge("a", false), challenge("b", true), false},
		"the finalizer, and it is presented": {challenge("a", false), challenge("a", true, finalizer), false},
		"nothing, as at a resync":            {challenge("a", false, finalizer), challenge("a", false, finalizer), false},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.before.DeepCopy()
			if passed := reasonOnly(test.before, test.after); passed != test.passed {
				t.Errorf("passed over: %t, want %t", passed, test.passed)
			}
			if len(test.before.Finalizers) != len(before.Finalizers) {
				t.Error("the object in the cache was changed")
			}
		})
	}
}
