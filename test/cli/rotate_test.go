package cli_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestANewAccountKeyIsOfTheKindThatTheIssuerSays runs no controller: it checks what the command
// leaves for it.
func TestANewAccountKeyIsOfTheKindThatTheIssuerSays(t *testing.T) {
	s := newShell(t)
	var changesKeys atomic.Bool
	ca, err := pebble.Start(pebble.Options{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/dir") || changesKeys.Load() {
				h.ServeHTTP(w, r)
				return
			}
			reply := httptest.NewRecorder()
			h.ServeHTTP(reply, r)
			var directory map[string]any
			if err := json.Unmarshal(reply.Body.Bytes(), &directory); err != nil {
				t.Error(err)
			}
			delete(directory, "keyChange")
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(directory)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	issuer := func(name string, kind cmacme.ACMEAccountKeyAlgorithm) {
		t.Helper()
		s.create(
			&cmapi.Issuer{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
					Server: ca.Directory, CABundle: ca.CABundle, PrivateKeyAlgorithm: kind,
					PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}},
				}}},
			},
		)
	}
	next := func(name string) crypto.Signer {
		t.Helper()
		secret := &corev1.Secret{}
		if err := s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, secret); err != nil {
			t.Fatal(err)
		}
		if len(secret.Data["tls.key.next"]) == 0 {
			return nil
		}
		key, err := pki.Limits{}.DecodeKeyPEM(secret.Data["tls.key.next"])
		if err != nil {
			t.Fatal(err)
		}
		return key
	}

	issuer("curve", "")
	issuer("numbers", cmacme.ACMEAccountKeyRSA)
	changesKeys.Store(true)
	s.perennial("rotate-account-key", "curve").
		says(t, 4, "the Secret "+s.namespace+"/curve with the account key does not exist")
	everywhere := &cmapi.ClusterIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
			Server:     ca.Directory,
			CABundle:   ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "curve"}},
		}}},
	}
	if err := s.Create(t.Context(), everywhere); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Delete(context.Background(), everywhere) }()
	s.perennial("rotate-account-key", s.namespace, "--cluster-issuer").
		says(t, 4, "the Secret kube-system/curve with the account key does not exist",
			"--cluster-resource-namespace must be as the controller has it")
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "numbers"}})
	s.perennial("rotate-account-key", "numbers").
		says(t, 4, "the Secret "+s.namespace+"/numbers has no account key in entry tls.key")
	if err := s.Delete(
		t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "numbers"}},
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"curve", "numbers"} {
		s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"tls.key": encoded}})
	}

	changesKeys.Store(false)
	s.perennial("rotate-account-key", "curve").says(t, 3, `the CA of Issuer "curve" does not offer key changes`)
	if next("curve") != nil {
		t.Error("a key is in the Secret, and the account cannot change to it")
	}
	changesKeys.Store(true)
	for _, name := range []string{"curve", "numbers"} {
		s.perennial("rotate-account-key", name, "--timeout", "1s").
			says(t, 3, "the new key stands in Secret "+s.namespace+"/"+name, "it will when it can")
	}
	if _, ok := next("curve").(*ecdsa.PrivateKey); !ok {
		t.Errorf("the key is a %T", next("curve"))
	}
	if key, ok := next("numbers").(*rsa.PrivateKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("the key is a %T, and the issuer says RSA", next("numbers"))
	}
}
