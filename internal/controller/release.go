package controller

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// A pod has 30 seconds between SIGTERM and SIGKILL by default.
const (
	// endTimeout bounds the end of everything but leader election.
	endTimeout = 20 * time.Second
	// releaseTimeout bounds each of the two requests that release the Lease. client-go waits for them
	// as long as for a renewal.
	releaseTimeout = 3 * time.Second
)

// releasing is a transport that bounds requests for the Lease after the end of ctx, which is that
// of the process.
type releasing struct {
	ctx     context.Context
	path    string // the end of the URL path of the Lease
	timeout time.Duration
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *releasing) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.ctx.Err() == nil || !strings.HasSuffix(r.URL.Path, t.path) {
		return t.next.RoundTrip(r)
	}
	ctx, cancel := context.WithCancel(r.Context())
	time.AfterFunc(t.timeout, cancel) // not earlier: the caller reads the body
	return t.next.RoundTrip(r.WithContext(ctx))
}
