package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/test/chart"
	"github.com/perennial-pki/perennial/test/cluster"
)

// maxAnnotation is how large the annotation of a client-side apply can be, in bytes.
const maxAnnotation = 262144

// dir returns the chart's directory.
func dir(t *testing.T) string {
	t.Helper()
	root, err := cluster.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, chart.Path)
}

// valuesFile writes values to a file and returns its path.
func valuesFile(t *testing.T, values string) string {
	t.Helper()
	// Not in the test's directory: Helm would split the test's name at commas.
	file, err := os.CreateTemp("", "values-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file.Name()) })
	if _, err := file.WriteString(values); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// rendered is what the chart makes of values.
type rendered []*unstructured.Unstructured

// render renders the chart as release perennial, for Kubernetes 1.37 unless args say otherwise.
func render(t *testing.T, values string, args ...string) (rendered, error) {
	t.Helper()
	out, err := chart.Helm(t.Context(), append([]string{"template", "perennial", dir(t), "--namespace", "perennial-system",
		"--kube-version", "1.37.0", "--values", valuesFile(t, values)}, args...)...)
	if err != nil {
		return nil, err
	}
	var all rendered
	for _, document := range strings.Split("\n"+out, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(u.Object) > 0 {
			all = append(all, u)
		}
	}
	return all, nil
}

// renders renders the chart, which must succeed.
func renders(t *testing.T, values string, args ...string) rendered {
	t.Helper()
	all, err := render(t, values, args...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// names returns the names of all objects of a kind.
func (r rendered) names(kind string) (names []string) {
	for _, o := range r {
		if o.GetKind() == kind {
			names = append(names, o.GetName())
		}
	}
	slices.Sort(names)
	return names
}

// deployment returns the Deployment.
func (r rendered) deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	for _, o := range r {
		if o.GetKind() == "Deployment" {
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			d := &appsv1.Deployment{}
			if err := yaml.UnmarshalStrict(text, d); err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatal("there is no Deployment")
	return nil
}

func TestHelmFindsNothingToCorrect(t *testing.T) {
	t.Parallel()
	out, err := chart.Helm(t.Context(), "lint", "--strict", dir(t))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestTheDefinitionsAndPoliciesAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	all := renders(t, "")
	for _, o := range all {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) >= maxAnnotation*3/4 {
			t.Errorf("%s %s has %d bytes, too close to the %d of a client-side apply", o.GetKind(), o.GetName(), len(text),
				maxAnnotation)
		}
		if o.GetKind() == "CustomResourceDefinition" && o.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would be deleted with the release", o.GetName())
		}
		for key := range o.GetAnnotations() {
			if key == "helm.sh/hook" {
				t.Errorf("%s %s is a hook", o.GetKind(), o.GetName())
			}
		}
	}
	if n := len(all.names("CustomResourceDefinition")); n != 8 {
		t.Errorf("there are %d definitions", n)
	}
	if again := renders(t, ""); len(again) != len(all) || !slices.EqualFunc(again, all,
		func(a, b *unstructured.Unstructured) bool {
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			return string(x) == string(y)
		}) {
		t.Error("two renderings differ")
	}
}

func TestTheMutatingPolicyIsLeftToClustersThatHaveIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values, version string
		want            bool
	}{
		"from 1.36 on":      {"", "1.36.0", true},
		"before":            {"", "1.35.9", false},
		"with its revision": {"", "1.36.2-gke.100", true},
		"never":             {"admissionPolicies: {mutating: false}", "1.37.0", false},
		"always":            {"admissionPolicies: {mutating: true}", "1.35.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := renders(t, test.values, "--kube-version", test.version)
			if got := len(all.names("MutatingAdmissionPolicy")) > 0; got != test.want {
				t.Errorf("it is there: %t", got)
			}
			if n := len(all.names("ValidatingAdmissionPolicy")); n < 10 {
				t.Errorf("there are %d other policies", n)
			}
		})
	}
}

func TestValuesThatCannotWorkAreRefusedWithTheWayOut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values string
		args   []string
		want   string
	}{
		"cert-manager's image": {"image: {repository: registry.example.com/jetstack/cert-manager-controller}", nil,
			"image is registry.example.com/jetstack/cert-manager-controller:"},
		"cert-manager's image in a mirror": {
			"image: {registry: mirror.example.com, repository: jetstack/cert-manager-controller}",
			nil, "which is cert-manager's: remove repository, tag and digest from image"},
		"cert-manager's solver": {
			"acmesolver: {image: {repository: registry.example.com/jetstack/cert-manager-acmesolver}}", nil,
			"remove repository, tag and digest from acmesolver.image"},
		"a typing error":        {"replicacount: 3", nil, "replicacount"},
		"a typing error within": {"http01: {enable: false}", nil, "enable"},
		"another type":          {"replicaCount: two", nil, "replicaCount"},
		"no such mode":          {"http01: {solverMode: pod}", nil, "solverMode"},
		"both monitors": {"prometheus: {servicemonitor: {enabled: true}, podmonitor: {enabled: true}}", nil,
			"set one of them to false"},
		"an old cluster": {"", []string{"--kube-version", "1.33.4"}, "chart requires kubeVersion: >=1.34.0-0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := render(t, test.values, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Helm says %v, and not %q", err, test.want)
			}
		})
	}
}
