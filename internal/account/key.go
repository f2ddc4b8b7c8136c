package account

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxMACKey is how long the MAC key of an external account may be, in base64.
	maxMACKey = 4096

	managedByLabel, managedBy = "app.kubernetes.io/managed-by", "cert-manager"
)

// keyEntry is the entry of the Secret that has the key.
func keyEntry(ref cmmeta.SecretKeySelector) string {
	if ref.Key != "" {
		return ref.Key
	}
	return corev1.TLSPrivateKeyKey
}

// NewKey makes an account key with the algorithm that the issuer asks for. It returns the key and
// its PEM encoding.
func NewKey(of *cmacme.ACMEIssuer) (crypto.Signer, []byte, error) {
	spec := pki.KeySpec{Algorithm: pki.ECDSA}
	if of.PrivateKeyAlgorithm == cmacme.ACMEAccountKeyRSA {
		spec.Algorithm = pki.RSA
	}
	key, err := spec.Generate(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	return key, encoded, err
}

// key reads the account key. The error is apierrors.IsNotFound if there is no Secret.
func (a *Accounts) key(ctx context.Context, issuer *signer.Issuer) (crypto.Signer, error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	secret, err := issuer.ReadSecret(ctx, a.Secrets, ref.Name)
	if err != nil {
		return nil, err
	}
	return a.decodeKey(issuer, secret, keyEntry(ref))
}

func (a *Accounts) decodeKey(issuer *signer.Issuer, secret *corev1.Secret, entry string) (crypto.Signer, error) {
	data := secret.Data[entry]
	if len(data) == 0 {
		return nil, fault.Misconfiguredf(
			"ErrVerifyACMEAccount",
			"%s, spec.acme.privateKeySecretRef, has no entry %s: put the account key there, or delete the Secret",
			issuer.SecretInRequests(secret.Name),
			entry,
		)
	}
	key, err := a.Limits.DecodeKeyPEM(data)
	if err == nil {
		_, err = acme.Thumbprint(key.Public())
	}
	if err != nil {
		return nil, fault.Misconfiguredf(
			"ErrVerifyACMEAccount",
			"entry %s of %s is no account key: %w",
			entry,
			issuer.SecretInRequests(secret.Name),
			err,
		)
	}
	return key, nil
}

// makeKey makes the account key and stores it. If another client has created the Secret first, the
// key is the one from there. It is not fresh: it may have an account.
func (a *Accounts) makeKey(ctx context.Context, issuer *signer.Issuer) (key crypto.Signer, fresh bool, err error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	key, encoded, err := NewKey(issuer.GetSpec().ACME)
	if err != nil {
		return nil, false, err
	}
	secret := &corev1.Secret{
		// With the controller's own label the cache that waits for our writes sees it.
		ObjectMeta: metav1.ObjectMeta{Namespace: issuer.SecretNamespace, Name: ref.Name, Labels: map[string]string{
			managedByLabel: managedBy, cmapi.PartOfCertManagerControllerLabelKey: "true",
		}},
		Data: map[string][]byte{keyEntry(ref): encoded},
	}
	err = a.Client.Create(ctx, secret)
	switch {
	case apierrors.IsAlreadyExists(err):
		if err := a.Secrets.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret); err != nil {
			return nil, false, fmt.Errorf("read %s with the account key: %w", issuer.SecretInRequests(ref.Name),
				issuer.ErrorInRequests(err, ref.Name))
		}
		key, err = a.decodeKey(issuer, secret, keyEntry(ref))
		return key, false, err
	case err != nil:
		return nil, false, fault.Transientf(
			"ErrRegisterACMEAccount",
			"store the account key in %s: %w",
			issuer.SecretInRequests(ref.Name),
			issuer.ErrorInRequests(err, ref.Name),
		)
	}
	return key, true, nil
}

func (a *Accounts) macKey(
	ctx context.Context,
	issuer *signer.Issuer,
	b *cmacme.ACMEExternalAccountBinding,
) ([]byte, error) {
	const field = "spec.acme.externalAccountBinding.keySecretRef"
	secretName := issuer.SecretInRequests(b.Key.Name)
	secret, err := issuer.ReadSecret(ctx, a.Secrets, b.Key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Missingf("ErrRegisterACMEAccount",
			"%s, %s, does not exist: create it with the MAC key that the CA gave you%s", secretName, field,
			issuer.SecretsHint())
	case err != nil:
		return nil, fault.Transientf("ErrRegisterACMEAccount", "%w", err)
	}
	text := strings.TrimRight(strings.TrimSpace(string(secret.Data[b.Key.Key])), "=")
	if text == "" || len(text) > maxMACKey {
		return nil, fault.Misconfiguredf(
			"ErrRegisterACMEAccount",
			"%s, %s, has no MAC key in entry %s",
			secretName,
			field,
			b.Key.Key,
		)
	}
	// CAs write base64url, people copy base64.
	mac, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(text))
	if err != nil {
		return nil, fault.Misconfiguredf(
			"ErrRegisterACMEAccount",
			"entry %s of %s, %s, is not base64url",
			b.Key.Key,
			secretName,
			field,
		)
	}
	return mac, nil
}

// hash identifies a private key in the status. That of an RSA key is cert-manager's, so that an
// adopted issuer is not registered again.
func hash(key crypto.Signer) string {
	var der []byte
	if k, ok := key.(*rsa.PrivateKey); ok {
		der = x509.MarshalPKCS1PrivateKey(k)
	} else {
		// Of other keys the public half is as good, and says less.
		der, _ = x509.MarshalPKIXPublicKey(key.Public())
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}
