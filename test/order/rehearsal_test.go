package order_test

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// counter counts the requests for orders at a CA, and can refuse them.
type counter struct {
	orders  atomic.Int32
	refuses atomic.Bool
}

func (c *counter) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			c.orders.Add(1)
			if c.refuses.Load() {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(
					w,
					`{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "the name is forbidden by policy"}`,
				)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// staging starts a second CA, and creates an issuer of it.
func (r *rig) staging(o pebble.Options) *pebble.Server {
	r.t.Helper()
	o.Resolver, o.HTTPPort = r.names.Addr, r.port
	ca, err := pebble.Start(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ca.Close() })
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "staging"}}
	issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server:     ca.Directory,
		CABundle:   ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "staging-account"}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		},
	}
	r.create(issuer)
	return ca
}

func (r *rig) rehearsed(name, at string, change ...func(*cmapi.Certificate)) *cmapi.Certificate {
	r.t.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name,
		DNSNames:   []string{name + ".example.com"},
		IssuerRef:  cmmeta.IssuerReference{Name: "pebble"},
		PrivateKey: &cmapi.CertificatePrivateKey{
			Algorithm: cmapi.ECDSAKeyAlgorithm,
		},
		RehearsalIssuerRef: &cmmeta.IssuerReference{Name: at},
	}}
	for _, f := range change {
		f(crt)
	}
	r.create(crt)
	return crt
}

// until waits until check returns "" for the Certificate.
func (r *rig) until(crt *cmapi.Certificate, check func() string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if wrong := check(); wrong != "" {
			return cluster.NotYet("%s; the status is %+v\n%s", wrong, crt.Status, r.story())
		}
		return nil
	})
}

func (r *rig) revision(crt *cmapi.Certificate, n int) {
	r.t.Helper()
	r.until(crt, func() string {
		if crt.Status.Revision == nil || *crt.Status.Revision != n ||
			cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing) != nil {
			return "it is not of the revision"
		}
		return ""
	})
}

// renew requests a new certificate, like perennial renew.
func (r *rig) renew(crt *cmapi.Certificate) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		cmapi.RemoveCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		cmapi.SetCertificateCondition(&crt.Status, time.Now(), cmapi.CertificateCondition{
			Type:    cmapi.CertificateConditionIssuing,
			Status:  cmmeta.ConditionTrue,
			Reason:  "ManuallyTriggered",
			Message: "Certificate re-issuance manually triggered",
		})
		return r.admin.Status().Update(r.t.Context(), crt)
	})
}

func TestAChangedSpecificationSucceedsAtTheStagingServerFirst(t *testing.T) {
	production, rehearsal := &counter{}, &counter{}
	r := start(t, pebble.Options{Wrap: production.wrap})
	r.issuer()
	r.staging(pebble.Options{Wrap: rehearsal.wrap})
	orders := func(staging, real int32) {
		t.Helper()
		if s, p := rehearsal.orders.Load(), production.orders.Load(); s != staging || p != real {
			t.Errorf("there were %d orders at the staging server and %d at the CA, want %d and %d", s, p, staging, real)
		}
	}

	// The staging server refuses: the CA never hears of it.
	rehearsal.refuses.Store(true)
	crt := r.rehearsed("site", "staging")
	r.until(crt, func() string {
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil || c.Reason != "RehearsalFailed" ||
			!strings.Contains(
				c.Message,
				`The rehearsal at Issuer "staging" has failed, so that Issuer "pebble" is not asked: `,
			) ||
			!strings.Contains(c.Message, "the name is forbidden by policy") ||
			!strings.Contains(c.Message, "To try now: perennial renew site") {
			return "it does not say what the staging server says"
		}
		if n := crt.Status.FailedIssuanceAttempts; n == nil || *n != 1 || crt.Status.LastFailureTime == nil {
			return "the failure is not counted"
		}
		return ""
	})
	orders(1, 0)

	// The cause is fixed, and a person triggers another attempt.
	rehearsal.refuses.Store(false)
	r.renew(crt)
	r.revision(crt, 1)
	orders(2, 1)
	chain, key := cluster.Pair(t, client.ObjectKeyFromObject(crt))
	r.checkTrusted(chain)
	// The certificate of the trial run is discarded, and so is its key.
	r.trialDiscarded()

	// A renewal has nothing to rehearse, also by another key; other names have, also by a key that is
	// kept.
	r.renew(crt)
	r.revision(crt, 2)
	orders(2, 2)
	if _, renewed := cluster.Pair(t, client.ObjectKeyFromObject(crt)); pki.SamePublicKey(renewed.Public(), key.Public()) {
		t.Error("the renewal has the same key")
	}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		crt.Spec.DNSNames = append(crt.Spec.DNSNames, "www.example.com")
		return r.admin.Update(t.Context(), crt)
	})
	r.revision(crt, 3)
	orders(3, 3)

	// The CA refuses what the staging server signs: that is not rehearsed again.
	production.refuses.Store(true)
	other := r.rehearsed("other", "staging")
	r.until(other, func() string {
		if c := cmapi.GetCertificateCondition(
			&other.Status,
			cmapi.CertificateConditionIssuing,
		); c == nil ||
			c.Reason != "Failed" {
			return "it has not failed"
		}
		return ""
	})
	orders(4, 4)
	production.refuses.Store(false)
	r.renew(other)
	r.revision(other, 1)
	orders(4, 5)
	for _, reason := range []string{"Rehearsing", "RehearsalFailed", "Rehearsed"} {
		r.event("Certificate", "site", reason)
	}
}

// trialDiscarded waits until the request of the rehearsal and its key are gone.
func (r *rig) trialDiscarded() {
	t := r.t
	t.Helper()
	cluster.Eventually(t, func() error {
		var requests cmapi.CertificateRequestList
		var secrets corev1.SecretList
		for _, list := range []client.ObjectList{&requests, &secrets} {
			if err := r.admin.List(t.Context(), list, client.InNamespace(r.namespace)); err != nil {
				return err
			}
		}
		if len(requests.Items) != 1 || len(secrets.Items) != 3 {
			return cluster.NotYet(
				"there are %d requests and %d Secrets, want that of the certificate and the two of the accounts\n%s",
				len(requests.Items),
				len(secrets.Items),
				r.story(),
			)
		}
		return nil
	})
}

// checkTrusted expects of a chain that it leads to the CA's root.
func (r *rig) checkTrusted(chain []*x509.Certificate) {
	r.t.Helper()
	roots, err := r.ca.Roots()
	if err != nil {
		r.t.Fatal(err)
	}
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	trusted.AddCert(roots[0])
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: trusted, Intermediates: between}); err != nil {
		r.t.Errorf("the certificate is not of the CA: %v", err)
	}
}

func TestTheExamplesAreRehearsedIssuedAndRevoked(t *testing.T) {
	production, rehearsal, revoked := &counter{}, &counter{}, &registrar{}
	r := start(t, pebble.Options{Wrap: func(h http.Handler) http.Handler { return production.wrap(revoked.wrap(h)) }})
	staging, err := pebble.Start(pebble.Options{Resolver: r.names.Addr, HTTPPort: r.port, Wrap: rehearsal.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { staging.Close() })
	data, err := os.ReadFile("../../examples/rehearsal/certificate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string]*pebble.Server{
		"https://acme-v02.api.letsencrypt.org/directory":         r.ca,
		"https://acme-staging-v02.api.letsencrypt.org/directory": staging,
	}
	crt := &cmapi.Certificate{}
	for document := range strings.SplitSeq(string(data), "---\n") {
		issuer := &cmapi.ClusterIssuer{}
		if err := yaml.UnmarshalStrict([]byte(document), issuer); err != nil || issuer.Kind != "ClusterIssuer" {
			if err := yaml.UnmarshalStrict([]byte(document), crt); err != nil {
				t.Fatal(err)
			}
			continue
		}
		ca := servers[issuer.Spec.ACME.Server]
		issuer.Spec.ACME.Server, issuer.Spec.ACME.CABundle = ca.Directory, ca.CABundle
		if err := r.admin.Create(t.Context(), issuer); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.admin.Delete(context.Background(), issuer) })
	}
	ingress := &networkingv1.Ingress{}
	data, err = os.ReadFile("../../examples/rehearsal/ingress.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(data, ingress)
	}
	if err != nil {
		t.Fatal(err)
	}
	issued := func(crt *cmapi.Certificate, orders int32) (serial string) {
		t.Helper()
		r.revision(crt, 1)
		if s, p := rehearsal.orders.Load(), production.orders.Load(); s != orders || p != orders {
			t.Errorf("there were %d orders at the staging server and %d at the CA", s, p)
		}
		chain, _ := cluster.Pair(t, client.ObjectKeyFromObject(crt))
		return chain[0].SerialNumber.String()
	}
	r.create(crt)
	first := issued(crt, 1)
	r.create(ingress)
	ofIngress := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: ingress.Spec.TLS[0].SecretName},
	}
	cluster.Eventually(t, func() error {
		err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(ofIngress), ofIngress)
		if apierrors.IsNotFound(err) {
			return cluster.NotYet("the Ingress has no Certificate")
		}
		return err
	})
	second := issued(ofIngress, 2)
	r.delete(crt)
	r.delete(ingress)
	for serial, crt := range map[string]*cmapi.Certificate{first: crt, second: ofIngress} {
		r.gone(crt)
		if got := revoked.of(serial); len(got) != 1 || got[0].reason != acme.ReasonCessationOfOperation {
			t.Errorf("for %s the CA was asked to revoke %+v", crt.Name, got)
		}
	}
}

func TestAStagingServerThatCannotBeReachedIsWaitedForHalfAnHour(t *testing.T) {
	clock := &cluster.Clock{}
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.Clock = clock })
	r.issuer()
	// One server disappears after the account was created, and one was never reachable.
	staging := r.staging(pebble.Options{})
	cluster.Eventually(t, func() error {
		issuer := &cmapi.Issuer{}
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "staging"}, issuer); err != nil {
			return err
		}
		if c := cmapi.GetIssuerCondition(
			&issuer.Status,
			cmapi.IssuerConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("the issuer has no account: %+v", issuer.Status)
		}
		return nil
	})
	if err := staging.Close(); err != nil {
		t.Fatal(err)
	}
	never := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "never"}}
	never.Spec.ACME = &cmacme.ACMEIssuer{
		Server:     "https://127.0.0.1:1/dir",
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "never-account"}},
	}
	r.create(never)
	// A third one answers, and what it says is that a limit is spent.
	limits := &refuser{}
	limits.set(func(w http.ResponseWriter, path string) bool {
		if strings.HasPrefix(path, pathNewOrder) {
			w.Header().Set("Retry-After", "7200")
			refuse(w, http.StatusTooManyRequests, "rateLimited", "too many orders")
			return true
		}
		return false
	})
	busy, err := pebble.Start(pebble.Options{Resolver: r.names.Addr, HTTPPort: r.port, Wrap: limits.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	limited := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "limited"}}
	limited.Spec.ACME = r.getIssuer().Spec.ACME
	limited.Spec.ACME.Server, limited.Spec.ACME.CABundle = busy.Directory, busy.CABundle
	limited.Spec.ACME.PrivateKey.Name = "limited-account"
	r.create(limited)
	waits := r.rehearsed("limited", "limited")
	r.until(waits, func() string {
		c := cmapi.GetCertificateCondition(&waits.Status, cmapi.CertificateConditionIssuing)
		if c == nil || c.Status != cmmeta.ConditionTrue || !strings.Contains(c.Message, "too many orders") ||
			strings.Contains(c.Message, "without a rehearsal") {
			return "it does not say that it waits for the limit alone"
		}
		return ""
	})
	all := []*cmapi.Certificate{r.rehearsed("gone", "staging"), r.rehearsed("never", "never")}
	for _, crt := range all {
		r.until(crt, func() string {
			c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
			if c == nil || c.Status != cmmeta.ConditionTrue ||
				!strings.Contains(c.Message, `If that lasts, Issuer "pebble" is asked without a rehearsal at `) {
				return "it does not say how long it waits"
			}
			return ""
		})
	}
	clock.Step(30 * time.Minute)
	for _, crt := range all {
		cluster.Eventually(t, func() error { // a step of the clock does not fire timers
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			crt.Annotations = map[string]string{"nudged": "true"}
			return r.admin.Update(t.Context(), crt)
		})
		r.revision(crt, 1)
		if message := r.event(
			"Certificate",
			crt.Name,
			"RehearsalSkipped",
		); !strings.Contains(
			message,
			"is asked without a rehearsal",
		) {
			t.Errorf("the event says %q", message)
		}
	}
	limits.set(nil)
	clock.Step(2 * time.Hour)
	r.nudge(r.orderOf("limited"))
	r.revision(waits, 1)
	if message := r.event("Certificate", "limited", "Rehearsed"); !strings.Contains(message, "has succeeded") {
		t.Errorf("the event says %q", message)
	}
}
