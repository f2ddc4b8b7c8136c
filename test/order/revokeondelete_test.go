package order_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestWhatIsIssuedForADeletedCertificateIsRevoked deletes a Certificate at each write and each
// exchange of its issuance, with the controller alive or killed at that moment, and checks that the
// CA was asked to revoke all certificates that it has issued.
func TestWhatIsIssuedForADeletedCertificateIsRevoked(t *testing.T) {
	for _, test := range []struct {
		of          string
		after, kill bool
		propagation metav1.DeletionPropagation
	}{
		{"write", false, true, metav1.DeletePropagationBackground},
		{"write", true, true, metav1.DeletePropagationForeground},
		{"write", true, false, metav1.DeletePropagationBackground},
		{"exchange", true, true, metav1.DeletePropagationForeground},
		{"exchange", true, false, metav1.DeletePropagationForeground},
		{"exchange", false, false, metav1.DeletePropagationBackground},
	} {
		t.Run(
			fmt.Sprintf("%s, after it: %t, killed: %t, %s", test.of, test.after, test.kill, test.propagation),
			func(t *testing.T) {
				t.Parallel()
				n, revoked := 1, 0
				for {
					reached, asked := deleteAt(t, test.of, n, test.after, test.kill, test.propagation)
					revoked += asked
					if !reached {
						break
					}
					if n++; n > 80 {
						t.Fatal("the controller does not come to an end")
					}
				}
				if n < 8 || revoked < 2 {
					t.Fatalf("there were only %d moments, and %d revocations: nothing was tested", n-1, revoked)
				}
			},
		)
	}
}

// deleteAt issues a certificate, and deletes its Certificate at the n-th write or exchange. It
// reports whether that point was reached, and how many certificates the CA was asked to revoke.
func deleteAt(
	t *testing.T,
	of string,
	n int,
	after, kill bool,
	propagation metav1.DeletionPropagation,
) (reached bool, asked int) {
	t.Helper()
	var r *watched
	var once sync.Once
	remove := func() {
		once.Do(func() {
			if err := r.admin.Delete(t.Context(), r.crt, client.PropagationPolicy(propagation)); err != nil {
				t.Error(err)
			}
		})
	}
	life, seen := cluster.NewLife(math.MaxInt, after), &registrar{}
	saw := &witness{left: math.MaxInt, after: after, lives: !kill}
	saw.end = func() {
		if !kill {
			remove()
		}
		life.End()
	}
	switch {
	case of == "exchange" && kill:
		saw.left = n
	case of == "exchange":
		saw.left, life = n, cluster.NewMoment(math.MaxInt, after, remove)
	case kill:
		life = cluster.NewLife(n, after)
	default:
		life = cluster.NewMoment(n, after, remove)
	}
	r = newWatched(t, func(h http.Handler) http.Handler { return saw.wrap(seen.wrap(h)) }, func(crt *cmapi.Certificate) {
		crt.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true}
	})
	run, reached := r.until(life)
	if kill {
		if err := run.Stop(); err != nil {
			t.Fatal(err)
		}
		remove()
		run = cluster.Run(t, r.options)
	}
	remove()
	defer func() {
		if err := run.Stop(); err != nil {
			t.Error(err)
		}
	}()
	at := fmt.Sprintf("at %s %d (after it: %t, killed: %t)", of, n, after, kill)
	r.nothingLeft(at)
	seen.mu.Lock()
	serials := map[string]bool{}
	for _, a := range seen.asked {
		serials[a.serial] = true
	}
	seen.mu.Unlock()
	saw.mu.Lock()
	defer saw.mu.Unlock()
	if len(serials) != len(saw.finalized) {
		t.Errorf("%s: the CA has finalized %v, and was asked to revoke %v", at, saw.finalized, serials)
	}
	r.checkSecret(at, serials)
	return reached, len(serials)
}

// checkSecret expects that a certificate in the Secret is revoked, and noted as such.
func (r *watched) checkSecret(at string, serials map[string]bool) {
	t := r.t
	t.Helper()
	secret := &corev1.Secret{}
	err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "site"}, secret)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		t.Fatal(err)
	default:
		chain, err := pki.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
		if err != nil {
			t.Fatal(err)
		}
		if !serials[chain[0].SerialNumber.String()] || secret.Annotations["perennial.dev/revoked"] == "" {
			t.Errorf("%s: the Secret holds a certificate that is not revoked, or not noted as such: %v", at, secret.Annotations)
		}
	}
}

// nothingLeft waits until all objects of the issuance are gone.
func (r *watched) nothingLeft(at string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		for _, list := range []client.ObjectList{&cmapi.CertificateList{}, &cmacme.OrderList{}, &cmacme.ChallengeList{}} {
			if err := r.admin.List(r.t.Context(), list, client.InNamespace(r.namespace)); err != nil {
				return err
			}
			if meta.LenList(list) > 0 {
				return cluster.NotYet("%s: there is something left: %+v", at, list)
			}
		}
		return nil
	})
}

// leaving sets spec.revocation during the order, deletes the Certificate while the CA finalizes the
// order, and waits until the Certificate is gone.
func leaving(t *testing.T, seen *registrar, clock *cluster.Clock, propagation metav1.DeletionPropagation) *rig {
	t.Helper()
	var open atomic.Bool
	var finalized func()
	r := start(t, pebble.Options{Wrap: func(h http.Handler) http.Handler {
		h = seen.wrap(h)
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			h.ServeHTTP(w, q)
			if strings.HasPrefix(q.URL.Path, "/finalize-order/") {
				finalized()
			}
		})
	}}, func(o *controller.Options) {
		o.Clock = clock
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !open.Load() {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("the site is not up yet")}
			}
			return dial(ctx, network, address)
		}
	})
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	finalized = sync.OnceFunc(func() { r.delete(crt, client.PropagationPolicy(propagation)) })
	cluster.Eventually(t, func() error {
		if !strings.Contains(r.story(), "the site is not up yet") {
			return cluster.NotYet("%s", r.story())
		}
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		crt.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true, Reason: cmapi.RevocationReasonSuperseded}
		return r.admin.Update(t.Context(), crt)
	})
	cluster.Eventually(t, func() error { // what was asked for is settled
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if len(crt.Finalizers) == 0 {
			return cluster.NotYet("it has no finalizer")
		}
		return nil
	})
	open.Store(true)
	r.gone(crt)
	return r
}

// noOrders waits until all Orders are deleted. It changes those that still exist, because a step of
// the clock does not fire timers.
func (r *rig) noOrders() {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var orders cmacme.OrderList
		if err := r.admin.List(r.t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for i := range orders.Items {
			metav1.SetMetaDataAnnotation(&orders.Items[i].ObjectMeta, "nudged", time.Now().String())
			_ = r.admin.Update(r.t.Context(), &orders.Items[i])
		}
		if len(orders.Items) > 0 {
			return cluster.NotYet("there is an Order left:\n%s", r.story())
		}
		return nil
	})
}

func TestARevocationThatIsAskedForOnTheWayHolds(t *testing.T) {
	seen := &registrar{}
	r := leaving(t, seen, &cluster.Clock{}, metav1.DeletePropagationForeground)
	r.noOrders()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.asked) == 0 || seen.asked[0].reason != acme.ReasonSuperseded || !seen.asked[0].byAccount {
		t.Errorf("the CA was asked: %+v", seen.asked)
	}
}

func TestAnOrderThatCannotBeRevokedIsGivenUp(t *testing.T) {
	clock, seen := &cluster.Clock{}, &registrar{
		refuse: func(revocation) (string, int) { return "serverInternal", http.StatusInternalServerError },
	}
	r := leaving(t, seen, clock, metav1.DeletePropagationBackground)
	var order string
	cluster.Eventually(t, func() error {
		var orders cmacme.OrderList
		if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		if len(orders.Items) != 1 || orders.Items[0].DeletionTimestamp == nil {
			return cluster.NotYet("%s", r.story())
		}
		order = orders.Items[0].Name
		return nil
	})
	r.event("Order", order, "RevocationError")
	clock.Step(10 * time.Minute)
	r.noOrders()
	if message := r.event(
		"Order",
		order,
		"RevocationFailed",
	); !strings.Contains(
		message,
		`with the account key of Issuer "pebble"`,
	) {
		t.Errorf("the event says %q", message)
	}
}
