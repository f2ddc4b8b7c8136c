package lifecycle

import (
	"context"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/observe"
)

// transition is a step of a certificate, as the log shows it.
type transition struct {
	step   string
	values []any
}

// transitions returns the steps between two versions of the status of a certificate.
func transitions(was, is *cmapi.CertificateStatus, now time.Time) []transition {
	var steps []transition
	add := func(step string, values ...any) { steps = append(steps, transition{step, values}) }
	begun := cmapi.GetCertificateCondition(was, cmapi.CertificateConditionIssuing)
	issuing := cmapi.GetCertificateCondition(is, cmapi.CertificateConditionIssuing)
	switch {
	case revision(is) > revision(was):
		values := []any{"revision", revision(is)}
		if begun != nil && begun.LastTransitionTime != nil {
			values = append(values, "duration", observe.Seconds(now.Sub(begun.LastTransitionTime.Time)))
		}
		if is.NotAfter != nil {
			values = append(values, "notAfter", is.NotAfter.UTC().Format(time.RFC3339))
		}
		if is.RenewalTime != nil {
			values = append(values, "renewalTime", is.RenewalTime.UTC().Format(time.RFC3339))
		}
		add("certificate issued and stored", values...)
	case isTrue(issuing) && !isTrue(begun):
		add("issuance begun", "reason", issuing.Reason, "message", issuing.Message)
	}
	if is.LastFailureTime != nil && !is.LastFailureTime.Equal(was.LastFailureTime) && issuing != nil {
		add("issuance failed", "reason", issuing.Reason, "message", issuing.Message)
	}
	before := cmapi.GetCertificateCondition(was, cmapi.CertificateConditionReady)
	ready := cmapi.GetCertificateCondition(is, cmapi.CertificateConditionReady)
	switch {
	case isTrue(ready) && !isTrue(before):
		add("certificate ready")
	case ready != nil && !isTrue(ready) && (before == nil || before.Status != ready.Status ||
		before.Reason != ready.Reason):
		add("certificate not ready", "reason", ready.Reason, "message", ready.Message)
	}
	return steps
}

func isTrue(c *cmapi.CertificateCondition) bool { return c != nil && c.Status == cmmeta.ConditionTrue }

func revision(status *cmapi.CertificateStatus) int {
	if status.Revision == nil {
		return 0
	}
	return *status.Revision
}

// logTransitions logs the steps between two versions of the status of a certificate.
func logTransitions(ctx context.Context, was, is *cmapi.CertificateStatus, now time.Time) {
	for _, t := range transitions(was, is, now) {
		ctrl.LoggerFrom(ctx).Info(t.step, t.values...)
	}
}
