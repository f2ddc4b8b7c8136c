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
	// csr is the CSR. unfit says, for people, what is wrong with it, also that it asks for more than
	// the spec: then it must not be signed by any issuer.
	csr   *x509.CertificateRequest
	unfit string
	// unprotected says, for people, why neither approval nor the credentials of ClusterIssuers are
	// safe. Empty if they are.
	unprotected string
	// mayApprove says that RBAC lets us approve requests to this issuer.
	mayApprove bool
	// forbidden says which right to approve is missing. Empty if none is, or if approval is not ours.
	forbidden string
	// unasked is why that could not be asked.
	unasked error
	// issuer is nil if there is none of that name.
	issuer *signer.Issuer
}

// verdict is what is to be done with a CertificateRequest.
type verdict string

const (
	leave   verdict = "leave"   // nothing: it is finished, or not ours
	refuse  verdict = "refuse"  // its CSR must not be signed
	approve verdict = "approve" // mark it as checked, approve it if that is ours to do, and nothing else
	deny    verdict = "deny"    // somebody denied it
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
	// unreachable says that it waits for an issuer whose server does not answer.
	unreachable bool
}

// decide says what is to be done.
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

// reasonUnprotected is the reason of what waits until admission policies are enforced.
const reasonUnprotected = "AdmissionPolicies"

// checked reports whether a request is marked as one whose CSR asks for no more than its spec.
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
