package controlplane

import (
	"net/http"
	"sync"
	"time"
)

// kube-apiserver reads its own list of schemas when it starts, and then every five seconds. Until
// it has seen the schema of a custom resource there, it refuses every object that a
// MutatingAdmissionPolicy matches. A schemaGate delays the response to the first read until it
// contains the definitions that are known at the start. Otherwise the API would refuse requests for
// certificates in the first five seconds after each start.
type schemaGate struct {
	open chan struct{}
	once sync.Once
}

// A longer delay is pointless, because kube-apiserver reads again after five seconds.
const schemaGateLimit = 4500 * time.Millisecond

func newSchemaGate() *schemaGate { return &schemaGate{open: make(chan struct{})} }

func (g *schemaGate) release() { g.once.Do(func() { close(g.open) }) }

// wrap wraps the transport of the clients that kube-apiserver uses to call itself.
func (g *schemaGate) wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet && r.URL.Path == "/openapi/v3" {
			select {
			case <-g.open:
			default:
				limit := time.NewTimer(schemaGateLimit)
				defer limit.Stop()
				select {
				case <-g.open:
				case <-limit.C:
				case <-r.Context().Done():
				}
			}
		}
		return rt.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
