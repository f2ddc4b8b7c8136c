package order_test

import (
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
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// forger is a CA that certifies something else than it was asked for.
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

// hear reads the CSR from a request to finalize.
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

// forge answers with a certificate for the CSR, but for the change.
func (f *forger) forge(reply *httptest.ResponseRecorder, change func(c *x509.Certificate, key *crypto.PublicKey)) {
	f.mu.Lock()
	csr := f.csr
	f.mu.Unlock()
	now := time.Now()
	ca, by := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forger"}, NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}, f.key()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: csr.DNSNames}
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

// TestWhatACAAnswersThatItMustNotIsRefused has the CA lie in each way that would do harm. Nothing of it may reach a Secret, the CA is not asked
// in a loop, and when it is honest the certificate comes.
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
		}), says: "the CA sent a certificate that is not what was asked for: it is for another key"},
		"a certificate without the name": {change: certificate(func(c *x509.Certificate, _ *crypto.PublicKey) {
			c.DNSNames = []string{"victim.example.com"}
		}), says: `"www.example.com" is not among its names`},
		"a certificate that has expired": {change: certificate(func(c *x509.Certificate, _ *crypto.PublicKey) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}), says: "it expired at"},
		"no certificate at all": {change: func(_ *forger, r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathCertificate) {
				reply.Body.Reset()
				reply.Body.WriteString("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
			}
		}, says: "the CA sent a certificate that is not what was asked for"},
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
				if orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize); orders > 2 || finalized > 1 { // a nonce may be refused
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

// TestAnIssuanceThatDiesAtTheCABeginsAnew has the CA lose or end what is under way.
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

// TestAnOrderThatTheCAProcessesForLongHoldsNobodyUp is about CAs that know their customers: nothing is to be proved, and orders take minutes.
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
		if !held.Load() || !strings.HasPrefix(r.URL.Path, pathOrder) && !strings.HasPrefix(r.URL.Path, pathFinalize) || !strings.Contains(reply.Body.String(), "slow-") || reply.Code >= 300 {
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
	if orders, finalized := f.asked(pathNewOrder)-orders, f.asked(pathFinalize)-finalized; orders != slow+1 || finalized != slow+1 {
		t.Errorf("the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
	held.Store(false)
	for _, crt := range certificates {
		r.ready(crt)
		cluster.Pair(t, client.ObjectKeyFromObject(crt))
	}
	if orders, finalized := f.asked(pathNewOrder)-orders, f.asked(pathFinalize)-finalized; orders != slow+1 || finalized != slow+1 {
		t.Errorf("in the end the CA was asked for %d orders, and %d times to finalize", orders, finalized)
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

// TestAReplacementThatTheCAHasAlreadyIsFoundAgain loses the reply to the order of a renewal, at a CA that, as Let's Encrypt, takes one order at a
// time to replace a certificate, and serves it again to whoever asks the same without saying what it replaces.
func TestAReplacementThatTheCAHasAlreadyIsFoundAgain(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	r.ready(crt)

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
			_ = json.NewEncoder(reply.Body).Encode(map[string]any{"suggestedWindow": map[string]string{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}})
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
		if a == nil || a.ARI == nil || !strings.Contains(a.ARI.LastError, "the suggested window does not end after its start") || a.ARI.SuggestedWindow != nil {
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
