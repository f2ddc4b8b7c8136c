// Package v1 is the API group acme.cert-manager.io/v1: Order and Challenge, and the ACME settings
// of an issuer.
//
// Group, kinds, field names, JSON and defaults are those of cert-manager. What is not in
// cert-manager is marked "Perennial's own" where it is declared.
//
// +kubebuilder:object:generate=true
// +groupName=acme.cert-manager.io
package v1
