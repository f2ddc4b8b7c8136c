// Package ca signs with a CA whose certificate and private key are in a Secret.
package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Signer signs for issuers of type ca.
type Signer struct {
	Secrets *secrets.Store
	Limits  pki.Limits
	Clock   clock.PassiveClock

	mu  sync.Mutex
	cas map[types.NamespacedName]*keyPair
}

// References returns the Secret of the CA.
func (*Signer) References(spec *cmapi.IssuerConfig) []string { return []string{spec.CA.SecretName} }

// Check says whether the Secret holds a CA that can sign.
func (s *Signer) Check(ctx context.Context, issuer *signer.Issuer) (signer.Readiness, error) {
	pair, err := s.keyPair(ctx, issuer)
	if err != nil {
		return signer.Readiness{}, err
	}
	return signer.Readiness{
		Reason: "KeyPairVerified", Message: "Signing CA verified",
		CA: &signer.CA{Signing: pair.signing, Anchor: pair.anchor},
	}, nil
}

// Sign signs. A certificate never outlives the CA: a client would refuse it from then on, and nobody would know why.
func (s *Signer) Sign(ctx context.Context, issuer *signer.Issuer, r signer.Request) (signer.Answer, error) {
	pair, err := s.keyPair(ctx, issuer)
	if err != nil {
		return signer.Answer{}, err
	}
	spec := issuer.GetSpec().CA
	now := s.Clock.Now()
	var answer signer.Answer
	notAfter := now.Add(r.Duration)
	if notAfter.After(pair.notAfter) {
		notAfter = pair.notAfter
	}
	if signer.Capped(r.Duration, notAfter.Sub(now)) {
		answer.WarningReason = "NotAfterCapped"
		answer.Warning = fmt.Sprintf("the certificate ends with its CA at %s, not after the %s that were asked for: renew the CA in Secret %s/%s",
			notAfter.UTC().Format(time.RFC3339), r.Duration, issuer.SecretNamespace, spec.SecretName)
	}
	template, err := pki.Template{
		NotBefore: now, NotAfter: notAfter,
		IsCA: r.IsCA, Usages: r.Usages,
		CRLDistributionPoints: spec.CRLDistributionPoints, OCSPServers: spec.OCSPServers, IssuingCertificateURLs: spec.IssuingCertificateURLs,
	}.Certificate(r.CSR)
	if err != nil {
		return signer.Answer{}, fault.Refusedf("SigningError", "Error generating certificate template: %w", err)
	}
	leaf, err := pki.Sign(rand.Reader, template, pair.signing, r.CSR.PublicKey, pair.key)
	if err != nil {
		return signer.Answer{}, fault.Refusedf("SigningError", "Error signing certificate: %w", err)
	}
	answer.Certificate = append(pki.EncodeCertificatePEM(leaf), pair.chainPEM...)
	answer.CA = pair.anchorPEM
	return answer, nil
}

// keyPair is a CA that can sign.
type keyPair struct {
	uid     types.UID
	version string

	key      crypto.Signer
	signing  *x509.Certificate
	anchor   *x509.Certificate
	notAfter time.Time // of the first to expire of signing and those above it
	// chainPEM is what follows a leaf: signing and those above it, the root left out.
	chainPEM, anchorPEM []byte
}

// keyPair reads the issuer's CA. What was read is kept until the Secret changes.
func (s *Signer) keyPair(ctx context.Context, issuer *signer.Issuer) (*keyPair, error) {
	at := types.NamespacedName{Namespace: issuer.SecretNamespace, Name: issuer.GetSpec().CA.SecretName}
	secret, err := s.Secrets.Get(ctx, at.Namespace, at.Name)
	switch {
	case apierrors.IsNotFound(err):
		s.keep(at, nil)
		return nil, fault.Misconfiguredf("ErrGetKeyPair", "Secret %s with the key pair of the CA, spec.ca.secretName, does not exist: create it", at)
	case err != nil:
		return nil, fault.Transientf("ErrGetKeyPair", "get key pair of the CA from Secret %s: %w", at, err)
	}
	s.mu.Lock()
	pair := s.cas[at]
	s.mu.Unlock()
	if pair == nil || pair.uid != secret.UID || pair.version != secret.ResourceVersion {
		if pair, err = s.decode(secret); err != nil {
			s.keep(at, nil)
			return nil, fault.Misconfiguredf("ErrInvalidKeyPair", "Secret %s is not the key pair of a CA: %w", at, err)
		}
		s.keep(at, pair)
	}
	if now := s.Clock.Now(); !now.Before(pair.notAfter) {
		return nil, fault.Misconfiguredf("ErrInvalidKeyPair", "the CA in Secret %s expired at %s: put a new one there", at, pair.notAfter.UTC().Format(time.RFC3339))
	}
	return pair, nil
}

func (s *Signer) keep(at types.NamespacedName, pair *keyPair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pair == nil {
		delete(s.cas, at)
		return
	}
	if s.cas == nil {
		s.cas = map[types.NamespacedName]*keyPair{}
	}
	s.cas[at] = pair
}

func (s *Signer) decode(secret *corev1.Secret) (*keyPair, error) {
	for _, entry := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[entry]) == 0 {
			return nil, fmt.Errorf("it has no entry %s", entry)
		}
	}
	key, err := s.Limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", corev1.TLSPrivateKeyKey, err)
	}
	certificates, err := s.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", corev1.TLSCertKey, err)
	}
	signing := certificates[0]
	switch {
	case !pki.SamePublicKey(signing.PublicKey, key.Public()):
		return nil, fmt.Errorf("the private key in %s is not that of the certificate in %s", corev1.TLSPrivateKeyKey, corev1.TLSCertKey)
	case !signing.IsCA:
		return nil, fmt.Errorf("signing certificate is not a CA: the certificate in %s lacks basicConstraints CA:TRUE (a Certificate gets it by spec.isCA)", corev1.TLSCertKey)
	case signing.KeyUsage != 0 && signing.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("the certificate in %s may not sign certificates: its key usage lacks cert sign", corev1.TLSCertKey)
	}
	// ca.crt completes the chain where tls.crt leaves the root out.
	if bundle := secret.Data[cmmeta.TLSCAKey]; len(bundle) > 0 {
		roots, err := s.Limits.DecodeBundlePEM(bundle)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", cmmeta.TLSCAKey, err)
		}
		certificates = append(certificates, above(certificates, roots)...)
	}
	chain, root, err := pki.OrderChain(certificates)
	if err != nil {
		return nil, fmt.Errorf("entries %s and %s: %w", corev1.TLSCertKey, cmmeta.TLSCAKey, err)
	}
	if !bytes.Equal(chain[0].Raw, signing.Raw) {
		return nil, errors.New("the first certificate in tls.crt is not the lowest of its chain")
	}
	pair := &keyPair{uid: secret.UID, version: secret.ResourceVersion, key: key, signing: signing, anchor: root, notAfter: signing.NotAfter}
	if root == nil {
		pair.anchor = chain[len(chain)-1]
	}
	for _, c := range append(chain, pair.anchor) {
		if c.NotAfter.Before(pair.notAfter) {
			pair.notAfter = c.NotAfter
		}
	}
	if bytes.Equal(signing.Raw, pair.anchor.Raw) && root != nil {
		chain = nil // a root: clients have it
	}
	pair.chainPEM = pki.EncodeCertificatePEM(chain...)
	pair.anchorPEM = pki.EncodeCertificatePEM(pair.anchor)
	return pair, nil
}

// above returns the certificate of bundle that signed the chain's last, if that is not in bundle itself. During
// the rotation of the CA above, bundle has the old and the new one.
func above(chain, bundle []*x509.Certificate) []*x509.Certificate {
	top := chain[len(chain)-1]
	for _, c := range bundle {
		if bytes.Equal(c.Raw, top.Raw) {
			return nil
		}
	}
	for _, c := range bundle {
		if pki.SignedBy(top, c) {
			return []*x509.Certificate{c}
		}
	}
	return nil
}
