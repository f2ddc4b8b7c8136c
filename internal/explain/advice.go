package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
)

// summary returns a sentence about the state, and what to do next.
func summary(o Objects, r Report, ready, issuing *cmapi.CertificateCondition, now time.Time) (summary, next string) {
	crt := o.Certificate
	in := func(t *metav1.Time) string { return Until(t.Time, now) }
	if crt.DeletionTimestamp != nil {
		return deleting(crt)
	}
	switch {
	case r.Ready:
		summary = valid(r, issuing, in)
	case ready == nil:
		summary = "has not been processed"
	case ready.Status == cmmeta.ConditionTrue:
		return "expired " + in(r.NotAfter) + ", and its status does not say so",
			"see whether the controller runs and may write the status of Certificates"
	default:
		summary = "is not ready: " + lower(withoutCause(ready.Message, issuing))
	}
	paused := cmapi.GetCertificateCondition(&crt.Status, signer.ConditionPaused)
	if paused != nil && paused.Status == cmmeta.ConditionTrue {
		return summary, fmt.Sprintf(
			"mend what this says, then: perennial renew %s -n %s: %s", crt.Name, crt.Namespace, paused.Message,
		)
	}
	if advice := blocking(o, r); advice != "" {
		return summary, advice
	}
	if ready == nil {
		return summary, "see whether the controller runs and can reach the Kubernetes API"
	}
	if !r.Ready && issuing == nil {
		return summary, fmt.Sprintf("kubectl describe certificate %s -n %s", crt.Name, crt.Namespace)
	}
	return summary, ""
}

// blocking returns the advice on the step that blocks the Certificate: the last that is not OK.
func blocking(o Objects, r Report) string {
	// The last step that is not OK is the one that blocks the Certificate.
	for _, s := range slices.Backward(r.Steps) {
		if s.State == OK || s.Kind == "Secret" {
			continue
		}
		if s.Kind == "CertificateFile" && !r.Ready {
			continue // it waits for the Certificate
		}
		if by := issuerStep(o); s.State == Waiting && s.Kind != "Certificate" && (by.State == Missing || by.State == Failed) {
			s = by // nothing goes on without it
		}
		if advice := advise(s, o); advice != "" {
			return advice
		}
	}
	return ""
}

// deleting describes a Certificate that is being deleted, and what to do.
func deleting(crt *cmapi.Certificate) (summary, next string) {
	if slices.Contains(crt.Finalizers, revocation.Finalizer) {
		return "is being deleted: what was issued for it is revoked before", fmt.Sprintf(
			"wait: that is tried until %s. If it takes long, kubectl describe certificate %s -n %s shows in the events why",
			crt.DeletionTimestamp.Add(revocation.GiveUpAfter).UTC().Format(time.RFC3339),
			crt.Name,
			crt.Namespace,
		)
	}
	return "is being deleted", fmt.Sprintf(
		"wait for the controllers of the finalizers %s",
		strings.Join(crt.Finalizers, ", "),
	)
}

// valid describes a Certificate whose certificate is valid, and its next issuance if there is one.
func valid(r Report, issuing *cmapi.CertificateCondition, in func(*metav1.Time) string) (summary string) {
	if issuing == nil {
		summary = "is up to date"
		if r.NotAfter != nil {
			summary += ", expires " + in(r.NotAfter)
		}
		if r.RenewalTime != nil {
			summary += ", will be renewed " + in(r.RenewalTime)
		}
		return summary
	}
	summary = "is valid"
	if r.NotAfter != nil {
		summary += " and expires " + in(r.NotAfter)
	}
	switch {
	case issuing.Status == cmmeta.ConditionTrue:
		summary += "; a new one is being issued"
	case issuing.Reason == lifecycle.ReasonDeletionFailed:
		summary += "; what is no longer needed cannot be deleted"
	case delayed(issuing):
		summary += "; the next one waits, as there were several before their renewal time"
	case issuing.Reason == lifecycle.ReasonWindowError:
		summary += "; spec.renewal.windows cannot be followed"
	default:
		summary += "; renewing it failed"
	}
	return summary
}

// advise says what to do about a step that is not OK.
func advise(s Step, o Objects) string {
	crt := o.Certificate
	switch s.Kind {
	case originKind(o):
		return fmt.Sprintf("correct %s %s: %s", s.Kind, s.Name, s.Detail)
	case "CertificateFile":
		return fmt.Sprintf("see CertificateFile %s: %s", s.Name, s.Detail)
	case "Challenge", "Order":
		if s.State == Failed {
			return fmt.Sprintf(
				"%s %s failed (%s): mend what it says, then: perennial renew %s -n %s",
				s.Kind,
				s.Name,
				s.Detail,
				crt.Name,
				crt.Namespace,
			)
		}
		return fmt.Sprintf("wait for %s %s: %s", s.Kind, s.Name, s.Detail)
	case "CertificateRequest":
		switch {
		case s.State == Failed:
			return fmt.Sprintf(
				"CertificateRequest %s failed (%s): mend what it says, then: perennial renew %s -n %s",
				s.Name,
				s.Detail,
				crt.Name,
				crt.Namespace,
			)
		case s.unapproved:
			return fmt.Sprintf("perennial approve %s -n %s", s.Name, crt.Namespace)
		}
		if s.rehearsal {
			return fmt.Sprintf("wait for the %s", s.Detail)
		}
		return "" // another step says better what it waits for
	case issuerStep(o).Kind:
		switch s.State {
		case Missing:
			return missingIssuer(s, o)
		case Failed:
			return fmt.Sprintf("mend %s %s: %s", s.Kind, s.Name, s.Detail)
		}
		return "see whether the controller runs"
	case "Certificate":
		issuing := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if s.State == Failed || delayed(issuing) {
			return s.Detail
		}
		// The request says better what it waits for, unless it is signed, or an external issuer signs it.
		if last, _ := latest(o.Requests); o.ExternalIssuer != nil || last != nil && requestStep(last).State == OK {
			return lifecycle.WaitOf(s.Detail)
		}
	}
	return ""
}

// missingIssuer says what to do about an issuer that does not exist.
func missingIssuer(s Step, o Objects) string {
	if o.ExternalIssuer != nil && o.ExternalIssuer.Found == external.NoKind {
		return fmt.Sprintf("correct spec.issuerRef, or install the issuer's controller: %s", s.Detail)
	}
	if o.ExternalIssuer != nil {
		return fmt.Sprintf("create %s %q, or correct spec.issuerRef", s.Kind, s.Name)
	}
	if s.Kind == "ClusterIssuer" {
		return fmt.Sprintf("create ClusterIssuer %q, or correct spec.issuerRef", s.Name)
	}
	return fmt.Sprintf("create Issuer %q in namespace %q, or correct spec.issuerRef", s.Name, o.Certificate.Namespace)
}
