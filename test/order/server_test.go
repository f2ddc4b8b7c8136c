package order_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestTheCASeesWhichVersionAsks reads the User-Agent of each request to the CA, as operators of CAs
// do to find clients with a known fault.
func TestTheCASeesWhichVersionAsks(t *testing.T) {
	t.Parallel()
	f := &front{}
	want := version.UserAgent("perennial") + " perennial-acme"
	f.behave(func(_ http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if got := r.UserAgent(); got != want {
			t.Errorf("%s %s: User-Agent %q, want %q", r.Method, r.URL.Path, got, want)
		}
		return false
	}, nil)
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	if n := f.asked(pathNewAccount); n == 0 {
		t.Error("the CA saw no request")
	}
}

// TestAnIssuerCanMoveToAnotherCAAtAnyTime changes the server of an issuer with open orders in each
// state, and requests more certificates while the new CA has no account yet.
func TestAnIssuerCanMoveToAnotherCAAtAnyTime(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	held := make(chan struct{})
	next, err := pebble.Start(
		pebble.Options{Resolver: r.names.Addr, HTTPPort: r.port, Wrap: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if strings.HasPrefix(q.URL.Path, pathNewAccount) {
					<-held
				}
				h.ServeHTTP(w, q)
			})
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	cluster.Run(t, options)
	http01 := cmacme.ACMEChallengeSolver{
		HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
	}
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		presented, waits := http01, http01
		presented.WaitInsteadOfSelfCheck = &metav1.Duration{Duration: time.Hour}
		presented.Selector = &cmacme.CertificateDNSNameSelector{DNSNames: []string{"presented.example.com"}}
		waits.Selector = &cmacme.CertificateDNSNameSelector{DNSNames: []string{"somewhere-else.example.com"}}
		spec.Solvers = []cmacme.ACMEChallengeSolver{presented, waits}
	})
	r.issuerSays(cmmeta.ConditionTrue)
	says := func(name, words string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if o, story := r.order(
				name,
			), r.story(); !strings.Contains(o.Status.Reason, words) &&
				!strings.Contains(story, words) {
				return cluster.NotYet("the order of %s is %q: %s\n%s", name, o.Status.State, o.Status.Reason, story)
			}
			return nil
		})
	}
	var all []*cmapi.Certificate
	for _, name := range []string{"presented", "unsolved"} {
		all = append(all, r.certificate(name, name+".example.com"))
	}
	says("presented", "Waiting instead of a self check")
	says("unsolved", "no solver")

	r.changeIssuer(func(spec *cmacme.ACMEIssuer) {
		spec.Server, spec.CABundle, spec.Solvers = next.Directory, next.CABundle, []cmacme.ACMEChallengeSolver{http01}
	})
	all = append(all, r.certificate("later", "later.example.com"))
	says("later", "is not ready: it was changed")
	close(held)
	roots, err := next.Roots()
	if err != nil {
		t.Fatal(err)
	}
	for _, crt := range all {
		r.ready(crt)
		if crt.Status.FailedIssuanceAttempts != nil {
			t.Errorf("%s has failed %d times", crt.Name, *crt.Status.FailedIssuanceAttempts)
		}
		chain, _ := cluster.Pair(t, client.ObjectKeyFromObject(crt))
		if err := chain[len(chain)-1].CheckSignatureFrom(roots[0]); err != nil {
			t.Errorf("%s is not of the CA to which the issuer has moved: %v", crt.Name, err)
		}
	}
	if n := f.asked(pathFinalize); n != 0 {
		t.Errorf("the former CA was asked %d times to finalize", n)
	}
}

// TestAnOrderOfWhatTheIssuerNoLongerAsksForIsLeft changes the profile of an issuer while an order
// is open. The CA must not issue for both.
func TestAnOrderOfWhatTheIssuerNoLongerAsksForIsLeft(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(
		t,
		f,
		pebble.Options{Profiles: map[string]ca.Profile{"first": {ValidityPeriod: 1e6}, "second": {ValidityPeriod: 1e6}}},
	)
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Profile, spec.Solvers[0].WaitInsteadOfSelfCheck = "first", &metav1.Duration{Duration: time.Hour}
	})
	crt := r.certificate("site", "www.example.com")
	r.says("Waiting instead of a self check")
	for _, profile := range []string{"second", "first"} {
		r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = profile })
		cluster.Eventually(t, func() error {
			if all := r.ordersOf(crt.Name); len(all) != 1 || all[0].Spec.Profile != profile || all[0].Status.URL == "" {
				return cluster.NotYet("there are the orders %s", r.story())
			}
			return nil
		})
	}
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].WaitInsteadOfSelfCheck = nil })
	r.ready(crt)
	if n := f.asked(pathFinalize); n != 1 {
		t.Errorf("the CA was asked %d times to finalize", n)
	}
}
