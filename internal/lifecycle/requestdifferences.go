package lifecycle

import (
	"crypto/x509"
	"maps"
	"slices"
	"strings"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// undeferred returns the differences that are a reason to issue before the next renewal.
func (o *Observation) undeferred(differences []string) []string {
	return signer.DeferralOf(o.Certificate.Annotations).Now(differences, o.revision())
}

// redundant reports whether a request to an ACME server has names that a wildcard in it covers,
// which the server would refuse. Such a request was made before the issuer existed, or by an
// earlier version.
func (o *Observation) redundant(csr *x509.CertificateRequest) bool {
	return ofACME(o.Issuer) && len(pki.WithoutCovered(csr.DNSNames)) < len(pki.DNSNames(csr.DNSNames))
}

// requestDifferences returns the fields of the spec in which the request differs from it. csr is
// the CSR of the request.
func (o *Observation) requestDifferences(cr *cmapi.CertificateRequest, csr *x509.CertificateRequest,
	spec *cmapi.CertificateSpec) []string {
	differences := o.asks(spec).CSRDifferences(csr)
	if cr.Spec.IsCA != spec.IsCA {
		differences = append(differences, "spec.isCA")
	}
	if !sameUsages(cr.Spec.Usages, spec.Usages) {
		differences = append(differences, "spec.usages")
	}
	if cr.Spec.Duration != nil && spec.Duration != nil && cr.Spec.Duration.Duration != spec.Duration.Duration {
		differences = append(differences, "spec.duration")
	}
	if !sameIssuer(cr.Spec.IssuerRef, spec.IssuerRef) {
		differences = append(differences, "spec.issuerRef")
	}
	if cr.Annotations[signer.ProfileAnnotation] != spec.ACMEProfile {
		differences = append(differences, "spec.acmeProfile")
	}
	return o.undeferred(differences)
}

// durationAdded reports whether the request has no duration, which means the default, and the spec
// asks for another one. That is no reason to replace a certificate, but one to replace an open
// request.
func durationAdded(cr *cmapi.CertificateRequest, spec *cmapi.CertificateSpec) bool {
	return cr.Spec.Duration == nil && spec.Duration != nil && spec.Duration.Duration != cmapi.DefaultCertificateDuration
}

// http01Annotations is the prefix of the annotations that say where the HTTP-01 challenges of a
// Certificate are answered.
const http01Annotations = "acme.cert-manager.io/http01-"

// provedOtherwise reports whether labels or annotations that decide how challenges are solved have
// changed since the request was made. The request, and its Order, have copies of them.
func (o *Observation) provedOtherwise(cr *cmapi.CertificateRequest, issuer *signer.Issuer) bool {
	if issuer == nil || issuer.GetSpec().ACME == nil {
		return false
	}
	others := func(key, _ string) bool { return !strings.HasPrefix(key, http01Annotations) }
	is, was := copiedAnnotations(o.Certificate.Annotations, o.Settings.CopiedAnnotations), maps.Clone(cr.Annotations)
	maps.DeleteFunc(is, others)
	maps.DeleteFunc(was, others)
	if !maps.Equal(is, was) {
		return true
	}
	for _, s := range issuer.GetSpec().ACME.Solvers {
		if s.Selector == nil {
			continue
		}
		for key := range s.Selector.MatchLabels {
			if !signer.ClaimsOwnership(key) && o.Certificate.Labels[key] != cr.Labels[key] {
				return true
			}
		}
	}
	return false
}

func sameUsages(a, b []cmapi.KeyUsage) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func sameIssuer(a, b cmmeta.IssuerReference) bool {
	return a.Name == b.Name && a.KindOrDefault() == b.KindOrDefault() && a.GroupOrDefault() == b.GroupOrDefault()
}
