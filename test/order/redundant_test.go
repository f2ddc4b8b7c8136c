package order_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// strict refuses orders of names that a wildcard of the same order covers, as Let's Encrypt does.
func strict(refused *atomic.Int64) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var jws struct{ Payload string }
			var order acme.OrderRequest
			if json.Unmarshal(body, &jws) == nil {
				payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
				_ = json.Unmarshal(payload, &order)
			}
			var names []string
			for _, id := range order.Identifiers {
				names = append(names, id.Value)
			}
			for _, name := range names {
				if _, parent, _ := strings.Cut(name, "."); name != "*."+parent && slices.Contains(names, "*."+parent) {
					refused.Add(1)
					w.Header().Set("Content-Type", "application/problem+json")
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(
						w,
						`{"type": "urn:ietf:params:acme:error:malformed", "status": 400, "detail": "Error parsing identifiers: Domain name \"`+name+
							`\" is redundant with a wildcard domain in the same request. Remove one or the other from the certificate request."}`,
					)
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestNamesThatAWildcardCoversAreLeftOutOfOrders(t *testing.T) {
	var refused atomic.Int64
	r := start(t, pebble.Options{Wrap: strict(&refused)})
	// Before there is an issuer it is not known that it is an ACME server.
	early := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "early"}, Spec: cmapi.CertificateSpec{
		SecretName: "early", CommonName: "www.example.com", DNSNames: []string{"*.example.com", "www.example.com",
			"example.com", "EXAMPLE.com."},
		IssuerRef: cmmeta.IssuerReference{Name: "pebble"}, PrivateKey: &cmapi.CertificatePrivateKey{
			Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	r.create(early)
	cluster.Eventually(t, func() error {
		return r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "early-1"},
			&cmapi.CertificateRequest{})
	})
	r.issuer(r.byDNS(cmacme.NoneStrategy))
	late := r.certificate("late", "www.example.com", "*.example.com")
	for crt, want := range map[*cmapi.Certificate][]string{early: {"*.example.com", "example.com"},
		late: {"*.example.com"}} {
		r.ready(crt)
		chain, _ := cluster.Pair(t, client.ObjectKeyFromObject(crt))
		got := slices.Clone(chain[0].DNSNames)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the certificate %s is for %q, want %q", crt.Name, got, want)
		}
		if crt.Status.Revision == nil || *crt.Status.Revision != 1 || crt.Status.FailedIssuanceAttempts != nil {
			t.Errorf("the status is %+v", crt.Status)
		}
	}
	if n := refused.Load(); n != 0 {
		t.Errorf("the CA has refused %d orders", n)
	}
	// A name more that the wildcard covers is no reason to issue anew.
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(late), late); err != nil {
			return err
		}
		late.Spec.DNSNames = append(late.Spec.DNSNames, "Shop.Example.com")
		return r.admin.Update(t.Context(), late)
	})
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(late), late); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(&late.Status,
			cmapi.CertificateConditionReady); c.ObservedGeneration != late.Generation || c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("the status is %+v", late.Status)
		}
		return nil
	})
	if *late.Status.Revision != 1 {
		t.Errorf("it was issued anew:\n%s", r.story())
	}
}
