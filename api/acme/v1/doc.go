// Package v1 is the API group acme.cert-manager.io/v1: Order and Challenge, and the ACME settings
// of an issuer.
//
// Group, kinds, field names, JSON and defaults are those of cert-manager. Declarations that
// cert-manager does not have are marked "Perennial's own".
//
// +kubebuilder:object:generate=true
// +groupName=acme.cert-manager.io
package v1
