package api_test

import (
	"slices"
	"testing"

	"github.com/perennial-pki/perennial/api"
)

// Without the default, tools that follow kstatus would consider a new object to be ready.
func TestObjectsBeginWithAStatusOfNoGeneration(t *testing.T) {
	crds, err := api.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range crds {
		kind := crd.Spec.Names.Kind
		if crd.Spec.Group != "perennial.dev" && !slices.Contains([]string{"Certificate", "Issuer", "ClusterIssuer"}, kind) {
			continue
		}
		for _, v := range crd.Spec.Versions {
			status := v.Schema.OpenAPIV3Schema.Properties["status"]
			if status.Default == nil || string(status.Default.Raw) != `{"observedGeneration":-1}` ||
				status.Properties["observedGeneration"].Type != "integer" {
				t.Errorf("%s %s: the default of status is %v", kind, v.Name, status.Default)
			}
		}
	}
}
