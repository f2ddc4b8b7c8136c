package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestThreeHundredCertificatesPastTheirWindowsAreEachRenewedOnce uses a CA that has revoked all its
// certificates, as after an incident: its suggested windows are in the past.
func TestThreeHundredCertificatesPastTheirWindowsAreEachRenewedOnce(t *testing.T) {
	t.Parallel()
	const n = 300
	f := &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	clock := &cluster.Clock{}
	options.Clock = clock
	var mu sync.Mutex
	issued := map[string]bool{} // paths of renewal information
	var revoked atomic.Bool
	var orders atomic.Int64
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(q.URL.Path, pathRenewalInfo) {
			reply.Header().Set("Retry-After", "3600")
		}
		switch {
		case strings.HasPrefix(q.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated:
			orders.Add(1)
		case strings.HasPrefix(q.URL.Path, pathRenewalInfo) && !revoked.Load():
			issued[q.URL.Path] = true
		case strings.HasPrefix(q.URL.Path, pathRenewalInfo) && issued[q.URL.Path]:
			reply.Body.Reset()
			_ = json.NewEncoder(reply.Body).Encode(map[string]any{
				"suggestedWindow": map[string]string{"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z"}})
		}
	})
	cluster.Run(t, options)
	r.issuer()
	var all []*cmapi.Certificate
	for i := range n {
		all = append(all, r.certificate(fmt.Sprintf("site-%d", i), fmt.Sprintf("site-%d.example.com", i)))
	}
	revision := func(want int) {
		t.Helper()
		for _, crt := range all {
			r.until(crt, func() string {
				if crt.Status.Revision == nil || *crt.Status.Revision != want || crt.Status.ACME == nil ||
					crt.Status.ACME.ARI == nil || crt.Status.ACME.ARI.SuggestedWindow == nil {
					return fmt.Sprintf("%s: revision %d is not there, or the CA has not said when to renew it", crt.Name, want)
				}
				return ""
			})
		}
	}
	revision(1)
	revoked.Store(true)
	clock.Step(2 * time.Hour) // all ask again
	began := time.Now()
	for _, crt := range all {
		r.nudge(crt)
	}
	revision(2)
	t.Logf("%d were renewed within %s", n, time.Since(began).Round(time.Second))
	if got := orders.Load(); got != 2*n {
		t.Errorf("the CA made %d orders", got)
	}
	for _, crt := range all {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil || *crt.Status.Revision != 2 {
			t.Errorf("%s: revision %d, %v", crt.Name, *crt.Status.Revision, err)
		}
	}
}
