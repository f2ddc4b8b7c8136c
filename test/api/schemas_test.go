package api_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/api"
	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	certmanagerv1 "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// crdName returns the name of the CRD of one of the kinds.
func crdName(kind string) string {
	group := certmanagerv1.GroupName
	if kind == "Order" || kind == "Challenge" {
		group = acmev1.GroupName
	}
	return strings.ToLower(kind) + "s." + group
}

func TestSchemasHaveAllThatCertManagersHave(t *testing.T) {
	ours := ourCRDs(t)
	for name, crd := range upstreamCRDs(t) {
		t.Run(name, func(t *testing.T) {
			if ours[name] == nil {
				t.Fatal("there is no such CRD")
			}
			compareSchemas(t, "", schemaOf(t, crd), schemaOf(t, ours[name]))
		})
	}
}

func TestSchemasAddOnlyWhatIsDocumented(t *testing.T) {
	upstream := upstreamCRDs(t)
	for name, crd := range ourCRDs(t) {
		if upstream[name] == nil {
			continue // a kind of our own
		}
		t.Run(name, func(t *testing.T) {
			theirs := schemaPaths(schemaOf(t, upstream[name]))
			var added []string
			for _, path := range schemaPaths(schemaOf(t, crd)) {
				covered := slices.ContainsFunc(added, func(parent string) bool { return strings.HasPrefix(path, parent) })
				if !slices.Contains(theirs, path) && !covered {
					added = append(added, path)
				}
			}
			if diff := cmp.Diff(fieldsNotInUpstream[name], added); diff != "" {
				t.Errorf("fields that are not in cert-manager (-documented +found):\n%s", diff)
			}
		})
	}
}

// TestEachCRDSaysItsVersion checks the label by which "cmctl version" and inventories recognize an
// installed version.
func TestEachCRDSaysItsVersion(t *testing.T) {
	list, err := admin(t).Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")).
		List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ours, versions := ourCRDs(t), map[string]bool{}
	found := 0
	for _, crd := range list.Items {
		if ours[crd.GetName()] == nil {
			continue
		}
		found++
		label := crd.GetLabels()["app.kubernetes.io/version"]
		if _, err := version.ParseSemantic(label); err != nil {
			t.Errorf("%s has the version %q: %v", crd.GetName(), label, err)
		}
		versions[label] = true
	}
	if found != len(ours) || len(versions) != 1 {
		t.Errorf("%d of %d CRDs are installed; their versions are %v", found, len(ours), versions)
	}
}

func TestKindsAreServedAsCertManagerServesThem(t *testing.T) {
	ours := ourCRDs(t)
	for name, theirs := range upstreamCRDs(t) {
		t.Run(name, func(t *testing.T) {
			compareKinds(t, name, theirs, ours[name])
		})
	}
}

// compareKinds expects that a CRD is like that of cert-manager, apart from its schema.
func compareKinds(t *testing.T, name string, theirs, crd *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	if crd == nil {
		t.Fatal("there is no such CRD")
	}
	if diff := cmp.Diff(theirs.Spec.Names, crd.Spec.Names); diff != "" {
		t.Errorf("names (-cert-manager +ours):\n%s", diff)
	}
	if theirs.Spec.Group != crd.Spec.Group || theirs.Spec.Scope != crd.Spec.Scope {
		t.Errorf("group and scope are %s, %s, cert-manager's %s, %s",
			crd.Spec.Group, crd.Spec.Scope, theirs.Spec.Group, theirs.Spec.Scope)
	}
	their, our := theirs.Spec.Versions, crd.Spec.Versions
	if len(our) != len(their) || len(our) != 1 {
		t.Fatalf("%d versions, cert-manager has %d", len(our), len(their))
	}
	if our[0].Name != their[0].Name || our[0].Served != their[0].Served || our[0].Storage != their[0].Storage {
		t.Errorf("version is %s, cert-manager's %s", our[0].Name, their[0].Name)
	}
	if diff := cmp.Diff(their[0].SelectableFields, our[0].SelectableFields); diff != "" {
		t.Errorf("selectable fields (-cert-manager +ours):\n%s", diff)
	}
	if diff := cmp.Diff(their[0].Subresources, our[0].Subresources); diff != "" {
		t.Errorf("subresources (-cert-manager +ours):\n%s", diff)
	}
	if diff := cmp.Diff(columns(their[0]), withoutOurs(name, columns(our[0]))); diff != "" {
		t.Errorf("columns (-cert-manager +ours):\n%s", diff)
	}
}

// withoutOurs removes our own column, which only "kubectl get -o wide" shows. The positions of all
// other columns must be cert-manager's, because scripts depend on them.
func withoutOurs(definition string,
	columns []apiextensionsv1.CustomResourceColumnDefinition) []apiextensionsv1.CustomResourceColumnDefinition {
	return slices.DeleteFunc(columns, func(c apiextensionsv1.CustomResourceColumnDefinition) bool {
		return definition == "certificates.cert-manager.io" && c.Name == "Expiration" && c.JSONPath == ".status.notAfter" &&
			c.Priority > 0
	})
}

// columns returns the columns without their descriptions, which differ from cert-manager's.
func columns(version apiextensionsv1.CustomResourceDefinitionVersion) []apiextensionsv1.CustomResourceColumnDefinition {
	out := slices.Clone(version.AdditionalPrinterColumns)
	for i := range out {
		out[i].Description = ""
	}
	return out
}

// initialStatus are those that our schemas give a new object, so that tools that follow its
// conditions wait for the controller, and a Challenge has a state from the start. cert-manager's
// have no default there.
var initialStatus = []string{`{"observedGeneration":-1}`, `{"state":"pending"}`}

// compareSchemas reports properties of theirs that ours lacks or defines differently, and
// properties that only ours requires.
func compareSchemas(t *testing.T, path string, theirs, ours *apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if theirs == nil {
		return
	}
	if ours == nil {
		t.Errorf("%s: missing", path)
		return
	}
	our := summarize(path, ours)
	our.Enum = slices.DeleteFunc(our.Enum, func(v string) bool { return slices.Contains(valuesNotInUpstream[path], v) })
	if diff := cmp.Diff(summarize(path, theirs), our); diff != "" {
		t.Errorf("%s (-cert-manager +ours):\n%s", path, diff)
	}
	for _, name := range ours.Required {
		if _, known := theirs.Properties[name]; known && !slices.Contains(theirs.Required, name) {
			t.Errorf("%s: required, but not by cert-manager", join(path, name))
		}
	}
	for name, property := range theirs.Properties {
		var our *apiextensionsv1.JSONSchemaProps
		if p, ok := ours.Properties[name]; ok {
			our = &p
		}
		compareSchemas(t, join(path, name), &property, our)
	}
	if theirs.Items != nil && ours.Items != nil {
		compareSchemas(t, path+"[]", theirs.Items.Schema, ours.Items.Schema)
	}
	if theirs.AdditionalProperties != nil && ours.AdditionalProperties != nil {
		compareSchemas(t, path+".*", theirs.AdditionalProperties.Schema, ours.AdditionalProperties.Schema)
	}
}

// summary is what a schema says of a field, apart from the fields below it.
type summary struct {
	Type, Format      string
	Default           string
	Nullable          bool
	Enum              []string
	Pattern           string
	IntOrString       bool
	PreserveUnknown   bool
	ListType, MapType string
	ListMapKeys       []string
	HasProperties     bool
	HasItems          bool
	HasAdditional     bool
}

func summarize(path string, s *apiextensionsv1.JSONSchemaProps) summary {
	out := summary{
		Type: s.Type, Format: s.Format, Nullable: s.Nullable, Pattern: s.Pattern,
		IntOrString:     s.XIntOrString,
		PreserveUnknown: s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields,
		ListMapKeys:     s.XListMapKeys,
		HasProperties:   len(s.Properties) > 0,
		HasItems:        s.Items != nil,
		HasAdditional:   s.AdditionalProperties != nil,
	}
	if s.Default != nil && !(path == "status" && slices.Contains(initialStatus, string(s.Default.Raw))) {
		out.Default = string(s.Default.Raw)
	}
	for _, value := range s.Enum {
		out.Enum = append(out.Enum, string(value.Raw))
	}
	slices.Sort(out.Enum)
	if s.XListType != nil {
		out.ListType = *s.XListType
	}
	if s.XMapType != nil {
		out.MapType = *s.XMapType
	}
	return out
}

// schemaPaths returns the path of every property, sorted, with [] for the elements of lists.
func schemaPaths(schema *apiextensionsv1.JSONSchemaProps) []string {
	var out []string
	var walk func(path string, s *apiextensionsv1.JSONSchemaProps)
	walk = func(path string, s *apiextensionsv1.JSONSchemaProps) {
		if s == nil {
			return
		}
		for name, property := range s.Properties {
			out = append(out, join(path, name))
			walk(join(path, name), &property)
		}
		if s.Items != nil {
			walk(path+"[]", s.Items.Schema)
		}
	}
	walk("", schema)
	slices.Sort(out)
	return out
}

func schemaOf(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	if len(crd.Spec.Versions) == 0 || crd.Spec.Versions[0].Schema == nil {
		t.Fatalf("%s has no schema", crd.Name)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func ourCRDs(t *testing.T) map[string]*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	crds, err := api.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	return byName(crds)
}

// upstreamCRDs reads the CRDs of the release of cert-manager that this module requires from the
// module cache.
func upstreamCRDs(t *testing.T) map[string]*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob(
		filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "deploy", "crds", "*.yaml"),
	)
	if err != nil || len(files) != len(kinds) {
		t.Fatalf("found %d CRDs of cert-manager, expected %d: %v", len(files), len(kinds), err)
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := new(apiextensionsv1.CustomResourceDefinition)
		if err := yaml.UnmarshalStrict(content, crd); err != nil {
			t.Fatalf("parse %s: %v", filepath.Base(file), err)
		}
		crds = append(crds, crd)
	}
	return byName(crds)
}

func byName(crds []*apiextensionsv1.CustomResourceDefinition) map[string]*apiextensionsv1.CustomResourceDefinition {
	out := make(map[string]*apiextensionsv1.CustomResourceDefinition, len(crds))
	for _, crd := range crds {
		out[crd.Name] = crd
	}
	return out
}
