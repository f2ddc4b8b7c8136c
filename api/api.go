// Package api holds what must be installed in a cluster before Certificates can be created: the
// CustomResourceDefinitions of this directory's packages, and the admission policies that enforce
// what a schema cannot express.
package api

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

//go:generate go -C ../test tool controller-gen object crd paths=../api/... output:crd:dir=../api/crds

//go:embed crds/*.yaml
var crds embed.FS

//go:embed policies/*.yaml
var policies embed.FS

// CRDs returns the CustomResourceDefinitions, in the order of their names.
func CRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	var out []*apiextensionsv1.CustomResourceDefinition
	err := documents(crds, func(document []byte) error {
		crd := new(apiextensionsv1.CustomResourceDefinition)
		if err := yaml.UnmarshalStrict(document, crd); err != nil {
			return err
		}
		out = append(out, crd)
		return nil
	})
	return out, err
}

// RevisionAnnotation on a policy is the revision of its rules, 0 if left out. A release that
// changes the expressions of a policy raises it. During an update, a controller of the previous
// release may see policies of the next: the higher revision shows that they were not tampered with.
const RevisionAnnotation = "perennial.dev/revision"

// Policies returns the admission policies and their bindings, each binding after its policy:
// ValidatingAdmissionPolicies and MutatingAdmissionPolicies. The files say what each policy is for,
// and what RBAC must grant to the controller and to approvers.
//
// MutatingAdmissionPolicy is served since Kubernetes 1.36. On older clusters, objects of that kind
// and their bindings can be left out. A CertificateRequest then does not record its creator, but a
// forged creator is still refused.
func Policies() ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	err := documents(policies, func(document []byte) error {
		object := new(unstructured.Unstructured)
		if err := yaml.Unmarshal(document, object); err != nil {
			return err
		}
		out = append(out, object)
		return nil
	})
	return out, err
}

// documents calls f for each YAML document in files. A file may start with a separator.
func documents(files fs.FS, f func(document []byte) error) error {
	return fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			if err := f(document); err != nil {
				return fmt.Errorf("parse %s: %w", path, err)
			}
		}
	})
}
