// Package v1 is the API group cert-manager.io/v1: Certificate, CertificateRequest, Issuer
// and ClusterIssuer.
//
// Group, kinds, field names, JSON and defaults are those of cert-manager, so that manifests, tools
// and external issuers written for it work unchanged. Declarations that cert-manager does not have
// are marked "Perennial's own".
//
// +kubebuilder:object:generate=true
// +groupName=cert-manager.io
package v1
