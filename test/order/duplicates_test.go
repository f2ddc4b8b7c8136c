package order_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// reuse makes a CA answer requests for the same names with the existing order that is not finalized
// yet, like Let's Encrypt.
func reuse(t *testing.T, f *front) {
	type order struct{ location, finalize, text string }
	var mu sync.Mutex
	open := map[string]order{}
	f.behave(nil, func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case reply.Code >= 300:
		case strings.HasPrefix(r.URL.Path, pathFinalize):
			for names, o := range open {
				if strings.HasSuffix(o.finalize, r.URL.Path) {
					delete(open, names)
				}
			}
		case strings.HasPrefix(r.URL.Path, pathNewOrder):
			names := fmt.Sprint(payload["identifiers"])
			if o, found := open[names]; found {
				reply.Header().Set("Location", o.location)
				reply.Body = bytes.NewBufferString(o.text)
				return
			}
			var is struct{ Finalize string }
			if err := json.Unmarshal(reply.Body.Bytes(), &is); err != nil {
				t.Error(err)
			}
			open[names] = order{reply.Header().Get("Location"), is.Finalize, reply.Body.String()}
		}
	})
}

// own checks that each certificate is in its Secret, with its own key.
func (r *rig) own(all ...*cmapi.Certificate) {
	r.t.Helper()
	serials := map[string]string{}
	for _, crt := range all {
		r.ready(crt)
		chain, _ := cluster.Pair(r.t, client.ObjectKeyFromObject(crt))
		if other, twice := serials[chain[0].SerialNumber.String()]; twice {
			r.t.Errorf("%s has the certificate of %s", crt.Name, other)
		}
		serials[chain[0].SerialNumber.String()] = crt.Name
	}
}

func TestOrdersForTheSameNamesWaitForEachOther(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	reuse(t, f)
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	var all []*cmapi.Certificate
	for i := range 5 {
		all = append(all, r.certificate(fmt.Sprintf("site-%d", i), "www.example.com", "example.com"))
	}
	r.own(all...)
	if orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize); orders != len(all) || finalized != len(all) {
		t.Errorf("for %d certificates the CA was asked for %d orders, and %d times to finalize", len(all), orders, finalized)
	}
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, o := range orders.Items {
		if o.Status.State != cmacme.Valid {
			t.Errorf("the order %s is %s: %s", o.Name, o.Status.State, o.Status.Reason)
		}
	}
}

// TestAnOrderThatIsSharedWithOneThatIsStuckIsReplacedForThatOne uses two Certificates for the same
// names, of which only the second can be solved.
func TestAnOrderThatIsSharedWithOneThatIsStuckIsReplacedForThatOne(t *testing.T) {
	t.Parallel()
	clock, f := &cluster.Clock{}, &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	options.Clock = clock
	reuse(t, f)
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers[0].Selector = &cmacme.CertificateDNSNameSelector{MatchLabels: map[string]string{"solve": "yes"}}
	})
	r.issuerSays(cmmeta.ConditionTrue)
	stuck := r.certificate("stuck", "www.example.com")
	says := func(crt *cmapi.Certificate, words string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if o := r.order(crt.Name); !strings.Contains(o.Status.Reason, words) {
				return cluster.NotYet("the order of %s is %q: %s", crt.Name, o.Status.State, o.Status.Reason)
			}
			return nil
		})
	}
	says(stuck, "no solver")
	good := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: "good", Labels: map[string]string{"solve": "yes"}},
		Spec:       stuck.Spec,
	}
	good.Spec.SecretName = good.Name
	r.create(good)
	cluster.Eventually(t, func() error {
		if r.order(good.Name).Name == "" {
			return cluster.NotYet("there is no Order")
		}
		return nil
	})
	asked := f.asked(pathNewOrder)
	clock.Step(31 * time.Second)
	r.nudge(r.order(good.Name))
	says(good, "Waiting for the Order "+r.order(stuck.Name).Name+", which asks for the same names")
	if now := f.asked(pathNewOrder); now != asked {
		t.Errorf("the CA was asked for %d orders", now)
	}
	clock.Step(15 * time.Minute)
	r.nudge(r.order(good.Name))
	r.ready(good)
	// When the other one can be solved, too, its order turns out to be no longer its own, and another
	// takes its place at once.
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(stuck), stuck); err != nil {
		t.Fatal(err)
	}
	was := stuck.DeepCopy()
	stuck.Labels = good.Labels
	if err := r.admin.Patch(t.Context(), stuck, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}
	r.own(good, stuck)
	if finalized := f.asked(pathFinalize); finalized != 2 {
		t.Errorf("the CA was asked %d times to finalize", finalized)
	}
}
