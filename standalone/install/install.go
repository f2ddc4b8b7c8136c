// Package install installs an API in a cluster, with the permissions of an administrator. Its
// functions return when the API takes effect: definitions are served, admission policies are
// enforced.
package install

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/perennial-pki/perennial/api"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/version"
)

// FieldManager owns the fields of the installed objects.
const FieldManager = "perenniald"

// How long it may take after creation until an API is served or a policy is enforced.
const installTimeout = 30 * time.Second

var (
	definitionsResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1",
		Resource: "customresourcedefinitions"}
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

// API installs the API of Perennial: its CustomResourceDefinitions and admission policies.
func API(ctx context.Context, config *rest.Config) error {
	objects, err := Perennial()
	if err != nil {
		return err
	}
	return Objects(ctx, config, objects...)
}

// Controller installs the ServiceAccount of the controller and its permissions.
func Controller(ctx context.Context, config *rest.Config) error {
	rbac, err := deploy.RBAC()
	if err != nil {
		return err
	}
	var objects []runtime.Object
	for _, o := range rbac {
		objects = append(objects, o)
	}
	return Objects(ctx, config, objects...)
}

// Perennial returns the CustomResourceDefinitions and admission policies of Perennial.
func Perennial() ([]runtime.Object, error) {
	definitions, err := api.CRDs()
	if err != nil {
		return nil, fmt.Errorf("API of Perennial: %w", err)
	}
	policies, err := api.Policies()
	if err != nil {
		return nil, fmt.Errorf("API of Perennial: %w", err)
	}
	var objects []runtime.Object
	for _, o := range definitions {
		objects = append(objects, o)
	}
	for _, o := range policies {
		objects = append(objects, o)
	}
	return objects, nil
}

// Objects applies objects and returns when they take effect: CustomResourceDefinitions are served,
// admission policies are enforced. Definitions come first, the others follow in the order given.
// Objects that are up to date are not written. Every object must have an apiVersion and a kind.
func Objects(ctx context.Context, config *rest.Config, objects ...runtime.Object) error {
	return AtStart(ctx, config, nil, objects...)
}

// AtStart is [Objects] for an API server that is starting. It calls defined when all definitions
// are served and their schemas are published; defined makes the schemas available to admission
// policies. If defined is nil, AtStart waits until the API server has read the schemas again.
func AtStart(ctx context.Context, config *rest.Config, defined func(), objects ...runtime.Object) error {
	config = rest.CopyConfig(config)
	config.UserAgent = version.UserAgent(FieldManager)
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	i := &installer{client: client, kinds: kinds}
	var definitions, others []*unstructured.Unstructured
	for _, o := range objects {
		u, err := toUnstructured(o)
		if err != nil {
			return fmt.Errorf("install: %w", err)
		}
		if u.GroupVersionKind().GroupKind() == (schema.GroupKind{Group: definitionsResource.Group,
			Kind: "CustomResourceDefinition"}) {
			definitions = append(definitions, u)
		} else {
			others = append(others, u)
		}
	}

	if err := each(ctx, definitions, i.definition); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	var kindsDefined []schema.GroupVersionKind
	for _, u := range definitions {
		kindsDefined = append(kindsDefined, servedKinds(u)...)
	}
	if err := poll(ctx, func() error { return published(kinds.OpenAPIV3(), kindsDefined) }); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if defined != nil {
		defined()
	}

	probes, err := i.applyAll(ctx, others)
	if err != nil {
		return err
	}
	for _, probe := range probes {
		if err := i.enforced(ctx, probe); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	if defined != nil {
		return nil
	}
	if err := each(ctx, definitions, i.mutable); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

// each calls do for several objects in parallel, and returns the first error.
func each(ctx context.Context, objects []*unstructured.Unstructured,
	do func(context.Context, *unstructured.Unstructured) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, u := range objects {
		group.Go(func() error { return do(ctx, u) })
	}
	return group.Wait()
}

// applyAll applies objects of defined kinds, and returns the probes of the policies that it
// changed.
func (i *installer) applyAll(ctx context.Context, objects []*unstructured.Unstructured) ([]policyProbe, error) {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(i.kinds))
	var probes []policyProbe
	for _, u := range objects {
		gvk := u.GroupVersionKind()
		mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return nil, fmt.Errorf("install %s %s: %w", gvk.Kind, u.GetName(), err)
		}
		changed, err := i.apply(ctx, mapping.Resource, u)
		if err != nil {
			return nil, fmt.Errorf("install %s %s: %w", gvk.Kind, u.GetName(), err)
		}
		if probe, ok := probeFor(gvk); ok && changed && !containsProbe(probes, probe) {
			probes = append(probes, probe)
		}
	}
	return probes, nil
}

func toUnstructured(o runtime.Object) (*unstructured.Unstructured, error) {
	u, ok := o.(*unstructured.Unstructured)
	if ok {
		u = u.DeepCopy()
	} else {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, fmt.Errorf("convert %T: %w", o, err)
		}
		u = &unstructured.Unstructured{Object: content}
	}
	if u.GetKind() == "" || u.GetAPIVersion() == "" {
		return nil, fmt.Errorf("object %q of type %T does not say its apiVersion and kind", u.GetName(), o)
	}
	// Remove fields that the server owns and that Go types encode as null.
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return u, nil
}

type installer struct {
	client dynamic.Interface
	kinds  discovery.DiscoveryInterface
}

// apply reports whether the object had to be written.
func (i *installer) apply(ctx context.Context, resource schema.GroupVersionResource,
	u *unstructured.Unstructured) (bool, error) {
	var client dynamic.ResourceInterface = i.client.Resource(resource)
	if ns := u.GetNamespace(); ns != "" {
		client = i.client.Resource(resource).Namespace(ns)
	}
	before := ""
	old, err := client.Get(ctx, u.GetName(), metav1.GetOptions{})
	switch {
	case err == nil:
		before = old.GetResourceVersion()
	case !apierrors.IsNotFound(err):
		return false, err
	}
	// The server does not write an apply that changes nothing.
	now, err := client.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err != nil {
		return false, err
	}
	return now.GetResourceVersion() != before, nil
}

// definition applies a CustomResourceDefinition and waits until all its versions are served.
func (i *installer) definition(ctx context.Context, u *unstructured.Unstructured) error {
	if _, err := i.apply(ctx, definitionsResource, u); err != nil {
		return fmt.Errorf("CustomResourceDefinition %s: %w", u.GetName(), err)
	}
	plural, _, _ := unstructured.NestedString(u.Object, "spec", "names", "plural")
	group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
	versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
	for _, v := range versions {
		version, _ := v.(map[string]any)
		if served, _ := version["served"].(bool); !served {
			continue
		}
		groupVersion := fmt.Sprintf("%s/%s", group, version["name"])
		err := poll(ctx, func() error {
			list, err := i.kinds.ServerResourcesForGroupVersion(groupVersion)
			if err != nil {
				return err
			}
			for _, r := range list.APIResources {
				if r.Name == plural {
					return nil
				}
			}
			return fmt.Errorf("the server does not list it in %s", groupVersion)
		})
		if err != nil {
			reason := err.Error()
			if crd, err := i.client.Resource(definitionsResource).Get(ctx, u.GetName(), metav1.GetOptions{}); err == nil {
				if problem := notEstablished(crd); problem != "" {
					reason = problem
				}
			}
			return fmt.Errorf("CustomResourceDefinition %s is not served: %s", u.GetName(), reason)
		}
	}
	return nil
}

// notEstablished joins the messages of the conditions that prevent a definition from being served.
func notEstablished(crd *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	var problems []string
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		bad := condition["type"] == "NonStructuralSchema" && condition["status"] == "True" ||
			(condition["type"] == "NamesAccepted" || condition["type"] == "Established") && condition["status"] == "False"
		if bad {
			problems = append(problems, fmt.Sprint(condition["message"]))
		}
	}
	return strings.Join(problems, "; ")
}

// poll calls f until it succeeds, and returns the last error if it does not in time.
func poll(ctx context.Context, f func() error) error {
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(installTimeout)
	defer deadline.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return err
		case <-ticker.C:
		}
	}
}
