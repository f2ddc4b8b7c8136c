// Package external reads issuers of other projects: the resource of their kind, whether an issuer
// exists, and its status.
package external

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// Kind is a kind of issuers.
type Kind struct {
	schema.GroupVersionKind
	// Resource is its plural.
	Resource string
	// Namespaced says that its issuers live in namespaces.
	Namespaced bool
}

// KindOf finds the kind that a reference names. It is nil if the cluster has none of that name.
func KindOf(mapper meta.RESTMapper, ref cmmeta.IssuerReference) (*Kind, error) {
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: ref.GroupOrDefault(), Kind: ref.KindOrDefault()})
	switch {
	case meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the kind %s in group %s: %w", ref.KindOrDefault(), ref.GroupOrDefault(), err)
	}
	return &Kind{GroupVersionKind: mapping.GroupVersionKind, Resource: mapping.Resource.Resource,
		Namespaced: mapping.Scope.Name() == meta.RESTScopeNameNamespace}, nil
}

// Signer returns the name of an issuer of the kind in RBAC rules for approval.
func (k *Kind) Signer(namespace, name string) string {
	if k.Namespaced {
		name = namespace + "." + name
	}
	return k.Resource + "." + k.Group + "/" + name
}

// Signers returns the name of all issuers of the kind in RBAC rules for approval.
func (k *Kind) Signers() string { return k.Resource + "." + k.Group + "/*" }

// Found is the result of looking for an issuer.
type Found string

// The results of looking for an issuer.
const (
	NoKind    Found = "NoKind"  // the cluster has no such kind
	Missing   Found = "Missing" // there is no such issuer
	Forbidden Found = "Hidden"  // the issuer may not be read
	Exists    Found = "There"
)

// State is the state of an issuer.
type State struct {
	Found
	// Generation identifies the issuer and its spec, as that of signer.Issuer does. It is empty unless
	// the issuer is There.
	Generation string
	// Ready is the status of its Ready condition, empty if it has none. Message and Since are of the
	// condition.
	Ready   metav1.ConditionStatus
	Message string
	Since   *metav1.Time
}

// Look reads the issuer that ref names in an object of the namespace.
func Look(ctx context.Context, c client.Reader, mapper meta.RESTMapper, namespace string,
	ref cmmeta.IssuerReference) (State, error) {
	kind, err := KindOf(mapper, ref)
	if err != nil || kind == nil {
		return State{Found: NoKind}, err
	}
	key := client.ObjectKey{Name: ref.Name}
	if kind.Namespaced {
		key.Namespace = namespace
	}
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind.GroupVersionKind)
	err = c.Get(ctx, key, o)
	switch {
	case apierrors.IsNotFound(err):
		return State{Found: Missing}, nil
	case apierrors.IsForbidden(err):
		return State{Found: Forbidden}, nil
	case err != nil:
		return State{}, fmt.Errorf("get %s %q: %w", kind.Kind, ref.Name, err)
	}
	return StateOf(o), nil
}

// StateOf reads the state of an issuer.
func StateOf(o *unstructured.Unstructured) State {
	s := State{Found: Exists, Generation: fmt.Sprintf("%s.%d", o.GetUID(), o.GetGeneration())}
	c := readyOf(o)
	if c == nil {
		return s
	}
	status, _, _ := unstructured.NestedString(c, "status")
	s.Ready = metav1.ConditionStatus(status)
	s.Message, _, _ = unstructured.NestedString(c, "message")
	text, _, _ := unstructured.NestedString(c, "lastTransitionTime")
	since := &metav1.Time{}
	if since.UnmarshalQueryParameter(text) == nil && !since.IsZero() {
		s.Since = since
	}
	return s
}

// readyOf returns the Ready condition of an object, or nil.
func readyOf(o *unstructured.Unstructured) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Ready" {
			return c
		}
	}
	return nil
}
