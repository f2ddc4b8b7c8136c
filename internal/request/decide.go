package request

import (
	"fmt"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// observation is what is known about a CertificateRequest.
type observation struct {
	request *cmapi.CertificateRequest
	// mayApprove says that RBAC lets us approve requests to this issuer.
	mayApprove bool
	// issuer is nil if there is none of that name.
	issuer *signer.Issuer
}

// verdict is what is to be done with a CertificateRequest.
type verdict string

const (
	leave   verdict = "leave"   // nothing: it is finished, or not ours
	approve verdict = "approve" // approve, and nothing else
	deny    verdict = "deny"    // somebody denied it
	wait    verdict = "wait"    // say what for
	sign    verdict = "sign"
)

// decision is a verdict and what is said about it.
type decision struct {
	verdict
	// approve says that it is to be approved as well.
	approve bool
	// reason is that of the event, message the text of event and condition.
	reason, message string
	// unreachable says that it waits for an issuer whose server does not answer.
	unreachable bool
}

// decide says what is to be done.
func decide(o observation) decision {
	cr := o.request
	status := &cr.Status
	approved, denied := cmapi.CertificateRequestIsApproved(status), cmapi.CertificateRequestIsDenied(status)
	approving := !approved && !denied && o.mayApprove
	switch {
	case signer.External(cr.Spec.IssuerRef):
		if approving {
			return decision{verdict: approve, approve: true}
		}
		return decision{verdict: leave}
	case finished(status):
		return decision{verdict: leave}
	case denied:
		return decision{verdict: deny, message: "The CertificateRequest was denied by an approval controller"}
	case !approved && !o.mayApprove:
		return decision{verdict: wait, reason: "WaitingForApproval", message: "Not signing CertificateRequest until it is Approved"}
	}
	d := decision{verdict: wait, approve: approving}
	ref := cr.Spec.IssuerRef
	if o.issuer == nil {
		d.reason = "IssuerNotFound"
		d.message = fmt.Sprintf("Referenced %q not found: there is no %s; create it or correct spec.issuerRef", ref.KindOrDefault(), place(cr))
		return d
	}
	if ready, why := o.issuer.Ready(); !ready {
		d.reason, d.message = "IssuerNotReady", "Referenced issuer does not have a Ready status condition"
		if why != "" {
			d.message += ": " + why
		}
		d.unreachable = o.issuer.Unreachable()
		return d
	}
	d.verdict = sign
	return d
}

func place(cr *cmapi.CertificateRequest) string {
	ref := cr.Spec.IssuerRef
	if ref.KindOrDefault() == signer.KindClusterIssuer {
		return fmt.Sprintf("%s %q", ref.KindOrDefault(), ref.Name)
	}
	return fmt.Sprintf("%s %q in namespace %q", ref.KindOrDefault(), ref.Name, cr.Namespace)
}

// finished reports whether nothing more happens to a request.
func finished(status *cmapi.CertificateRequestStatus) bool {
	switch cmapi.CertificateRequestReadyReason(status) {
	case cmapi.CertificateRequestReasonIssued, cmapi.CertificateRequestReasonFailed, cmapi.CertificateRequestReasonDenied:
		return true
	}
	return len(status.Certificate) > 0
}
