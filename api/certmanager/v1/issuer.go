package v1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
)

// GenericIssuer is an Issuer or a ClusterIssuer.
//
// +kubebuilder:object:generate=false
type GenericIssuer interface {
	runtime.Object
	metav1.Object

	// GetObjectMeta returns the issuer's own metadata, not a copy.
	//
	// Deprecated: GenericIssuer is a metav1.Object.
	GetObjectMeta() *metav1.ObjectMeta
	// GetSpec returns the issuer's own spec, not a copy.
	GetSpec() *IssuerSpec
	// GetStatus returns the issuer's own status, not a copy.
	GetStatus() *IssuerStatus
}

var (
	_ GenericIssuer = (*Issuer)(nil)
	_ GenericIssuer = (*ClusterIssuer)(nil)
)

// GetObjectMeta returns the issuer's own metadata.
//
// Deprecated: Issuer is a metav1.Object.
func (i *Issuer) GetObjectMeta() *metav1.ObjectMeta { return &i.ObjectMeta }

// GetSpec returns the issuer's own spec, not a copy.
func (i *Issuer) GetSpec() *IssuerSpec { return &i.Spec }

// GetStatus returns the issuer's own status, not a copy.
func (i *Issuer) GetStatus() *IssuerStatus { return &i.Status }

// SetSpec replaces the spec.
func (i *Issuer) SetSpec(spec IssuerSpec) { i.Spec = spec }

// SetStatus replaces the status.
func (i *Issuer) SetStatus(status IssuerStatus) { i.Status = status }

// Copy returns a deep copy.
func (i *Issuer) Copy() GenericIssuer { return i.DeepCopy() }

// GetObjectMeta returns the issuer's own metadata.
//
// Deprecated: ClusterIssuer is a metav1.Object.
func (i *ClusterIssuer) GetObjectMeta() *metav1.ObjectMeta { return &i.ObjectMeta }

// GetSpec returns the issuer's own spec, not a copy.
func (i *ClusterIssuer) GetSpec() *IssuerSpec { return &i.Spec }

// GetStatus returns the issuer's own status, not a copy.
func (i *ClusterIssuer) GetStatus() *IssuerStatus { return &i.Status }

// SetSpec replaces the spec.
func (i *ClusterIssuer) SetSpec(spec IssuerSpec) { i.Spec = spec }

// SetStatus replaces the status.
func (i *ClusterIssuer) SetStatus(status IssuerStatus) { i.Status = status }

// Copy returns a deep copy.
func (i *ClusterIssuer) Copy() GenericIssuer { return i.DeepCopy() }

// ACMEStatus returns the ACME part of the status for reading or writing. It adds the part if there
// is none. For a nil status it returns an empty part that is not connected to any status.
func (s *IssuerStatus) ACMEStatus() *acmev1.ACMEIssuerStatus {
	if s == nil {
		return &acmev1.ACMEIssuerStatus{}
	}
	if s.ACME == nil {
		s.ACME = &acmev1.ACMEIssuerStatus{}
	}
	return s.ACME
}

// DurationOrDefault returns the lifetime that the Certificate requests.
func (s *CertificateSpec) DurationOrDefault() time.Duration { return durationOrDefault(s.Duration) }

// DurationOrDefault returns the lifetime that the CertificateRequest requests.
func (s *CertificateRequestSpec) DurationOrDefault() time.Duration {
	return durationOrDefault(s.Duration)
}

func durationOrDefault(d *metav1.Duration) time.Duration {
	if d == nil {
		return DefaultCertificateDuration
	}
	return d.Duration
}
