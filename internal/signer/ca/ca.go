// Package ca signs with a CA that has its certificate and private key in a Secret.
package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
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

// Check reports whether the Secret holds a CA that can sign.
func (s *Signer) Check(ctx context.Context, issuer *signer.Issuer) (signer.Readiness, error) {
	pair, err := s.keyPair(ctx, issuer, issuer.SecretInConditions(issuer.GetSpec().CA.SecretName))
	if err != nil {
		return signer.Readiness{}, err
	}
	message := "Signing CA verified"
	if pair.incomplete() {
		message += fmt.Sprintf(". The CA above it is not in the Secret, and clients such as OpenSSL trust only a chain "+
			"that ends in a root: "+
			"add the certificate of %.200q to entry %s of Secret %s", pair.anchor.Issuer.String(), cmmeta.TLSCAKey,
			issuer.GetSpec().CA.SecretName)
	}
	return signer.Readiness{
		Reason: "KeyPairVerified", Message: message,
		CA: &signer.CA{Signing: pair.signing, Anchor: pair.anchor},
	}, nil
}

// Sign signs. A certificate never outlives the CA: clients would refuse it from then on, although
// it would look valid.
func (s *Signer) Sign(ctx context.Context, issuer *signer.Issuer, r signer.Request) (signer.Result, error) {
	spec := issuer.GetSpec().CA
	secret := issuer.SecretInRequests(spec.SecretName)
	pair, err := s.keyPair(ctx, issuer, secret)
	if err != nil {
		return signer.Result{}, err
	}
	now := s.Clock.Now()
	var answer signer.Result
	notBefore, notAfter := signer.Validity(now, r.Duration)
	if notAfter.After(pair.notAfter) {
		notAfter = pair.notAfter
	}
	if signer.Capped(r.Duration, notAfter.Sub(notBefore)) {
		answer.WarningReason = "NotAfterCapped"
		answer.Warning = fmt.Sprintf(
			"the certificate ends with its CA at %s, not after the %s that were asked for: renew the CA in %s",
			notAfter.UTC().Format(time.RFC3339),
			r.Duration,
			secret,
		)
	}
	template, err := pki.Template{
		NotBefore:              notBefore,
		NotAfter:               notAfter,
		IsCA:                   r.IsCA,
		Usages:                 r.Usages,
		CRLDistributionPoints:  spec.CRLDistributionPoints,
		OCSPServers:            spec.OCSPServers,
		IssuingCertificateURLs: spec.IssuingCertificateURLs,
	}.Certificate(r.CSR)
	if err != nil {
		return signer.Result{}, fault.Refusedf("SigningError", "Error generating certificate template: %w", err)
	}
	leaf, err := pki.Sign(rand.Reader, template, pair.signing, r.CSR.PublicKey, pair.key)
	if err != nil {
		return signer.Result{}, fault.Refusedf("SigningError", "Error signing certificate: %w", err)
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
	notAfter time.Time // the earliest of signing and those above it
	// chain is what follows a leaf: signing and those above it, the root left out.
	chain               []*x509.Certificate
	chainPEM, anchorPEM []byte

	// sound says that clients accept what the CA signs, until notAfter.
	sound bool
}

// judge returns an error if clients do not accept what the CA signs, and when to check again a CA
// that is not valid yet.
func (p *keyPair) judge(now time.Time) (again time.Time, err error) {
	if p.sound && now.Before(p.notAfter) {
		return again, nil
	}
	chain := p.chain
	if len(chain) == 0 {
		chain = []*x509.Certificate{p.signing}
	}
	again, err = pki.JudgeCA(pki.Issued{Chain: chain, CAs: []*x509.Certificate{p.anchor}}, now)
	p.sound = err == nil
	return again, err
}

// incomplete reports whether the certificate above anchor is not known.
func (p *keyPair) incomplete() bool { return !bytes.Equal(p.anchor.RawIssuer, p.anchor.RawSubject) }

// keyPair reads the issuer's CA, and keeps it until the Secret changes. Errors call the Secret
// named.
func (s *Signer) keyPair(ctx context.Context, issuer *signer.Issuer, named string) (*keyPair, error) {
	at := types.NamespacedName{Namespace: issuer.SecretNamespace, Name: issuer.GetSpec().CA.SecretName}
	secret, err := issuer.ReadSecret(ctx, s.Secrets, at.Name)
	switch {
	case apierrors.IsNotFound(err):
		s.keep(at, nil)
		return nil, fault.Missingf("ErrGetKeyPair",
			"%s with the key pair of the CA, spec.ca.secretName, does not exist: create it%s", named, issuer.SecretsHint())
	case err != nil:
		return nil, fault.Transientf("ErrGetKeyPair", "the key pair of the CA cannot be read now: %w", err)
	}
	pair := s.kept(at)
	if pair == nil || pair.uid != secret.UID || pair.version != secret.ResourceVersion {
		if pair, err = s.decode(secret); err != nil {
			s.keep(at, nil)
			return nil, fault.Misconfiguredf("ErrInvalidKeyPair", "%s is not the key pair of a CA: %w", named, err)
		}
		s.keep(at, pair)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if again, err := pair.judge(s.Clock.Now()); err != nil {
		return nil, &fault.Error{
			Class: fault.Misconfigured, Reason: "ErrInvalidKeyPair", Until: again,
			Err: fmt.Errorf("clients would refuse what the CA in %s signs: %w%s", named, err, remedy(err)),
		}
	}
	return pair, nil
}

// remedy says what to do about a CA that clients would refuse.
func remedy(err error) string {
	switch pki.DefectOf(err) {
	case pki.NotYetValid:
		return ". It is used from then on; if the clock is wrong correct that, or put another CA there"
	case pki.NoSubject:
		return "" // the error says it
	}
	return ": put another CA there"
}

func (s *Signer) kept(at types.NamespacedName) *keyPair {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cas[at]
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
	if !pki.SamePublicKey(signing.PublicKey, key.Public()) {
		return nil, otherKey(certificates, key)
	}
	// ca.crt completes the chain if tls.crt does not have the root.
	if bundle := secret.Data[cmmeta.TLSCAKey]; len(bytes.TrimSpace(bundle)) > 0 {
		roots, err := s.Limits.DecodeBundlePEM(bundle)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", cmmeta.TLSCAKey, err)
		}
		if certificates, err = complete(certificates, roots); err != nil {
			return nil, err
		}
	}
	chain, root, err := pki.OrderChain(certificates)
	if err != nil {
		return nil, fmt.Errorf("entries %s and %s: %w", corev1.TLSCertKey, cmmeta.TLSCAKey, err)
	}
	if !bytes.Equal(chain[0].Raw, signing.Raw) {
		return nil, errors.New("the first certificate in tls.crt is not the lowest of its chain")
	}
	pair := &keyPair{
		uid:      secret.UID,
		version:  secret.ResourceVersion,
		key:      key,
		signing:  signing,
		anchor:   root,
		notAfter: signing.NotAfter,
	}
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
	pair.chain, pair.chainPEM = chain, pki.EncodeCertificatePEM(chain...)
	pair.anchorPEM = pki.EncodeCertificatePEM(pair.anchor)
	return pair, nil
}

// otherKey says which certificate the private key belongs to, if it is another one than the first.
func otherKey(certificates []*x509.Certificate, key crypto.Signer) error {
	for i, c := range certificates {
		if pki.SamePublicKey(c.PublicKey, key.Public()) {
			return fmt.Errorf("%s begins with another certificate than that of the private key in %s, which is number %d: "+
				"put that one first, and after it those of the CAs above it, the root last", corev1.TLSCertKey,
				corev1.TLSPrivateKeyKey, i+1)
		}
	}
	return fmt.Errorf("the private key in %s is not that of the certificate in %s", corev1.TLSPrivateKeyKey,
		corev1.TLSCertKey)
}

// complete adds to a chain the certificates of bundle that are above it. During the rotation of the
// CA above, bundle has the old and the new one.
func complete(chain, bundle []*x509.Certificate) ([]*x509.Certificate, error) {
	for {
		top := chain[len(chain)-1]
		if bytes.Equal(top.RawIssuer, top.RawSubject) {
			return chain, nil
		}
		i := slices.IndexFunc(bundle, func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(chain, c.Equal) && pki.SignedBy(top, c)
		})
		switch {
		case i >= 0:
			chain = append(chain, bundle[i])
		case slices.ContainsFunc(bundle, top.Equal):
			return chain, nil
		default:
			return nil, fmt.Errorf("the chain is not complete: entry %s has no certificate that signed that of %.200q, the "+
				"last in %s: "+
				"put the certificate of %.200q there", cmmeta.TLSCAKey, top.Subject.String(), corev1.TLSCertKey,
				top.Issuer.String())
		}
	}
}
