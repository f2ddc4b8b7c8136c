package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// wish is what tells the wish for a certificate, by hand, from others: when it came. It is empty if
// there is none.
func (d *decider) wish() string {
	return wishOf(d.condition(cmapi.CertificateConditionIssuing))
}

// unanswered reports whether somebody has asked by hand, and the request was not made for that.
func (d *decider) unanswered(cr *cmapi.CertificateRequest) bool {
	wish := d.wish()
	return wish != "" && wish != cr.Annotations[signer.ManualAnnotation]
}

// endsPause reports whether somebody wants another attempt for a request that is paused. Nothing
// was asked of anybody for that yet; the one that follows ends the pause.
func (d *decider) endsPause(cr *cmapi.CertificateRequest) bool {
	return pauseOf(cr) != nil && d.unanswered(cr)
}

// pauseOf is the condition of a request whose names are paused, or nil.
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
		return // nobody has looked at the new request
	}
	if next == nil || pauseOf(next) == nil || !d.owned(next) {
		cmapi.RemoveCertificateCondition(&d.Status, signer.ConditionPaused)
		return
	}
	c := pauseOf(next)
	if was := d.condition(signer.ConditionPaused); was == nil || was.Status != cmmeta.ConditionTrue {
		d.tell(corev1.EventTypeWarning, signer.ConditionPaused, c.Message)
	}
	d.set(signer.ConditionPaused, cmmeta.ConditionTrue, c.Reason, c.Message)
}
