// Package selfsigned signs each certificate with its own private key, as the root of a CA is.
package selfsigned

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Signer signs for issuers of type selfSigned.
type Signer struct {
	Secrets *secrets.Store
	Keyring *signer.Keyring
	Limits  pki.Limits
	Clock   clock.PassiveClock
}

// Check always succeeds: the issuer has no settings that can be wrong.
func (*Signer) Check(context.Context, *signer.Issuer) (signer.Readiness, error) {
	return signer.Readiness{Reason: "IsReady"}, nil
}

// References returns none.
func (*Signer) References(*cmapi.IssuerConfig) []string { return nil }

// Sign signs with the private key of the CSR, which is in the Keyring or in the Secret that the
// request names.
func (s *Signer) Sign(ctx context.Context, issuer *signer.Issuer, r signer.Request) (signer.Result, error) {
	key, err := s.key(ctx, issuer, r)
	if err != nil {
		return signer.Result{}, err
	}
	notBefore, notAfter := signer.Validity(s.Clock.Now(), r.Duration)
	template, err := pki.Template{
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: r.IsCA, Usages: r.Usages,
		CRLDistributionPoints: issuer.GetSpec().SelfSigned.CRLDistributionPoints,
	}.Certificate(r.CSR)
	if err != nil {
		return signer.Result{}, fault.Refusedf("ErrorGenerating", "Error generating certificate template: %w", err)
	}
	certificate, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		return signer.Result{}, fault.Refusedf("ErrorSigning", "Error signing certificate: %w", err)
	}
	pem := pki.EncodeCertificatePEM(certificate)
	answer := signer.Result{Certificate: pem, CA: pem}
	if len(r.CSR.Subject.ToRDNSequence()) == 0 {
		answer.WarningReason = "BadConfig"
		answer.Warning = "the certificate has no subject, and as it is its own issuer, no issuer name, which RFC 5280 " +
			"section 4.1.2.4 " +
			"demands: some clients refuse it; set spec.commonName or spec.subject"
		if r.IsCA {
			answer.Warning += ". As a CA it cannot be used: what it signs would not name its CA, and issuers of type ca " +
				"refuse it"
		}
	}
	return answer, nil
}

// nameKeySecret names the Secret with the private key of a request in messages. A Kubernetes CSR to
// a ClusterIssuer names a Secret of a namespace that its user may not know.
func nameKeySecret(issuer *signer.Issuer, r signer.Request) (name, hint string) {
	if issuer.Kind == signer.KindClusterIssuer && r.Owner.Kind == "CertificateSigningRequest" {
		return fmt.Sprintf("%q", r.KeySecret), issuer.SecretsHint()
	}
	return r.Namespace + "/" + r.KeySecret, ""
}

func (s *Signer) key(ctx context.Context, issuer *signer.Issuer, r signer.Request) (crypto.Signer, error) {
	key := s.Keyring.Get(types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
	if key != nil && pki.SamePublicKey(key.Public(), r.CSR.PublicKey) {
		return key, nil
	}
	if r.KeySecret == "" {
		return nil, fault.Refusedf(
			"MissingAnnotation",
			"Annotation %q missing or reference empty: it must name the Secret with the private key, as a selfSigned "+
				"issuer signs with that",
			r.KeyAnnotation,
		)
	}
	named, hint := nameKeySecret(issuer, r)
	secret, err := s.Secrets.Get(ctx, r.Namespace, r.KeySecret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Misconfiguredf(r.KeyMissing,
			"Referenced secret %s not found: annotation %q names it as the private key of the request; create it, or "+
				"correct the annotation%s",
			named, r.KeyAnnotation, hint)
	case err != nil:
		return nil, fault.Transientf(
			"ErrorGettingSecret",
			"Failed to get private key from secret %s: %w",
			named,
			fault.Unnamed(err, r.KeySecret),
		)
	}
	key, err = s.Limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fault.Misconfiguredf("ErrorParsingKey", "Failed to get key %q referenced in annotation %q: entry %s: %w",
			r.KeySecret, r.KeyAnnotation, corev1.TLSPrivateKeyKey, err)
	}
	if !pki.SamePublicKey(key.Public(), r.CSR.PublicKey) {
		return nil, fault.Refusedf(
			"ErrorKeyMatch",
			"Error generating certificate template: CSR not signed by referenced private key in secret %s",
			named,
		)
	}
	return key, nil
}
