package order_test

import (
	"fmt"
	"io"
	"net"
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
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/test/cluster"
)

// paused waits until a Certificate has the condition Paused with all of the words.
func (r *rig) paused(name string, words ...string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		crt := &cmapi.Certificate{}
		if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, "Paused")
		if c == nil || c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s is not paused: %+v\n%s", name, crt.Status, r.story())
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return cluster.NotYet("it says %q, and not %q\n%s", c.Message, w, r.story())
			}
		}
		return nil
	})
}

func TestANameThatFailsFiveTimesIsPausedUntilAManualRenewal(t *testing.T) {
	r, saw, site := limited(t)
	// The controller answers elsewhere than where the CA looks.
	elsewhere := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	r.run(
		controller.Options{Lifecycle: lifecycle.Settings{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond}},
		elsewhere,
	)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	words := []string{
		"www.example.com is paused until ",
		"its last 5 validations failed",
		"the CA could not verify it",
		"perennial renew",
	}
	r.paused("site", words...)
	r.waits("site", words...)
	if orders, _ := saw.counts(); orders != 5 {
		t.Errorf("the CA was asked for %d orders", orders)
	}
	if out := r.perennial(
		"status",
		"certificate",
		"site",
	); !strings.Contains(out, "perennial renew site") ||
		!strings.Contains(out, "is paused until ") {
		t.Errorf("perennial status says\n%s", out)
	}

	// Another Certificate with that name waits, too.
	r.certificate("second", "www.example.com", "other.example.com")
	r.paused("second", words[0])

	// It is mended: requests come to the controller.
	listener, err := net.Listen("tcp", site)
	if err != nil {
		t.Fatal(err)
	}
	relay := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		request, err := http.NewRequestWithContext(q.Context(), http.MethodGet, "http://"+elsewhere+q.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		request.Host = q.Host
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer reply.Body.Close()
		w.WriteHeader(reply.StatusCode)
		_, _ = io.Copy(w, reply.Body)
	})}
	go func() { _ = relay.Serve(listener) }()
	defer relay.Close()
	r.perennial("renew", "site")
	r.ready(crt)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(&crt.Status, "Paused"); c != nil {
			return cluster.NotYet("it is still paused: %+v", c)
		}
		return nil
	})
	second := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "second"}}
	r.ready(second) // whose name is no longer paused
}

// TestEachNameOfAnOrderThatFailedIsCounted makes a CA refuse the proofs of two names. The CA
// answers the first poll of one with a Retry-After, and says only then that the other failed.
func TestEachNameOfAnOrderThatFailedIsCounted(t *testing.T) {
	f := &front{}
	r, _ := behind(t, f.wrap)
	var mu sync.Mutex
	put := false
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !strings.HasPrefix(q.URL.Path, pathAuthorization) || reply.Code >= 300 {
			return
		}
		late := strings.Contains(reply.Body.String(), "late.example.com")
		edit(t, reply, func(z map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			if z["status"] != "invalid" || put {
				return
			}
			z["status"] = "pending"
			if late {
				put = true
				reply.Header().Set("Retry-After", "3600")
			}
		})
	})
	// The controller answers elsewhere than where the CA looks.
	r.run(controller.Options{}, fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t)))
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{
			FailedValidationsPerIdentifier: &cmacme.ACMERateLimit{Count: 1, Period: &metav1.Duration{Duration: time.Hour}},
		}
	})
	r.failed(r.certificate("both", "www.example.com", "late.example.com"), "the CA could not verify it")
	for _, name := range []string{"www", "late"} {
		r.certificate(name, name+".example.com")
		r.waits(name, "the limit of 1 failed validations of "+name+".example.com in 1 hour is spent")
	}
	if n := f.asked(pathNewOrder); n != 1 {
		t.Errorf("the CA was asked for %d orders", n)
	}
}
