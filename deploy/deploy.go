// Package deploy holds the manifest that installs Perennial in a cluster, generated from the Helm
// chart, and returns the parts that tests install by themselves.
package deploy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:generate go -C ../test run ./chart/generate

// The namespace and the ServiceAccount of the controller.
const (
	Namespace      = "perennial-system"
	ServiceAccount = "perennial-controller"
)

//go:embed perennial.yaml
var manifest string

//go:embed http01-pods.yaml
var pods string

// RBAC returns the namespace and the ServiceAccount of the controller, its permissions, and the
// permissions to add to the roles view, edit and admin. Apply them in this order.
func RBAC() ([]*unstructured.Unstructured, error) {
	return objects("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
}

// HTTP01Service returns the Service for the flag --http01-service.
func HTTP01Service() (*unstructured.Unstructured, error) {
	services, err := objects("Service")
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		if s.GetName() == "perennial-http01" {
			return s, nil
		}
	}
	return nil, fmt.Errorf("deploy/perennial.yaml: there is no Service perennial-http01")
}

// objects returns the objects of some kinds, in the order of the manifest.
func objects(kinds ...string) ([]*unstructured.Unstructured, error) {
	var found []*unstructured.Unstructured
	for _, document := range strings.Split(manifest+"---\n"+pods, "\n---\n") {
		if !slices.ContainsFunc(kinds, func(kind string) bool { return strings.Contains(document, "\nkind: "+kind+"\n") }) {
			continue // most of the manifest is definitions, which take long to parse
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			return nil, fmt.Errorf("deploy/perennial.yaml: %w", err)
		}
		found = append(found, u)
	}
	return found, nil
}
