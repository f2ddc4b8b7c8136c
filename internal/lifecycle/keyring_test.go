package lifecycle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// TestTheKeyOfADeletedRequestLeavesMemory deletes requests as the API server does without
// finalizers: at once, so that they never have a deletion time.
func TestTheKeyOfADeletedRequestLeavesMemory(t *testing.T) {
	request := func() (*cmapi.CertificateRequest, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.example"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1"}}
		cr.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
		return cr, key
	}
	r := &Reconciler{Keyring: &signer.Keyring{}}
	old, _ := request()
	is, key := request()
	name := client.ObjectKeyFromObject(is)
	r.Keyring.Put(name, key)
	if !r.requestDeleted(event.DeleteEvent{Object: old}) || r.Keyring.Get(name) == nil {
		t.Error("the key of a request that was made anew under the same name is gone")
	}
	if !r.requestDeleted(event.DeleteEvent{Object: is}) || r.Keyring.Get(name) != nil {
		t.Error("the key of a request that is gone stays in memory")
	}
}
