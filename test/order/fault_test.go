package order_test

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// delay is the response time of a slow server.
const delay = 500 * time.Millisecond

// TestACertificateComesThoughEveryRequestFailsTheFirstTime makes the CA fail once for each
// requested URL, with each kind of server and network error. The certificate must be issued, and
// exactly one order finalized.
func TestACertificateComesThoughEveryRequestFailsTheFirstTime(t *testing.T) {
	problem := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			kind := "serverInternal"
			if status == http.StatusTooManyRequests {
				kind = "rateLimited"
			}
			fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": "not now", "status": %d}`, kind, status)
		}
	}
	for name, fails := range map[string]http.HandlerFunc{
		"it takes long":    nil, // and is answered then
		"it is dropped":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"429 with seconds": problem(http.StatusTooManyRequests, "Retry-After", "1"),
		"429 with a date": func(w http.ResponseWriter, r *http.Request) {
			problem(http.StatusTooManyRequests, "Retry-After", time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))(w, r)
		},
		"503 with seconds": problem(http.StatusServiceUnavailable, "Retry-After", "1"),
		"500":              problem(http.StatusInternalServerError),
		"a page of a proxy": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "<html>bad gateway</html>")
		},
		"a body that ends too early": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"status": `)
		},
		"a body without end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 1 << 10 {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 16<<10)); err != nil {
					return
				}
			}
		},
		"URLs of another server": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "https://evil.example/1")
			fmt.Fprint(w, `{"status": "pending", "finalize": "https://evil.example/f", "authorizations": ["https://evil.example/z"], "newNonce": "http://evil.example/n",
				"newAccount": "http://evil.example/a", "newOrder": "http://evil.example/o", "challenges": [{"type": "http-01", "url": "https://evil.example/c", "token": "x"}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			everyFirstFails(t, fails)
		})
	}
}

// everyFirstFails issues a certificate while each request fails the first time.
func everyFirstFails(t *testing.T, fails http.HandlerFunc) {
	var mu sync.Mutex
	failed := map[string]bool{}
	saw := &witness{left: math.MaxInt}
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	port := cluster.FreePort(t)
	site := fmt.Sprintf("127.0.0.1:%d", port)
	ca, err := pebble.Start(
		pebble.Options{Resolver: names.Addr, HTTPPort: port, Wrap: func(h http.Handler) http.Handler {
			next := saw.wrap(h)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				first := !failed[r.Method+r.URL.Path]
				failed[r.Method+r.URL.Path] = true
				mu.Unlock()
				switch {
				case first && fails == nil:
					select {
					case <-time.After(delay): // a server that is slow
					case <-r.Context().Done():
						return
					}
				case first:
					fails(w, r)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	r := &rig{t: t, ca: ca, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}
	running := cluster.Run(
		t,
		controller.Options{
			Namespace:     r.namespace,
			HTTP01Address: site,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, site)
			},
		},
	)
	defer func() { _ = running.Stop() }()
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	saw.mu.Lock()
	defer saw.mu.Unlock()
	if len(saw.finalized) != 1 || len(saw.orders) != 1 {
		t.Errorf("the CA saw the orders %v, and finalized %v", saw.orders, saw.finalized)
	}
	chain, key := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	if !key.Public().(*ecdsa.PublicKey).Equal(chain[0].PublicKey) {
		t.Error("the key and the certificate do not belong together")
	}
	var requests cmapi.CertificateRequestList
	if err := r.admin.List(t.Context(), &requests, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(requests.Items) != 1 {
		t.Errorf("there were %d requests, each with a key of its own", len(requests.Items))
	}
}

// TestACAWhoseWordsChangeIsAskedNoMoreOftenForThat makes the CA fail with a different text each
// time, like network errors that contain a port or a stream number. The text is written to the
// Order or Challenge, and that write must not cause an early retry.
func TestACAWhoseWordsChangeIsAskedNoMoreOftenForThat(t *testing.T) {
	const times = 4 // the waits between them are half a second, one and two
	var mu sync.Mutex
	asked := map[string][]time.Time{}
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
		for _, path := range []string{pathNewOrder, pathChallenge} {
			if !strings.HasPrefix(q.URL.Path, path) {
				continue
			}
			mu.Lock()
			asked[path] = append(asked[path], time.Now())
			n := len(asked[path])
			mu.Unlock()
			if n < times {
				refuse(w, http.StatusInternalServerError, "serverInternal", fmt.Sprintf("trouble %d", n))
				return true
			}
		}
		return false
	}, nil)
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	mu.Lock()
	defer mu.Unlock()
	for _, what := range []string{pathNewOrder, pathChallenge} {
		at := asked[what]
		if len(at) != times {
			t.Errorf("%s was asked %d times, want %d", what, len(at), times)
			// The event of a write before the first attempt may come late and bring one attempt forward; the
			// attempt that was due then follows after the wait of the one before.
		} else if took := at[times-1].Sub(at[0]); took < 1500*time.Millisecond {
			t.Errorf("%s was asked %d times within %s", what, times, took)
		}
	}
}
