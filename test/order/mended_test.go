package order_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
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
		crt.Annotations = map[string]string{cmacme.ACMECertificateHTTP01IngressClassOverride: "one", cmacme.ACMECertificateHTTP01IngressNameOverride: "two"}
	})
	r.orderWaits("web", "keep one of them")
	r.change(crt, func() { crt.Annotations = nil })
	r.ready(crt)
	if *crt.Status.Revision != 1 {
		t.Errorf("revision %d: a correction is no renewal", *crt.Status.Revision)
	}
}

// orderWaits waits until an Order of the Certificate says why it does not get on.
func (r *rig) orderWaits(certificate, why string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var orders cmacme.OrderList
		if err := r.admin.List(r.t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, o := range orders.Items {
			if o.Annotations[cmapi.CertificateNameKey] == certificate && strings.Contains(o.Status.Reason, why) {
				return nil
			}
		}
		return cluster.NotYet("no Order of %s waits because of %q", certificate, why)
	})
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
