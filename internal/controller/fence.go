package controller

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// errFenced is the error of a refused write.
var errFenced = errors.New("this process was stopped for longer than its Lease lasts: another one may lead, so " +
	"nothing is written")

// fence refuses writes to the Kubernetes API once the Lease of this process has run out. A process
// that was suspended continues with stale caches while another one is the leader, until it notices
// that it has lost the Lease. The fence also stops new ACME orders, as their rate-limit usage is
// written before they are sent.
type fence struct {
	path  string // the end of the URL path of the Lease
	lasts time.Duration
	// until is when another process may lead, in nanoseconds since 1970; 0 until this one leads.
	until atomic.Int64
	now   func() time.Time
}

// fenced is a transport behind a fence. All transports of the process share the fence.
type fenced struct {
	*fence
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	// Use the wall clock: the monotonic clock stands still while a machine is suspended.
	began := f.now().Round(0)
	if until := f.until.Load(); until != 0 && began.UnixNano() > until && f.refuses(r) {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errFenced
	}
	response, err := f.next.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && response.StatusCode == http.StatusOK && strings.HasSuffix(r.URL.Path,
		f.path) {
		f.until.Store(began.Add(f.lasts).UnixNano()) // the Lease was taken or renewed
	}
	return response, err
}

// refuses reports whether a request is a write that only the leader may make.
func (f *fence) refuses(r *http.Request) bool {
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return false
	case strings.HasSuffix(r.URL.Path, f.path), strings.HasSuffix(r.URL.Path, "/leases"),
		strings.Contains(r.URL.Path, "/events"):
		return false
	}
	return true
}
