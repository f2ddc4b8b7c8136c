package explain

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

// ExplainTrustBundle explains the state of a TrustBundle.
func ExplainTrustBundle(b *perennial.TrustBundle) Report {
	r := Report{Kind: "TrustBundle", Name: b.Name, Summary: "has not been processed", Steps: []Step{},
		Next: "see whether the controller runs and can reach the Kubernetes API"}
	current := b.Status.ObservedGeneration == b.Generation
	for i := range b.Status.Conditions {
		c := &b.Status.Conditions[i]
		s := Step{Kind: "Condition", Name: c.Type, State: OK, Detail: c.Message, Since: &c.LastTransitionTime}
		switch c.Status {
		case metav1.ConditionFalse:
			s.State = Failed
		case metav1.ConditionUnknown:
			s.State = Waiting
		}
		r.Steps = append(r.Steps, s)
		if c.Type != perennial.ConditionReady || !current {
			continue
		}
		if r.Ready = c.Status == metav1.ConditionTrue; r.Ready {
			r.Summary, r.Next = "is distributed: "+c.Message, ""
		} else {
			r.Summary, r.Next = "is not ready: "+c.Message, "correct what it says"
		}
	}
	return r
}
