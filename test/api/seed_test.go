package api_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// The API server accepts manifests for cert-manager unchanged and without unknown fields.
func TestManifestsOfCertManagerAreAccepted(t *testing.T) {
	files, err := filepath.Glob("../testdata/seed/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	client := admin(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range bytes.Split(content, []byte("\n---\n")) {
				createDocument(t, client, document)
			}
		})
	}
}

// createDocument creates an object of cert-manager's users, and its namespace.
func createDocument(t *testing.T, client dynamic.Interface, document []byte) {
	t.Helper()
	resources := map[string]schema.GroupVersionResource{
		"Certificate":   certificates,
		"ClusterIssuer": clusterIssuers,
		"Ingress":       {Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
	}
	u := object(t, string(document))
	resource, known := resources[u.GetKind()]
	if !known {
		t.Fatalf("no resource for kind %q", u.GetKind())
	}
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	if namespace := u.GetNamespace(); namespace != "" {
		ns := object(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+namespace+"}")
		if _, err := client.Resource(namespaces).Create(t.Context(), ns, options); err != nil {
			t.Fatalf("create namespace: %v", err)
		}
	}
	if _, err := client.Resource(resource).Namespace(u.GetNamespace()).Create(t.Context(), u, options); err != nil {
		t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
	}
}

// examples/lesson holds the manifests of the lesson, byte for byte.
func TestTheExamplesOfTheLessonAreItsManifests(t *testing.T) {
	files := func(dir string) map[string]string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(all) == 0 {
			t.Fatalf("no manifests in %s: %v", dir, err)
		}
		contents := map[string]string{}
		for _, file := range all {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			contents[filepath.Base(file)] = string(content)
		}
		return contents
	}
	if examples, lesson := files("../../examples/lesson"), files("../testdata/seed"); !maps.Equal(examples, lesson) {
		t.Errorf("examples/lesson has %q, and the lesson %q", examples, lesson)
	}
}
