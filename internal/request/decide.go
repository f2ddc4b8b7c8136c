package request

import (
	"crypto/x509"
	"fmt"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// observation is what is known about a CertificateRequest.
type observation struct {
	request *cmapi.CertificateRequest
	// csr is the CSR. unfit says, as a text for users, what is wrong with it, including that it asks
	// for more than the spec. Then no issuer may sign it.
	csr   *x509.CertificateRequest
	unfit string
	// unprotected says, as a text for users, why approval and the credentials of ClusterIssuers are
	// not safe. It is empty if they are.
	unprotected string
	// mayApprove says that RBAC lets the controller approve requests to this issuer.
	mayApprove bool
	// forbidden says which right to approve is missing. It is empty if none is, or if the controller
	// does not approve.
	forbidden string
	// unasked is why the controller could not ask for its rights.
	unasked error
	// issuer is nil if there is none of that name.
	issuer *signer.Issuer
}

// verdict is what is to be done with a CertificateRequest.
type verdict string

const (
	leave   verdict = "leave"   // do nothing: it is finished, or not ours
	refuse  verdict = "refuse"  // its CSR must not be signed
	approve verdict = "approve" // mark it as checked, and approve it if allowed
	deny    verdict = "deny"    // an approver denied it
	wait    verdict = "wait"    // say what for
	sign    verdict = "sign"
)

// decision is a verdict and what is said about it.
type decision struct {
	verdict
	// check says that it is to be marked as checked as well, approve that it is to be approved as
	// well.
	check, approve bool
	// reason is that of the event, message the text of event and condition.
	reason, message string
	// unreachable says that the request waits for a server that does not answer.
	unreachable bool
}

// decide decides what to do with a CertificateRequest.
func decide(o observation) decision {
	cr := o.request
	status := &cr.Status
	approved, denied := cmapi.CertificateRequestIsApproved(status), cmapi.CertificateRequestIsDenied(status)
	external := signer.External(cr.Spec.IssuerRef)
	approving := !approved && !denied && o.mayApprove && o.unprotected == ""
	d := decision{verdict: wait, check: !checked(status), approve: approving}
	switch {
	case finished(status), denied && external:
		return decision{verdict: leave}
	case denied:
		return decision{verdict: deny, message: signer.DenialOf(cr).Message}
	case o.unfit != "":
		return decision{verdict: refuse, message: o.unfit}
	case external && (d.check || d.approve):
		d.verdict = approve
		return d
	case external:
		return decision{verdict: leave}
	case !approved && o.unprotected != "":
		d.reason, d.message = reasonUnprotected, o.unprotected
		return d
	case !approved && !o.mayApprove:
		d.reason, d.message = "WaitingForApproval", "Not signing CertificateRequest until it is Approved"
		return d
	case o.unprotected != "" && cr.Spec.IssuerRef.KindOrDefault() == signer.KindClusterIssuer:
		d.reason, d.message = reasonUnprotected, o.unprotected
		return d
	}
	ref := cr.Spec.IssuerRef
	if o.issuer == nil {
		d.reason = "IssuerNotFound"
		d.message = fmt.Sprintf(
			"Referenced %q not found: there is no %s; create it or correct spec.issuerRef",
			ref.KindOrDefault(),
			place(cr),
		)
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

// reasonUnprotected is the reason of a request that waits until the admission policies are
// enforced.
const reasonUnprotected = "AdmissionPolicies"

// checked reports whether a request is marked as checked: its CSR asks for no more than its spec.
func checked(status *cmapi.CertificateRequestStatus) bool {
	c := cmapi.GetCertificateRequestCondition(status, cmapi.CertificateRequestConditionChecked)
	return c != nil && c.Status == cmmeta.ConditionTrue
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
