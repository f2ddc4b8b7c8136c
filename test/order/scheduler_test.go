package order_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
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

// TestAForgedChallengeKeepsNoOtherWaiting has Challenges from before the admission policies, which
// their user wrote. Their status says that they are presented, now and in a year.
func TestAForgedChallengeKeepsNoOtherWaiting(t *testing.T) {
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.MaxChallenges = 1 })
	r.issuer()
	const others = "example.com/keeps-it"
	for name, finalizer := range map[string]string{
		"forged": cmacme.ACMEDomainQualifiedFinalizer, "forged-and-deleted": others,
	} {
		forged := &cmacme.Challenge{
			ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace(t), Name: name, Finalizers: []string{finalizer}},
			Spec: cmacme.ChallengeSpec{Type: cmacme.ACMEChallengeTypeHTTP01, DNSName: "site.example.com", Token: "t", Key: "k",
				URL: "https://ca.example/c", AuthorizationURL: "https://ca.example/z",
				IssuerRef: cmmeta.IssuerReference{Name: "none"},
				Solver: cmacme.ACMEChallengeSolver{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{
					Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}}},
		}
		if err := r.admin.Create(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		inAYear := metav1.NewTime(time.Now().AddDate(1, 0, 0))
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(forged), forged); err != nil {
				return err
			}
			forged.Status = cmacme.ChallengeStatus{Presented: true, PresentedAt: &inAYear, State: cmacme.Pending}
			return r.admin.Status().Update(t.Context(), forged)
		})
		if finalizer != others {
			continue
		}
		if err := r.admin.Delete(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // or its namespace would stay
			cluster.Eventually(t, func() error {
				err := r.admin.Get(context.Background(), client.ObjectKeyFromObject(forged), forged)
				if err == nil {
					forged.Finalizers = nil
					err = r.admin.Update(context.Background(), forged)
				}
				return client.IgnoreNotFound(err)
			})
		})
	}
	r.ready(r.certificate("site", "a.example.com", "b.example.com"))
}
