// Package order_test issues certificates from a real ACME server, through Orders and Challenges on
// a real Kubernetes API.
package order_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/scheduler"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestACertificateIsIssuedByHTTP01(t *testing.T) {
	r := start(t, pebble.Options{RejectNonces: 20})
	r.issuer()
	crt := r.certificate("site", "www.example.com", "example.com")
	r.ready(crt)

	chain, _ := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	roots, err := r.ca.Roots()
	if err != nil {
		t.Fatal(err)
	}
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	trusted.AddCert(roots[0])
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for _, name := range []string{"www.example.com", "example.com"} {
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: trusted, Intermediates: between}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// One order, valid; the challenges are gone.
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(orders.Items) != 1 || orders.Items[0].Status.State != cmacme.Valid {
		t.Errorf("orders:\n%s", r.story())
	}
	cluster.Eventually(t, func() error {
		var list cmacme.ChallengeList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return cluster.NotYet("there are Challenges left:\n%s", r.story())
		}
		return nil
	})
}

// byDNS makes the issuer solve DNS-01 challenges by dynamic updates.
func (r *rig) byDNS(strategy cmacme.CNAMEStrategy) func(*cmacme.ACMEIssuer) {
	r.t.Helper()
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tsig"}, StringData: map[string]string{"key": tsigSecret}})
	return func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
			CNAMEStrategy: strategy, Nameservers: []string{r.names.Addr},
			RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
				Nameserver: r.names.Addr, TSIGKeyName: tsigKey, TSIGAlgorithm: "HMACSHA256",
				TSIGSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
			},
		}}}
	}
}

func TestAWildcardAndItsApexAreIssuedByDNS01AndForeignRecordsStay(t *testing.T) {
	r := start(t, pebble.Options{})
	r.names.AddTXT("_acme-challenge.example.com", "another client's")
	r.issuer(r.byDNS(""))
	r.ready(r.certificate("wildcard", "*.example.com", "example.com"))
	cluster.Eventually(t, func() error {
		if got := r.names.TXT("_acme-challenge.example.com"); len(got) != 1 || got[0] != "another client's" {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
}

func TestDNS01FollowsACNAMEToADelegatedZone(t *testing.T) {
	r := start(t, pebble.Options{})
	r.names.CNAME("_acme-challenge.example.com", "com.challenges.delegated.example")
	r.issuer(r.byDNS(cmacme.FollowStrategy))
	r.ready(r.certificate("aliased", "example.com"))
}

func TestANameThatNoSolverIsForSaysSo(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer()
	r.certificate("wildcard", "*.example.com")
	cluster.Eventually(t, func() error {
		if story := r.story(); !strings.Contains(story, `no solver of the issuer can be used for "*.example.com"`) {
			return cluster.NotYet("it says\n%s", story)
		}
		return nil
	})
	r.tells("Solver", `no solver of the issuer can be used for "*.example.com"`)
}

func TestALiveSiteIsCertifiedByTLSALPN01(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = []cmacme.ACMEChallengeSolver{
			{
				TLSALPN01:                &cmacme.ACMEChallengeSolverTLSALPN01{},
				WaitForRecordToPropagate: &metav1.Duration{Duration: time.Second},
			},
		}
	})
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName:  "site",
		DNSNames:    []string{"www.example.com"},
		IPAddresses: []string{"127.0.0.1"},
		IssuerRef:   cmmeta.IssuerReference{Name: "pebble"},
	}}
	r.create(crt)

	cluster.Eventually(t, func() error {
		connection, err := net.Dial("tcp", r.handshakes)
		if err != nil {
			return cluster.NotYet("the controller does not listen yet: %v", err)
		}
		return connection.Close()
	})

	// Other visitors still reach the site in the meantime.
	visitor := r.behind.Client()
	visitor.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, r.handshakes)
	}
	visit := func() {
		t.Helper()
		response, err := visitor.Get(r.behind.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		visitor.CloseIdleConnections()
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "the site" {
			t.Errorf("the site says %q, %v", body, err)
		}
	}
	cluster.Eventually(t, func() error {
		visit()
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("%s", r.story())
		}
		return nil
	})

	// A challenge that does not exist is not answered.
	conn, err := tls.Dial(
		"tcp",
		r.handshakes,
		&tls.Config{NextProtos: []string{"acme-tls/1"}, ServerName: "other.example.com", InsecureSkipVerify: true},
	)
	if err == nil {
		conn.Close()
		t.Error("there is an answer for a name without a challenge")
	}
}

func TestARenewalFollowsTheCAsSuggestion(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	r.ready(crt)
	ari := func() *cmapi.CertificateACMEARIStatus {
		t.Helper()
		r.until(crt, func() string { return r.outsideWindow(crt) })
		return crt.Status.ACME.ARI
	}
	first := ari()
	if !first.NextCheck.After(first.LastChecked.Time) {
		t.Errorf("it is asked again at %s", first.NextCheck)
	}

	// The CA revokes the certificate, and wants it to be renewed. When it is asked next, that happens
	// at once.
	chain, key := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	if err := by.RevokeWithKey(t.Context(), key, chain[0].Raw, acme.ReasonSuperseded); err != nil {
		t.Fatal(err)
	}
	r.update(crt, func() error {
		crt.Status.ACME.ARI.NextCheck = ptr.To(metav1.NewTime(time.Now().Add(-time.Minute)))
		return r.admin.Status().Update(t.Context(), crt)
	})
	r.until(crt, func() string {
		if crt.Status.Revision == nil || *crt.Status.Revision != 2 {
			return "it is not renewed"
		}
		return ""
	})
	second := ari()
	if second.SuggestedWindow.Start.Time.Before(time.Now()) {
		t.Error("the new certificate has the window of the one that was revoked")
	}
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	id, err := acme.CertID(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(orders.Items, func(o cmacme.Order) bool { return o.Spec.Replaces == id }) {
		t.Errorf("no order replaces %s", id)
	}

	// An issuer with the source None does not request it, and reports nothing.
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "pebble"}}
	r.update(issuer, func() error {
		issuer.Spec.ACME.RenewalInformationSource = cmacme.ACMERenewalInformationSourceNone
		return r.admin.Update(t.Context(), issuer)
	})
	r.until(crt, func() string {
		if crt.Status.ACME != nil {
			return "the status has what the CA suggested"
		}
		return ""
	})
}

// outsideWindow says why the renewal time is not within the window that the CA suggests, or "".
func (r *rig) outsideWindow(crt *cmapi.Certificate) string {
	if crt.Status.ACME == nil || crt.Status.ACME.ARI == nil || crt.Status.ACME.ARI.SuggestedWindow == nil ||
		crt.Status.RenewalTime == nil {
		return "the CA has suggested no window"
	}
	if at, w := crt.Status.RenewalTime, crt.Status.ACME.ARI.SuggestedWindow; at.Before(w.Start) || w.End.Before(at) {
		return fmt.Sprintf("the renewal at %s is not between %s and %s", at, w.Start, w.End)
	}
	return ""
}

// update reads an object and changes it, and does so again when another client was faster.
func (r *rig) update(o client.Object, change func() error) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		return change()
	})
}

// TestACAThatHangsStopsNoOther makes a CA hang with the maximum number of concurrent challenges: at
// the request for the orders, or when all challenges are presented and use all slots.
// setUpTime is how long it takes, from when challenges are set up, until the CA is asked.
const setUpTime = 90 * time.Second

func TestACAThatHangsStopsNoOther(t *testing.T) {
	for name, under := range map[string]string{
		"when orders are asked for": "order", "under challenges that are set up": "challenge",
	} {
		t.Run(name, func(t *testing.T) { hangs(t, under == "challenge") })
	}
}

// hangs has certificates issued by one CA while another hangs, when orders are asked for or when
// challenges are.
func hangs(t *testing.T, underChallenges bool) {
	clock := &cluster.Clock{}
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.Clock = clock })
	r.issuer()
	hanging := &hangingCA{release: make(chan struct{})}
	other, err := pebble.Start(pebble.Options{Resolver: r.names.Addr, Wrap: hanging.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	t.Cleanup(func() { close(hanging.release) })
	issuer := r.issuerOf(r.namespace, "hangs", func(spec *cmacme.ACMEIssuer) {
		spec.Server, spec.CABundle = other.Directory, other.CABundle
		spec.Solvers[0].WaitInsteadOfSelfCheck = &metav1.Duration{Duration: setUpTime}
	})
	r.hasAccount(issuer)
	hanging.hangs.Store(!underChallenges)
	slots := scheduler.DefaultMax
	if underChallenges {
		slots -= r.unfinishedChallenges()
	}
	hang := r.ask(issuer, "hangs", slots)
	if underChallenges {
		cluster.Eventually(t, func() error {
			if n := len(r.presentedBy(issuer)); n < len(hang) {
				return cluster.NotYet("%d challenges are set up:\n%s", n, r.story())
			}
			return nil
		})
		hanging.hangs.Store(true)
		clock.Step(setUpTime)
		r.nudgeAll(r.presentedBy(issuer))
	}
	cluster.Eventually(t, func() error {
		if hanging.hung.Load() == 0 {
			return cluster.NotYet("no request waits for the CA that hangs")
		}
		return nil
	})
	for i := range 3 {
		r.ready(r.certificate(fmt.Sprintf("works-%d", i), fmt.Sprintf("w%d.example.com", i)))
	}
	if n := len(r.presentedBy(issuer)); underChallenges && n < len(hang) {
		t.Errorf("%d challenges are still set up", n)
	}
	r.stillOpen(hang)
}

// unfinishedChallenges counts the Challenges that earlier tests left. They may hold slots.
func (r *rig) unfinishedChallenges() (n int) {
	r.t.Helper()
	var list cmacme.ChallengeList
	if err := r.admin.List(r.t.Context(), &list); err != nil {
		r.t.Fatal(err)
	}
	for i := range list.Items {
		if !acmestatus.IsFinal(list.Items[i].Status.State) {
			n++
		}
	}
	return n
}

// hangingCA is a CA that answers no more when hangs is set, until it is released.
type hangingCA struct {
	hangs   atomic.Bool
	hung    atomic.Int32 // requests that wait
	release chan struct{}
}

func (c *hangingCA) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if c.hangs.Load() {
			c.hung.Add(1)
			defer c.hung.Add(-1)
			select {
			case <-c.release:
			case <-q.Context().Done():
			}
		}
		h.ServeHTTP(w, q)
	})
}

// hasAccount waits until the CA has an account of an issuer.
func (r *rig) hasAccount(issuer *cmapi.Issuer) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if issuer.Status.ACME == nil || issuer.Status.ACME.URI == "" {
			return cluster.NotYet("there is no account: %+v", issuer.Status)
		}
		return nil
	})
}

// presentedBy returns the challenges of an issuer that are presented and pending.
func (r *rig) presentedBy(issuer *cmapi.Issuer) (challenges []cmacme.Challenge) {
	r.t.Helper()
	var list cmacme.ChallengeList
	if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	for _, ch := range list.Items {
		if ch.Spec.IssuerRef.Name == issuer.Name && ch.Status.Presented && ch.Status.State == cmacme.Pending {
			challenges = append(challenges, ch)
		}
	}
	return challenges
}

// nudgeAll changes challenges, because a step of the clock does not fire timers.
func (r *rig) nudgeAll(challenges []cmacme.Challenge) {
	r.t.Helper()
	for _, ch := range challenges {
		was := ch.DeepCopy()
		metav1.SetMetaDataAnnotation(&ch.ObjectMeta, "nudged", "yes")
		if err := r.admin.Patch(r.t.Context(), &ch, client.MergeFrom(was)); err != nil {
			r.t.Fatal(err)
		}
	}
}
