package order_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestTheCAIsAskedForAWildcardsRecordWhenAllValuesAreThere: the values of a name and its wildcard
// share a record, and the CA's resolver caches the first version that it reads.
func TestTheCAIsAskedForAWildcardsRecordWhenAllValuesAreThere(t *testing.T) {
	t.Parallel()
	const record = "_acme-challenge.example.com"
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	var mu sync.Mutex
	var found []int
	f.behave(func(_ http.ResponseWriter, q *http.Request, payload map[string]any) bool {
		if strings.HasPrefix(q.URL.Path, pathChallenge) && payload != nil && len(payload) == 0 {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, len(r.names.TXT(record)))
		}
		return false
	}, nil)
	cluster.Run(t, options)
	r.issuer(r.byDNS(""))
	r.ready(r.certificate("site", "example.com", "*.example.com"))
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(found, []int{2, 2}) {
		t.Errorf("the CA was asked when the record had %v values", found)
	}
}
