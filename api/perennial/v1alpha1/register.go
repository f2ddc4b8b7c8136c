package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of the kinds in this package.
const GroupName = "perennial.dev"

// CertificateFileKind is the kind of a CertificateFile.
const CertificateFileKind = "CertificateFile"

var (
	// GroupVersion is the apiVersion of these kinds in a manifest.
	GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

	// SchemeBuilder collects the functions that AddToScheme calls.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the kinds of this package with a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&CertificateFile{}, &CertificateFileList{},
		&TrustBundle{}, &TrustBundleList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
