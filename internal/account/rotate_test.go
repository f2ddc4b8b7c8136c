package account

import (
	"crypto"
	"crypto/rand"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

func holding(entry []byte) *corev1.Secret {
	return &corev1.Secret{Data: map[string][]byte{"tls.key.previous": entry}}
}

func clusterIssuer() *signer.Issuer {
	return signer.Scope{ClusterResourceNamespace: "operators"}.Of(&cmapi.ClusterIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: "shared"},
	})
}

// An account's errors reach the Orders of tenants.
func TestErrorsAboutAnAccountKeyDoNotNameTheSecretOfAClusterIssuer(t *testing.T) {
	a, issuer := &Accounts{}, clusterIssuer()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "operators", Name: "account"},
		Data: map[string][]byte{"wrong": []byte("no key"), "tls.key.previous": []byte("no key")}}
	_, missing := a.decodeKey(issuer, secret, "missing")
	_, wrong := a.decodeKey(issuer, secret, "wrong")
	_, previous := a.previous(issuer, secret, "tls.key.previous")
	for name, err := range map[string]error{"missing": missing, "wrong": wrong, "previous": previous} {
		if err == nil || !strings.Contains(err.Error(), `the Secret of ClusterIssuer "shared"`) ||
			strings.Contains(err.Error(), "operators") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheLastKeysBeforeTheOneInUseAreKeptTheNewestFirst(t *testing.T) {
	a := &Accounts{}
	var entry []byte
	var want []crypto.Signer
	for range maxPrevious + 2 {
		key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if entry, err = withPrevious(key, entry); err != nil {
			t.Fatal(err)
		}
		want = append([]crypto.Signer{key}, want...)
		want = want[:min(len(want), maxPrevious)]
		got, err := a.previous(clusterIssuer(), holding(entry), "tls.key.previous")
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d keys of %d are kept: %v", len(got), len(want), err)
		}
		for i := range want {
			if hash(got[i]) != hash(want[i]) {
				t.Errorf("key %d of %d is another one", i, len(want))
			}
		}
	}
}

func FuzzPrevious(f *testing.F) {
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	one, err := withPrevious(key, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Add(append(one, "and more"...))
	f.Add([]byte("no key"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		keys, err := (&Accounts{}).previous(clusterIssuer(), holding(entry), "tls.key.previous")
		if err != nil &&
			(fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "remove it, or correct it")) {
			t.Errorf("it does not say what to do: %v", err)
		}
		if len(keys) > maxPrevious {
			t.Errorf("%d keys are read", len(keys))
		}
	})
}
