// Package definitions compares the CustomResourceDefinitions in a cluster with those of this
// version. Older ones work: fields that they lack are not stored. Newer ones work as well.
package definitions

import (
	"context"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/api"
)

const (
	// VersionLabel has the version of the API on each definition.
	VersionLabel = "app.kubernetes.io/version"

	// machineOnly is the definition that only perenniald needs.
	machineOnly = "certificatefiles.perennial.dev"
)

// State is how the definitions in a cluster differ from those of this version.
type State struct {
	// Missing are the names of those that are not installed, or not served yet.
	Missing []string
	// Older are those of an earlier version, as name and version.
	Older []string
	// Want is the version of this program's definitions.
	Want string
}

// Look compares the definitions that the controller needs. A controller for one namespace needs
// only those of namespaced kinds and of ClusterIssuers.
func Look(ctx context.Context, c client.Client, oneNamespace bool) (State, error) {
	wanted, err := api.CRDs()
	if err != nil {
		return State{}, err
	}
	var s State
	for _, crd := range wanted {
		if crd.Name == machineOnly || oneNamespace && strings.HasSuffix(crd.Name, ".perennial.dev") {
			continue
		}
		installed := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
			APIVersion: apiextensionsv1.SchemeGroupVersion.String(), Kind: "CustomResourceDefinition",
		}}
		err := c.Get(ctx, client.ObjectKeyFromObject(crd), installed)
		if err == nil { // a definition is served a moment after it is created
			kind := schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}
			_, err = c.RESTMapper().RESTMapping(kind, crd.Spec.Versions[0].Name)
		}
		switch {
		case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
			s.Missing = append(s.Missing, crd.Name)
			continue
		case err != nil:
			return s, fmt.Errorf("read CustomResourceDefinition %s: %w", crd.Name, err)
		}
		if want := crd.Labels[VersionLabel]; want != "" {
			s.Want = want
			if is := installed.Labels[VersionLabel]; older(is, want) {
				s.Older = append(s.Older, fmt.Sprintf("%s (%s)", crd.Name, is))
			}
		}
	}
	return s, nil
}

// older reports whether a version is before another. Versions that cannot be read are not: other
// projects and packagers write the label, too.
func older(is, than string) bool {
	a, err := version.ParseSemantic(is)
	if err != nil {
		return false
	}
	b, err := version.ParseSemantic(than)
	return err == nil && a.LessThan(b)
}

// Problem says what is missing and what to do. It is empty if nothing is.
func (s State) Problem() string {
	if len(s.Missing) == 0 {
		return ""
	}
	return "the CustomResourceDefinitions " + strings.Join(s.Missing, ", ") +
		" are not installed: apply those of this version, or set crds.enabled in the chart"
}

// Note says what is older and what to do. It is empty if nothing is.
func (s State) Note() string {
	if len(s.Older) == 0 {
		return ""
	}
	return "these CustomResourceDefinitions are older than those of this version (" + s.Want + "), so that newer fields " +
		"are not stored: " + strings.Join(s.Older, ", ") + ": apply those of this version, or upgrade the chart"
}
