package order_test

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// witness is a proxy in front of a CA. It counts requests, and ends the life of a process at one of
// its exchanges.
type witness struct {
	mu sync.Mutex
	// left is the number of exchanges until the end; after means that the CA still processes the last
	// one, but its answer is lost.
	left  int
	after bool
	end   func()
	// lives says that end is not that of the process: the exchange goes on.
	lives bool

	orders, finalized []string // paths
}

func (w *witness) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.left--
		dies := w.left == 0
		w.mu.Unlock()
		if dies && !w.after {
			if w.end(); !w.lives {
				panic(http.ErrAbortHandler)
			}
		}
		reply := httptest.NewRecorder()
		h.ServeHTTP(reply, r)
		w.mu.Lock()
		switch {
		case strings.HasPrefix(r.URL.Path, "/order-plz") && reply.Code == http.StatusCreated:
			w.orders = append(w.orders, reply.Header().Get("Location"))
		case strings.HasPrefix(r.URL.Path, "/finalize-order/") && reply.Code == http.StatusOK &&
			!slices.Contains(w.finalized, r.URL.Path):
			w.finalized = append(w.finalized, r.URL.Path)
		}
		w.mu.Unlock()
		if dies && w.after {
			if w.end(); !w.lives {
				panic(http.ErrAbortHandler)
			}
		}
		for k, v := range reply.Header() {
			rw.Header()[k] = v
		}
		rw.WriteHeader(reply.Code)
		_, _ = rw.Write(reply.Body.Bytes())
	})
}

// TestAKillAtAnyMomentCostsAtMostAnOrderThatIsNeverFinalized kills the controller at each of its
// writes, at each of its exchanges with the CA, and at each of its changes of the DNS, once before
// and once after the other side has seen it, starts it again, and checks the requests at the CA and
// the records in the zone.
func TestAKillAtAnyMomentCostsAtMostAnOrderThatIsNeverFinalized(t *testing.T) {
	for _, test := range []struct {
		by, of string
		least  int // of them there are
	}{
		{"HTTP-01", "write", 8}, {"HTTP-01", "exchange", 8},
		{"DNS-01", "write", 8}, {"DNS-01", "exchange", 8}, {"DNS-01", "update", 2},
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s: %s, after it: %t", test.by, test.of, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for killAt(t, kill{test.by, test.of, n, after}) {
					if n++; n > 80 {
						t.Fatal("the controller does not come to an end")
					}
				}
				if n <= test.least {
					t.Fatalf("there were only %d: nothing was tested", n-1)
				}
			})
		}
	}
}

// kill says when the controller is killed: at its n-th write, exchange with the CA or DNS update,
// with a given type of challenge.
type kill struct {
	by, of string
	n      int
	after  bool
}

// written reports whether there is an Order with the URL of its order at the CA.
func (r *rig) written() bool {
	r.t.Helper()
	var orders cmacme.OrderList
	if err := r.admin.List(r.t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(orders.Items, func(o cmacme.Order) bool { return o.Status.URL != "" })
}

// watched is a world with a CA that stays reachable when the controller ends, and a Certificate
// that no controller processes yet.
type watched struct {
	*rig
	crt     *cmapi.Certificate
	options controller.Options
}

func newWatched(t *testing.T, wrap func(http.Handler) http.Handler, change ...func(*cmapi.Certificate)) *watched {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: port, Wrap: wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	site := fmt.Sprintf("127.0.0.1:%d", port)
	r := &rig{t: t, ca: ca, names: names, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}
	// The other replicas, which live on, answer the CA.
	replicas := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var list cmacme.ChallengeList
		if err := r.admin.List(q.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, ch := range list.Items {
			if strings.HasSuffix(q.URL.Path, "/"+ch.Spec.Token) {
				fmt.Fprint(w, ch.Spec.Key)
				return
			}
		}
		http.NotFound(w, q)
	})}
	go func() { _ = replicas.Serve(listener) }()
	t.Cleanup(func() { replicas.Close() })
	options := controller.Options{
		Namespace: r.namespace, HTTP01Address: "127.0.0.1:0", Controllers: []string{"*", "-certificates-renewalinfo"},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, site)
		},
	}
	r.issuer()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	for _, f := range change {
		f(crt)
	}
	r.create(crt)
	return &watched{r, crt, options}
}

// until runs a controller until a life has ended, or the Certificate is issued. It reports whether
// the life has ended.
func (r *watched) until(life *cluster.Life) (first *cluster.Controller, died bool) {
	r.t.Helper()
	mortal := r.options
	mortal.WrapClient = life.Wrap
	first = cluster.Run(r.t, mortal)
	finished := make(chan struct{})
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	go func() {
		defer close(finished)
		watcher, err := r.admin.Watch(ctx, &cmapi.CertificateList{}, client.InNamespace(r.namespace))
		if err != nil {
			return
		}
		defer watcher.Stop()
		for e := range watcher.ResultChan() {
			if crt, ok := e.Object.(*cmapi.Certificate); ok && crt.Status.NotAfter != nil {
				return
			}
		}
	}()
	select {
	case <-life.Died():
		died = true
	case <-finished:
	}
	return first, died
}

// noChallenges is the error that Challenges are left.
func (r *watched) noChallenges(when string) error {
	var challenges cmacme.ChallengeList
	if err := r.admin.List(r.t.Context(), &challenges, client.InNamespace(r.namespace)); err != nil {
		return err
	}
	if len(challenges.Items) > 0 {
		return cluster.NotYet("%s: there are Challenges left", when)
	}
	return nil
}

// killAt issues a certificate, and kills the controller. It reports whether the moment of the kill
// was reached.
func killAt(t *testing.T, at kill) (died bool) {
	t.Helper()
	const foreign = "another client's"
	life := cluster.NewLife(math.MaxInt, at.after)
	saw := &witness{left: math.MaxInt, after: at.after, end: func() { life.End() }}
	switch at.of {
	case "write":
		life = cluster.NewLife(at.n, at.after)
	case "exchange":
		saw.left = at.n
	}
	r := newWatched(t, saw.wrap)
	r.names.AddTXT(challengeName, foreign)
	if at.by == "DNS-01" {
		r.changeIssuer(r.byDNS(""))
	}
	if at.of == "update" {
		var updates atomic.Int64
		r.names.Updating(func() dnsserver.Fate {
			switch {
			case updates.Add(1) != int64(at.n):
				return dnsserver.Done
			case at.after:
				defer life.End()
				return dnsserver.Unheard
			}
			life.End()
			return dnsserver.Lost
		})
	}
	first, died := r.until(life)
	when := fmt.Sprintf("killed at %s %d (after it: %t)", at.of, at.n, at.after)
	if !died { // cleaning up is under way
		cluster.Eventually(t, func() error {
			select {
			case <-life.Died():
				died = true
				return nil
			default:
			}
			return r.noChallenges(when)
		})
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	// One order more is allowed only if the one that the CA may have made was not written down.
	most := 1
	if died && !r.written() {
		most = 2
	}
	second := cluster.Run(t, r.options)
	defer func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}()
	r.ready(r.crt)
	cluster.Eventually(t, func() error { return r.noChallenges(when) })
	if got := r.names.TXT(challengeName); len(got) != 1 || got[0] != foreign {
		t.Errorf("%s: the zone has %q, and not what it had before", when, got)
	}
	saw.mu.Lock()
	defer saw.mu.Unlock()
	if len(saw.finalized) != 1 || len(saw.orders) > most {
		t.Errorf(
			"%s: the CA saw the orders %v, of which there may be %d, and finalized %v",
			when,
			saw.orders,
			most,
			saw.finalized,
		)
	}
	chain, key := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	if !key.Public().(*ecdsa.PublicKey).Equal(chain[0].PublicKey) {
		t.Errorf("%s: the key and the certificate do not belong together", when)
	}
	return died
}
