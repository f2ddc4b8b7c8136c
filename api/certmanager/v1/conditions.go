package v1

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// GetCertificateCondition returns the condition of the given type in the status, or nil. The
// pointer is into the status.
func GetCertificateCondition(status *CertificateStatus, t CertificateConditionType) *CertificateCondition {
	return findCondition(status.Conditions, string(t))
}

// SetCertificateCondition replaces the condition of c's type in the status with c, and reports
// whether that changed anything. It ignores the transition time of c: the time becomes now if the
// condition is new or its status changes, and is kept otherwise.
func SetCertificateCondition(status *CertificateStatus, now time.Time, c CertificateCondition) (changed bool) {
	return putCondition(&status.Conditions, now, c)
}

// RemoveCertificateCondition removes the condition of the given type from the status, and reports
// whether there was one.
func RemoveCertificateCondition(status *CertificateStatus, t CertificateConditionType) (changed bool) {
	return dropCondition(&status.Conditions, string(t))
}

// GetCertificateRequestCondition returns the condition of the given type in the status, or nil. The
// pointer is into the status.
func GetCertificateRequestCondition(
	status *CertificateRequestStatus,
	t CertificateRequestConditionType,
) *CertificateRequestCondition {
	return findCondition(status.Conditions, string(t))
}

// SetCertificateRequestCondition does for a CertificateRequest what SetCertificateCondition does
// for a Certificate.
func SetCertificateRequestCondition(
	status *CertificateRequestStatus,
	now time.Time,
	c CertificateRequestCondition,
) (changed bool) {
	return putCondition(&status.Conditions, now, c)
}

// SetUnreachable adds the condition Unreachable to the status of a request, or removes it, and
// reports whether that changed anything.
func (s *CertificateRequestStatus) SetUnreachable(now time.Time, is bool, message string) (changed bool) {
	if is {
		return putCondition(&s.Conditions, now, CertificateRequestCondition{
			Type: CertificateRequestConditionUnreachable, Status: cmmeta.ConditionTrue, Reason: "Unreachable", Message: message,
		})
	}
	return dropCondition(&s.Conditions, string(CertificateRequestConditionUnreachable))
}

// SetUnreachable adds the condition Unreachable to the status of an issuer, or removes it if reason
// is empty, and reports whether that changed anything.
func (s *IssuerStatus) SetUnreachable(now time.Time, reason, message string, generation int64) (changed bool) {
	if reason == "" {
		return dropCondition(&s.Conditions, string(IssuerConditionUnreachable))
	}
	return putCondition(&s.Conditions, now, IssuerCondition{
		Type: IssuerConditionUnreachable, Status: cmmeta.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: generation,
	})
}

// SetUnprotected adds the condition Unprotected to the status of an issuer, or removes it if
// message is empty, and reports whether that changed anything.
func (s *IssuerStatus) SetUnprotected(now time.Time, message string, generation int64) (changed bool) {
	if message == "" {
		return dropCondition(&s.Conditions, string(IssuerConditionUnprotected))
	}
	return putCondition(&s.Conditions, now, IssuerCondition{
		Type: IssuerConditionUnprotected, Status: cmmeta.ConditionTrue, Reason: "AdmissionPolicies", Message: message,
		ObservedGeneration: generation,
	})
}

// SetSolversInvalid adds the condition SolversValid, False, to the status of an issuer, or removes
// it if reason is empty, and reports whether that changed anything.
func (s *IssuerStatus) SetSolversInvalid(now time.Time, reason, message string, generation int64) (changed bool) {
	if reason == "" {
		return dropCondition(&s.Conditions, string(IssuerConditionSolversValid))
	}
	return putCondition(&s.Conditions, now, IssuerCondition{
		Type: IssuerConditionSolversValid, Status: cmmeta.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: generation,
	})
}

// SetStalled adds the condition Stalled to the status of an issuer, or removes it if reason is
// empty, and reports whether that changed anything.
func (s *IssuerStatus) SetStalled(now time.Time, reason, message string, generation int64) (changed bool) {
	if reason == "" {
		return dropCondition(&s.Conditions, string(IssuerConditionStalled))
	}
	return putCondition(&s.Conditions, now, IssuerCondition{
		Type: IssuerConditionStalled, Status: cmmeta.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: generation,
	})
}

// CertificateRequestIsApproved reports whether the request was approved.
func CertificateRequestIsApproved(status *CertificateRequestStatus) bool {
	return conditionIsTrue(status.Conditions, string(CertificateRequestConditionApproved))
}

// CertificateRequestIsDenied reports whether the request was denied.
func CertificateRequestIsDenied(status *CertificateRequestStatus) bool {
	return conditionIsTrue(status.Conditions, string(CertificateRequestConditionDenied))
}

// CertificateRequestReadyReason returns the reason of the Ready condition, or "".
func CertificateRequestReadyReason(status *CertificateRequestStatus) string {
	if c := GetCertificateRequestCondition(status, CertificateRequestConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

// GetIssuerCondition returns the condition of the given type in the status, or nil. The pointer is
// into the status.
func GetIssuerCondition(status *IssuerStatus, t IssuerConditionType) *IssuerCondition {
	return findCondition(status.Conditions, string(t))
}

// SetIssuerCondition does for an Issuer or ClusterIssuer what SetCertificateCondition does for
// a Certificate.
func SetIssuerCondition(status *IssuerStatus, now time.Time, c IssuerCondition) (changed bool) {
	return putCondition(&status.Conditions, now, c)
}

// condition is a pointer to one of the three condition types. Their fields differ, but they are set
// and removed in the same way.
//
// +kubebuilder:object:generate=false
type condition[C any] interface {
	*C
	parts() (conditionType string, status cmmeta.ConditionStatus, since **metav1.Time)
}

func (c *CertificateCondition) parts() (string, cmmeta.ConditionStatus, **metav1.Time) {
	return string(c.Type), c.Status, &c.LastTransitionTime
}

func (c *CertificateRequestCondition) parts() (string, cmmeta.ConditionStatus, **metav1.Time) {
	return string(c.Type), c.Status, &c.LastTransitionTime
}

func (c *IssuerCondition) parts() (string, cmmeta.ConditionStatus, **metav1.Time) {
	return string(c.Type), c.Status, &c.LastTransitionTime
}

func findCondition[C any, P condition[C]](conditions []C, conditionType string) *C {
	for i := range conditions {
		if t, _, _ := P(&conditions[i]).parts(); t == conditionType {
			return &conditions[i]
		}
	}
	return nil
}

func conditionIsTrue[C any, P condition[C]](conditions []C, conditionType string) bool {
	c := findCondition[C, P](conditions, conditionType)
	if c == nil {
		return false
	}
	_, status, _ := P(c).parts()
	return status == cmmeta.ConditionTrue
}

func dropCondition[C any, P condition[C]](conditions *[]C, conditionType string) (changed bool) {
	before := len(*conditions)
	*conditions = slices.DeleteFunc(*conditions, func(c C) bool {
		t, _, _ := P(&c).parts()
		return t == conditionType
	})
	return len(*conditions) != before
}

func putCondition[C comparable, P condition[C]](conditions *[]C, now time.Time, c C) (changed bool) {
	conditionType, status, since := P(&c).parts()
	t := metav1.NewTime(now)
	*since = &t

	old := findCondition[C, P](*conditions, conditionType)
	if old == nil {
		*conditions = append(*conditions, c)
		return true
	}
	if _, oldStatus, oldSince := P(old).parts(); oldStatus == status && *oldSince != nil {
		*since = *oldSince
	}
	if *old == c { // the transition times are equal as pointers
		return false
	}
	*old = c
	return true
}
