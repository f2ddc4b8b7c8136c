package controlplane

import (
	"net/http"
	"sync"
	"time"
)

// kube-apiserver reads its own list of schemas when it starts, and then every five seconds. Until
// it has seen the schema of a custom resource there, it refuses every object that a
// MutatingAdmissionPolicy matches. A schemaGate holds the answer to the first reading back until
// the definitions known at the start are in it; else nothing could be requested for the first five
// seconds of each start.
type schemaGate struct {
	open chan struct{}
	once sync.Once
}

// The next reading would come after five seconds in any case.
const schemaGateLimit = 4500 * time.Millisecond

func newSchemaGate() *schemaGate { return &schemaGate{open: make(chan struct{})} }

func (g *schemaGate) release() { g.once.Do(func() { close(g.open) }) }

// wrap is for the transport of the clients that kube-apiserver has of itself.
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
