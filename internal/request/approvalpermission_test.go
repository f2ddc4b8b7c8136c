package request

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

func TestARequestToAKindThatTheClusterLacksAsksForNoRight(t *testing.T) {
	p := &permissions{client: fake.NewClientBuilder().Build(), clock: clock.RealClock{}, user: "The controller"}
	cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1"}}
	cr.Spec.IssuerRef = cmmeta.IssuerReference{Group: "certmanager.step.sm", Kind: "StepIsuer", Name: "ca"}
	const lacks = `The cluster has no kind "StepIsuer" in the group "certmanager.step.sm"`
	if says := p.missing(t.Context(), cr, "stepisuers.certmanager.step.sm/shop.ca"); !strings.HasPrefix(says, lacks) {
		t.Errorf("it says %q", says)
	}
	cr.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca"}
	if says := p.missing(
		t.Context(),
		cr,
		"issuers.cert-manager.io/shop.ca",
	); !strings.Contains(
		says,
		"it needs the verb approve on",
	) {
		t.Errorf("of an issuer of ours it says %q", says)
	}
}
