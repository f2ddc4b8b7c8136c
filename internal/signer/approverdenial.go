package signer

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Denial is the denial of a request by an approver. It is final.
type Denial struct {
	// Message begins as cert-manager's does, and continues with the approver's reason and message.
	Message string
	// At is when the approver denied it, but not before the request was made.
	At metav1.Time
}

// DenialOf returns the denial of a request, or nil. It does not change when the request is marked
// as denied later.
func DenialOf(cr *cmapi.CertificateRequest) *Denial {
	c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionDenied)
	if c == nil || c.Status != cmmeta.ConditionTrue {
		return nil
	}
	d := &Denial{Message: "The CertificateRequest was denied by an approval controller", At: cr.CreationTimestamp}
	for _, words := range []string{c.Reason, c.Message} {
		if words != "" {
			d.Message += ": " + words
		}
	}
	if c.LastTransitionTime != nil && c.LastTransitionTime.After(d.At.Time) {
		d.At = *c.LastTransitionTime
	}
	return d
}
