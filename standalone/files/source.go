package files

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
)

// waiting returns a trouble that ends when the Certificate is issued.
func waiting(format string, args ...any) *trouble {
	return &trouble{reason: reasonWaiting, message: fmt.Sprintf(format, args...), kept: true}
}

// source reads the content for the files. It returns only content that the controller has verified:
// the Certificate must be ready.
func (r *reconciler) source(ctx context.Context,
	cf *perennial.CertificateFile) (version, *x509.Certificate, *trouble, error) {
	ref := cf.Spec.CertificateRef
	crt := &cmapi.Certificate{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, crt)
	if apierrors.IsNotFound(err) {
		return version{}, nil, waiting("Certificate %s/%s, spec.certificateRef, does not exist: create it", ref.Namespace,
			ref.Name), nil
	} else if err != nil {
		return version{}, nil, nil, err
	}
	secret := &corev1.Secret{}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: crt.Spec.SecretName}, secret)
	if apierrors.IsNotFound(err) {
		secret = nil
	} else if err != nil {
		return version{}, nil, nil, err
	}
	if wrong := vouched(crt, secret); wrong != nil {
		return version{}, nil, wrong, nil
	}
	key, err := pki.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return version{}, nil, waiting("Secret %s/%s has no private key that can be read: %v", ref.Namespace, secret.Name,
			err), nil
	}
	chain, err := r.Limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return version{}, nil, waiting("Secret %s/%s has no certificate that can be read: %v", ref.Namespace, secret.Name,
			err), nil
	}
	if !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
		return version{}, nil, waiting("Secret %s/%s holds a private key and a certificate that do not belong together",
			ref.Namespace, secret.Name), nil
	}
	if wrong := current(crt, chain[0], r.Clock.Now()); wrong != nil {
		return version{}, nil, wrong, nil
	}
	v, err := contents(cf, secret)
	if err != nil {
		// Retry, because there is no event when a missing user or group is created.
		return version{}, nil, &trouble{reason: reasonInvalid, message: err.Error(), retry: true, kept: true}, nil
	}
	return v, chain[0], nil, nil
}

// temporaryAnnotation marks a Secret with a temporary certificate, used until the issuer answers.
const temporaryAnnotation = "perennial.dev/temporary-certificate"

// standsIn reports whether a Secret holds the temporary certificate that its Certificate requests.
// A server can start with it and then answer the challenges for the real one.
func standsIn(crt *cmapi.Certificate, secret *corev1.Secret) bool {
	return secret != nil && secret.Annotations[temporaryAnnotation] == "true" &&
		secret.Annotations[cmapi.CertificateNameKey] == crt.Name &&
		crt.Annotations[cmapi.IssueTemporaryCertificateAnnotation] == "true"
}

// vouched returns nil if the Certificate is ready and the Secret was issued for it, or holds its
// temporary certificate. Otherwise it returns the reason. secret is nil if there is none.
func vouched(crt *cmapi.Certificate, secret *corev1.Secret) *trouble {
	ready := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
	if standsIn(crt, secret) {
		return nil
	}
	switch {
	case ready == nil:
		return waiting("Certificate %s/%s has not been issued yet", crt.Namespace, crt.Name)
	case ready.Status != cmmeta.ConditionTrue && ready.Reason != "":
		return &trouble{reason: ready.Reason, message: fmt.Sprintf("Certificate %s/%s is not ready: %s", crt.Namespace,
			crt.Name, ready.Message), kept: true}
	case ready.Status != cmmeta.ConditionTrue:
		return waiting("Certificate %s/%s is not ready: %s", crt.Namespace, crt.Name, ready.Message)
	case secret == nil:
		return waiting("Secret %s/%s of Certificate %s is missing: it is issued again", crt.Namespace, crt.Spec.SecretName,
			crt.Name)
	}
	if holder := secret.Annotations[cmapi.CertificateNameKey]; holder != "" && holder != crt.Name {
		return waiting("Secret %s/%s was issued for Certificate %s, not for %s: give one of the two another spec.secretName",
			crt.Namespace, secret.Name, holder, crt.Name)
	}
	return nil
}

// current returns why the certificate in the Secret must not be deployed although the Certificate
// is ready: it has expired, or the status describes the previous certificate, so that the
// controller has not verified this one yet.
func current(crt *cmapi.Certificate, leaf *x509.Certificate, now time.Time) *trouble {
	if now.After(leaf.NotAfter) {
		return &trouble{reason: reasonExpired, kept: true, message: fmt.Sprintf(
			"the certificate in Secret %s/%s expired at %s: see why Certificate %s is not renewed",
			crt.Namespace, crt.Spec.SecretName, leaf.NotAfter.UTC().Format(time.RFC3339), crt.Name)}
	}
	if at := crt.Status.NotAfter; at != nil && !at.Time.Truncate(time.Second).Equal(leaf.NotAfter.Truncate(time.Second)) {
		wrong := waiting("Secret %s/%s holds another certificate than the status of Certificate %s says: that is "+
			"being judged",
			crt.Namespace, crt.Spec.SecretName, crt.Name)
		wrong.unconfirmed = true
		return wrong
	}
	return nil
}

// contents returns the content of the files, with owner and mode.
func contents(cf *perennial.CertificateFile, secret *corev1.Secret) (version, error) {
	keyPEM, chainPEM, caPEM := secret.Data[corev1.TLSPrivateKeyKey], secret.Data[corev1.TLSCertKey],
		secret.Data[cmmeta.TLSCAKey]
	spec := cf.Spec
	name := func(n perennial.FileName, otherwise string) string {
		if n == "" {
			return otherwise
		}
		return string(n)
	}
	v := version{reload: spec.Reload != nil, files: map[string][]byte{
		name(spec.Files.Certificate, corev1.TLSCertKey):      chainPEM,
		name(spec.Files.PrivateKey, corev1.TLSPrivateKeyKey): keyPEM,
	}}
	if len(caPEM) > 0 {
		v.files[name(spec.Files.CA, cmmeta.TLSCAKey)] = caPEM
	}
	if spec.Files.Combined != "" {
		v.files[string(spec.Files.Combined)] = pki.CombinedPEM(bytes.TrimRight(keyPEM, "\n"), chainPEM)
	}
	v.relevantToIdentity = string(chainPEM) + "\x00" + string(caPEM)
	var err error
	if v.uid, err = userID(spec.Owner); err != nil {
		return v, err
	}
	if v.gid, err = groupID(spec.Group); err != nil {
		return v, err
	}
	if v.mode, err = octal("spec.mode", spec.Mode, 0o600); err != nil {
		return v, err
	}
	v.dirMode, err = octal("spec.directoryMode", spec.DirectoryMode, 0o755)
	return v, err
}

func octal(field, text string, otherwise uint32) (uint32, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not an octal number", field, text)
	}
	return uint32(n), nil
}
