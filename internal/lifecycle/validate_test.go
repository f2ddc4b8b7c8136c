package lifecycle

import (
	"testing"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// TestTheFieldOfANameThatCanBeNoneIsNamed has a Certificate from before the API server refused it.
func TestTheFieldOfANameThatCanBeNoneIsNamed(t *testing.T) {
	s := newScene(t)
	s.Certificate.Spec.DNSNames = noNames
	d := Decide(s.Observation)
	issuing := cmapi.GetCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
	const want = `spec.dnsNames[1]: "https://web.example.com/" must be a DNS name alone: write www.example.com instead of ` +
		`https://www.example.com/, and a URI into uris`
	if issuing == nil || issuing.Message != want {
		t.Errorf("Issuing is %+v", issuing)
	}
	if d.Request != nil || !d.Again.IsZero() {
		t.Errorf("it makes %+v, and looks again at %s", d.Request, d.Again)
	}
	if stalled := cmapi.GetCertificateCondition(&d.Status, conditionStalled); stalled == nil || stalled.Message != want {
		t.Errorf("Stalled is %+v", stalled)
	}
}
