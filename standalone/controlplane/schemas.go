package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/openapi"
)

// kube-apiserver reads its own list of schemas when it starts, and then every five seconds. Until
// it has seen the schema of a custom resource there, it refuses every object that a MutatingAdmissionPolicy
// matches. A schemaGate holds the answer to the first reading back until the definitions known at the start are
// in it; else nothing could be requested for the first five seconds of each start.
type schemaGate struct {
	open chan struct{}
	once sync.Once
}

// The next reading would come after five seconds in any case.
const schemaGateLimit = 4500 * time.Millisecond

func newSchemaGate() *schemaGate { return &schemaGate{open: make(chan struct{})} }

func (g *schemaGate) release() { g.once.Do(func() { close(g.open) }) }

// wrap is for the transport of the clients that kube-apiserver has of itself.
func (g *schemaGate) wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet && r.URL.Path == "/openapi/v3" {
			select {
			case <-g.open:
			default:
				limit := time.NewTimer(schemaGateLimit)
				defer limit.Stop()
				select {
				case <-g.open:
				case <-limit.C:
				case <-r.Context().Done():
				}
			}
		}
		return rt.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

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

// published returns an error as long as the list of schemas lacks one of the kinds.
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

// mutable waits until objects of a custom resource are no longer refused for want of their schema.
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
			// Whatever else is wrong with an empty object, it is no matter of time.
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
