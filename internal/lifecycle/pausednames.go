package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// manualTrigger returns the manual trigger of an issuance, identified by its time. It is empty if
// there is none.
func (d *decider) manualTrigger() string {
	return manualTriggerOf(d.condition(cmapi.CertificateConditionIssuing))
}

// unanswered reports whether there is a manual trigger that the request was not made for.
func (d *decider) unanswered(cr *cmapi.CertificateRequest) bool {
	trigger := d.manualTrigger()
	return trigger != "" && trigger != cr.Annotations[signer.ManualTriggerAnnotation]
}

// endsPause reports whether a user wants another attempt for a paused request. The paused request
// sends nothing to the CA; the next one ends the pause.
func (d *decider) endsPause(cr *cmapi.CertificateRequest) bool {
	return pauseOf(cr) != nil && d.unanswered(cr)
}

// pauseOf returns the condition of a request for paused names, or nil.
func pauseOf(cr *cmapi.CertificateRequest) *cmapi.CertificateRequestCondition {
	c := cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionPaused)
	if c == nil || c.Status != cmmeta.ConditionTrue {
		return nil
	}
	return c
}

// pause says that names of the Certificate are paused, as long as its request says so.
func (d *decider) pause() {
	next := d.Next
	if d.rehearsal != nil && !issued(d.rehearsal) {
		next = d.rehearsal
	}
	if next != nil && slices.Contains(d.DeleteRequests, next) {
		next = nil
	}
	if d.Request != nil || d.Rehearse != nil ||
		next != nil && cmapi.GetCertificateRequestCondition(&next.Status, cmapi.CertificateRequestConditionReady) == nil {
		return // no controller has processed the new request yet
	}
	if next == nil || pauseOf(next) == nil || !d.owned(next) {
		cmapi.RemoveCertificateCondition(&d.Status, signer.ConditionPaused)
		return
	}
	c := pauseOf(next)
	if was := d.condition(signer.ConditionPaused); was == nil || was.Status != cmmeta.ConditionTrue {
		d.event(corev1.EventTypeWarning, signer.ConditionPaused, c.Message)
	}
	d.set(signer.ConditionPaused, cmmeta.ConditionTrue, c.Reason, c.Message)
}
