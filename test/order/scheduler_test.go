package order_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// mostSetUp watches the Challenges of the rig's namespace until done is called. done returns the
// maximum number that were presented at once.
func (r *rig) mostSetUp() (done func() int) {
	r.t.Helper()
	events, err := r.admin.Watch(r.t.Context(), &cmacme.ChallengeList{}, client.InNamespace(r.namespace))
	if err != nil {
		r.t.Fatal(err)
	}
	result := make(chan int, 1)
	go func() {
		most, up := 0, map[types.UID]bool{}
		for e := range events.ResultChan() {
			ch, ok := e.Object.(*cmacme.Challenge)
			if !ok {
				continue
			}
			if st := ch.Status; e.Type != watch.Deleted && st.Presented && st.State != cmacme.Valid {
				up[ch.UID] = true
			} else {
				delete(up, ch.UID)
			}
			most = max(most, len(up))
		}
		result <- most
	}()
	return func() int {
		events.Stop()
		return <-result
	}
}

func TestAnOrderOfMoreNamesThanMayBeChallengedAtOnceGoesOnAsSoonAsOneIsOver(t *testing.T) {
	const atOnce, names = 2, 9
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.MaxChallenges = atOnce })
	for _, kind := range []cmacme.ACMEChallengeType{cmacme.ACMEChallengeTypeHTTP01, cmacme.ACMEChallengeTypeDNS01} {
		t.Run(string(kind), func(t *testing.T) {
			r := *r
			r.t, r.namespace = t, cluster.Namespace(t)
			if kind == cmacme.ACMEChallengeTypeDNS01 {
				r.issuer(r.byDNS(""))
			} else {
				r.issuer()
			}
			done := r.mostSetUp()
			var all []string
			for i := range names {
				all = append(all, fmt.Sprintf("%s-%d.example.com", strings.ToLower(string(kind)), i))
			}
			r.ready(r.certificate("site", all...))
			if most := done(); most < 1 || most > atOnce {
				t.Errorf("%d challenges were set up at once", most)
			}
		})
	}
}
