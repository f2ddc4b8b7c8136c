// Package signer says what signs: an Issuer or ClusterIssuer as one value, how to find it, and the
// one interface that every type of issuer implements. The packages below it implement it, one each.
//
// A signer is asked two things: whether an issuer can be used, and to sign a request with it. It
// keeps no state that matters: asked again after a crash it continues. What it answers is recorded
// by others, in the conditions of the issuer (package issuer) and of the request (package request).
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
// Errors are classified by internal/fault. Misconfigured: wait until somebody changes the issuer or
// a Secret that References names, and try again then. Refused: the request is finally lost.
// Transient and Limited: try again by time.
type Signer interface {
	// Check says whether the issuer can be used.
	Check(ctx context.Context, issuer *Issuer) (Readiness, error)
	// References returns the Secrets, in issuer.SecretNamespace, that a change of means looking again.
	References(spec *cmapi.IssuerConfig) []string
	// Sign signs. An answer without a certificate means that it is under way.
	Sign(ctx context.Context, issuer *Issuer, r Request) (Answer, error)
}

// Readiness is what Check found out about an issuer. Solvers and Unreachable count also beside an
// error.
type Readiness struct {
	// Reason and Message are what the Ready condition says.
	Reason, Message string
	// CA is set by signers who hold the CA themselves.
	CA *CA
	// ACME is set by those who have an account at an ACME server.
	ACME *cmacme.ACMEIssuerStatus
	// Solvers is what is wrong with solvers, also where the issuer cannot be used. It is nil if
	// nothing is.
	Solvers *SolverProblem
	// Again is after which time to look again at what is wrong with solvers, zero if that is watched.
	Again time.Duration
	// Unreachable is why the issuer's server could not be asked, and UnreachableReason the reason of
	// the condition that says so. An issuer whose account is known can be used all the same: then
	// Check returns no error. Without a reason, the server was reached, or was not the one that
	// failed.
	Unreachable       error
	UnreachableReason string
}

// SolverProblem is what the condition SolversValid, False, says.
type SolverProblem struct{ Reason, Message string }

// CA is the authority of an issuer who holds it itself.
type CA struct {
	// Signing is the certificate that is issuer of leaves.
	Signing *x509.Certificate
	// Anchor is what clients are to trust: the highest certificate known above Signing, or Signing.
	Anchor *x509.Certificate
}

// ProfileAnnotation stands on a request for a certificate of a profile of its ACME server, in place
// of that of the issuer.
const ProfileAnnotation = "perennial.dev/acme-profile"

// RequestedByAnnotation stands on a Certificate in another namespace than the Gateway or
// ListenerSet that it is for, and names that: Gateway/namespace/name. In the same namespace an
// owner reference does. It also stands on the Secret that was made for it.
const RequestedByAnnotation = "perennial.dev/requested-by"

// ReplacesAnnotation stands on a request that renews a certificate whose ACME server is to be told
// so: the certificate's identifier, RFC 9773 section 4.1.
const ReplacesAnnotation = "perennial.dev/replaces"

// RehearsalAnnotation stands on a request whose certificate is thrown away: an issuer is to show
// that it would sign.
const RehearsalAnnotation = "perennial.dev/rehearsal"

// OpenOrders is the field index of Orders that are not over by the UID of the request that they are
// for.
const OpenOrders = "metadata.ownerReferences.request"

// ManualAnnotation stands, with the time of the wish, on a request that somebody has asked for by
// hand: names that are paused as their validation failed again and again are tried now.
const ManualAnnotation = "perennial.dev/manually-triggered"

// ConditionPaused is the type of a condition, ours, of a request whose names are paused, and of its
// Certificate. Its reason is ReasonValidationsFailed.
const (
	ConditionPaused         = "Paused"
	ReasonValidationsFailed = "ValidationsFailed"
)

// ConditionApprovalForbidden is the type of a condition, ours, of a request that waits because the
// controller lacks the right to approve it.
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
	// IssuerRef is how it names its issuer: kind and group may be left out.
	IssuerRef cmmeta.IssuerReference
	CSR       *x509.CertificateRequest
	IsCA      bool
	Usages    []string
	Duration  time.Duration
	// Asked is the duration that it asks for: nil if that is left to the CA.
	Asked *metav1.Duration
}

// Answer is what became of a request.
type Answer struct {
	// Created says, for an event OrderCreated, what was made for the request just now. Empty if
	// nothing was.
	Created string
	// Certificate is the leaf and its intermediates, PEM, the root left out. Empty: under way.
	Certificate []byte
	// CA is the highest certificate known, PEM. It may be empty.
	CA []byte
	// Warning, if not empty, says what the requester may not expect. WarningReason is its short name.
	Warning, WarningReason string
	// Pending says what is waited for. Set if Certificate is empty.
	Pending string
	// Unreachable says that it waits because the other side does not answer, or answers nobody for
	// now.
	Unreachable bool
	// Paused, if not empty, says that names are paused as their validation failed again and again,
	// also if the request is lost by that.
	Paused string
	// Again is when to ask again, if nothing else happens before. Set if Certificate is empty.
	Again time.Time
}

// Set has a signer for each type of issuer, by [Issuer.Type].
type Set map[string]Signer

// InProcess reports whether signing with an issuer of the type has no effect outside of this
// process, so that a request that was lost can simply be made again.
func InProcess(issuerType string) bool {
	return issuerType == TypeSelfSigned || issuerType == TypeCA
}

// Capped reports whether a certificate that was asked for asked long lives noticeably shorter,
// because its CA does. Less than a hundredth is not worth a word: a CA and a leaf of the same
// duration are issued moments apart.
func Capped(asked, got time.Duration) bool { return got < asked-asked/100 }

// Backdate is how long before it is signed a certificate becomes valid, for clients whose clocks
// are late. It is at most a tenth of its life.
const Backdate = time.Minute

// Validity returns when a certificate that is signed now begins and ends: both a little earlier, so
// that it lives as long as was asked for.
func Validity(now time.Time, life time.Duration) (notBefore, notAfter time.Time) {
	notBefore = now.Add(-min(Backdate, life/10))
	return notBefore, notBefore.Add(life)
}
