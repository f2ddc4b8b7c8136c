package api_test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/standalone/install"
)

// placeholder is what the reader of an example is to fill in.
var placeholder = regexp.MustCompile(`\$\{[A-Z_]+\}`)

// The API server accepts each manifest of examples/, without unknown fields. Other tests check the
// behavior of the examples.
func TestTheAPIServerTakesEveryExample(t *testing.T) {
	c, err := client.New(adminConfig(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	serveGatewayAPI(t, c)
	strict := client.WithFieldValidation(c, metav1.FieldValidationStrict)
	world := strings.NewReplacer("${ACME_DIRECTORY}", "https://ca.example.com/directory", "${DNS_SERVER}", "192.0.2.53:53",
		"${ACME_CA_BUNDLE}", base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----")))
	err = filepath.WalkDir("../../examples", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		t.Run(file, func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
				u := object(t, placeholder.ReplaceAllString(world.Replace(string(document)), "filled-in"))
				if namespaced, err := c.IsObjectNamespaced(u); err != nil {
					t.Fatal(err)
				} else if namespaced {
					u.SetNamespace("default") // which exists
				}
				if err := strict.Create(t.Context(), u, client.DryRunAll); err != nil && !apierrors.IsAlreadyExists(err) {
					t.Error(err)
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// serveGatewayAPI installs the Gateway API, and waits until it is served.
func serveGatewayAPI(t *testing.T, c client.Client) {
	t.Helper()
	gateways, err := install.GatewayAPI()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range gateways {
		if err := c.Create(t.Context(), o.(client.Object)); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	eventually(t, "the Gateway API is served", func() (bool, error) {
		for _, kind := range []string{"Gateway", "ListenerSet"} {
			list := &unstructured.UnstructuredList{}
			list.SetAPIVersion("gateway.networking.k8s.io/v1")
			list.SetKind(kind + "List")
			if c.List(t.Context(), list) != nil {
				return false, nil
			}
		}
		return true, nil
	})
}
