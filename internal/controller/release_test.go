package controller

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestTheLeaseIsReleasedInTime(t *testing.T) {
	ending, end := context.WithCancel(t.Context())
	hangs := transport(func(r *http.Request) (*http.Response, error) {
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		default:
		}
		if ending.Err() == nil || r.Method == http.MethodPatch {
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}
		<-r.Context().Done() // an API server that does not answer
		return nil, r.Context().Err()
	})
	lease := &releasing{ctx: ending, path: "/leases/it", timeout: time.Millisecond, next: hangs}
	try := func(method, path string) error {
		response, err := lease.RoundTrip(httptest.NewRequestWithContext(t.Context(), method, path, nil))
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	const path = "/apis/coordination.k8s.io/v1/namespaces/n/leases/it"
	if err := try(http.MethodPut, path); err != nil {
		t.Errorf("while it leads: %v", err)
	}
	end()
	if err := try(http.MethodPut, path); !errors.Is(err, context.Canceled) {
		t.Errorf("at its end: %v", err)
	}
	if err := try(http.MethodPatch, "/api/v1/namespaces/n/secrets/s"); err != nil {
		t.Errorf("another request: %v", err)
	}
}

// TestTheEndFitsIntoTheGracePeriod adds up the bounds for calls that do not end by themselves, with
// time to spare for the process.
func TestTheEndFitsIntoTheGracePeriod(t *testing.T) {
	const grace, spare = 30 * time.Second, 3 * time.Second // the default of pods
	if end := endTimeout + 2*releaseTimeout; end > grace-spare {
		t.Errorf("the end may take %s, and a pod has %s", end, grace)
	}
	if shutdownTimeout >= endTimeout {
		t.Errorf("the metrics server may take %s, and all of the end %s", shutdownTimeout, endTimeout)
	}
}
