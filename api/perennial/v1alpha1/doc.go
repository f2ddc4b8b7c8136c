// Package v1alpha1 is the API group perennial.dev: the kinds that are Perennial's own.
//
// +kubebuilder:object:generate=true
// +groupName=perennial.dev
package v1alpha1
