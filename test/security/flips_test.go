package security_test

import (
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// witness counts the requests to a CA.
type witness struct {
	mu                sync.Mutex
	orders, finalized []string
}

func (w *witness) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		reply := httptest.NewRecorder()
		h.ServeHTTP(reply, r)
		w.mu.Lock()
		switch {
		case strings.HasPrefix(r.URL.Path, "/order-plz") && reply.Code == http.StatusCreated:
			w.orders = append(w.orders, reply.Header().Get("Location"))
		case strings.HasPrefix(r.URL.Path, "/finalize-order/") && reply.Code == http.StatusOK && !slices.Contains(w.finalized,
			r.URL.Path):
			w.finalized = append(w.finalized, r.URL.Path)
		}
		w.mu.Unlock()
		for k, v := range reply.Header() {
			rw.Header()[k] = v
		}
		rw.WriteHeader(reply.Code)
		_, _ = rw.Write(reply.Body.Bytes())
	})
}

// story returns the events about a Certificate and its requests, and the lines about them in the
// logs of processes.
func (w *world) story(certificate string, of ...*process) string {
	w.Helper()
	var b strings.Builder
	var events corev1.EventList
	if err := w.List(w.Context(), &events, client.InNamespace(w.namespace)); err != nil {
		w.Fatal(err)
	}
	about := func(s string) bool {
		return strings.Contains(s, certificate+"-") || strings.Contains(s, certificate+" ") ||
			strings.HasSuffix(s, certificate)
	}
	for _, e := range events.Items {
		if about(e.InvolvedObject.Name) {
			fmt.Fprintf(&b, "%s %s %s: %s %s (%d)\n", e.LastTimestamp.UTC().Format(time.TimeOnly), e.InvolvedObject.Kind,
				e.InvolvedObject.Name, e.Reason, e.Message, e.Count)
		}
	}
	for i, p := range of {
		for line := range strings.Lines(p.out.String()) {
			if about(line) {
				fmt.Fprintf(&b, "%d: %s", i, line)
			}
		}
	}
	return b.String()
}

// TestALeaderThatWasStoppedWritesNothingTwice stops the leader of two processes again and again
// while certificates are issued, for longer than its Lease, and resumes it when the other leads:
// for a moment, both act as leader. No certificate is issued twice, and no object is created twice.
func TestALeaderThatWasStoppedWritesNothingTwice(t *testing.T) {
	const certificates, flips = 40, 4
	w := newWorld(t)
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	saw := &witness{}
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, Wrap: saw.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	w.acmeIssuer("flips", &cmacme.ACMEIssuer{
		Server: ca.Directory, CABundle: ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "flips-account"}},
		Solvers: []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
			Nameservers: []string{names.Addr},
			RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
				Nameserver: names.Addr, TSIGKeyName: tsigKey, TSIGAlgorithm: "HMACSHA256", TSIGSecret: w.secret("flips-tsig", "key",
					tsigSecret),
			},
		}}},
	})
	w.create(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "flips-selfsigned"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})

	flags := []string{"--leader-elect=true", "--leader-election-lease-duration=4s", "--leader-election-renew-deadline=3s",
		"--leader-election-retry-period=500ms",
		"--metrics-listen-address=", "--v=1", "--dns01-recursive-nameservers=" + names.Addr,
		"--dns01-recursive-nameservers-only"}
	k, err := kubernetes.NewForConfig(cluster.Plane(t).AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	holder := func() string {
		lease, err := k.CoordinationV1().Leases("kube-system").Get(t.Context(), "cert-manager-controller",
			metav1.GetOptions{})
		if err != nil {
			return ""
		}
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	otherThan := func(was string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if now := holder(); now == "" || now == was {
				return cluster.NotYet("the Lease is held by %q", now)
			}
			return nil
		})
	}
	leader := startProcess(t, flags...)
	otherThan("")
	follower := startProcess(t, flags...)

	for i := range certificates {
		issuer := "flips"
		if i%4 == 3 {
			issuer = "flips-selfsigned"
		}
		w.certificate(fmt.Sprintf("flip-%d", i), issuer)
	}
	for range flips {
		was := holder()
		leader.signal(syscall.SIGSTOP)
		otherThan(was)
		leader.signal(syscall.SIGCONT) // it goes on where it stopped, and finds that it leads no longer
		leader, follower = follower, leader
	}

	for _, crt := range w.allReady() {
		if n := ptr.Deref(crt.Status.Revision, 0); n != 1 {
			t.Errorf("Certificate %s has revision %d: it was issued twice, or stored by a leader that did not note it\n%s",
				crt.Name, n, w.story(crt.Name, leader, follower))
		}
		chain, key := cluster.Pair(t, client.ObjectKey{Namespace: w.namespace, Name: crt.Spec.SecretName})
		if !key.Public().(interface{ Equal(x crypto.PublicKey) bool }).Equal(chain[0].PublicKey) {
			t.Errorf("the key and the certificate of %s do not belong together", crt.Name)
		}
	}
	var requests cmapi.CertificateRequestList
	if err := w.List(t.Context(), &requests, client.InNamespace(w.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(requests.Items) != certificates {
		t.Errorf("there are %d CertificateRequests of %d Certificates", len(requests.Items), certificates)
	}
	var orders cmacme.OrderList
	if err := w.List(t.Context(), &orders, client.InNamespace(w.namespace)); err != nil {
		t.Fatal(err)
	}
	const byACME = certificates * 3 / 4
	if len(orders.Items) != byACME {
		t.Errorf("there are %d Orders of %d Certificates", len(orders.Items), byACME)
	}
	saw.mu.Lock()
	defer saw.mu.Unlock()
	if len(saw.finalized) != byACME {
		t.Errorf("the CA issued %d certificates, want %d", len(saw.finalized), byACME)
	}
	// A leader that is stopped loses the replies that are under way to it, and the next one cannot
	// know of them: it may order once more what was not finalized. What is finalized is never ordered
	// again.
	if most := byACME * (flips + 1); len(saw.orders) > most {
		t.Errorf("the CA saw %d new orders of %d Certificates under %d leaders", len(saw.orders), byACME, flips+1)
	}
	t.Logf("%d new orders, %d finalized, of %d Certificates by ACME and %d flips", len(saw.orders), len(saw.finalized),
		byACME, flips)
}
