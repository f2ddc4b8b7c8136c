package order_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestAnAccountKeyIsChangedThoughTheControllerIsKilledMeanwhile kills the controller at each of its
// writes and exchanges while it changes an account key, on request or because another issuer with
// the same Secret has changed it at its CA. Afterwards the account must be the same, with the new
// key.
func TestAnAccountKeyIsChangedThoughTheControllerIsKilledMeanwhile(t *testing.T) {
	for _, test := range []struct {
		name  string
		put   func(*rig) (crypto.Signer, []byte)
		least int // writes there are
	}{{"it is to be changed", (*rig).putNext, 2}, {"another CA has changed it", (*rig).putChanged, 1}} {
		for _, of := range []string{"write", "exchange"} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s: %s, after it: %t", test.name, of, after), func(t *testing.T) {
					t.Parallel()
					n := 1
					for rotateKilledAt(t, test.put, of, n, after) {
						if n++; n > 30 {
							t.Fatal("the controller does not come to an end")
						}
					}
					if n <= test.least {
						t.Fatalf("there was only %d: nothing was tested", n-1)
					}
				})
			}
		}
	}
}

func rotateKilledAt(t *testing.T, put func(*rig) (crypto.Signer, []byte), of string, n int, after bool) (died bool) {
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

	next, encoded := put(r)

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
	died = r.rotatedOrDied(issuer, account.LastPrivateKeyHash, life)
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
	secret := r.accountSecret()
	if len(secret.Data["tls.key.next"]) > 0 || string(secret.Data["tls.key"]) != string(encoded) {
		t.Errorf("%s: the Secret has the entries %d, and not the new key", at, len(secret.Data))
	}
	return died
}

// rotatedOrDied waits until the status has another key than the hash, or the process has died.
func (r *rig) rotatedOrDied(issuer *cmapi.Issuer, hash string, life *cluster.Life) (died bool) {
	t := r.t
	t.Helper()
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
		if issuer.Status.ACME.LastPrivateKeyHash == hash {
			return cluster.NotYet("the status is %+v", issuer.Status)
		}
		return nil
	})
	return died
}

// accountSecret is the Secret with the account key.
func (r *rig) accountSecret() *corev1.Secret {
	r.t.Helper()
	secret := &corev1.Secret{}
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "account"}, secret); err != nil {
		r.t.Fatal(err)
	}
	return secret
}

// putNext adds a new key to the Secret of the account key.
func (r *rig) putNext() (crypto.Signer, []byte) {
	r.t.Helper()
	return r.putKey(func(secret *corev1.Secret, key []byte) { secret.Data["tls.key.next"] = key })
}

// putChanged replaces the account key, like an issuer of another CA.
func (r *rig) putChanged() (crypto.Signer, []byte) {
	r.t.Helper()
	return r.putKey(func(secret *corev1.Secret, key []byte) {
		secret.Data["tls.key.previous"], secret.Data["tls.key"] = secret.Data["tls.key"], key
	})
}

// putKey adds a new key to the Secret with the account key.
func (r *rig) putKey(put func(*corev1.Secret, []byte)) (crypto.Signer, []byte) {
	r.t.Helper()
	next, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(next, pki.PKCS8)
	if err != nil {
		r.t.Fatal(err)
	}
	secret := r.accountSecret()
	put(secret, encoded)
	if err := r.admin.Update(r.t.Context(), secret); err != nil {
		r.t.Fatal(err)
	}
	return next, encoded
}

// sharing creates an issuer of another CA, behind a front, with the account key of the rig's
// issuer.
func (r *rig) sharing(f *front) (*pebble.Server, *cmapi.Issuer) {
	r.t.Helper()
	ca, err := pebble.Start(pebble.Options{Wrap: f.wrap})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ca.Close() })
	issuer := r.issuerOf(r.namespace, "second", func(spec *cmacme.ACMEIssuer) {
		spec.Server, spec.CABundle, spec.PrivateKey.Name = ca.Directory, ca.CABundle, "account"
	})
	r.registered(issuer)
	return ca, issuer
}

func TestIssuersOfTwoCAsShareAnAccountKeyThatIsChangedWhileOneCAIsDown(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	first := r.issuerSays(cmmeta.ConditionTrue)
	f := &front{}
	ca, second := r.sharing(f)
	before := *second.Status.ACME

	f.behave(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) bool {
		refuse(w, http.StatusInternalServerError, "serverInternal", "the database is away")
		return true
	}, nil)
	var last crypto.Signer
	for range 2 {
		var encoded []byte
		last, encoded = r.putNext()
		was := r.getIssuer().Status.ACME.LastPrivateKeyHash
		cluster.Eventually(t, func() error {
			if secret := r.accountSecret(); len(secret.Data["tls.key.next"]) > 0 ||
				!bytes.Equal(secret.Data["tls.key"], encoded) {
				return cluster.NotYet("the key is not changed")
			}
			if status := r.issuerSays(cmmeta.ConditionTrue); status.LastPrivateKeyHash == was {
				return cluster.NotYet("the status is %+v", status)
			}
			return nil
		})
	}
	f.behave(nil, nil)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(second), second); err != nil {
			return err
		}
		if second.Status.ACME.LastPrivateKeyHash == before.LastPrivateKeyHash {
			return cluster.NotYet("the status is %+v", second.Status)
		}
		return nil
	})
	r.registered(second)
	if now := r.getIssuer().Status.ACME; now.URI != first.URI {
		t.Errorf("the account was %s and is %s", first.URI, now.URI)
	}
	if now := second.Status.ACME; now.URI != before.URI {
		t.Errorf("the account at the CA that was down was %s and is %s", before.URI, now.URI)
	}
	by := &acme.Client{Directory: ca.Directory, HTTP: ca.Client()}
	if found, err := by.FindAccount(t.Context(), last); err != nil || found.URL != before.URI {
		t.Errorf("the CA that was down has the account %q for the new key, %v", found.URL, err)
	}
}

// TestIssuersOfOneCAThatChangeAnAccountKeyAtOnceKeepTheAccount makes both issuers request the
// change of their shared key before the CA has answered either.
func TestIssuersOfOneCAThatChangeAnAccountKeyAtOnceKeepTheAccount(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	first := r.issuerSays(cmmeta.ConditionTrue)
	second := r.issuerOf(r.namespace, "second", func(spec *cmacme.ACMEIssuer) { spec.PrivateKey.Name = "account" })
	r.registered(second)

	old := r.accountSecret().Data["tls.key"]
	var asked atomic.Int32
	both := make(chan struct{})
	f.behave(func(_ http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if strings.HasPrefix(r.URL.Path, "/rollover-account-key") {
			if asked.Add(1) == 2 {
				close(both)
			}
			select {
			case <-both:
			case <-r.Context().Done():
			}
		}
		return false
	}, nil)
	next, encoded := r.putNext()
	for _, issuer := range []*cmapi.Issuer{r.getIssuer(), second} {
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
				return err
			}
			c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady)
			if issuer.Status.ACME.LastPrivateKeyHash == first.LastPrivateKeyHash || c == nil ||
				c.Status != cmmeta.ConditionTrue {
				return cluster.NotYet("the status of %s is %+v", issuer.Name, issuer.Status)
			}
			return nil
		})
		if uri := issuer.Status.ACME.URI; uri != first.URI {
			t.Errorf("the account of %s was %s and is %s", issuer.Name, first.URI, uri)
		}
	}
	if n := asked.Load(); n < 2 {
		t.Errorf("the CA was asked %d times: nothing was tested", n)
	}
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	if found, err := by.FindAccount(t.Context(), next); err != nil || found.URL != first.URI {
		t.Errorf("the new key has the account %q, %v", found.URL, err)
	}
	if data := r.accountSecret().Data; len(data["tls.key.next"]) > 0 || !bytes.Equal(data["tls.key"], encoded) ||
		!bytes.Equal(data["tls.key.previous"], old) {
		t.Errorf("the Secret has the entries %d, and not the new key with the old one behind", len(data))
	}
	r.registered(r.issuerOf(r.namespace, "third", func(spec *cmacme.ACMEIssuer) { spec.PrivateKey.Name = "another" }))
	r.eventually("what comes last is told", func() bool { return len(r.events("ACMEAccountRegistered")) == 3 })
	if told := r.events("ErrUpdateACMEAccount"); len(told) > 0 {
		t.Errorf("that one was a little slower is told as a failure: %q", told)
	}
}

func TestTheAccountKeyAtACAThatChangesNoneStays(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	f := &front{}
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(q.URL.Path, pathDirectory) {
			edit(t, reply, func(directory map[string]any) { delete(directory, "keyChange") })
		}
	})
	_, second := r.sharing(f)
	account := second.Status.ACME.URI
	says := func(status cmmeta.ConditionStatus, words string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(second), second); err != nil {
				return err
			}
			c := cmapi.GetIssuerCondition(&second.Status, cmapi.IssuerConditionReady)
			if c == nil || c.Status != status || c.ObservedGeneration != second.Generation ||
				!strings.Contains(c.Message, words) {
				return cluster.NotYet("the condition is %+v", c)
			}
			return nil
		})
		if second.Status.ACME.URI != account {
			t.Errorf("the account was %s and is %s", account, second.Status.ACME.URI)
		}
	}
	old := r.accountSecret().Data["tls.key"]
	r.putNext()
	says(
		cmmeta.ConditionFalse,
		"does not name it: remove entry tls.key.next from Secret "+r.namespace+"/account, and the account stays as it is",
	)
	secret := r.accountSecret()
	delete(secret.Data, "tls.key.next")
	if err := r.admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	says(cmmeta.ConditionTrue, "")

	// The CA of another issuer with this Secret changes keys.
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	r.putNext()
	says(
		cmmeta.ConditionFalse,
		"put the key of this account, which is in entry tls.key.previous, into a Secret of its own",
	)
	r.create(
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "own"},
			Data:       map[string][]byte{"tls.key": r.accountSecret().Data["tls.key.previous"]},
		},
	)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(second), second); err != nil {
			return err
		}
		second.Spec.ACME.PrivateKey.Name = "own"
		return r.admin.Update(t.Context(), second)
	})
	says(cmmeta.ConditionTrue, "")
	if !bytes.Equal(r.accountSecret().Data["tls.key.previous"], old) {
		t.Error("the key before is not what it was")
	}
}

// TestARefusedChangeOfTheAccountKeyIsSaid makes the API server refuse to store the new key, after
// the CA has accepted it.
func TestARefusedChangeOfTheAccountKeyIsSaid(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	refusal := &cluster.Refusal{}
	options.WrapClient = refusal.Wrap
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	refusal.Begin(func(w cluster.Write) bool {
		_, is := w.Object.(*corev1.Secret)
		return is && w.Verb == "patch" && w.Name == "account"
	})
	r.putNext()
	says := []string{"store the new account key in Secret " + r.namespace + "/account", cluster.RefusedBecause}
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "ErrUpdateACMEAccount", says...)
	r.condition(cmapi.IssuerConditionStalled, cmmeta.ConditionTrue, "ErrUpdateACMEAccount", says...)
	r.noReach()
	r.eventually("an event says so", func() bool {
		return slices.ContainsFunc(r.events("ErrUpdateACMEAccount"), func(e string) bool {
			return strings.Contains(e, cluster.RefusedBecause)
		})
	})
	refusal.End()
	r.issuerSays(cmmeta.ConditionTrue)
	r.condition(cmapi.IssuerConditionStalled, "", "")
	if secret := r.accountSecret(); len(secret.Data["tls.key.next"]) > 0 || len(secret.Data["tls.key.previous"]) == 0 {
		t.Errorf("the Secret has the entries %q", slices.Sorted(maps.Keys(secret.Data)))
	}
	r.ready(r.certificate("site", "www.example.com"))
}
