package order_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// refuser is a proxy in front of a CA. It counts the requests for orders, and refuses those for
// which refuse says so.
type refuser struct {
	mu     sync.Mutex
	orders int
	all    int
	refuse func(w http.ResponseWriter, path string) bool
}

func (c *refuser) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.all++
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			c.orders++
		}
		refuses := c.refuse != nil && c.refuse(w, r.URL.Path)
		c.mu.Unlock()
		if !refuses {
			h.ServeHTTP(w, r)
		}
	})
}

func (c *refuser) counts() (orders, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.orders, c.all
}

func (c *refuser) set(refuse func(http.ResponseWriter, string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// limited returns a rig whose controllers the test runs itself, and the proxy in front of its CA.
// The CA validates at the address site, where no server listens unless a test starts one.
func limited(t *testing.T) (r *rig, saw *refuser, site string) {
	t.Helper()
	saw = &refuser{}
	r, site = behind(t, saw.wrap)
	return r, saw, site
}

// behind returns such a rig with another proxy in front of its CA.
func behind(t *testing.T, wrap func(http.Handler) http.Handler) (r *rig, site string) {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com", "example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	port := cluster.FreePort(t)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: port, Wrap: wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return &rig{
			t:         t,
			ca:        ca,
			names:     names,
			admin:     cluster.Admin(t),
			namespace: cluster.Namespace(t),
		}, fmt.Sprintf(
			"127.0.0.1:%d",
			port,
		)
}

// run runs a controller for the namespace only, which answers challenges on an address.
func (r *rig) run(o controller.Options, answers string) *cluster.Controller {
	r.t.Helper()
	o.Namespace, o.HTTP01Address = r.namespace, answers
	o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, answers)
	}
	return cluster.Run(r.t, o)
}

// follow keeps a stepped clock from falling behind the API server's clock, because the controller
// compares their times.
func (r *rig) follow(now *clocktesting.FakeClock) {
	r.t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	r.t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case at := <-ticker.C:
				if now.Now().Before(at) {
					now.SetTime(at)
				}
			}
		}
	}()
}

// waits waits until a Certificate reports that it waits, with the words, while its request has not
// failed, and returns the message.
func (r *rig) waits(name string, words ...string) string {
	r.t.Helper()
	message := ""
	cluster.Eventually(r.t, func() error {
		crt := &cmapi.Certificate{}
		if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil || c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s: %+v\n%s", name, crt.Status.Conditions, r.story())
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return cluster.NotYet("Certificate %s says %q, and not %q\n%s", name, c.Message, w, r.story())
			}
		}
		message = c.Message
		return nil
	})
	return message
}

// orderOf returns the open Order of a Certificate.
func (r *rig) orderOf(name string) *cmacme.Order {
	r.t.Helper()
	var list cmacme.OrderList
	if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	for i := range list.Items {
		if o := &list.Items[i]; o.Annotations[cmapi.CertificateNameKey] == name && o.Status.State == "" {
			return o
		}
	}
	r.t.Fatalf("Certificate %s has no Order that waits:\n%s", name, r.story())
	return nil
}

// nudge triggers a reconciliation of an object, because a stepped clock does not fire timers.
func (r *rig) nudge(o client.Object) {
	r.t.Helper()
	was := o.DeepCopyObject().(client.Object)
	annotations := maps.Clone(o.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations["nudged"] = time.Now().String()
	o.SetAnnotations(annotations)
	if err := r.admin.Patch(r.t.Context(), o, client.MergeFrom(was)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) perennial(args ...string) string {
	r.t.Helper()
	var out bytes.Buffer
	p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &out, Clock: clock.RealClock{}}
	if code := p.Run(
		r.t.Context(),
		p.Command(),
		append(args, "--kubeconfig", cluster.Plane(r.t).KubeconfigPath(), "-n", r.namespace),
	); code != 0 {
		r.t.Logf("perennial %v ended with %d: %s", args, code, out.String())
	}
	return out.String()
}

func TestAnOrderWaitsUntilTheLimitOfItsIssuerHasRoomAlsoAfterARestart(t *testing.T) {
	r, saw, site := limited(t)
	now := clocktesting.NewFakeClock(time.Now())
	r.follow(now)
	options := controller.Options{Clock: now, Controllers: []string{"*", "-certificates-renewalinfo"}}
	first := r.run(options, site)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{
			NewOrdersPerAccount: &cmacme.ACMERateLimit{Count: 3, Period: &metav1.Duration{Duration: time.Hour}},
		}
	})
	var early []*cmapi.Certificate
	for i := range 3 {
		crt := r.certificate(fmt.Sprintf("early-%d", i), fmt.Sprintf("w%d.example.com", i))
		r.ready(crt)
		early = append(early, crt)
	}
	late := r.certificate("late", "late.example.com")
	words := []string{
		"waits until ",
		"the limit of 3 new orders of account https://",
		" in 1 hour is spent",
		"another account",
	}
	r.waits("late", words...)
	if out := r.perennial("status", "certificate", "late"); !strings.Contains(out, "waits until ") {
		t.Errorf("perennial status says\n%s", out)
	}

	// A restart changes nothing.
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := r.run(options, site)
	now.Step(5 * time.Minute)
	r.nudge(r.orderOf("late"))
	r.waits("late", words...)
	if orders, _ := saw.counts(); orders != 3 {
		t.Errorf("the CA was asked for %d orders", orders)
	}

	// A renewal inside of the window that the CA suggests is not counted.
	renewed := early[0]
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(renewed), renewed); err != nil {
			return err
		}
		start, end := metav1.NewTime(now.Now().Add(-time.Hour)), metav1.NewTime(now.Now().Add(time.Hour))
		renewed.Status.ACME = &cmapi.CertificateACMEStatus{
			ARI: &cmapi.CertificateACMEARIStatus{SuggestedWindow: &cmapi.ACMERenewalWindow{Start: &start, End: &end}},
		}
		return r.admin.Status().Update(t.Context(), renewed)
	})
	r.perennial("renew", "early-0")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(renewed), renewed); err != nil {
			return err
		}
		if *renewed.Status.Revision < 2 {
			return cluster.NotYet("%s", r.story())
		}
		return nil
	})
	r.waits("late", words...)

	// What is written of it is for people, too.
	var list corev1.ConfigMapList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range list.Items {
		found = found || c.Annotations["perennial.dev/acme-directory"] == r.ca.Directory
	}
	if !found {
		t.Error("no ConfigMap says what is spent")
	}

	now.Step(16 * time.Minute)
	r.nudge(r.orderOf("late"))
	r.ready(late)
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestAnOrderThatWaitsGoesWhenTheLimitOfItsIssuerIsRaised(t *testing.T) {
	r, saw, site := limited(t)
	r.run(controller.Options{}, site)
	limit := func(count int32) *cmacme.ACMERateLimits {
		return &cmacme.ACMERateLimits{
			CertificatesPerRegisteredDomain: &cmacme.ACMERateLimit{
				Count:  count,
				Period: &metav1.Duration{Duration: 168 * time.Hour},
			},
		}
	}
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.RateLimits = limit(2) })
	for _, name := range []string{"a", "b"} {
		r.ready(r.certificate(name, name+".example.com"))
	}
	late := r.certificate("late", "late.example.com")
	r.waits("late", "waits until ", "the limit of 2 certificates for example.com and names below it in 7 days is spent")
	set := func(count int32) {
		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "pebble"}}
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
				return err
			}
			issuer.Spec.ACME.RateLimits = limit(count)
			return r.admin.Update(t.Context(), issuer)
		})
	}
	set(1)
	r.waits("late", "waits until ", "the limit of 1 certificates for example.com and names below it in 7 days is spent")
	if orders, _ := saw.counts(); orders != 2 {
		t.Errorf("the CA was asked for %d orders", orders)
	}
	set(3)
	r.ready(late)
}

func TestAnOrderWhoseReplyIsLostIsCountedAsTheCADoes(t *testing.T) {
	t.Parallel()
	var once sync.Once
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(q.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated {
			once.Do(func() { panic(http.ErrAbortHandler) })
		}
	})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{
			NewOrdersPerAccount: &cmacme.ACMERateLimit{Count: 2, Period: &metav1.Duration{Duration: 24 * time.Hour}},
		}
	})
	r.ready(r.certificate("lost", "lost.example.com"))
	if n := f.asked(pathNewOrder); n != 2 {
		t.Errorf("the CA was asked for %d orders", n)
	}
	r.certificate("late", "late.example.com")
	r.waits("late", "waits until ", "the limit of 2 new orders of account https://")
	if n := f.asked(pathNewOrder); n != 2 {
		t.Errorf("the CA was asked for %d orders", n)
	}
}

func TestALostReplyCountsAgainstTheLimitOfADomain(t *testing.T) {
	t.Parallel()
	var replies atomic.Int32
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(q.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated && replies.Add(1) == 3 {
			panic(http.ErrAbortHandler)
		}
	})
	cluster.Run(t, options)
	const limit = 6 // the last one is kept for a renewal
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{CertificatesPerRegisteredDomain: &cmacme.ACMERateLimit{Count: limit,
			Period: &metav1.Duration{Duration: 168 * time.Hour}}}
	})
	r.issuerSays(cmmeta.ConditionTrue)
	const all = 8
	for n := range all {
		r.certificate(fmt.Sprintf("site-%d", n), fmt.Sprintf("site-%d.example.com", n))
	}
	// One of the five was sent twice, so four are issued and four wait.
	cluster.Eventually(t, func() error {
		issued, waiting := 0, 0
		for n := range all {
			for _, order := range r.ordersOf(fmt.Sprintf("site-%d", n)) {
				switch {
				case order.Status.State == cmacme.Valid:
					issued++
				case strings.Contains(order.Status.Reason, "the limit of 6 certificates for example.com"):
					waiting++
				}
			}
		}
		if issued != limit-2 || waiting != all-limit+2 {
			return cluster.NotYet("%d are issued and %d wait: %s", issued, waiting, r.story())
		}
		return nil
	})
	if n := f.asked(pathNewOrder); n != limit-1 {
		t.Errorf("the CA was asked for %d orders", n)
	}
}

// TestAStuckOrderHoldsNoLimit uses an order that no solver can prove, and another for the same
// domain.
func TestAStuckOrderHoldsNoLimit(t *testing.T) {
	t.Parallel()
	clock, f := &cluster.Clock{}, &front{}
	r, options := shop(t, f, pebble.Options{})
	options.Clock = clock
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers[0].Selector = &cmacme.CertificateDNSNameSelector{MatchLabels: map[string]string{"solve": "yes"}}
		spec.RateLimits = &cmacme.ACMERateLimits{CertificatesPerRegisteredDomain: &cmacme.ACMERateLimit{Count: 1,
			Period: &metav1.Duration{Duration: 168 * time.Hour}}}
	})
	r.issuerSays(cmmeta.ConditionTrue)
	stuck := r.certificate("stuck", "stuck.example.com")
	r.waits("stuck", "no solver")
	good := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: "good", Labels: map[string]string{"solve": "yes"}}, Spec: stuck.Spec,
	}
	good.Spec.SecretName, good.Spec.DNSNames = good.Name, []string{"good.example.com"}
	r.create(good)
	r.waits("good", "waits until ", "the limit of 1 certificates for example.com and names below it in 7 days is spent")
	clock.Step(31 * time.Minute)
	r.nudge(r.order(good.Name))
	r.ready(good)
}

func TestALedgerThatCannotBeReadIsReckonedAnew(t *testing.T) {
	r, saw, site := limited(t)
	now := clocktesting.NewFakeClock(time.Now())
	r.follow(now)
	options := controller.Options{Clock: now}
	first := r.run(options, site)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{
			CertificatesPerRegisteredDomain: &cmacme.ACMERateLimit{
				Count:  1,
				Period: &metav1.Duration{Duration: 168 * time.Hour},
			},
		}
	})
	r.ready(r.certificate("first", "www.example.com"))
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	var list corev1.ConfigMapList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, c := range list.Items {
		if c.Annotations["perennial.dev/acme-directory"] != "" {
			c.Data["ledger"] = `{"buckets": "gone"`
			if err := r.admin.Update(t.Context(), &c); err != nil {
				t.Fatal(err)
			}
			broken++
		}
	}
	if broken != 1 {
		t.Fatalf("there are %d ledgers", broken)
	}
	r.run(options, site)
	r.certificate("second", "api.example.com")
	r.waits(
		"second",
		"waits until ",
		"the limit of 1 certificates for example.com and names below it in 7 days is spent",
		"wildcard",
	)
	if orders, _ := saw.counts(); orders != 1 {
		t.Errorf("the CA was asked for %d orders", orders)
	}
	cluster.Eventually(t, func() error {
		var list corev1.EventList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == "LimitsForgotten" {
				return nil
			}
		}
		return cluster.NotYet("no event says so")
	})
}

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
	for name, test := range map[string]struct {
		refuse func(http.ResponseWriter)
		says   []string
		others bool // also those of another account
		all    bool // nothing at all is asked
		paused bool
	}{
		"429 for a domain, with seconds": {refuse: problem(429, "rateLimited", "3600", domain), says: []string{domain}, others: true},
		"429 for a domain, with a date":  {refuse: problem(429, "rateLimited", hour.Format(http.TimeFormat), domain), says: []string{hour.Format("2006-01-02T15:04:05Z"), domain}, others: true},
		"503 with seconds":               {refuse: problem(503, "rateLimited", "3600", "Service busy; retry later."), says: []string{" wants to be left alone until "}, others: true, all: true},
		"503 with a date": {refuse: problem(503, "serverInternal", hour.Format(http.TimeFormat), "maintenance"), says: []string{" wants to be left alone until " + hour.Format("2006-01-02T15:04:05Z")},
			others: true, all: true},
		"429 for an account":            {refuse: problem(429, "rateLimited", "3600", `too many new orders (300) from this account in the last 3h0m0s`), says: []string{"too many new orders"}},
		"429 for a name that is paused": {refuse: problem(429, "rateLimited", "", portal), says: []string{portal}, paused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, saw, site := limited(t)
			now := clocktesting.NewFakeClock(time.Now())
			r.follow(now)
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
		})
	}
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
			now := clocktesting.NewFakeClock(time.Now())
			r.follow(now)
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

func TestANameThatFailsFiveTimesIsPausedUntilSomebodySaysRenew(t *testing.T) {
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

// TestEachNameOfAnOrderThatFailedIsCounted makes a CA refuse the proofs of two names, and first
// answer with a Retry-After for one of them.
func TestEachNameOfAnOrderThatFailedIsCounted(t *testing.T) {
	f := &front{}
	r, _ := behind(t, f.wrap)
	var mu sync.Mutex
	put := false
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !strings.HasPrefix(q.URL.Path, pathAuthorization) || reply.Code >= 300 ||
			!strings.Contains(reply.Body.String(), "late.example.com") {
			return
		}
		edit(t, reply, func(z map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			if z["status"] == "invalid" && !put {
				put = true
				z["status"] = "pending"
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

// TestACAThatLimitsOurAddressIsLeftAloneByAll makes a CA with limits by client address refuse
// requests without an account, for many orders of two issuers.
func TestACAThatLimitsOurAddressIsLeftAloneByAll(t *testing.T) {
	const many = 40
	for name, path := range map[string]string{"its directory": pathDirectory, "its nonces": "/nonce-plz"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, saw, site := limited(t)
			now := clocktesting.NewFakeClock(time.Now())
			r.follow(now)
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
				crt := &cmapi.Certificate{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("site-%d", i)},
					Spec: cmapi.CertificateSpec{
						SecretName: fmt.Sprintf("site-%d", i),
						DNSNames:   []string{fmt.Sprintf("w%d.example.com", i)},
						IssuerRef: cmmeta.IssuerReference{
							Name: []string{"pebble", "other"}[i%2],
						},
						PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
					},
				}
				r.create(crt)
				certificates = append(certificates, crt)
			}
			// One controller is refused; the next controller sends no request.
			for range 2 {
				running := r.run(options, site)
				cluster.Eventually(t, func() error {
					var orders cmacme.OrderList
					if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
						return err
					}
					waiting := 0
					for i := range orders.Items {
						if orders.Items[i].Status.Reason != "" {
							waiting++
						}
					}
					if waiting < many {
						return cluster.NotYet("%d of %d orders say that they wait", waiting, many)
					}
					return nil
				})
				if err := running.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			saw.mu.Lock()
			asked := saw.all - before
			saw.refuse = nil
			saw.mu.Unlock()
			// Those that were on their way when the first was refused are no more than a lane is wide; each
			// asks for the directory, and for a nonce.
			if most := 2 * controller.DefaultWorkers; asked > most {
				t.Errorf(
					"for %d orders the CA was asked %d times, and refused %d times; it may be %d times",
					many,
					asked,
					refused,
					most,
				)
			}

			now.Step(61 * time.Minute)
			r.run(options, site)
			for _, crt := range certificates {
				r.ready(crt)
			}
		})
	}
}
