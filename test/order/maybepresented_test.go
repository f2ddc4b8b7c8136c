package order_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// edits is a service that keeps all values at a name.
func (r *rig) edits(verb, name, value string) {
	if verb == "present" {
		r.names.AddTXT(name, value)
		return
	}
	r.names.SetTXT(name, slices.DeleteFunc(r.names.TXT(name), func(v string) bool { return v == value })...)
}

// TestWhatAProviderSetAndCouldNotSayIsRemovedThoughTheAuthorizationIsOver makes a provider that
// keeps one value for a name set a record and lose its answer; then the authorization ends. The
// next order is issued, and no record stays.
func TestWhatAProviderSetAndCouldNotSayIsRemovedThoughTheAuthorizationIsOver(t *testing.T) {
	for name, killed := range map[string]bool{"its call fails": false, "the process is killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			removesUnreported(t, killed)
		})
	}
}

// removesUnreported has a provider set a record and fail, and the authorization end. It expects
// that the record is removed.
func removesUnreported(t *testing.T, killed bool) {
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	options.OwnMachine = true
	var set atomic.Bool
	var first sync.Once
	over := ""
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !strings.HasPrefix(q.URL.Path, pathAuthorization) {
			return
		}
		first.Do(func() { over = q.URL.Path })
		if set.Load() && q.URL.Path == over {
			edit(t, reply, func(z map[string]any) { z["status"] = acme.StatusDeactivated })
		}
	})
	life := cluster.NewLife(math.MaxInt, false)
	r.issuer(r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.programOf(func(verb, name, value string) bool {
		r.edits(verb, name, value)
		if verb == "present" && set.CompareAndSwap(false, true) {
			if killed {
				life.End()
			}
			return false
		}
		return true
	}))))
	crt := r.certificate("site", "www.example.com")
	if killed {
		mortal := options
		mortal.WrapClient = life.Wrap
		c := cluster.Run(t, mortal)
		<-life.Died()
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	cluster.Run(t, options)
	r.ready(crt)
	r.eventually("the Challenges are gone", r.noChallenges)
	if got := r.names.TXT(challengeName); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
	if got := r.events("CleanUpError"); len(got) > 0 {
		t.Errorf("an event speaks of %q", got)
	}
}

// TestWhatMayStandWhereAnothersProofStandsIsRemovedAfterThatOrNamed sets a record whose answer is
// lost, and then presents another challenge at the same name. Then the first challenge is
// abandoned. Its cleanup must not remove the other proof.
func TestWhatMayStandWhereAnothersProofStandsIsRemovedAfterThatOrNamed(t *testing.T) {
	for name, ends := range map[string]bool{"the other one ends": true, "the other one stays": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			removesAfter(t, ends)
		})
	}
}

// removesAfter has the provider fail for a record at a name where another Challenge has its own,
// which ends or stays.
func removesAfter(t *testing.T, ends bool) {
	r, options := shop(t, &front{}, pebble.Options{})
	now := &cluster.Clock{}
	options.OwnMachine, options.Clock = true, now
	cluster.Run(t, options)
	var bad atomic.Value
	var first sync.Once
	by := r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.programOf(func(verb, name, value string) bool {
		r.edits(verb, name, value)
		first.Do(func() { bad.Store(value) })
		return verb != "present" || value != bad.Load()
	})))
	r.names.Hide(challengeName, true)
	r.issuer(by)
	crt := r.certificate("given-up", "www.example.com")
	r.eventually("a record is set", func() bool { return len(r.names.TXT(challengeName)) == 1 && bad.Load() != nil })
	lost := bad.Load().(string)

	other := r.getIssuer().DeepCopy()
	other.ObjectMeta = metav1.ObjectMeta{Name: "other"}
	other.Spec.ACME.PrivateKey.Name = "other"
	r.create(other)
	also := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: *crt.Spec.DeepCopy()}
	also.Spec.SecretName, also.Spec.IssuerRef.Name = "other", "other"
	r.create(also)
	challengeOf := func(value string) *cmacme.Challenge {
		var list cmacme.ChallengeList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if (list.Items[i].Spec.Key == lost) == (value == lost) {
				return &list.Items[i]
			}
		}
		return nil
	}
	r.eventually(
		"the other one has the place",
		func() bool { ch := challengeOf(""); return ch != nil && ch.Status.Presented },
	)
	theirs := challengeOf("").Spec.Key

	r.delete(crt)
	r.eventually(
		"the Challenge is over",
		func() bool { ch := challengeOf(lost); return ch != nil && ch.DeletionTimestamp != nil },
	)
	if ends {
		r.names.Hide(challengeName, false)
		r.ready(also)
		r.eventually("the Challenges are gone", r.noChallenges)
		if got := r.names.TXT(challengeName); len(got) > 0 {
			t.Errorf("the zone has %q", got)
		}
		if got := r.events("CleanUpError"); len(got) > 0 {
			t.Errorf("an event speaks of %q", got)
		}
		return
	}
	now.Step(11 * time.Minute) // longer than the retries last, if there was a first attempt
	r.eventually("it is given up", func() bool { now.Step(10 * time.Second); return len(r.events("CleanUpError")) > 0 })
	r.tells(
		"CleanUpError",
		"Gave up",
		fmt.Sprintf("%s with the value %q may be there: look, and remove it by hand", challengeName, lost),
		"("+challengeOf(theirs).Name+") was needed",
	)
	r.eventually("the Challenge is gone", func() bool { return challengeOf(lost) == nil })
	if got := r.names.TXT(challengeName); !slices.Contains(got, theirs) {
		t.Errorf("the zone has %q, and not the other's %q", got, theirs)
	}
}

// TestAChallengeThatOnlyWaitedForItsPlaceGoesAtOnce abandons a challenge that waits for another
// one.
func TestAChallengeThatOnlyWaitedForItsPlaceGoesAtOnce(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	options.OwnMachine = true
	cluster.Run(t, options)
	r.names.Hide("_acme-challenge.example.com", true)
	r.issuer(r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program())))
	crt := r.certificate("site", "example.com", "*.example.com")
	var presented, waiting *cmacme.Challenge
	r.eventually("one has the place, and one waits", func() bool {
		var list cmacme.ChallengeList
		if r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)) != nil {
			return false
		}
		presented, waiting = nil, nil
		for i := range list.Items {
			if list.Items[i].Status.Presented {
				presented = &list.Items[i]
			} else if strings.Contains(list.Items[i].Status.Reason, "Waiting for its turn") {
				waiting = &list.Items[i]
			}
		}
		return presented != nil && waiting != nil
	})
	r.delete(waiting)
	r.eventually("it is gone, and the Order has another", func() bool {
		is := &cmacme.Challenge{}
		err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(waiting), is)
		return apierrors.IsNotFound(err) || err == nil && is.UID != waiting.UID
	})
	r.delete(crt)
	r.eventually("the Challenges are gone", r.noChallenges)
	if got := r.events("CleanUpError"); len(got) > 0 {
		t.Errorf("an event speaks of %q", got)
	}
}
