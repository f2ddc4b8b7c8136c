package order_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// forger is a CA that issues other certificates than requested.
type forger struct {
	t   *testing.T
	mu  sync.Mutex
	csr *x509.CertificateRequest
}

func (f *forger) key() crypto.Signer {
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		f.t.Error(err)
	}
	return key
}

// hear reads the CSR of a finalize request.
func (f *forger) hear(payload map[string]any) {
	text, _ := payload["csr"].(string)
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		f.t.Error(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.csr = csr
}

// forge answers with a certificate for the CSR, modified by the change.
func (f *forger) forge(reply *httptest.ResponseRecorder, change func(c *x509.Certificate, key *crypto.PublicKey)) {
	f.mu.Lock()
	csr := f.csr
	f.mu.Unlock()
	now := time.Now()
	ca, by := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "forger"},
		NotAfter:              now.Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, f.key()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
		DNSNames:     csr.DNSNames,
	}
	public := crypto.PublicKey(csr.PublicKey)
	change(leaf, &public)
	reply.Body.Reset()
	for _, c := range []struct {
		template *x509.Certificate
		public   crypto.PublicKey
	}{{leaf, public}, {ca, by.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, ca, c.public, by)
		if err != nil {
			f.t.Error(err)
		}
		if err := pem.Encode(reply.Body, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			f.t.Error(err)
		}
	}
}

// TestWhatACAAnswersThatItMustNotIsRefused makes the CA send each kind of harmful answer. None may
// reach a Secret or cause a request loop, and when the CA is correct again, the certificate is
// issued.
func TestWhatACAAnswersThatItMustNotIsRefused(t *testing.T) {
	type change = func(f *forger, r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder)
	on := func(path string, change func(map[string]any)) change {
		return func(f *forger, r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, path) && reply.Code < 300 {
				edit(f.t, reply, change)
			}
		}
	}
	certificate := func(change func(*x509.Certificate, *crypto.PublicKey)) change {
		return func(f *forger, r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
			switch {
			case strings.HasPrefix(r.URL.Path, pathFinalize) && reply.Code < 300:
				f.hear(payload)
			case strings.HasPrefix(r.URL.Path, pathCertificate):
				f.forge(reply, change)
			}
		}
	}
	for name, test := range map[string]struct {
		change change
		says   string
		// passes says that it is tried again at once.
		passes bool
	}{
		"an order for another name": {change: on(pathNewOrder, func(o map[string]any) {
			o["identifiers"] = []any{map[string]string{"type": "dns", "value": "victim.example.com"}}
		}), says: `the CA made an order for "victim.example.com", not for "www.example.com"`},
		"an authorization for another name": {change: on(pathAuthorization, func(z map[string]any) {
			z["identifier"] = map[string]string{"type": "dns", "value": "victim.example.com"}
		}), says: `the CA wants proof for "victim.example.com", which the order is not for`},
		"a certificate for another key": {change: certificate(func(_ *x509.Certificate, key *crypto.PublicKey) {
			*key = (&forger{}).key().Public()
		}), says: "the CA sent a certificate that is not what was asked for: it is for another private key than that of " +
			"the request"},
		"a certificate without the name": {change: certificate(func(c *x509.Certificate, _ *crypto.PublicKey) {
			c.DNSNames = []string{"victim.example.com"}
		}), says: `it lacks names that were asked for: "www.example.com"`},
		"a certificate that has expired": {change: certificate(func(c *x509.Certificate, _ *crypto.PublicKey) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}), says: "it expired at"},
		"no certificate at all": {change: func(_ *forger, r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathCertificate) {
				reply.Body.Reset()
				reply.Body.WriteString("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
			}
		}, says: "the reply is not valid ACME", passes: true},
		"a place to finalize on another host": {change: on(pathNewOrder, func(o map[string]any) {
			o["finalize"] = "https://169.254.169.254/finalize"
		}), says: "finalize: https://169.254.169.254/finalize is not on a host that the directory names", passes: true},
		"a place to finalize in clear text": {change: on(pathNewOrder, func(o map[string]any) {
			o["finalize"] = "http://127.0.0.1/finalize"
		}), says: "finalize: http://127.0.0.1/finalize is not an https URL", passes: true},
		"a redirect": {change: func(_ *forger, r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathNewOrder) {
				reply.Header().Set("Location", "https://"+r.Host+pathDirectory)
				reply.Code = http.StatusTemporaryRedirect
			}
		}, says: "redirects are not followed", passes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			liar := &forger{t: t}
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(nil, func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
				test.change(liar, r, payload, reply)
			})
			cluster.Run(t, options)
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			r.says(test.says)
			if !test.passes {
				r.failed(crt, test.says)
				if orders, finalized := f.asked(
					pathNewOrder,
				), f.asked(
					pathFinalize,
				); orders > 2 ||
					finalized > 1 { // a nonce may be refused
					t.Errorf("the CA was asked for %d orders and %d times to finalize", orders, finalized)
				}
			}
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), &corev1.Secret{}); !apierrors.IsNotFound(err) {
				t.Errorf("there is a Secret: %v", err)
			}
			f.behave(nil, nil)
			if !test.passes {
				r.again(crt)
			}
			r.ready(crt)
			cluster.Pair(t, client.ObjectKeyFromObject(crt))
		})
	}
}

// TestAReplyThatCannotBeReadIsFetchedAgain makes the CA, or a proxy in front of it, damage a reply
// twice. The controller reads the order again at its URL, so the CA creates only one.
func TestAReplyThatCannotBeReadIsFetchedAgain(t *testing.T) {
	page := func(status int) func(*httptest.ResponseRecorder) {
		return func(reply *httptest.ResponseRecorder) {
			reply.Code = status
			reply.Header().Set("Content-Type", "text/html")
			reply.Body = bytes.NewBufferString("<html>another server</html>")
		}
	}
	cut := func(reply *httptest.ResponseRecorder) { reply.Body.Truncate(reply.Body.Len() / 2) }
	empty := func(reply *httptest.ResponseRecorder) { reply.Body.Reset() }
	for name, test := range map[string]struct {
		path  string
		spoil func(*httptest.ResponseRecorder)
	}{
		"an empty certificate":      {pathCertificate, empty},
		"a certificate that is cut": {pathCertificate, cut},
		"a certificate of another type": {
			pathCertificate, func(reply *httptest.ResponseRecorder) { reply.Header().Set("Content-Type", "text/plain") }},
		"a page in place of it":                     {pathCertificate, page(http.StatusOK)},
		"a page with status 403":                    {pathCertificate, page(http.StatusForbidden)},
		"a page with status 404":                    {pathCertificate, page(http.StatusNotFound)},
		"a redirect":                                {pathCertificate, page(http.StatusFound)},
		"an order that is cut":                      {pathOrder, cut},
		"an order with status 404":                  {pathOrder, page(http.StatusNotFound)},
		"an empty order":                            {pathOrder, empty},
		"an order that is cut when it is finalized": {pathFinalize, cut},
		"an authorization that is cut":              {pathAuthorization, cut},
		"an authorization with status 403":          {pathAuthorization, page(http.StatusForbidden)},
		"a challenge that is cut":                   {pathChallenge, cut},
		"a challenge with status 404":               {pathChallenge, page(http.StatusNotFound)},
		"a new order that is cut":                   {pathNewOrder, cut},
		"an empty new order":                        {pathNewOrder, empty},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var spoiled, orders atomic.Int32
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
				if strings.HasPrefix(q.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated {
					orders.Add(1)
				}
				if strings.HasPrefix(q.URL.Path, test.path) && reply.Code < 300 && spoiled.Add(1) <= 2 {
					test.spoil(reply)
				}
			})
			cluster.Run(t, options)
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			r.ready(crt)
			cluster.Pair(t, client.ObjectKeyFromObject(crt))
			if n := orders.Load(); n != 1 {
				t.Errorf("the CA made %d orders", n)
			}
			if got := r.ordersOf("site"); len(got) != 1 {
				t.Errorf("there are %d Orders", len(got))
			}
		})
	}
}

// TestAnIssuanceThatDiesAtTheCABeginsAnew makes the CA lose or end the open order.
func TestAnIssuanceThatDiesAtTheCABeginsAnew(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request) bool
		change func(t *testing.T, n int, r *http.Request, reply *httptest.ResponseRecorder)
		says   []string
	}{
		"the order has expired": {change: func(t *testing.T, _ int, r *http.Request, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathOrder) {
				edit(t, reply, func(o map[string]any) { o["expires"] = "2026-01-02T03:04:05Z" })
			}
		}, says: []string{`"expired"`, "the order expired at 2026-01-02T03:04:05Z and was still"}},
		"the order is forgotten": {answer: func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, pathOrder) {
				return false
			}
			refuse(w, http.StatusNotFound, "malformed", "no such order")
			return true
		}, says: []string{`"expired"`, "the CA no longer knows the order"}},
		"the authorization has expired": {change: func(t *testing.T, n int, r *http.Request, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathAuthorization) && n > 1 { // after the order has read it
				edit(t, reply, func(z map[string]any) { z["status"] = "expired" })
			}
		}, says: []string{`"expired"`, "the authorization is expired"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
				return test.answer != nil && test.answer(w, r)
			}, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
				if test.change != nil && reply.Code < 300 {
					test.change(t, f.asked(pathAuthorization), r, reply)
				}
			})
			cluster.Run(t, options)
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			r.says(test.says...)
			// Another order is asked for at once, but not again and again.
			r.failed(crt, test.says[1])
			if n := f.asked(pathNewOrder); n < 3 || n > 5 { // nonces may be refused
				t.Errorf("it was asked for %d orders", n)
			}
			f.behave(nil, nil)
			r.again(crt)
			r.ready(crt)
		})
	}
}

// TestANewOrderThatIsOverAlreadyIsNoEnd makes the CA answer the request for an order with one in a
// final state.
func TestANewOrderThatIsOverAlreadyIsNoEnd(t *testing.T) {
	t.Run("valid, for another key", func(t *testing.T) {
		t.Parallel()
		f := &front{}
		r, options := shop(t, f, pebble.Options{})
		var mu sync.Mutex
		var order, certificate string
		answered := false
		f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case strings.HasPrefix(r.URL.Path, pathCertificate) && certificate == "":
				certificate = "https://" + r.Host + r.URL.Path
			case strings.HasPrefix(r.URL.Path, pathNewOrder) && reply.Code < 300 && order == "":
				order = reply.Header().Get("Location")
			case strings.HasPrefix(r.URL.Path, pathNewOrder) && reply.Code < 300 && certificate != "" && !answered:
				answered = true // another request has an order of its own
				reply.Header().Set("Location", order)
				edit(t, reply, func(o map[string]any) { o["status"], o["certificate"] = "valid", certificate })
			}
		})
		cluster.Run(t, options)
		r.issuer()
		r.ready(r.certificate("site", "www.example.com"))
		crt := r.certificate("other", "www.example.com")
		r.ready(crt)
		cluster.Pair(t, client.ObjectKeyFromObject(crt))
		r.says(`"expired"`, "issued it for that one's key")
	})
	t.Run("invalid", func(t *testing.T) {
		t.Parallel()
		f := &front{}
		r, options := shop(t, f, pebble.Options{})
		f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			if (strings.HasPrefix(r.URL.Path, pathNewOrder) || strings.HasPrefix(r.URL.Path, pathOrder)) && reply.Code < 300 {
				edit(t, reply, func(o map[string]any) {
					o["status"], o["error"] = "invalid", map[string]any{
						"type":   "urn:ietf:params:acme:error:rejectedIdentifier",
						"detail": "we do not like it",
					}
				})
			}
		})
		cluster.Run(t, options)
		r.issuer()
		crt := r.certificate("site", "www.example.com")
		r.failed(crt, "we do not like it")
		f.behave(nil, nil)
		r.again(crt)
		r.ready(crt)
	})
}

// TestAnOrderThatTheCAProcessesForLongHoldsNobodyUp is about CAs that know their customers: they
// need no proofs, and orders take minutes.
func TestAnOrderThatTheCAProcessesForLongHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	const slow = 12
	var held atomic.Bool
	f := &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	options.Workers = 1 // of orders there are a few more
	running := cluster.Run(t, options)
	r.issuer()
	names := []string{"fast.example.com"}
	for i := range slow {
		names = append(names, fmt.Sprintf("slow-%d.example.com", i))
	}
	r.ready(r.certificate("all", names...))

	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = nil })
	r.issuerSays(cmmeta.ConditionTrue)
	orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize)
	held.Store(true)
	polls := map[string]int{}
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !held.Load() || !strings.HasPrefix(r.URL.Path, pathOrder) && !strings.HasPrefix(r.URL.Path, pathFinalize) ||
			!strings.Contains(reply.Body.String(), "slow-") ||
			reply.Code >= 300 {
			return
		}
		edit(t, reply, func(o map[string]any) {
			if o["status"] == "valid" {
				o["status"] = "processing"
				delete(o, "certificate")
				reply.Header().Set("Retry-After", "0")
				f.mu.Lock()
				polls[r.URL.Path]++
				f.mu.Unlock()
			}
		})
	})
	var certificates []*cmapi.Certificate
	for i := range slow {
		certificates = append(certificates, r.certificate(fmt.Sprintf("slow-%d", i), names[i+1]))
	}
	asked := func(n int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			enough := 0
			for path, p := range polls {
				if strings.HasPrefix(path, pathOrder) && p >= n {
					enough++
				}
			}
			if enough < slow {
				return cluster.NotYet("%v\n%s", polls, r.story())
			}
			return nil
		})
	}
	asked(3)
	r.ready(r.certificate("fast", "fast.example.com"))
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	asked(6)
	if orders, finalized := f.asked(
		pathNewOrder,
	)-orders, f.asked(
		pathFinalize,
	)-finalized; orders != slow+1 ||
		finalized != slow+1 {
		t.Errorf("the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
	held.Store(false)
	for _, crt := range certificates {
		r.ready(crt)
		cluster.Pair(t, client.ObjectKeyFromObject(crt))
	}
	if orders, finalized := f.asked(
		pathNewOrder,
	)-orders, f.asked(
		pathFinalize,
	)-finalized; orders != slow+1 ||
		finalized != slow+1 {
		t.Errorf("in the end the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
}

// TestAnOrderThatTakesTwentyMinutesIsAskedForPolitely makes a CA process orders slowly, with each
// form of Retry-After. The clock advances by minutes, and each time another client changes the
// Orders, which must not cause a request.
func TestAnOrderThatTakesTwentyMinutesIsAskedForPolitely(t *testing.T) {
	t.Parallel()
	ways := map[string]struct {
		retryAfter string
		most       int // questions in 20 minutes, of which 10 come after a restart
		says       string
	}{
		"silent":    {"", 30, "The ACME server is processing the order"},
		"minutes":   {"300", 7, "The ACME server is processing the order, and is asked again at "},
		"ages":      {"1000000000", 3, "The ACME server is processing the order, and is asked again at "},
		"year-9999": {"Fri, 31 Dec 9999 23:59:59 GMT", 3, "The ACME server is processing the order, and is asked again at "},
		"negative":  {"-5", 30, "The ACME server is processing the order"},
		"past":      {"Sun, 01 Nov 2020 12:00:00 GMT", 60, "The ACME server is processing the order"},
		"lost":      {"", 30, "The ACME server is processing the order"}, // expires before it is done
	}
	clock := &cluster.Clock{}
	f := &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	options.Clock = clock
	running := cluster.Run(t, options)
	r.issuer()
	var names []string
	for name := range ways {
		names = append(names, name+".example.com")
	}
	r.ready(r.certificate("all", names...))
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = nil })
	r.issuerSays(cmmeta.ConditionTrue)
	orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize)
	expires := clock.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	polls := map[string]int{}
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		poll := strings.HasPrefix(r.URL.Path, pathOrder)
		if reply.Code >= 300 || !poll && !strings.HasPrefix(r.URL.Path, pathFinalize) {
			return
		}
		edit(t, reply, func(o map[string]any) {
			for name, way := range ways {
				if !strings.Contains(fmt.Sprint(o["identifiers"]), name) {
					continue
				}
				if poll {
					f.mu.Lock()
					polls[name]++
					f.mu.Unlock()
				}
				if o["status"] == "valid" {
					o["status"] = "processing"
					delete(o, "certificate")
				}
				if way.retryAfter != "" {
					reply.Header().Set("Retry-After", way.retryAfter)
				}
				if name == "lost" {
					o["expires"] = expires
				}
			}
		})
	})
	asked := func(name string) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return polls[name]
	}
	certificates := map[string]*cmapi.Certificate{}
	for name := range ways {
		certificates[name] = r.certificate(name, name+".example.com")
	}
	for name, way := range ways {
		cluster.Eventually(t, func() error {
			if o := r.order(name); o.Status.State != cmacme.Processing || !strings.HasPrefix(o.Status.Reason, way.says) {
				return cluster.NotYet("the order of %s is %q: %s", name, o.Status.State, o.Status.Reason)
			}
			return nil
		})
	}
	minutes := func(n int) {
		for range n {
			before := asked("silent")
			clock.Step(time.Minute)
			for name := range ways {
				r.nudge(r.order(name))
			}
			cluster.Eventually(t, func() error {
				if asked("silent") == before {
					return cluster.NotYet("nobody asks for the order after a minute")
				}
				return nil
			})
		}
	}
	minutes(10)
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	minutes(10)
	for name, way := range ways {
		if n := asked(name); n > way.most {
			t.Errorf("of %s it was asked %d times", name, n)
		}
	}
	if n := asked("minutes"); n < 3 {
		t.Errorf("of minutes it was asked %d times", n)
	}
	// One takes longer than the CA keeps it. That fails, and is not repeated at once: its certificate
	// may have been issued.
	clock.Step(11 * time.Minute)
	r.nudge(r.order("lost"))
	r.failed(certificates["lost"], "the order expired at "+expires+" and was still processing")
	f.behave(nil, nil)
	clock.Step(45 * time.Minute) // an hour after the restart all have asked again, but the one that failed rests still
	for name, crt := range certificates {
		if name != "lost" {
			r.nudge(r.order(name))
			r.ready(crt)
		}
	}
	if orders, finalized := f.asked(
		pathNewOrder,
	)-orders, f.asked(
		pathFinalize,
	)-finalized; orders != len(ways) ||
		finalized != len(ways) {
		t.Errorf("the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
}

// order returns an Order of a Certificate, or an empty one if there is none.
func (r *rig) order(name string) *cmacme.Order {
	r.t.Helper()
	var list cmacme.OrderList
	if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	for i := range list.Items {
		if o := &list.Items[i]; o.Annotations[cmapi.CertificateNameKey] == name {
			return o
		}
	}
	return &cmacme.Order{}
}

// TestACAThatLimitsUsForEverIsAskedAgain makes a CA refuse orders with each form of Retry-After.
// The status says until when the controller waits, which is soon enough for the certificate.
func TestACAThatLimitsUsForEverIsAskedAgain(t *testing.T) {
	t.Parallel()
	const week, day = 7 * 24 * time.Hour, 24 * time.Hour
	type way struct {
		status     int
		retryAfter string
		// waits is how long it is waited. Zero: it passes at once.
		waits time.Duration
	}
	ways := map[string]way{}
	for name, w := range map[string]struct {
		retryAfter       string
		limited, useless time.Duration
	}{
		"ages":      {"1000000000", week, day},
		"year-9999": {"Fri, 31 Dec 9999 23:59:59 GMT", week, day},
		"negative":  {"-5", time.Hour, 0},
		"past":      {"Sun, 01 Nov 2020 12:00:00 GMT", 0, 0},
	} {
		ways["limited-"+name] = way{http.StatusTooManyRequests, w.retryAfter, w.limited}
		ways["closed-"+name] = way{http.StatusServiceUnavailable, w.retryAfter, w.useless}
	}
	clock := &cluster.Clock{}
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	options.Clock = clock
	var mu sync.Mutex
	refused := map[string]bool{}
	f.behave(func(w http.ResponseWriter, q *http.Request, payload map[string]any) bool {
		if !strings.HasPrefix(q.URL.Path, pathNewOrder) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		for name, way := range ways {
			if strings.Contains(fmt.Sprint(payload["identifiers"]), name) && !refused[name] {
				refused[name] = true
				w.Header().Set("Retry-After", way.retryAfter)
				refuse(w, way.status, "rateLimited", "not now")
				return true
			}
		}
		return false
	}, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if reply.Code < 300 &&
			(strings.HasPrefix(q.URL.Path, pathNewOrder) || strings.HasPrefix(q.URL.Path, pathOrder) || strings.HasPrefix(q.URL.Path, pathFinalize)) {
			edit(
				t,
				reply,
				func(o map[string]any) { o["expires"] = clock.Now().Add(day).UTC().Format(time.RFC3339) },
			) // the CA's clock goes with ours
		}
	})
	cluster.Run(t, options)
	certificates := map[string]*cmapi.Certificate{}
	for name := range ways {
		// What a CA limits, or that it is closed, holds for its directory: each is another one.
		r.issuerOf(r.namespace, name, func(spec *cmacme.ACMEIssuer) { spec.Server += "?" + name })
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: name},
		}}
		r.create(crt)
		certificates[name] = crt
	}
	until := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	for name, way := range ways {
		if way.waits == 0 {
			r.ready(certificates[name])
			continue
		}
		message := r.waits(name, "T") // a time
		at, err := time.Parse(time.RFC3339, until.FindString(message))
		if wait := at.Sub(clock.Now()); err != nil || wait > way.waits || wait < way.waits-10*time.Minute {
			t.Errorf("%s waits for %s, not %s: %s", name, wait, way.waits, message)
		}
	}
	clock.Step(week)
	for name, way := range ways {
		if way.waits > 0 {
			r.nudge(r.orderOf(name))
			r.ready(certificates[name])
		}
	}
}

func TestOtherChainsThatCannotBeHadAreDoneWithout(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if r.URL.Path != pathCertificate+"missing" {
			return false
		}
		refuse(w, http.StatusNotFound, "malformed", "no such certificate")
		return true
	}, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathCertificate) {
			reply.Header().Add("Link", `<https://169.254.169.254/chain>; rel="alternate"`)
			reply.Header().Add("Link", `<missing>; rel="alternate"`)
		}
	})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.PreferredChain = "ISRG Root X1" })
	r.ready(r.certificate("site", "www.example.com"))
	if n := f.asked(pathCertificate); n < 2 {
		t.Error("it was not asked for the other chain")
	}
}

func TestACAThatIsNotReadyToFinalizeIsAskedAgain(t *testing.T) {
	t.Parallel()
	var once sync.Once
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) (answered bool) {
		if strings.HasPrefix(r.URL.Path, pathFinalize) {
			once.Do(func() {
				refuse(w, http.StatusForbidden, "orderNotReady", "the order is not ready yet")
				answered = true
			})
		}
		return answered
	}, nil)
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	if n := f.asked(pathNewOrder); n != 1 {
		t.Errorf("it was asked for %d orders", n)
	}
}

// TestACAThatSaysWhenToAskAfterAProofIsObeyed makes a CA answer the request for validation with a
// Retry-After of some seconds.
func TestACAThatSaysWhenToAskAfterAProofIsObeyed(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	var mu sync.Mutex
	var accepted, next time.Time
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(_ http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.URL.Path, pathAuthorization) && !accepted.IsZero() && next.IsZero() {
			next = time.Now()
		}
		return false
	}, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathChallenge) {
			mu.Lock()
			defer mu.Unlock()
			accepted = time.Now()
			reply.Header().Set("Retry-After", fmt.Sprint(wait.Seconds()))
		}
	})
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	mu.Lock()
	defer mu.Unlock()
	if accepted.IsZero() || next.Sub(accepted) < wait {
		t.Errorf("it was asked again %s after it had said %s", next.Sub(accepted), wait)
	}
}

// TestACAThatLimitsAnOrderUnderWayIsNotAskedBefore makes a CA refuse a request for an open order,
// with a Retry-After of some seconds.
func TestACAThatLimitsAnOrderUnderWayIsNotAskedBefore(t *testing.T) {
	const wait = 4 * time.Second
	for name, path := range map[string]string{
		"new order": pathNewOrder, "order": pathOrder, "authorization": pathAuthorization, "challenge": pathChallenge, "finalize": pathFinalize, "certificate": pathCertificate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var until time.Time
			early := 0
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
				if !strings.HasPrefix(q.URL.Path, path) {
					return false
				}
				mu.Lock()
				now := time.Now()
				if until.IsZero() {
					until = now.Add(wait)
				} else if now.Before(until) {
					early++
				}
				limited := now.Before(until)
				mu.Unlock()
				if limited {
					w.Header().Set("Retry-After", fmt.Sprint(wait.Seconds()))
					refuse(w, http.StatusTooManyRequests, "rateLimited", "not now")
				}
				return limited
			}, nil)
			cluster.Run(t, options)
			r.issuer()
			r.ready(r.certificate("site", "www.example.com"))
			mu.Lock()
			defer mu.Unlock()
			if until.IsZero() || early > 0 {
				t.Errorf("it was asked %d times before %s were over", early, wait)
			}
		})
	}
}

func TestACAWithoutASenseOfTimeIsPolledAllTheSame(t *testing.T) {
	for _, value := range []string{"0", "-1", "soon", "Sun, 01 Nov 2020 12:00:00 GMT", "1e9"} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
				reply.Header().Set("Retry-After", value)
				if strings.HasPrefix(r.URL.Path, pathFinalize) && reply.Code < 300 {
					edit(t, reply, func(o map[string]any) { o["status"] = "processing" })
				}
			})
			cluster.Run(t, options)
			r.issuer()
			r.ready(r.certificate("site", "www.example.com"))
		})
	}
}

// TestAReplacementThatTheCAHasAlreadyIsFoundAgain loses the reply to the order of a renewal, at a
// CA that, like Let's Encrypt, accepts one replacement order at a time for a certificate, and
// returns that order again for the same request without a replaced certificate.
func TestAReplacementThatTheCAHasAlreadyIsFoundAgain(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	r.until(crt, func() string {
		if crt.Status.ACME == nil || crt.Status.ACME.ARI == nil || crt.Status.ACME.ARI.SuggestedWindow == nil {
			return "the CA was not asked yet when to renew, so a renewal would not say what it replaces"
		}
		return ""
	})

	var mu sync.Mutex
	var pending *httptest.ResponseRecorder
	var refused, served int
	f.behave(func(w http.ResponseWriter, r *http.Request, payload map[string]any) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(r.URL.Path, pathNewOrder) || pending == nil {
			return false
		}
		if payload["replaces"] != nil {
			refused++
			refuse(w, http.StatusConflict, "alreadyReplaced", "the certificate has a replacement order already")
			return true
		}
		served++
		maps.Copy(w.Header(), pending.Header())
		w.WriteHeader(pending.Code)
		_, _ = w.Write(pending.Body.Bytes())
		return true
	}, func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated {
			if payload["replaces"] == nil {
				t.Error("the renewal does not say what it replaces")
			}
			pending = reply
			panic(http.ErrAbortHandler)
		}
	})
	finalized := f.asked(pathFinalize)
	r.again(crt)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if crt.Status.Revision == nil || *crt.Status.Revision != 2 {
			return cluster.NotYet("%s", r.story())
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if refused != 1 || served != 1 {
		t.Errorf("it was refused %d times, and served %d times", refused, served)
	}
	if n := f.asked(pathFinalize) - finalized; n != 1 {
		t.Errorf("the renewal was finalized %d times", n)
	}
}

func TestASuggestionThatMakesNoSenseIsNotFollowed(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathRenewalInfo) {
			reply.Body.Reset()
			_ = json.NewEncoder(reply.Body).
				Encode(map[string]any{"suggestedWindow": map[string]string{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}})
		}
	})
	cluster.Run(t, options)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		a := crt.Status.ACME
		if a == nil || a.ARI == nil ||
			!strings.Contains(a.ARI.LastError, "the suggested window does not end after its start") ||
			a.ARI.SuggestedWindow != nil {
			return cluster.NotYet("the status is %+v", a)
		}
		if at := crt.Status.RenewalTime; at == nil || at.Time.Before(time.Now()) {
			return cluster.NotYet("it is renewed at %s", at)
		}
		return nil
	})
	if n := f.asked(pathRenewalInfo); n > 2 {
		t.Errorf("it was asked %d times", n)
	}
}
