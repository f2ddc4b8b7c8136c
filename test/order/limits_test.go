package order_test

import (
	"bytes"
	"context"
	"fmt"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
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
	now := &cluster.Clock{}
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
	now := &cluster.Clock{}
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
