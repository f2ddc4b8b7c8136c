package order_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestARecordThatVanishesBeforeItWasSeenIsMadeAgain removes a presented record from outside, before
// any name server has published it.
func TestARecordThatVanishesBeforeItWasSeenIsMadeAgain(t *testing.T) {
	for name, by := range map[string]func(*rig) func(*cmacme.ACMEIssuer){
		"made by a dynamic update": func(r *rig) func(*cmacme.ACMEIssuer) { return r.byDNS("") },
		"made by a provider that remembers it": func(r *rig) func(*cmacme.ACMEIssuer) {
			return r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program()))
		},
		"made by a provider that takes longer than a pass": func(r *rig) func(*cmacme.ACMEIssuer) {
			return r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.programOf(func(verb, name, value string) bool {
				if verb == "present" {
					r.names.SetTXT(name, value)
					time.Sleep(3 * time.Second) // it is seen before the program ends
				} else {
					r.names.SetTXT(name)
				}
				return true
			})))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, options := shop(t, &front{}, pebble.Options{})
			now := &cluster.Clock{}
			options.OwnMachine, options.Clock = true, now
			cluster.Run(t, options)
			r.names.Hide(challengeName, true)
			r.issuer(by(r))
			crt := r.certificate("site", "www.example.com")
			r.eventually("no name server has the record", func() bool { return strings.Contains(r.story(), "still answers") })
			r.names.SetTXT(challengeName)
			r.names.Hide(challengeName, false)
			now.Step(298 * time.Second) // the DNS server takes no signature that is more than five minutes ahead of its own time
			r.ready(crt)
			r.tells("PresentedAgain", "www.example.com", "could be seen nowhere")
			r.eventually("the Challenges are gone", r.noChallenges)
			if got := r.names.TXT(challengeName); len(got) > 0 {
				t.Errorf("the zone has %q", got)
			}
		})
	}
}

// TestANameThatAnotherOrderHasProvenMeanwhileIsNotProvenAgain makes another order of the account
// prove a name, as orders with a shared pending authorization do, while the name servers of the
// self-check do not have the record.
func TestANameThatAnotherOrderHasProvenMeanwhileIsNotProvenAgain(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	now := &cluster.Clock{}
	options.Clock = now
	cluster.Run(t, options)
	late, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(late.Close)
	r.issuer(r.byDNS(""), func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].DNS01.Nameservers = []string{late.Addr} })
	crt := r.certificate("site", "www.example.com")
	r.eventually("no name server has the record", func() bool { return strings.Contains(r.story(), "still answers") })
	var list cmacme.ChallengeList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	ca, account := r.atCA()
	if _, err := ca.AcceptChallenge(t.Context(), account, list.Items[0].Spec.URL); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		z, err := ca.Authorization(t.Context(), account, list.Items[0].Spec.AuthorizationURL)
		if err == nil && z.Status != acme.StatusValid {
			return cluster.NotYet("the authorization is %s", z.Status)
		}
		return err
	})
	now.Step(298 * time.Second)
	r.ready(crt)
	var events corev1.EventList
	if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "PresentedAgain" }) {
		t.Error("the proof was presented again")
	}
}

// TestAnOrderIsFollowedByAnotherWhenItExpiresThoughItsChallengesCannotBegin gives the first order,
// or its authorization, a lifetime of seconds. The controller learns that from the CA's first
// reply, or from the order that it reads after a restart.
func TestAnOrderIsFollowedByAnotherWhenItExpiresThoughItsChallengesCannotBegin(t *testing.T) {
	for name, test := range map[string]lapseCase{
		"the order": {short: pathOrder, says: "the order expired at"}, "the order, after a restart": {short: pathOrder, restart: true, says: "the order expired at"},
		"the authorization": {short: pathAuthorization, says: "the authorization expired at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t)
		})
	}
}

// lapseCase is what expires before a challenge can begin.
type lapseCase struct {
	short   string // what expires, by its path
	restart bool
	says    string
}

func (test lapseCase) check(t *testing.T) {
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	var mu sync.Mutex
	firsts := map[string]bool{} // paths of the first order and its authorization
	var expires time.Time       // set by the first reply
	lives := 8 * time.Second
	if test.restart {
		lives = time.Hour
	}
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		at := r.URL.Path
		if strings.HasPrefix(at, pathNewOrder) {
			at = strings.TrimPrefix(reply.Header().Get("Location"), "https://"+r.Host)
		}
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(at, test.short) && (len(firsts) == 0 || firsts[at]) && reply.Code < 300 {
			firsts[at] = true
			if expires.IsZero() {
				expires = time.Now().Add(lives)
			}
			edit(t, reply, func(o map[string]any) { o["expires"] = expires.UTC().Format(time.RFC3339Nano) })
		}
	})
	options.OwnMachine = true
	running := cluster.Run(t, options)
	by := r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program()))
	unserved := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	r.issuer(by, func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].DNS01.Nameservers = []string{unserved} })
	crt := r.certificate("site", "www.example.com")
	r.eventually(
		"the Challenge says what keeps it",
		func() bool { return strings.Contains(r.story(), "find the zone of www.example.com") },
	)
	if test.restart {
		if err := running.Stop(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		expires, lives = time.Time{}, 8*time.Second
		mu.Unlock()
		cluster.Run(t, options)
	}
	r.says(`"expired"`, test.says)
	r.changeIssuer(by) // which helps the next order
	r.ready(crt)
	if strings.Count(r.story(), "order site-1-") != 2 {
		t.Errorf("there are to be two Orders:\n%s", r.story())
	}
}

// TestAnOrderThatExpiresWhileItsChallengesCannotBeginIsFollowedByAnother uses a challenge whose
// record name cannot be resolved, so that it is never sent to the CA.
func TestAnOrderThatExpiresWhileItsChallengesCannotBeginIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	now := &cluster.Clock{}
	options.OwnMachine, options.Clock = true, now
	cluster.Run(t, options)
	by := r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program()))
	unserved := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	r.issuer(by, func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].DNS01.Nameservers = []string{unserved} })
	crt := r.certificate("site", "www.example.com")
	r.eventually(
		"the Challenge says what keeps it",
		func() bool { return strings.Contains(r.story(), "find the zone of www.example.com") },
	)
	orders := func() []cmacme.Order {
		var list cmacme.OrderList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	first := &orders()[0]
	if id := first.Status.URL[strings.LastIndex(first.Status.URL, "/")+1:]; !r.ca.ExpireOrder(id) {
		t.Fatalf("the CA has no order %s", id)
	}
	now.Step(61 * time.Minute)
	before := first.DeepCopy()
	first.Annotations["example.com/looked-at"] = "now" // the controller's timers are not put forward
	if err := r.admin.Patch(t.Context(), first, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	r.says(`"expired"`)
	r.changeIssuer(by) // which helps the next order
	r.ready(crt)
	if all := orders(); len(all) != 2 || !slices.ContainsFunc(all, func(o cmacme.Order) bool {
		return o.Status.State == cmacme.Expired && strings.Contains(o.Status.Reason, "the order expired at")
	}) {
		t.Errorf("one of its two Orders is to be expired:\n%s", r.story())
	}
}

// TestAProofThatIsNeverSeenIsGivenUp uses name servers that never receive the record.
func TestAProofThatIsNeverSeenIsGivenUp(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	expires := time.Now().Add(7 * 24 * time.Hour).UTC().Format(time.RFC3339) // as at CAs, where nothing ends before
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		for _, path := range []string{pathNewOrder, pathOrder, pathAuthorization} {
			if strings.HasPrefix(r.URL.Path, path) && reply.Code < 300 {
				edit(t, reply, func(o map[string]any) { o["expires"] = expires })
			}
		}
	})
	now := &cluster.Clock{}
	options.OwnMachine, options.Clock = true, now
	cluster.Run(t, options)
	r.names.Hide(challengeName, true)
	by := r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program()))
	r.issuer(by)
	r.certificate("site", "www.example.com")
	r.eventually("no name server has the record", func() bool { return strings.Contains(r.story(), "still answers") })
	now.Step(2 * time.Hour)
	r.says(
		`order is in "errored" state: DNS-01 of www.example.com: given up after it was presented for 2h0m0s`,
		"still answers",
	)
	r.eventually("the Challenges are gone", r.noChallenges)
	if got := r.names.TXT(challengeName); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
}
