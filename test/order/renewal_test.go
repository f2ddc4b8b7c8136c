package order_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// reluctant is a CA that refuses orders with a replaced certificate.
type reluctant struct {
	mu sync.Mutex
	// problem and status are what it says then; empty: nothing.
	problem string
	status  int
	// asked has, for each new order, whether it said what it replaces.
	asked []bool
}

func (c *reluctant) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/order-plz") {
			h.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		var message struct{ Payload string }
		var order struct{ Replaces string }
		_ = json.Unmarshal(body, &message)
		if raw, err := base64.RawURLEncoding.DecodeString(message.Payload); err == nil {
			_ = json.Unmarshal(raw, &order)
		}
		c.mu.Lock()
		c.asked = append(c.asked, order.Replaces != "")
		problem, status := c.problem, c.status
		c.mu.Unlock()
		if order.Replaces != "" && problem != "" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprintf(
				w,
				`{"type": "urn:ietf:params:acme:error:%s", "detail": "the certificate that it replaces is not right"}`,
				problem,
			)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		h.ServeHTTP(w, r)
	})
}

// since returns the requests since the last call.
func (c *reluctant) since(problem string, status int) []bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked, c.problem, c.status = nil, problem, status
	return asked
}

func TestARenewalSaysWhatItReplacesAndComesThoughTheCADoesNotLikeThat(t *testing.T) {
	picky := &reluctant{}
	r := start(t, pebble.Options{Wrap: picky.wrap})
	r.issuer()
	var crt *cmapi.Certificate
	n := 1
	known := func() {
		t.Helper()
		r.until(crt, func() string {
			if crt.Status.Revision == nil || *crt.Status.Revision != n || crt.Status.ACME == nil || crt.Status.ACME.ARI == nil ||
				crt.Status.ACME.ARI.SuggestedWindow == nil {
				return "the CA has not said when to renew it"
			}
			return ""
		})
	}
	for i, test := range []struct {
		name, problem string
		status        int
	}{
		{"it was replaced already", "alreadyReplaced", http.StatusConflict},
		{"it was replaced already, as older CAs say it", "conflict", http.StatusConflict},
		{"it makes no sense to the CA", "malformed", http.StatusBadRequest},
		{"it belongs to another account", "unauthorized", http.StatusForbidden},
		{"the CA does not know it", "malformed", http.StatusNotFound},
		{"the CA has nothing against it", "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			crt, n = r.certificate(fmt.Sprintf("site-%d", i), fmt.Sprintf("www%d.example.com", i)), 1
			known()
			picky.since(test.problem, test.status)
			r.renew(crt)
			n++
			known()
			asked := picky.since("", 0)
			want := []bool{true, false}
			if test.problem == "" {
				want = want[:1]
			}
			if fmt.Sprint(asked) != fmt.Sprint(want) {
				t.Errorf("of the orders those said what they replace: %v, want %v", asked, want)
			}
			if crt.Status.FailedIssuanceAttempts != nil {
				t.Error("a failure is counted")
			}
		})
	}

	// Another account says nothing of what was issued to the first.
	issuer := &cmapi.Issuer{}
	key := client.ObjectKey{Namespace: r.namespace, Name: "pebble"}
	if err := r.admin.Get(t.Context(), key, issuer); err != nil {
		t.Fatal(err)
	}
	before := issuer.Status.ACME.URI
	r.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"}})
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), key, issuer); err != nil {
			return err
		}
		if issuer.Status.ACME.URI == before {
			return cluster.NotYet("the account is still %s", before)
		}
		return nil
	})
	picky.since("", 0)
	r.renew(crt)
	n++
	known()
	if asked := picky.since("", 0); fmt.Sprint(asked) != "[false]" {
		t.Errorf("of the orders those said what they replace: %v", asked)
	}
}

func TestAShortLivedCertificateOfAnIPAddressIsIssuedAndRenewed(t *testing.T) {
	const life = 160 * time.Hour
	r := start(t, pebble.Options{Profiles: map[string]ca.Profile{
		"default": {
			Description:    "d",
			ValidityPeriod: 90 * 24 * 3600,
		},
		"shortlived": {Description: "s", ValidityPeriod: uint64(life / time.Second)},
	}})
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "default" })
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "address"}, Spec: cmapi.CertificateSpec{
		SecretName:  "address",
		IPAddresses: []string{"127.0.0.1"},
		IssuerRef:   cmmeta.IssuerReference{Name: "pebble"},
		ACMEProfile: "shortlived",
		PrivateKey:  &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		// What suits certificates of 90 days must not have this one issued over and over.
		RenewBefore: &metav1.Duration{Duration: 30 * 24 * time.Hour},
	}}
	r.create(crt)
	check := func(revision int) {
		t.Helper()
		r.until(crt, func() string {
			switch {
			case crt.Status.Revision == nil || *crt.Status.Revision != revision ||
				cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing) != nil:
				return "it is not of the revision"
			case crt.Status.ACME == nil || crt.Status.ACME.ARI == nil || crt.Status.ACME.ARI.SuggestedWindow == nil:
				return "the CA has not said when to renew it"
			}
			w, at := crt.Status.ACME.ARI.SuggestedWindow, crt.Status.RenewalTime
			if at == nil || at.Before(w.Start) || w.End.Before(at) {
				return "the renewal is not in the window of the CA"
			}
			return ""
		})
		chain, _ := cluster.Pair(t, client.ObjectKeyFromObject(crt))
		if got := chain[0].NotAfter.Sub(chain[0].NotBefore); got < life-time.Minute || got > life+time.Minute {
			t.Errorf("it lives for %s", got)
		}
		if len(chain[0].IPAddresses) != 1 || chain[0].IPAddresses[0].String() != "127.0.0.1" || len(chain[0].DNSNames) != 0 {
			t.Errorf("it is for %v and %v", chain[0].IPAddresses, chain[0].DNSNames)
		}
	}
	check(1)
	if message := r.event("Certificate", "address", "RenewBeforeIgnored"); !strings.Contains(message, "renewBefore") {
		t.Errorf("the event says %q", message)
	}
	r.renew(crt)
	check(2)
}

func TestACAThatAlwaysWantsRenewalAtOnceIsNotAskedForCertificatesWithoutEnd(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	clock := &cluster.Clock{}
	options.Clock = clock
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathRenewalInfo) {
			reply.Header().Set("Retry-After", "60")
			reply.Body.Reset()
			_ = json.NewEncoder(reply.Body).
				Encode(
					map[string]any{
						"suggestedWindow": map[string]string{"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z"},
					},
				)
		}
	})
	cluster.Run(t, options)
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	// held waits until a certificate is in use that is renewed no earlier than so long after it was
	// issued, and returns when.
	held := func(revision int, hold time.Duration) time.Time {
		t.Helper()
		r.until(crt, func() string {
			if crt.Status.Revision == nil || *crt.Status.Revision != revision || crt.Status.ACME == nil ||
				crt.Status.ACME.ARI == nil ||
				crt.Status.ACME.ARI.SuggestedWindow == nil {
				return "the CA has not said when to renew it"
			}
			once := crt.Status.ACME.ARI.AtOnce
			if once == nil || int(once.Renewals) != revision-1 || !crt.Status.RenewalTime.Equal(&once.NotBefore) {
				return "it is not held"
			}
			return ""
		})
		if n := f.asked(pathNewOrder); n != revision {
			t.Errorf("there were %d orders for %d certificates", n, revision)
		}
		until := crt.Status.RenewalTime.Time
		if wait := until.Sub(clock.Now()); wait > hold {
			t.Errorf("it is held for another %s", wait)
		}
		return until
	}

	// The first is followed: it could have been revoked. The second is not, before an hour is over,
	// whatever happens meanwhile.
	until := held(2, time.Hour)
	if message := r.event(
		"Certificate",
		"site",
		"RenewalHeld",
	); !strings.Contains(
		message,
		"suggests renewal between 2025-01-01T00:00:00Z and 2025-01-02T00:00:00Z",
	) ||
		!strings.Contains(message, "renewalInformationSource: None") {
		t.Errorf("the event says %q", message)
	}
	clock.Step(50 * time.Minute)
	before := crt.Status.ACME.ARI.LastChecked.Time
	r.nudge(crt)
	r.until(crt, func() string {
		if !crt.Status.ACME.ARI.LastChecked.After(before) {
			return "the CA was not asked again"
		}
		return ""
	})
	held(2, time.Hour)

	// Then it is followed again, and the next is held for longer.
	clock.Step(11 * time.Minute)
	r.nudge(crt)
	if issued := held(3, 2*time.Hour).Add(-2 * time.Hour); issued.Before(until) {
		t.Errorf("the third certificate was issued at %s, want not before %s", issued, until)
	}

	// A user can turn that off.
	r.changeIssuer(
		func(spec *cmacme.ACMEIssuer) { spec.RenewalInformationSource = cmacme.ACMERenewalInformationSourceNone },
	)
	r.until(crt, func() string {
		if crt.Status.ACME != nil || crt.Status.RenewalTime == nil || crt.Status.RenewalTime.Sub(clock.Now()) < 24*time.Hour {
			return "it is held"
		}
		return ""
	})
}

// TestACAThatLimitsRenewalInformationIsAskedForNoMoreOfItAndForAllElse makes a CA refuse requests
// for renewal information for an hour.
func TestACAThatLimitsRenewalInformationIsAskedForNoMoreOfItAndForAllElse(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
				if !strings.HasPrefix(q.URL.Path, pathRenewalInfo) {
					return false
				}
				w.Header().Set("Retry-After", "3600")
				refuse(w, status, "rateLimited", "not now")
				return true
			}, nil)
			cluster.Run(t, options)
			r.issuer()
			first := r.certificate("first", "first.example.com")
			r.until(first, func() string {
				if first.Status.ACME == nil || first.Status.ACME.ARI == nil ||
					!strings.Contains(first.Status.ACME.ARI.LastError, "not now") {
					return "the CA has not refused to say when to renew"
				}
				return ""
			})
			for _, name := range []string{"second", "third"} {
				r.ready(r.certificate(name, name+".example.com"))
			}
			if n := f.asked(pathRenewalInfo); n != 1 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}
