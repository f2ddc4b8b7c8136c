// Package deploy holds the manifests that a cluster needs in addition to the API: the controller's
// ServiceAccount, its RBAC permissions, and the Service whose endpoints answer HTTP-01 challenges.
package deploy

import (
	_ "embed"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The namespace and the ServiceAccount of the controller.
const (
	Namespace      = "perennial-system"
	ServiceAccount = "perennial-controller"
)

//go:embed rbac.yaml
var rbac string

//go:embed http01-service.yaml
var http01Service string

// RBAC returns the namespace and the ServiceAccount of the controller, its permissions, and the
// permissions to add to the roles view, edit and admin. Apply them in this order.
func RBAC() ([]*unstructured.Unstructured, error) { return parse("rbac.yaml", rbac) }

// HTTP01Service returns the Service for the flag --http01-service.
func HTTP01Service() ([]*unstructured.Unstructured, error) {
	return parse("http01-service.yaml", http01Service)
}

func parse(name, text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, document := range strings.Split(text, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, u)
	}
	return objects, nil
}
