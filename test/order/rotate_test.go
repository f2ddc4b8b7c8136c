package order_test

import (
	"crypto/rand"
	"fmt"
	"math"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestAnAccountKeyIsChangedThoughTheControllerIsKilledMeanwhile kills the controller at each of its writes and exchanges while it changes an
// account key. The account must be the same afterwards, and have the new key.
func TestAnAccountKeyIsChangedThoughTheControllerIsKilledMeanwhile(t *testing.T) {
	for _, of := range []string{"write", "exchange"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after it: %t", of, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for rotateKilledAt(t, of, n, after) {
					if n++; n > 30 {
						t.Fatal("the controller does not come to an end")
					}
				}
				if n < 3 {
					t.Fatalf("there was only %d: nothing was tested", n-1)
				}
			})
		}
	}
}

func rotateKilledAt(t *testing.T, of string, n int, after bool) (died bool) {
	t.Helper()
	life := cluster.NewLife(math.MaxInt, after)
	saw := &witness{left: math.MaxInt, after: after, end: func() { life.End() }}
	ca, err := pebble.Start(pebble.Options{Wrap: saw.wrap})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	r := &rig{t: t, ca: ca, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}
	options := controller.Options{Namespace: r.namespace}
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "pebble"}}
	ready := func(hash string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
				return err
			}
			if a := issuer.Status.ACME; a == nil || a.URI == "" || a.LastPrivateKeyHash == hash {
				return cluster.NotYet("the status is %+v", issuer.Status)
			}
			return nil
		})
	}
	first := cluster.Run(t, options)
	r.issuer()
	ready("")
	account := *issuer.Status.ACME
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	next, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(next, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"}}
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
		t.Fatal(err)
	}
	secret.Data["tls.key.next"] = encoded
	if err := r.admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}

	if of == "write" {
		life = cluster.NewLife(n, after)
	} else {
		saw.mu.Lock()
		saw.left = n
		saw.mu.Unlock()
	}
	mortal := options
	mortal.WrapClient = life.Wrap
	second := cluster.Run(t, mortal)
	cluster.Eventually(t, func() error {
		select {
		case <-life.Died():
			died = true
			return nil
		default:
		}
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if issuer.Status.ACME.LastPrivateKeyHash == account.LastPrivateKeyHash {
			return cluster.NotYet("the status is %+v", issuer.Status)
		}
		return nil
	})
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-life.Died(): // of the write that was waited for
		died = true
	default:
	}
	saw.mu.Lock()
	saw.left = math.MaxInt // what follows is not what is killed
	saw.mu.Unlock()
	third := cluster.Run(t, options)
	defer func() {
		if err := third.Stop(); err != nil {
			t.Error(err)
		}
	}()
	ready(account.LastPrivateKeyHash)
	at := fmt.Sprintf("killed at %s %d (after it: %t)", of, n, after)
	if issuer.Status.ACME.URI != account.URI {
		t.Errorf("%s: the account was %s and is %s", at, account.URI, issuer.Status.ACME.URI)
	}
	by := &acme.Client{Directory: ca.Directory, HTTP: ca.Client()}
	if found, err := by.FindAccount(t.Context(), next); err != nil || found.URL != account.URI {
		t.Errorf("%s: the new key has the account %q, %v", at, found.URL, err)
	}
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
		t.Fatal(err)
	}
	if len(secret.Data["tls.key.next"]) > 0 || string(secret.Data["tls.key"]) != string(encoded) {
		t.Errorf("%s: the Secret has the entries %d, and not the new key", at, len(secret.Data))
	}
	return died
}
