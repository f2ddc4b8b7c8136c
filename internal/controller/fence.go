package controller

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// errFenced is why a write is refused.
var errFenced = errors.New("this process was stopped for longer than its Lease lasts: another one may lead, so " +
	"nothing is written")

// fence refuses writes to the Kubernetes API once the Lease of this process has run out. A process
// that was stopped goes on where it was: it would act upon what its caches held then, beside
// another leader, until it hears that it leads no longer. What an ACME order spends is written
// before the order is sent, so that this stops, too.
type fence struct {
	path  string // the end of that of the Lease
	lasts time.Duration
	// until is when another process may lead, in nanoseconds since 1970; 0 until this one leads.
	until atomic.Int64
	now   func() time.Time
}

// fenced is a transport behind a fence, which all transports of the process share.
type fenced struct {
	*fence
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	// By the wall clock: the monotonic one stands still while a machine is suspended.
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
		f.until.Store(began.Add(f.lasts).UnixNano()) // it was taken or renewed
	}
	return response, err
}

// refuses reports whether a request is a write that a leader alone may make.
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
