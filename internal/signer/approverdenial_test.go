package signer_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

func TestADenialIsTheSameBeforeAndAfterTheRequestIsMarked(t *testing.T) {
	made := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct{ said, at time.Time }{
		"at its own time":                         {made.Add(time.Minute), made.Add(time.Minute)},
		"an approver that does not say when":      {time.Time{}, made},
		"an approver whose clock is a day behind": {made.Add(-24 * time.Hour), made},
	} {
		t.Run(name, func(t *testing.T) {
			cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
			if signer.DenialOf(cr) != nil {
				t.Error("it is denied")
			}
			c := cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionDenied, Status: "True",
				Reason: "Policy", Message: "not on a Friday"}
			if !test.said.IsZero() {
				at := metav1.NewTime(test.said)
				c.LastTransitionTime = &at
			}
			cr.Status.Conditions = append(cr.Status.Conditions, c)
			denial := *signer.DenialOf(cr)
			if want := "The CertificateRequest was denied by an approval controller: Policy: not on " +
				"a Friday"; denial.Message != want || !denial.At.Time.Equal(test.at) {
				t.Errorf("it says %q at %s", denial.Message, denial.At)
			}
			marked := metav1.NewTime(made.Add(time.Hour))
			cr.Status.FailureTime = &marked
			cmapi.SetCertificateRequestCondition(&cr.Status, marked.Time, cmapi.CertificateRequestCondition{
				Type: cmapi.CertificateRequestConditionReady, Status: "False", Reason: "Denied", Message: denial.Message,
			})
			if after := *signer.DenialOf(cr); after.Message != denial.Message || !after.At.Equal(&denial.At) {
				t.Errorf("it becomes %q at %s", after.Message, after.At)
			}
		})
	}
}
