// Package signer has the type Issuer for Issuers and ClusterIssuers, how to find one, and the
// interface Signer that each type of issuer implements in a package below.
//
// A Signer checks whether an issuer can be used, and signs requests with it. It keeps no state that
// matters: called again after a crash, it continues. Package issuer records its answers in the
// conditions of the issuer, and package request in those of the request.
package signer

import (
	"context"
	"crypto/x509"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// A Signer signs for all issuers of one type.
//
// Errors are classified by internal/fault. Misconfigured: retry when the issuer or a Secret that
// References names is changed. Refused: the request has failed for good. Transient and Limited:
// retry after a time.
type Signer interface {
	// Check says whether the issuer can be used.
	Check(ctx context.Context, issuer *Issuer) (Readiness, error)
	// References returns the names of the Secrets in issuer.SecretNamespace. A change of one starts a
	// pass.
	References(spec *cmapi.IssuerConfig) []string
	// Sign signs. An answer without a certificate means that the issuance is under way.
	Sign(ctx context.Context, issuer *Issuer, r Request) (Result, error)
}

// Readiness is what Check found out about an issuer. Solvers and Unreachable count even if Check
// returns an error.
type Readiness struct {
	// Reason and Message are what the Ready condition says.
	Reason, Message string
	// CA is set for issuers of type ca.
	CA *CA
	// ACME is set for issuers of type acme.
	ACME *cmacme.ACMEIssuerStatus
	// Solvers is what is wrong with the solvers, also if the issuer cannot be used. It is nil if
	// nothing is wrong.
	Solvers *SolverProblem
	// Again is after which time to check the solvers again, zero if watches cover that.
	Again time.Duration
	// Unreachable is why the issuer's server could not be asked, and UnreachableReason the reason of
	// the condition. If the account is known, the issuer can still be used, and Check returns no
	// error. Without a reason, the server was reached, or something else failed.
	Unreachable       error
	UnreachableReason string
}

// SolverProblem has the reason and message of the condition SolversValid=False.
type SolverProblem struct{ Reason, Message string }

// CA is the CA of an issuer of type ca.
type CA struct {
	// Signing is the certificate that signs leaves.
	Signing *x509.Certificate
	// Anchor is what clients are to trust: the highest certificate known above Signing, or Signing.
	Anchor *x509.Certificate
}

// ProfileAnnotation on a request is the ACME profile, in place of that of the issuer.
const ProfileAnnotation = "perennial.dev/acme-profile"

// RequestedByAnnotation on a Certificate names the Gateway or ListenerSet of another namespace that
// it is for: Gateway/namespace/name. In the same namespace an owner reference does that. It is also
// on the Secret that was made for the Certificate.
const RequestedByAnnotation = "perennial.dev/requested-by"

// ReplacesAnnotation on a request is the identifier (RFC 9773 section 4.1) of the certificate that
// it renews. It becomes the replaces field of the ACME order.
const ReplacesAnnotation = "perennial.dev/replaces"

// RehearsalAnnotation marks a request that only tests whether the issuer would sign. Its
// certificate is thrown away.
const RehearsalAnnotation = "perennial.dev/rehearsal"

// ByRequestUID is the field index of unfinished Orders by the UID of their request.
const ByRequestUID = "metadata.ownerReferences.request"

// ManualTriggerAnnotation on a request is the time of its manual trigger. Such a request also tries
// names that are paused after repeated failed validations.
const ManualTriggerAnnotation = "perennial.dev/manually-triggered"

// ConditionPaused is the type of the condition of a request for paused names, and of its
// Certificate. Its reason is ReasonValidationsFailed. cert-manager does not have it.
const (
	ConditionPaused         = "Paused"
	ReasonValidationsFailed = "ValidationsFailed"
)

// ConditionApprovalForbidden is the type of the condition of a request that waits because the
// controller lacks the permission to approve it. cert-manager does not have it.
const ConditionApprovalForbidden = "ApprovalForbidden"

// Request is a request for a certificate. It has been approved, and its CSR agrees with the rest.
type Request struct {
	// Namespace and Name of the object that it comes from. Namespace is empty for a Kubernetes CSR.
	Namespace, Name string
	// Owner refers to that object. Labels and Annotations are its own.
	Owner               metav1.OwnerReference
	Labels, Annotations map[string]string
	// KeySecret names the Secret with the private key, in Namespace. Only selfSigned needs it.
	KeySecret string
	// KeyAnnotation is the annotation that names it, and KeyMissing the reason of an event that it
	// does not exist.
	KeyAnnotation, KeyMissing string
	// IssuerRef is its reference to the issuer; kind and group may be empty.
	IssuerRef cmmeta.IssuerReference
	CSR       *x509.CertificateRequest
	IsCA      bool
	Usages    []string
	Duration  time.Duration
	// Asked is the duration that it asks for: nil if that is left to the CA.
	Asked *metav1.Duration
}

// Result is the result of Sign.
type Result struct {
	// Created is the text of the event OrderCreated if an Order was made for the request just now. It
	// is empty otherwise.
	Created string
	// Certificate is the leaf and its intermediates without the root, PEM. It is empty while the
	// issuance is under way.
	Certificate []byte
	// CA is the highest certificate known, PEM. It may be empty.
	CA []byte
	// Warning, if not empty, says what the requester may not expect of the certificate. WarningReason
	// is the reason of its event.
	Warning, WarningReason string
	// Pending says what the request waits for. It is set if Certificate is empty.
	Pending string
	// Unreachable says that the request waits because the server does not answer, or is too busy for
	// any client.
	Unreachable bool
	// Paused, if not empty, says that names are paused after repeated failed validations, also if the
	// request fails for that.
	Paused string
	// Again is when to call Sign again, if nothing else happens before. It is set if Certificate is
	// empty.
	Again time.Time
}

// ByType has a signer for each type of issuer, by [Issuer.Type].
type ByType map[string]Signer

// InProcess reports whether signing with an issuer of the type has no effect outside of this
// process, so that a lost request can simply be made again.
func InProcess(issuerType string) bool {
	return issuerType == TypeSelfSigned || issuerType == TypeCA
}

// Capped reports whether a certificate lives noticeably shorter than asked, because its CA does. A
// difference of less than a hundredth does not count: a CA and a leaf of the same duration are
// issued moments apart.
func Capped(asked, got time.Duration) bool { return got < asked-asked/100 }

// Backdate is how long before its signing a certificate becomes valid, for clients with late
// clocks. It is at most a tenth of the life.
const Backdate = time.Minute

// Validity returns NotBefore and NotAfter of a certificate that is signed now. Both are backdated,
// so that it lives as long as was asked for.
func Validity(now time.Time, life time.Duration) (notBefore, notAfter time.Time) {
	notBefore = now.Add(-min(Backdate, life/10))
	return notBefore, notBefore.Add(life)
}
