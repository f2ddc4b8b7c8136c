package order_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestAMistakeThatIsCorrectedOnTheCertificateIsNoticed(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		only := spec.Solvers[0]
		only.Selector = &cmacme.CertificateDNSNameSelector{MatchLabels: map[string]string{"reachable": "yes"}}
		spec.Solvers = []cmacme.ACMEChallengeSolver{only}
	})
	crt := r.certificate("web", "web.example.com")
	r.orderWaits("web", "no solver")
	r.change(crt, func() {
		crt.Labels = map[string]string{"reachable": "yes"}
		crt.Annotations = map[string]string{
			cmacme.ACMECertificateHTTP01IngressClassOverride: "one",
			cmacme.ACMECertificateHTTP01IngressNameOverride:  "two",
		}
	})
	r.orderWaits("web", "keep one of them")
	r.change(crt, func() { crt.Annotations = nil })
	r.ready(crt)
	if *crt.Status.Revision != 1 {
		t.Errorf("revision %d: a correction is no renewal", *crt.Status.Revision)
	}
}

func TestAMistakeThatIsCorrectedOnTheIssuerIsNoticedByWhatIsUnderWay(t *testing.T) {
	const name = "_acme-challenge.www.example.com"
	elsewhere, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.Close)
	for what, test := range map[string]struct {
		mistake func(*cmacme.ACMEIssuer)
		says    string
	}{
		"a key that the DNS server does not know": {
			func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].DNS01.RFC2136.TSIGKeyName = "unknown" }, `let it allow the TSIG key "unknown"`},
		"name servers without the record": {
			func(spec *cmacme.ACMEIssuer) { spec.Solvers[0].DNS01.Nameservers = []string{elsewhere.Addr} }, "still answers"},
		"another type": {
			func(spec *cmacme.ACMEIssuer) {
				spec.Solvers = []cmacme.ACMEChallengeSolver{{
					WaitInsteadOfSelfCheck: &metav1.Duration{Duration: time.Hour},
					HTTP01:                 &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
				}}
			}, "Waiting instead of a self check"},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, pebble.Options{})
			right := r.byDNS("")
			r.issuer(right, test.mistake)
			crt := r.certificate("www", "www.example.com")
			r.says(test.says)
			r.changeIssuer(right)
			r.ready(crt)
			r.wentOn("www", name)
		})
	}
}

// ordersOf returns the Orders of a Certificate.
func (r *rig) ordersOf(certificate string) []cmacme.Order {
	r.t.Helper()
	var orders cmacme.OrderList
	if err := r.admin.List(r.t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(
		orders.Items,
		func(o cmacme.Order) bool { return o.Annotations[cmapi.CertificateNameKey] != certificate },
	)
}

// orderWaits waits until an Order of the Certificate reports why it is blocked.
func (r *rig) orderWaits(certificate, why string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		for _, o := range r.ordersOf(certificate) {
			if strings.Contains(o.Status.Reason, why) {
				return nil
			}
		}
		return cluster.NotYet("no Order of %s waits because of %q", certificate, why)
	})
}

// wentOn checks that a Certificate was issued by one Order, and that no record of it is left at a
// name of the zone.
func (r *rig) wentOn(certificate, name string) {
	r.t.Helper()
	if orders := r.ordersOf(certificate); len(orders) != 1 {
		r.t.Errorf("%d Orders: the CA was asked once more", len(orders))
	}
	r.eventually("the Challenges are gone", r.noChallenges)
	if left := r.names.TXT(name); len(left) > 0 {
		r.t.Errorf("the zone still has %q", left)
	}
}

// change changes a Certificate as an operator would.
func (r *rig) change(crt *cmapi.Certificate, how func()) {
	r.t.Helper()
	if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
		r.t.Fatal(err)
	}
	was := crt.DeepCopy()
	how()
	if err := r.admin.Patch(r.t.Context(), crt, client.MergeFrom(was)); err != nil {
		r.t.Fatal(err)
	}
}

// TestAChallengeThatCertManagerHasPresentedGoesOn takes over a Challenge without the status fields
// that cert-manager does not write.
func TestAChallengeThatCertManagerHasPresentedGoesOn(t *testing.T) {
	t.Parallel()
	const name = "_acme-challenge.www.example.com"
	r, options := shop(t, &front{}, pebble.Options{})
	r.names.Hide(name, true)
	running := cluster.Run(t, options)
	r.issuer(r.byDNS(""))
	crt := r.certificate("www", "www.example.com")
	r.says("still answers")
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	var all cmacme.ChallengeList
	if err := r.admin.List(t.Context(), &all, client.InNamespace(r.namespace)); err != nil || len(all.Items) != 1 {
		t.Fatalf("%d Challenges, %v", len(all.Items), err)
	}
	ch := &all.Items[0]
	ch.Status = cmacme.ChallengeStatus{
		Processing: true,
		Presented:  true,
		State:      cmacme.Pending,
		Reason:     "Waiting for DNS-01 challenge propagation",
	}
	if err := r.admin.Status().Update(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	r.says("still answers")
	r.names.Hide(name, false)
	r.ready(crt)
	r.wentOn("www", name)
}
