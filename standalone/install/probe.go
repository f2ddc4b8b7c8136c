package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A policyProbe finds out when the written policies of one kind are enforced. The server reloads
// all policies a moment after a change, and does not report when it has done so. Therefore the
// probe writes one more policy, about a ConfigMap that never exists, and tests it until it takes
// effect.
type policyProbe struct {
	kind    string
	version string
}

func probeFor(gvk schema.GroupVersionKind) (policyProbe, bool) {
	if gvk.Group != "admissionregistration.k8s.io" {
		return policyProbe{}, false
	}
	switch kind := strings.TrimSuffix(gvk.Kind, "Binding"); kind {
	case "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy":
		return policyProbe{kind, gvk.Version}, true
	}
	return policyProbe{}, false
}

func containsProbe(probes []policyProbe, p policyProbe) bool {
	for _, q := range probes {
		if q == p {
			return true
		}
	}
	return false
}

func (p policyProbe) resource(suffix string) schema.GroupVersionResource {
	plural := map[string]string{"ValidatingAdmissionPolicy": "validatingadmissionpolic",
		"MutatingAdmissionPolicy": "mutatingadmissionpolic"}[p.kind]
	if suffix == "" {
		plural += "ies"
	} else {
		plural += "ybindings"
	}
	return schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: p.version, Resource: plural}
}

const (
	probeLabel = "perennial.dev/probed"
	probeSpace = metav1.NamespaceDefault
)

func (i *installer) enforced(ctx context.Context, p policyProbe) (err error) {
	name := "perennial-probe-" + strings.ToLower(p.kind)
	policy := map[string]any{
		"failurePolicy": "Fail",
		"matchConstraints": map[string]any{
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": probeSpace}},
			"resourceRules": []any{map[string]any{
				"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"configmaps"}, "operations": []any{"CREATE"},
				"resourceNames": []any{name},
			}},
		},
	}
	binding := map[string]any{"policyName": name}
	if p.kind == "ValidatingAdmissionPolicy" {
		policy["validations"] = []any{
			map[string]any{"expression": "false", "message": "this policy only proves that policies are enforced"}}
		binding["validationActions"] = []any{"Deny"}
	} else {
		policy["reinvocationPolicy"] = "Never"
		policy["mutations"] = []any{map[string]any{"patchType": "ApplyConfiguration", "applyConfiguration": map[string]any{
			"expression": fmt.Sprintf("Object{metadata: Object.metadata{labels: {%q: \"true\"}}}", probeLabel),
		}}}
	}
	parts := []struct {
		resource schema.GroupVersionResource
		kind     string
		spec     map[string]any
	}{
		{p.resource(""), p.kind, policy},
		{p.resource("Binding"), p.kind + "Binding", binding},
	}
	defer func() {
		for _, part := range parts {
			// Delete the probe even if the context has ended.
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			deleteErr := i.client.Resource(part.resource).Delete(cleanup, name, metav1.DeleteOptions{})
			cancel()
			if deleteErr != nil && !apierrors.IsNotFound(deleteErr) {
				err = errors.Join(err, fmt.Errorf("remove %s %s: %w", part.kind, name, deleteErr))
			}
		}
	}()
	for _, part := range parts {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": part.spec}}
		u.SetGroupVersionKind(part.resource.GroupVersion().WithKind(part.kind))
		u.SetName(name)
		if _, err := i.apply(ctx, part.resource, u); err != nil {
			return fmt.Errorf("%s %s: %w", part.kind, name, err)
		}
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	object.SetName(name)
	return poll(ctx, func() error {
		made, err := i.client.Resource(configMaps).Namespace(probeSpace).Create(ctx, object,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case p.kind == "ValidatingAdmissionPolicy" && err != nil && strings.Contains(err.Error(), name):
			return nil
		case p.kind == "MutatingAdmissionPolicy" && err == nil && made.GetLabels()[probeLabel] != "":
			return nil
		case err != nil:
			return fmt.Errorf("find out whether each %s is enforced: %w", p.kind, err)
		}
		return fmt.Errorf("the server does not enforce each %s after %s", p.kind, installTimeout)
	})
}
