package order_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestOtherIssuersOfACAWaitForWhatItRefusesToOne(t *testing.T) {
	problem := func(status int, kind, retryAfter, detail string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": %q, "status": %d}`, kind, detail, status)
		}
	}
	start := time.Now()
	hour := start.Add(time.Hour).UTC()
	const domain = `too many certificates (50) already issued for "example.com" in the last 168h0m0s`
	const portal = `Your account is temporarily prevented from requesting certificates for www.example.com and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=eyJhbGciOi.J9-_x`
	for name, test := range map[string]sharedRefusal{
		"429 for a domain, with seconds": {refuse: problem(429, "rateLimited", "3600", domain), says: []string{domain}, others: true},
		"429 for a domain, with a date":  {refuse: problem(429, "rateLimited", hour.Format(http.TimeFormat), domain), says: []string{hour.Format("2006-01-02T15:04:05Z"), domain}, others: true},
		"503 with seconds":               {refuse: problem(503, "rateLimited", "3600", "Service busy; retry later."), says: []string{" wants to be left alone until "}, others: true, all: true},
		"503 with a date": {refuse: problem(
			503, "serverInternal", hour.Format(http.TimeFormat), "maintenance",
		), says: []string{
			" wants to be left alone until " + hour.Format("2006-01-02T15:04:05Z"),
		},
			others: true, all: true},
		"429 for an account":            {refuse: problem(429, "rateLimited", "3600", `too many new orders (300) from this account in the last 3h0m0s`), says: []string{"too many new orders"}},
		"429 for a name that is paused": {refuse: problem(429, "rateLimited", "", portal), says: []string{portal}, paused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t)
		})
	}
}

// sharedRefusal is how a CA refuses an order, and what the other issuers do.
type sharedRefusal struct {
	refuse func(http.ResponseWriter)
	says   []string
	others bool // also those of another account
	all    bool // nothing at all is asked
	paused bool
}

// check has a CA refuse an order, and expects that the others wait.
func (test sharedRefusal) check(t *testing.T) {
	r, saw, site := limited(t)
	now := &cluster.Clock{}
	options := controller.Options{Clock: now}
	first := r.run(options, site)
	r.issuer()
	other := r.issuerOf(r.namespace, "other")
	r.ready(r.certificate("before", "before.example.org"))
	r.registered(other)
	saw.set(func(w http.ResponseWriter, path string) bool {
		if strings.HasPrefix(path, "/order-plz") {
			test.refuse(w)
			return true
		}
		return false
	})
	r.certificate("refused", "www.example.com")
	if test.all {
		r.waits("refused")
	} else {
		r.waits("refused", test.says...)
	}
	cluster.Eventually(t, func() error {
		if orders, _ := saw.counts(); orders < 2 {
			return cluster.NotYet("it was not asked")
		}
		return nil
	})
	asked, _ := saw.counts()

	// For another account, and after a restart, there is no request.
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	_, all := saw.counts()
	r.run(options, site)
	same := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "same"}, Spec: cmapi.CertificateSpec{
		SecretName: "same",
		DNSNames:   []string{"www.example.com", "api.example.com"},
		IssuerRef:  cmmeta.IssuerReference{Name: "pebble"},
	}}
	if test.others {
		same.Spec.IssuerRef.Name = "other"
	}
	r.create(same)
	r.waits("same", test.says...)
	if test.paused {
		r.paused("same", test.says...)
	}
	orders, allAfter := saw.counts()
	if orders != asked {
		t.Errorf("the CA was asked for %d orders more", orders-asked)
	}
	if test.all && allAfter != all {
		t.Errorf("the CA was asked %d times", allAfter-all)
	}

	// When the time comes, all go.
	saw.set(nil)
	if test.paused { // or a person requests it
		r.perennial("renew", "same")
	} else {
		now.Step(61 * time.Minute)
		r.nudge(r.orderOf("same"))
	}
	r.ready(same)
}

func TestNoIssuerAsksForANewAccountWhileTheCATakesNone(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter){
		"as the CA says": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many new registrations (10) from this IP address in the last 3h0m0s", "status": 429}`)
		},
		"as what is in front of the CA says": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, "<html>slow down</html>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saw := &front{}
			r, site := behind(t, saw.wrap)
			now := &cluster.Clock{}
			options := controller.Options{Clock: now}
			var refused atomic.Int64
			saw.behave(func(w http.ResponseWriter, asked *http.Request, payload map[string]any) bool {
				if !strings.HasPrefix(asked.URL.Path, pathNewAccount) || payload["onlyReturnExisting"] == true {
					return false
				}
				refused.Add(1)
				w.Header().Set("Retry-After", "3600")
				refuse(w)
				return true
			}, nil)
			first := r.run(options, site)
			other := r.issuerOf(r.namespace, "other")
			cluster.Eventually(t, func() error {
				if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(other), other); err != nil {
					return err
				}
				if ready := cmapi.GetIssuerCondition(
					&other.Status,
					cmapi.IssuerConditionReady,
				); ready == nil ||
					!strings.Contains(ready.Message, "it will be asked again at ") {
					return cluster.NotYet("the condition of the issuer that was refused is %+v", ready)
				}
				return nil
			})
			if err := first.Stop(); err != nil {
				t.Fatal(err)
			}

			// After a restart, too, another asks for none.
			second := r.run(options, site)
			r.issuer()
			r.issuerSays(cmmeta.ConditionFalse, "the CA takes no new accounts until ")
			if n := refused.Load(); n != 1 {
				t.Errorf("the CA was asked for %d new accounts", n)
			}
			if err := second.Stop(); err != nil {
				t.Fatal(err)
			}

			saw.behave(nil, nil)
			now.Step(61 * time.Minute)
			r.run(options, site)
			r.issuerSays(cmmeta.ConditionTrue)
			r.registered(other)
		})
	}
}

// registered waits until an issuer has its account.
func (r *rig) registered(issuer *cmapi.Issuer) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if issuer.Status.ACME == nil || issuer.Status.ACME.URI == "" {
			return cluster.NotYet("%s has no account", issuer.Name)
		}
		return nil
	})
}

// TestACAThatLimitsOurAddressIsLeftAloneByAll makes a CA with limits by client address refuse
// requests without an account, for many orders of two issuers.
func TestACAThatLimitsOurAddressIsLeftAloneByAll(t *testing.T) {
	for name, path := range map[string]string{"its directory": pathDirectory, "its nonces": "/nonce-plz"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limitedAddress(t, path)
		})
	}
}

// limitedAddress has a CA refuse all requests for a path, and expects that controllers ask no more
// until the time that it says.
func limitedAddress(t *testing.T, path string) {
	const many = 40
	r, saw, site := limited(t)
	now := &cluster.Clock{}
	options := controller.Options{Clock: now}
	first := r.run(options, site)
	r.issuer()
	other := r.issuerOf(r.namespace, "other")
	r.issuerSays(cmmeta.ConditionTrue)
	r.registered(other)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	var refused int // guarded by the refuser
	saw.set(func(w http.ResponseWriter, asked string) bool {
		if asked != path {
			return false
		}
		refused++
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	_, before := saw.counts()
	var certificates []*cmapi.Certificate
	for i := range many {
		name := fmt.Sprintf("site-%d", i)
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name,
			DNSNames:   []string{fmt.Sprintf("w%d.example.com", i)},
			IssuerRef:  cmmeta.IssuerReference{Name: []string{"pebble", "other"}[i%2]},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		}}
		r.create(crt)
		certificates = append(certificates, crt)
	}
	// One controller is refused; the next controller sends no request.
	for range 2 {
		running := r.run(options, site)
		r.ordersWait(many)
		if err := running.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	saw.mu.Lock()
	asked := saw.all - before
	saw.refuse = nil
	saw.mu.Unlock()
	// Those that were on their way when the first was refused are no more than a limiter has slots;
	// each asks for the directory, and for a nonce.
	if most := 2 * controller.DefaultWorkers; asked > most {
		t.Errorf("for %d orders the CA was asked %d times, and refused %d times; it may be %d times",
			many, asked, refused, most)
	}

	now.Step(61 * time.Minute)
	r.run(options, site)
	for _, crt := range certificates {
		r.ready(crt)
	}
}

// ordersWait waits until so many Orders say that they wait.
func (r *rig) ordersWait(n int) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var orders cmacme.OrderList
		if err := r.admin.List(r.t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		waiting := 0
		for i := range orders.Items {
			if orders.Items[i].Status.Reason != "" {
				waiting++
			}
		}
		if waiting < n {
			return cluster.NotYet("%d of %d orders say that they wait", waiting, n)
		}
		return nil
	})
}
