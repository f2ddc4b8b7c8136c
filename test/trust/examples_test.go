package trust_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

// apply creates what is in the files of a directory.
func apply(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
			u := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict(document, &u.Object); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			rig.Create(t, u)
		}
	}
}

func TestTheExamplesWork(t *testing.T) {
	rig.Run(t, rig.Options{Certificates: true, Namespace: deploy.Namespace})
	apply(t, "../../examples/trust")
	apply(t, "../../examples/inject")
	admin := rig.Admin(t)

	b := &api.TrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "internal"}}
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 1 namespace"))
	c, err := configMap(t, "trust-example", "internal")
	if err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		s := &corev1.Secret{}
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "trust-example", Name: "shop"}, s); err != nil {
			return err
		}
		if got := c.Data["ca.crt"]; got == "" || got != string(s.Data["ca.crt"]) {
			return cluster.NotYet("the ConfigMap holds %s, the Secret %s", rig.Names(got), rig.Names(string(s.Data["ca.crt"])))
		}
		return nil
	})
	soon(t, func() error {
		webhook := &admissionregistrationv1.ValidatingWebhookConfiguration{}
		if err := admin.Get(t.Context(), client.ObjectKey{Name: "inject-example"}, webhook); err != nil {
			return err
		}
		if got := rig.Names(string(webhook.Webhooks[0].ClientConfig.CABundle)); got != "Webhook CA" {
			return cluster.NotYet("the bundle is %s", got)
		}
		return nil
	})
}
