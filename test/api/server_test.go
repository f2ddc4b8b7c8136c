package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// adminConfig returns the configuration of a client with all permissions.
func adminConfig(t testing.TB) *rest.Config { return cluster.Plane(t).AdminConfig() }

// admin returns a client with all permissions.
func admin(t testing.TB) dynamic.Interface {
	t.Helper()
	return clientFor(t, adminConfig(t))
}

// as returns a client of another user, with the user's RBAC permissions.
func as(t testing.TB, user rest.ImpersonationConfig) dynamic.Interface {
	t.Helper()
	config := adminConfig(t)
	config.Impersonate = user
	return clientFor(t, config)
}

func clientFor(t testing.TB, config *rest.Config) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

var (
	certificates        = schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}
	certificateRequests = schema.GroupVersionResource{
		Group:    "cert-manager.io",
		Version:  "v1",
		Resource: "certificaterequests",
	}
	issuers        = schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "issuers"}
	clusterIssuers = schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "clusterissuers"}
	orders         = schema.GroupVersionResource{Group: "acme.cert-manager.io", Version: "v1", Resource: "orders"}
	challenges     = schema.GroupVersionResource{Group: "acme.cert-manager.io", Version: "v1", Resource: "challenges"}
	namespaces     = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	clusterRoles   = schema.GroupVersionResource{
		Group:    "rbac.authorization.k8s.io",
		Version:  "v1",
		Resource: "clusterroles",
	}
	clusterRoleBindings = schema.GroupVersionResource{
		Group:    "rbac.authorization.k8s.io",
		Version:  "v1",
		Resource: "clusterrolebindings",
	}
)

// object parses a manifest, merges patches into it as kubectl patch --type merge would (a null
// removes), and returns the object.
func object(t testing.TB, manifest string, patches ...string) *unstructured.Unstructured {
	t.Helper()
	var out map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &out); err != nil {
		t.Fatalf("parse manifest: %v\n%s", err, manifest)
	}
	for _, patch := range patches {
		var p map[string]any
		if err := yaml.Unmarshal([]byte(patch), &p); err != nil {
			t.Fatalf("parse patch: %v\n%s", err, patch)
		}
		out = merge(out, p)
	}
	// Through JSON, so that numbers are what the unstructured converter expects.
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	u := new(unstructured.Unstructured)
	if err := u.UnmarshalJSON(b); err != nil {
		t.Fatalf("parse manifest: %v\n%s", err, b)
	}
	return u
}

func toYAML(t testing.TB, u *unstructured.Unstructured) string {
	t.Helper()
	b, err := yaml.Marshal(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// merge is RFC 7396.
func merge(into, patch map[string]any) map[string]any {
	out := maps.Clone(into)
	if out == nil {
		out = map[string]any{}
	}
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(out, key)
		case map[string]any:
			old, _ := out[key].(map[string]any)
			out[key] = merge(old, value)
		default:
			out[key] = value
		}
	}
	return out
}

// namespaced returns the resource in the namespace of the object.
func namespaced(
	client dynamic.Interface,
	resource schema.GroupVersionResource,
	u *unstructured.Unstructured,
) dynamic.ResourceInterface {
	if u.GetNamespace() == "" {
		return client.Resource(resource)
	}
	return client.Resource(resource).Namespace(u.GetNamespace())
}

// dryRun creates an object as a dry run, to get the API server's verdict.
func dryRun(
	t testing.TB,
	client dynamic.Interface,
	resource schema.GroupVersionResource,
	u *unstructured.Unstructured,
) error {
	t.Helper()
	_, err := namespaced(
		client,
		resource,
		u,
	).Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// create creates an object and deletes it when the test ends.
func create(
	t testing.TB,
	client dynamic.Interface,
	resource schema.GroupVersionResource,
	u *unstructured.Unstructured,
) *unstructured.Unstructured {
	t.Helper()
	out, err := namespaced(client, resource, u).Create(t.Context(), u, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
	}
	t.Cleanup(func() {
		err := namespaced(admin(t), resource, u).Delete(context.Background(), out.GetName(), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete %s %s: %v", u.GetKind(), u.GetName(), err)
		}
	})
	return out
}

// A verdict is the expected answer of the API server: success, or an error about one field.
type verdict struct {
	field   string // JSON path
	message string // end of the message
}

var accepted = verdict{}

func refused(field, message string) verdict { return verdict{field, message} }

// check compares err with the verdict. A refusal must consist of one sentence about one field, so
// that the reader need not guess which of several fields is wrong.
func (v verdict) check(t *testing.T, err error) {
	t.Helper()
	if v == accepted {
		if err != nil {
			t.Fatalf("was refused: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("was accepted, expected: %s: %s", v.field, v.message)
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		t.Fatalf("is not an answer of the API server: %v", err)
	}
	// Where the shape is wrong, the server adds that it did not look any further.
	causes := slices.DeleteFunc(status.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool {
		return strings.Contains(c.Message, "some validation rules were not checked")
	})
	if len(causes) != 1 {
		t.Fatalf("has %d causes, expected one: %v", len(causes), err)
	}
	if causes[0].Field != v.field || !strings.HasSuffix(causes[0].Message, v.message) {
		t.Errorf("is about %s: %s\nexpected %s: …%s", causes[0].Field, causes[0].Message, v.field, v.message)
	}
}

// An example is a patch of a valid object, and whether the API server accepts the result.
type example struct {
	name  string
	patch string
	want  verdict
}

// judge checks each example by a creation.
func judge(t *testing.T, resource schema.GroupVersionResource, base string, examples []example) {
	t.Helper()
	client := admin(t)
	t.Run("the example that the others change is accepted", func(t *testing.T) {
		accepted.check(t, dryRun(t, client, resource, object(t, base)))
	})
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryRun(t, client, resource, object(t, base, e.patch)))
		})
	}
}

// list returns a YAML list of n entries, made by format from their number.
func list(n int, format string) string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
