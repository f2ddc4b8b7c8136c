package order_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

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
		"no certificate at all": {change: func(
			_ *forger, r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder,
		) {
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
			refused(t, test.change, test.says, test.passes)
		})
	}
}

// refused has a CA give a harmful answer, which is to be refused. A harmless one afterwards passes,
// at once or when the user asks for it.
func refused(
	t *testing.T,
	change func(*forger, *http.Request, map[string]any, *httptest.ResponseRecorder),
	says string,
	passes bool,
) {
	liar := &forger{t: t}
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
		change(liar, r, payload, reply)
	})
	cluster.Run(t, options)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	r.says(says)
	if !passes {
		r.failed(crt, says)
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
	if !passes {
		r.again(crt)
	}
	r.ready(crt)
	cluster.Pair(t, client.ObjectKeyFromObject(crt))
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
		"the authorization has expired": {change: func(
			t *testing.T, n int, r *http.Request, reply *httptest.ResponseRecorder,
		) {
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
				Encode(
					map[string]any{
						"suggestedWindow": map[string]string{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
					},
				)
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
