package issuer

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/log"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// logTransition logs that an issuer became ready, or is not ready for another reason than before.
func logTransition(ctx context.Context, was, is *cmapi.IssuerStatus) {
	before := cmapi.GetIssuerCondition(was, cmapi.IssuerConditionReady)
	now := cmapi.GetIssuerCondition(is, cmapi.IssuerConditionReady)
	if now == nil || before != nil && before.Status == now.Status && before.Reason == now.Reason {
		return
	}
	step := "issuer not ready"
	if now.Status == cmmeta.ConditionTrue {
		step = "issuer ready"
	}
	log.FromContext(ctx).Info(step, "reason", now.Reason, "message", now.Message)
}
