package request

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/signer"
)

// forbid sets the condition ApprovalForbidden of a request, or removes it if why is empty.
func forbid(cr *cmapi.CertificateRequest, why string, now time.Time) {
	if why == "" {
		cr.Status.Conditions = slices.DeleteFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
			return c.Type == signer.ConditionApprovalForbidden
		})
		return
	}
	cmapi.SetCertificateRequestCondition(&cr.Status, now, cmapi.CertificateRequestCondition{
		Type: signer.ConditionApprovalForbidden, Status: cmmeta.ConditionTrue, Reason: "MissingPermission", Message: why,
	})
}

// forbidden reports whether the status of a request says that the controller may not approve it.
func forbidden(cr *cmapi.CertificateRequest) bool {
	return cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionApprovalForbidden) != nil
}

// mark writes into the status of a request that its CSR was checked.
func mark(cr *cmapi.CertificateRequest, now time.Time) {
	cmapi.SetCertificateRequestCondition(&cr.Status, now, cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionChecked, Status: cmmeta.ConditionTrue, Reason: "CSRFits",
		Message: checkedMessage,
	})
}

// writeForbidden writes that the API server refused the controller's approval, with its message. It
// takes a second patch, as the refused one changed nothing. The patch also marks the request as
// checked, so that other approvers may approve it.
func (r *Reconciler) writeForbidden(ctx context.Context, cr *cmapi.CertificateRequest, check bool,
	refusal error) error {
	next := cr.DeepCopy()
	if check {
		mark(next, r.Clock.Now())
	}
	forbid(next, refusal.Error(), r.Clock.Now())
	if equality.Semantic.DeepEqual(cr.Status, next.Status) {
		return nil
	}
	err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(cr, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return observe.StatusRefused(r.Events, cr, err)
	}
	return nil
}
