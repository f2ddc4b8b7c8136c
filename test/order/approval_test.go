package order_test

import (
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// An Order is created in the pass that approves its request, and is there before the approval.
func TestANewOrderWaitsForTheApprovalOfItsRequestInSilence(t *testing.T) {
	var refusal cluster.Refusal
	refusal.Begin(cluster.WriteOf[*cmapi.CertificateRequest]("status"))
	clock := &cluster.Clock{}
	clock.Step(-time.Minute) // for this clock the Order stays new for a minute
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.WrapClient, o.Clock = refusal.Wrap, clock })
	orders, err := r.admin.Watch(t.Context(), &cmacme.OrderList{}, client.InNamespace(r.namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Stop()
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	if created := (<-orders.ResultChan()).Object.(*cmacme.Order); created.Status.URL != "" {
		t.Errorf("the Order was sent without an approval: %+v", created.Status)
	}
	r.eventually("the approval is refused again and again", func() bool { return refusal.Count() > 2 })
	refusal.End()
	r.ready(crt)
	for valid := false; !valid; {
		o := (<-orders.ResultChan()).Object.(*cmacme.Order)
		if strings.Contains(o.Status.Reason, "not approved") {
			t.Errorf("the Order reported: %s", o.Status.Reason)
		}
		valid = o.Status.State == cmacme.Valid
	}
}
