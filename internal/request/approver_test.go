package request

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

func TestAnApprovalThatWasRefusedIsNotTriedForEachRequest(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC))
	p := permissions{clock: clock}
	request := func(namespace, kind string) *cmapi.CertificateRequest {
		return &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
			Spec:       cmapi.CertificateRequestSpec{IssuerRef: cmmeta.IssuerReference{Name: "corp", Kind: kind, Group: "example.com"}},
		}
	}
	if !p.mayTry(request("shop", "Authority")) {
		t.Error("the first is not tried")
	}
	p.refused(request("shop", "Authority"))
	for name, test := range map[string]struct {
		cr    *cmapi.CertificateRequest
		after time.Duration
		want  bool
	}{
		"the next of the same issuer":             {request("shop", "Authority"), 0, false},
		"one of another namespace":                {request("blog", "Authority"), 0, true},
		"one of another kind":                     {request("shop", "Policy"), 0, true},
		"the same issuer, when RBAC may be other": {request("shop", "Authority"), permissionLife, true},
	} {
		clock.SetTime(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC).Add(test.after))
		if got := p.mayTry(test.cr); got != test.want {
			t.Errorf("%s: tried %t, want %t", name, got, test.want)
		}
	}
}
