package order_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// journal records the requests to a CA, issuance by issuance.
type journal struct {
	mu     sync.Mutex
	orders int
	// finalized are the orders of which a certificate was asked for with success, failed the
	// authorizations whose proof failed.
	finalized, failed int
	// valid are the IDs of authorizations that were seen to be valid, by what they are for.
	valid map[string]string
	// once is done at the next request for what is under a path, before the CA hears of it.
	path string
	once func(id string)
}

// at runs a function once, at the next request below a path, and resets the counts.
func (j *journal) at(path string, once func(id string)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.orders, j.finalized, j.failed, j.path, j.once = 0, 0, 0, path, once
}

func (j *journal) answer(_ http.ResponseWriter, r *http.Request, _ map[string]any) bool {
	j.mu.Lock()
	once := j.once
	if once == nil || !strings.HasPrefix(r.URL.Path, j.path) {
		once = nil
	} else {
		j.once = nil
	}
	j.mu.Unlock()
	if once != nil {
		once(path.Base(r.URL.Path))
	}
	return false
}

func (j *journal) change(t *testing.T) func(*http.Request, map[string]any, *httptest.ResponseRecorder) {
	return func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if reply.Code >= 300 {
			return
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		switch {
		case strings.HasPrefix(r.URL.Path, pathNewOrder):
			j.orders++
		case strings.HasPrefix(r.URL.Path, pathFinalize):
			j.finalized++
		case strings.HasPrefix(r.URL.Path, pathAuthorization):
			edit(t, reply, func(z map[string]any) {
				id, _ := z["identifier"].(map[string]any)
				name, _ := id["value"].(string)
				switch z["status"] {
				case acme.StatusValid:
					j.valid[name] = path.Base(r.URL.Path)
				case acme.StatusInvalid:
					j.failed++
				}
			})
		}
	}
}

// TestAnOrderThatLapsesIsFollowedByAnotherAtOnce expires the open order or authorization at the CA
// at each relevant step, as happens within hours for short-lived certificates. The certificate is
// issued without a failure, and one order is finalized.
func TestAnOrderThatLapsesIsFollowedByAnotherAtOnce(t *testing.T) {
	t.Parallel()
	const life = 160 * time.Hour
	f, saw := &front{}, &journal{valid: map[string]string{}}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100, Profiles: map[string]ca.Profile{
		"default": {
			Description:    "d",
			ValidityPeriod: 90 * 24 * 3600,
		},
		"shortlived": {Description: "s", ValidityPeriod: uint64(life / time.Second)},
	}})
	f.behave(saw.answer, saw.change(t))
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "shortlived" })
	uri := r.issuerSays(cmmeta.ConditionTrue).URI

	expire := func(did func(id string) bool) func(string) {
		return func(id string) {
			if !did(id) {
				t.Errorf("the CA has no %s", id)
			}
		}
	}
	for _, test := range []struct {
		name string
		dns  string
		at   string
		once func(id string)
		says string
	}{
		{"the authorization, while its challenge waits", "one.example.com", pathChallenge, expire(r.ca.ExpireAuthorization), "the authorization is expired"},
		{"the order, while a challenge waits", "two.example.com", pathChallenge,
			expire(func(id string) bool { return r.ca.ExpireOrder(r.ca.OrderOf(id)) }), "the order expired at"},
		{"the order, when it is ready", "three.example.com", pathFinalize, expire(r.ca.ExpireOrder), "the CA no longer " +
			"knows the order"},
		{"an authorization, when the order is ready", "four.example.com", pathFinalize, func(string) {
			saw.mu.Lock()
			defer saw.mu.Unlock()
			expire(r.ca.ExpireAuthorization)(saw.valid["four.example.com"])
		}, `"four.example.com": the authorization expired at`},
		// The address was proven before. That is reused, and over when the name is proven, too.
		{"an authorization that is reused, while another name is proven", "five.example.com", pathChallenge, func(string) {
			saw.mu.Lock()
			defer saw.mu.Unlock()
			expire(r.ca.ExpireAuthorization)(saw.valid["127.0.0.1"])
		}, `"127.0.0.1": the authorization expired at`},
		{"its account, while a challenge waits", "six.example.com", pathChallenge, func(string) { r.otherAccount(uri) }, "made by another account"},
	} {
		t.Run(test.name, func(t *testing.T) {
			saw.at(test.at, test.once)
			name, _, _ := strings.Cut(test.dns, ".")
			crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
				SecretName:  name,
				DNSNames:    []string{test.dns},
				IPAddresses: []string{"127.0.0.1"},
				IssuerRef:   cmmeta.IssuerReference{Name: "pebble"},
				PrivateKey:  &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			}}
			r.create(crt)
			r.ready(crt)
			if crt.Status.FailedIssuanceAttempts != nil || *crt.Status.Revision != 1 {
				t.Errorf("the status is %+v", crt.Status)
			}
			if chain, _ := cluster.Pair(
				t,
				client.ObjectKeyFromObject(crt),
			); chain[0].NotAfter.Sub(
				chain[0].NotBefore,
			) > life+time.Minute {
				t.Errorf("it lives until %s", chain[0].NotAfter)
			}
			saw.sentTwice(r)
			r.lapsedOrder(name, test.says)
		})
	}
}

// lapsedOrder expects of a Certificate's two Orders that one is expired, and that the CLI does not
// show it.
func (r *rig) lapsedOrder(name, says string) {
	t := r.t
	t.Helper()
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	states, lapsed := map[cmacme.State]string{}, ""
	for _, o := range orders.Items {
		if o.Annotations[cmapi.CertificateNameKey] == name {
			states[o.Status.State] = o.Status.Reason
			if o.Status.State == cmacme.Expired {
				lapsed = o.Name
			}
		}
	}
	if why, found := states[cmacme.Expired]; len(states) != 2 || !found || !strings.Contains(why, says) {
		t.Errorf("of its Orders one is to be expired, as %q:\n%s", says, r.story())
	}
	if out := r.perennial("status", "certificate", name); strings.Contains(out, "\nOrder "+lapsed) {
		t.Errorf("perennial status speaks of what was overtaken:\n%s", out)
	}
}

// sentTwice expects that the CA has seen two orders, of which one was finalized.
func (saw *journal) sentTwice(r *rig) {
	r.t.Helper()
	saw.mu.Lock()
	defer saw.mu.Unlock()
	if saw.orders != 2 || saw.finalized != 1 || saw.failed != 0 {
		r.t.Errorf("the CA saw %d orders, finalized %d, and %d proofs failed:\n%s",
			saw.orders, saw.finalized, saw.failed, r.story())
	}
}

// otherAccount replaces the key of the account, and waits until there is an account for the new
// key.
func (r *rig) otherAccount(uri string) {
	secret := &corev1.Secret{}
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "account"}, secret); err != nil {
		r.t.Error(err)
		return
	}
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		r.t.Error(err)
		return
	}
	if secret.Data["tls.key"], err = pki.EncodeKeyPEM(key, pki.PKCS8); err != nil {
		r.t.Error(err)
		return
	}
	if err := r.admin.Update(r.t.Context(), secret); err != nil {
		r.t.Error(err)
		return
	}
	cluster.Eventually(r.t, func() error {
		if status := r.issuerSays(cmmeta.ConditionTrue); status.URI == uri {
			return cluster.NotYet("the account is still %s", uri)
		}
		return nil
	})
}
