package selfsigned

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// cluster has one Secret, or an error.
type cluster struct {
	secret *corev1.Secret
	err    error
}

func (c cluster) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if c.err == nil {
		c.secret.DeepCopyInto(o.(*corev1.Secret))
	}
	return c.err
}

func (cluster) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// TestACSRReadsOfNoNamespaceOfAClusterIssuer checks what a Kubernetes CSR to a ClusterIssuer says,
// whose key is in a Secret of the cluster resource namespace.
func TestACSRReadsOfNoNamespaceOfAClusterIssuer(t *testing.T) {
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(other, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{CommonName: "a"}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "own"}}
	issuer.Spec.SelfSigned = &cmapi.SelfSignedIssuer{}
	resource := schema.GroupResource{Resource: "secrets"}
	for name, in := range map[string]cluster{
		"missing":     {err: apierrors.NewNotFound(resource, "pair")},
		"forbidden":   {err: apierrors.NewForbidden(resource, "pair", errors.New("frozen"))},
		"too slow":    {err: apierrors.NewGenericServerResponse(504, "get", resource, "pair", "", 0, true)},
		"another key": {secret: &corev1.Secret{Data: map[string][]byte{"tls.key": encoded}}},
		"no key":      {secret: &corev1.Secret{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Signer{Secrets: &secrets.Store{OursCache: in, OthersCache: in, Live: in}, Keyring: &signer.Keyring{},
				Clock: clock.RealClock{}}
			_, err := s.Sign(t.Context(), signer.Scope{ClusterResourceNamespace: "elsewhere"}.Of(issuer), signer.Request{
				Namespace: "elsewhere", Name: "a", KeySecret: "pair", KeyAnnotation: "key", CSR: csr, Duration: time.Hour,
				Owner: metav1.OwnerReference{Kind: "CertificateSigningRequest"},
			})
			if err == nil || strings.Contains(err.Error(), "elsewhere") || !strings.Contains(err.Error(), `"pair"`) {
				t.Errorf("it says %v", err)
			}
			_, err = s.Sign(t.Context(), signer.Scope{}.Of(issuer), signer.Request{
				Namespace: "tenant", Name: "a", KeySecret: "pair", KeyAnnotation: "key", CSR: csr, Duration: time.Hour,
				Owner: metav1.OwnerReference{Kind: "CertificateRequest"},
			})
			if err == nil || name != "no key" && !strings.Contains(err.Error(), "tenant/pair") {
				t.Errorf("a request of a namespace says %v", err)
			}
		})
	}
}
