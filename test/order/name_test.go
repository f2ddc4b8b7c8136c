package order_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cert-manager/cert-manager/pkg/api/util"
	theirs "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// theirName returns the name that cert-manager gives to the Order of a request.
func theirName(t *testing.T, request string, order *cmacme.Order) string {
	t.Helper()
	text, err := json.Marshal(order.Spec)
	if err != nil {
		t.Fatal(err)
	}
	spec := &theirs.OrderSpec{}
	if err := json.Unmarshal(text, spec); err != nil {
		t.Fatal(err)
	}
	spec.Request = nil
	hashed := any(spec)
	if len(request) >= 52 {
		hashed = struct {
			Name string            `json:"certificateRequestName"`
			Spec *theirs.OrderSpec `json:"spec"`
		}{request, spec}
	}
	name, err := util.ComputeName(request, hashed)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestTheDurationOfACertificateIsAskedForIfTheIssuerSaysSo checks the request to the CA, and the
// names of Orders, which are hashes of their spec: the controller continues with an Order that
// cert-manager has created.
func TestTheDurationOfACertificateIsAskedForIfTheIssuerSaysSo(t *testing.T) {
	day := &metav1.Duration{Duration: 24 * time.Hour}
	short, full := cmmeta.IssuerReference{
		Name: "pebble",
	}, cmmeta.IssuerReference{
		Name:  "pebble",
		Kind:  "Issuer",
		Group: "cert-manager.io",
	}
	for name, test := range map[string]durationCase{
		"it is not asked for unless the issuer says so": {false, day, short, "site", false},
		"it is asked for if the issuer says so":         {true, day, full, "site", true},
		"nothing is asked for if it is left out":        {true, nil, full, "site", false},
		"a long name":                                   {true, day, short, "a-name-of-which-no-more-than-the-beginning-fits-into-that-of-an-order", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t)
		})
	}
}

// durationCase is a Certificate, and whether its Order asks for its duration.
type durationCase struct {
	enabled  bool
	duration *metav1.Duration
	ref      cmmeta.IssuerReference
	name     string
	asks     bool
}

func (test durationCase) check(t *testing.T) {
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	var mu sync.Mutex
	var asked []any
	f.behave(nil, func(q *http.Request, payload map[string]any, _ *httptest.ResponseRecorder) {
		if strings.HasPrefix(q.URL.Path, pathNewOrder) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, payload["notAfter"])
		}
	})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.EnableDurationFeature = test.enabled })
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: test.name}, Spec: cmapi.CertificateSpec{
		SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: test.ref, Duration: test.duration,
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	r.create(crt)
	r.ready(crt)
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(orders.Items) != 1 {
		t.Fatalf("%s", r.story())
	}
	order := &orders.Items[0]
	if want := theirName(t, test.name+"-1", order); order.Name != want {
		t.Errorf("the Order is %s, and not %s, as cert-manager names it", order.Name, want)
	}
	if order.Spec.IssuerRef != test.ref {
		t.Errorf("the Order is of the issuer %+v", order.Spec.IssuerRef)
	}
	mu.Lock()
	defer mu.Unlock()
	want := any(nil)
	if test.asks {
		want = order.CreationTimestamp.Add(test.duration.Duration).UTC().Format(time.RFC3339)
		if at := crt.Status.NotAfter; at.Sub(order.CreationTimestamp.Time) != test.duration.Duration {
			t.Errorf("the certificate ends at %s", at)
		}
	}
	for _, got := range asked {
		if got != want {
			t.Errorf("the CA was asked for a certificate until %v, and not %v", got, want)
		}
	}
	if len(asked) == 0 {
		t.Error("the CA was asked for no order")
	}
}
