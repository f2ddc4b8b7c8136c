// Package deploy holds the manifests that a cluster needs beside the API: the controller's ServiceAccount and what RBAC lets
// it do.
package deploy

import (
	_ "embed"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Where the controller runs, and as whom.
const (
	Namespace      = "perennial-system"
	ServiceAccount = "perennial-controller"
)

//go:embed rbac.yaml
var rbac string

// RBAC returns the namespace and the ServiceAccount of the controller and its rights, in the order in which to apply them.
func RBAC() ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(rbac, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			return nil, fmt.Errorf("rbac.yaml: %w", err)
		}
		objects = append(objects, u)
	}
	return objects, nil
}
