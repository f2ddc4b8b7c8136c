package order_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// endless sends bytes as long as the client reads.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	chunk := []byte(strings.Repeat(`{"a":`, 16<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// drips sends single bytes with pauses.
func drips(w http.ResponseWriter, q *http.Request) {
	for {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-q.Context().Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// inUse returns the goroutines and the live heap of this process, which includes the controller and
// the servers of the test.
func inUse() (goroutines int, heap int64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), int64(m.HeapInuse)
}

// TestHostileCAsTakeNoMoreThanTheirShareOfGoroutinesAndMemory makes a tenant use many servers that
// answer endlessly, slowly, with redirect loops or not at all, and one that starts to do so during
// an order.
func TestHostileCAsTakeNoMoreThanTheirShareOfGoroutinesAndMemory(t *testing.T) {
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(q.URL.Path, pathCertificate) {
			// chains without end, each of which leads to itself and to the next
			for i := range 40 {
				reply.Header().Add("Link", fmt.Sprintf(`<https://%s%s?%d>; rel="alternate"`, q.Host, q.URL.Path, i))
				reply.Header().Add("Link", fmt.Sprintf(`<https://%s%s>; rel="up"`, q.Host, q.URL.Path))
			}
		}
	})
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("before", "before.example.com"))

	const each = 12
	var tries atomic.Int64
	goroutines, heap := inUse()
	for kind, handler := range map[string]http.HandlerFunc{
		"endless": endless,
		"drips":   drips,
		"circles": func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, q.URL.Path, http.StatusTemporaryRedirect)
		},
		"silent": func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
		"headers": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 64 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 64<<10))
			}
		},
	} {
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			tries.Add(1)
			handler(w, q)
		}))
		t.Cleanup(server.Close)
		t.Cleanup(server.CloseClientConnections)
		bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		for i := range each {
			r.issuerOf(r.namespace, fmt.Sprintf("%s-%d", kind, i), func(spec *cmacme.ACMEIssuer) {
				spec.Server, spec.CABundle = fmt.Sprintf("%s/%d", server.URL, i), bundle
			})
		}
	}
	// All of them are tried, again and again, while another one issues as before.
	for i := range 5 {
		r.ready(r.certificate(fmt.Sprintf("beside-%d", i), fmt.Sprintf("beside-%d.example.com", i)))
		tried := tries.Load()
		cluster.Eventually(t, func() error {
			if more := tries.Load() - tried; more < 5 {
				return cluster.NotYet("the others were tried %d times since", more)
			}
			return nil
		})
		g, h := inUse()
		// A connection has two goroutines here and three at the server of the test; the places of lanes
		// bound how many there are.
		if more := g - goroutines; more > 64*6 {
			t.Errorf("there are %d goroutines more", more)
		}
		if more := h - heap; more > 96<<20 {
			t.Errorf("there are %d MiB more in use", more>>20)
		}
	}
}
