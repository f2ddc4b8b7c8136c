package order_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// Prefixes of Pebble's paths.
const (
	pathDirectory     = "/dir"
	pathNewAccount    = "/sign-me-up"
	pathNewOrder      = "/order-plz"
	pathOrder         = "/my-order/"
	pathAuthorization = "/authZ/"
	pathChallenge     = "/chalZ/"
	pathFinalize      = "/finalize-order/"
	pathCertificate   = "/certZ/"
	pathRenewalInfo   = "/draft-ietf-acme-ari-03/"
)

// front is a proxy in front of a CA. It counts requests, and answers or changes replies as a test
// requires.
type front struct {
	mu sync.Mutex
	// answer, if set, is asked before the CA, with what is signed of the request. It reports whether
	// it has answered.
	answer func(w http.ResponseWriter, r *http.Request, payload map[string]any) bool
	// change, if set, may change the reply of the CA.
	change func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder)
	// seen are how many requests there were, by the beginning of their path.
	seen map[string]int
}

func (f *front) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload := signed(r)
		f.mu.Lock()
		if f.seen == nil {
			f.seen = map[string]int{}
		}
		for _, p := range []string{
			pathDirectory, pathNewAccount, pathNewOrder, pathOrder, pathAuthorization, pathChallenge, pathFinalize,
			pathCertificate, pathRenewalInfo,
		} {
			if strings.HasPrefix(r.URL.Path, p) {
				f.seen[p]++
			}
		}
		answer, change := f.answer, f.change
		f.mu.Unlock()
		if answer != nil && answer(w, r, payload) {
			return
		}
		reply := httptest.NewRecorder()
		h.ServeHTTP(reply, r)
		if change != nil {
			change(r, payload, reply)
		}
		maps.Copy(w.Header(), reply.Header())
		w.Header().Del("Content-Length") // it may have changed
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes())
	})
}

// behave sets the behavior of the front from now on.
func (f *front) behave(
	answer func(http.ResponseWriter, *http.Request, map[string]any) bool,
	change func(*http.Request, map[string]any, *httptest.ResponseRecorder),
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.change = answer, change
}

// asked returns the number of requests below a path.
func (f *front) asked(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[path]
}

// signed returns the signed payload of a request, nil if there is none.
func signed(r *http.Request) map[string]any {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var message struct {
		Payload string `json:"payload"`
	}
	var payload map[string]any
	if json.Unmarshal(body, &message) == nil {
		if raw, err := base64.RawURLEncoding.DecodeString(
			message.Payload,
		); err == nil &&
			json.Unmarshal(raw, &payload) != nil {
			return nil
		}
	}
	return payload
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, status int, kind, detail string, more ...string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(
		w,
		`{"type": "urn:ietf:params:acme:error:%s", "detail": %q, "status": %d %s}`,
		kind,
		detail,
		status,
		strings.Join(more, ""),
	)
}

// edit changes the JSON of a reply.
func edit(t *testing.T, reply *httptest.ResponseRecorder, f func(map[string]any)) {
	var object map[string]any
	if err := json.Unmarshal(reply.Body.Bytes(), &object); err != nil {
		t.Errorf("%s: %v", reply.Body, err)
		return
	}
	f(object)
	reply.Body.Reset()
	if err := json.NewEncoder(reply.Body).Encode(object); err != nil {
		t.Error(err)
	}
}

// shop returns a rig with a CA behind a front, in a new namespace, and the options of a controller
// for it. Many can run in parallel.
func shop(t *testing.T, f *front, o pebble.Options) (*rig, controller.Options) {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	o.Resolver, o.HTTPPort, o.Wrap = names.Addr, cluster.FreePort(t), f.wrap
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	r := &rig{t: t, port: o.HTTPPort, ca: ca, names: names, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}
	site := fmt.Sprintf("127.0.0.1:%d", o.HTTPPort)
	return r, controller.Options{
		Namespace:     r.namespace,
		HTTP01Address: site,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, site)
		},
	}
}

// getIssuer reads the issuer.
func (r *rig) getIssuer() *cmapi.Issuer {
	r.t.Helper()
	issuer := &cmapi.Issuer{}
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "pebble"}, issuer); err != nil {
		r.t.Fatal(err)
	}
	return issuer
}

// changeIssuer changes the spec of the issuer.
func (r *rig) changeIssuer(f func(*cmacme.ACMEIssuer)) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		issuer := r.getIssuer()
		f(issuer.Spec.ACME)
		return r.admin.Update(r.t.Context(), issuer)
	})
}

// issuerSays waits until the condition Ready of the issuer has the status and all of the words, for
// the current generation.
func (r *rig) issuerSays(status cmmeta.ConditionStatus, words ...string) *cmacme.ACMEIssuerStatus {
	r.t.Helper()
	var issuer *cmapi.Issuer
	cluster.Eventually(r.t, func() error {
		issuer = r.getIssuer()
		c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady)
		if c == nil || c.Status != status || c.ObservedGeneration != issuer.Generation {
			return cluster.NotYet("the condition of the issuer is %+v, wanted %s", c, status)
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return cluster.NotYet("the issuer says %s", c.Message)
			}
		}
		return nil
	})
	if issuer.Status.ACME == nil {
		return &cmacme.ACMEIssuerStatus{}
	}
	return issuer.Status.ACME
}

// says waits until the objects of the issuance contain all of the words.
func (r *rig) says(words ...string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		story := r.story()
		for _, w := range words {
			if !strings.Contains(story, w) {
				return cluster.NotYet("no %q in\n%s", w, story)
			}
		}
		return nil
	})
}

// failed waits until the Certificate reports that its issuance has failed, and why.
func (r *rig) failed(crt *cmapi.Certificate, why string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil || c.Status != cmmeta.ConditionFalse || !strings.Contains(c.Message, why) {
			return cluster.NotYet("the condition is %+v", c)
		}
		return nil
	})
}

// again requests the certificate again, like perennial renew.
func (r *rig) again(crt *cmapi.Certificate) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		now := metav1.Now()
		crt.Status.Conditions = slices.DeleteFunc(
			crt.Status.Conditions,
			func(c cmapi.CertificateCondition) bool { return c.Type == cmapi.CertificateConditionIssuing },
		)
		crt.Status.Conditions = append(crt.Status.Conditions, cmapi.CertificateCondition{
			Type:               cmapi.CertificateConditionIssuing,
			Status:             cmmeta.ConditionTrue,
			Reason:             "ManuallyTriggered",
			Message:            "again",
			LastTransitionTime: &now,
		})
		return r.admin.Status().Update(r.t.Context(), crt)
	})
}
