package install

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/openapi"
)

// servedKinds are the kinds of a definition that are served.
func servedKinds(definition *unstructured.Unstructured) []schema.GroupVersionKind {
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	var kinds []schema.GroupVersionKind
	for _, v := range versions {
		v, _ := v.(map[string]any)
		name, _ := v["name"].(string)
		if served, _ := v["served"].(bool); served {
			kinds = append(kinds, schema.GroupVersionKind{Group: group, Version: name, Kind: kind})
		}
	}
	return kinds
}

// published returns an error while the schema of one of the kinds is not published.
func published(client openapi.Client, kinds []schema.GroupVersionKind) error {
	if len(kinds) == 0 {
		return nil
	}
	paths, err := client.Paths()
	if err != nil {
		return err
	}
	found := map[schema.GroupVersionKind]bool{}
	read := map[schema.GroupVersion]bool{}
	for _, kind := range kinds {
		gv := kind.GroupVersion()
		path, ok := paths["apis/"+gv.String()]
		if !ok {
			return fmt.Errorf("the server does not publish the schemas of %s", gv)
		}
		if read[gv] {
			continue
		}
		read[gv] = true
		content, err := path.Schema("application/json")
		if err != nil {
			return err
		}
		var document struct {
			Components struct {
				Schemas map[string]struct {
					Kinds []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
				} `json:"schemas"`
			} `json:"components"`
		}
		if err := json.Unmarshal(content, &document); err != nil {
			return fmt.Errorf("schemas of %s: %w", gv, err)
		}
		for _, s := range document.Components.Schemas {
			for _, k := range s.Kinds {
				found[k] = true
			}
		}
	}
	for _, kind := range kinds {
		if !found[kind] {
			return fmt.Errorf("the server does not publish the schema of %s", kind)
		}
	}
	return nil
}

// mutable waits until the server no longer refuses objects of a custom resource because their
// schema is missing.
func (i *installer) mutable(ctx context.Context, definition *unstructured.Unstructured) error {
	plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	scope, _, _ := unstructured.NestedString(definition.Object, "spec", "scope")
	for _, kind := range servedKinds(definition) {
		client := i.client.Resource(kind.GroupVersion().WithResource(plural))
		object := new(unstructured.Unstructured)
		object.SetGroupVersionKind(kind)
		object.SetName("perennial-probe")
		err := poll(ctx, func() error {
			var err error
			options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
			if scope == "Namespaced" {
				_, err = client.Namespace(probeSpace).Create(ctx, object, options)
			} else {
				_, err = client.Create(ctx, object, options)
			}
			// Other errors about the empty object do not depend on the schema.
			if apierrors.IsServiceUnavailable(err) {
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s is not ready for admission policies: %w", kind, err)
		}
	}
	return nil
}
