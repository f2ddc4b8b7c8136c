package request

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/observe"
)

// transition names the step between two versions of the status of a request, empty if there is
// none.
func transition(was, is *cmapi.CertificateRequestStatus) string {
	before, now := cmapi.CertificateRequestReadyReason(was), cmapi.CertificateRequestReadyReason(is)
	switch {
	case now != before && now == cmapi.CertificateRequestReasonIssued:
		return "request issued"
	case now != before && now == cmapi.CertificateRequestReasonFailed:
		return "request failed"
	case now != before && now == cmapi.CertificateRequestReasonDenied:
		return "request denied"
	case cmapi.CertificateRequestIsApproved(is) && !cmapi.CertificateRequestIsApproved(was):
		return "request approved"
	}
	return ""
}

// logTransition logs the step between two versions of a request.
func logTransition(ctx context.Context, was, is *cmapi.CertificateRequest, now time.Time) {
	if step := transition(&was.Status, &is.Status); step != "" {
		log.FromContext(ctx).Info(step, "age", observe.Seconds(now.Sub(is.CreationTimestamp.Time)),
			"message", readyMessage(is))
	}
}

// logWait logs what a request waits for before it is given to its signer: an approval, or an issuer
// that is ready. The log of the issuer has the cause.
func logWait(ctx context.Context, was, is *cmapi.CertificateRequest) {
	if message := readyMessage(is); message != readyMessage(was) {
		ref := is.Spec.IssuerRef
		log.FromContext(ctx).Info("request waits", "reason", message, "issuerKind", ref.KindOrDefault(),
			"issuer", ref.Name)
	}
}

func readyMessage(cr *cmapi.CertificateRequest) string {
	if c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady); c != nil {
		return c.Message
	}
	return ""
}
