package controller

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNothingIsWrittenAfterTheLeaseHasRunOut(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	took := time.Duration(0)
	f := &fenced{&fence{path: "/leases/it", lasts: 10 * time.Second, now: func() time.Time { return now }},
		transport(func(*http.Request) (*http.Response, error) {
			now = now.Add(took)
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})}
	const lease, secret = "/apis/coordination.k8s.io/v1/namespaces/n/leases/it", "/api/v1/namespaces/n/secrets/s"
	for i, step := range []struct {
		after, took  time.Duration
		method, path string
		fenced       bool
	}{
		{0, 0, http.MethodPatch, secret, false}, // it has never led: a process without leader election
		{0, 3 * time.Second, http.MethodPut, lease, false},
		{6 * time.Second, 0, http.MethodPatch, secret, false},
		{2 * time.Second, 0, http.MethodPatch, secret, true}, // what counts is when the renewal was sent
		{0, 0, http.MethodDelete, secret, true},
		{0, 0, http.MethodPost, "/api/v1/namespaces/n/secrets", true},
		{0, 0, http.MethodGet, secret, false},
		{0, 0, http.MethodPost, "/api/v1/namespaces/n/events", false},
		{0, 0, http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/n/leases/other", true},
		{0, 0, http.MethodPut, lease, false}, // it is still the leader
		{time.Second, 0, http.MethodPatch, secret, false},
	} {
		now, took = now.Add(step.after), step.took
		_, err := f.RoundTrip(httptest.NewRequest(step.method, "https://api"+step.path, nil))
		if errors.Is(err, errFenced) != step.fenced {
			t.Errorf("step %d, %s %s: %v", i, step.method, step.path, err)
		}
	}
}
