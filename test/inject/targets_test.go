package inject_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

// serverCertificate signs a certificate for 127.0.0.1.
func serverCertificate(t testing.TB, c rig.CA) (chainPEM, keyPEM []byte) {
	t.Helper()
	leaf, key := c.Sign(t, x509.Certificate{
		Subject: pkix.Name{
			CommonName: "server",
		},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return pki.EncodeCertificatePEM(leaf), rig.KeyPEM(t, key)
}

// secretWithCA makes a Secret with CAs. With a certificate it is that of a Certificate, which is
// made, too.
func secretWithCA(t testing.TB, namespace, name, certificate string, cas ...rig.CA) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string][]byte{cmmeta.TLSCAKey: rig.PEM(cas...)},
	}
	if certificate == "" {
		secret.Annotations = map[string]string{cmapi.AllowsInjectionFromSecretAnnotation: "true"}
	} else {
		secret.Labels = map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"}
		secret.Annotations = map[string]string{cmapi.CertificateNameKey: certificate}
		rig.Create(
			t,
			&cmapi.Certificate{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: certificate},
				Spec: cmapi.CertificateSpec{
					SecretName: name, CommonName: name, IssuerRef: cmmeta.IssuerReference{Name: "missing"},
				},
			},
		)
	}
	rig.Create(t, secret)
}

func setCA(t testing.TB, namespace, name string, cas ...rig.CA) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	rig.Patch(t, secret, `{"data": {"ca.crt": %q}}`, base64.StdEncoding.EncodeToString(rig.PEM(cas...)))
}

func annotate(t testing.TB, o *unstructured.Unstructured, annotation, value string) {
	t.Helper()
	rig.Patch(t, o.DeepCopy(), `{"metadata": {"annotations": {%q: %q}}}`, annotation, value)
}

// A target is an object with caBundle fields.
type target struct {
	resource string
	manifest string
	// bundles are the paths of the fields.
	bundles []string
	// owned is what the controller owns of the object, in the form of managed fields.
	owned string
}

const ownedWebhooks = `{"f:webhooks":{` +
	`"k:{\"name\":\"one.example.com\"}":{".":{},"f:clientConfig":{"f:caBundle":{}},"f:name":{}},` +
	`"k:{\"name\":\"two.example.com\"}":{".":{},"f:clientConfig":{"f:caBundle":{}},"f:name":{}}}}`

var targets = []target{
	{
		"mutatingwebhookconfigurations",
		webhooks("MutatingWebhookConfiguration"),
		[]string{"webhooks.0.clientConfig.caBundle", "webhooks.1.clientConfig.caBundle"},
		ownedWebhooks,
	},
	{
		"validatingwebhookconfigurations",
		webhooks("ValidatingWebhookConfiguration"),
		[]string{"webhooks.0.clientConfig.caBundle", "webhooks.1.clientConfig.caBundle"},
		ownedWebhooks,
	},
	{"customresourcedefinitions", `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.example.com
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Cluster
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig:
        service: {namespace: default, name: webhook}
`, []string{"spec.conversion.webhook.clientConfig.caBundle"}, `{"f:spec":{"f:conversion":{"f:webhook":{"f:clientConfig":{"f:caBundle":{}}}}}}`},
	{"apiservices", `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata:
  name: v1.metrics.example.com
spec:
  group: metrics.example.com
  version: v1
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {namespace: default, name: metrics}
`, []string{"spec.caBundle"}, `{"f:spec":{"f:caBundle":{}}}`},
}

func webhooks(kind string) string {
	return `
apiVersion: admissionregistration.k8s.io/v1
kind: ` + kind + `
metadata:
  name: example
webhooks:
- name: one.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  rules: [{apiGroups: [nothing.example.com], apiVersions: [v1], operations: [CREATE], resources: [things]}]
  clientConfig: {url: "https://127.0.0.1:1/one"}
- name: two.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  rules: [{apiGroups: [nothing.example.com], apiVersions: [v1], operations: [CREATE], resources: [things]}]
  clientConfig: {url: "https://127.0.0.1:1/two"}
`
}

func (tt target) object(t testing.TB) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(tt.manifest), u); err != nil {
		t.Fatal(err)
	}
	return u
}

// get returns the object as it is now.
func get(t testing.TB, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(o.GroupVersionKind())
	if err := rig.Admin(t).Get(t.Context(), client.ObjectKeyFromObject(o), u); err != nil {
		t.Fatal(err)
	}
	return u
}

// has says why the bundles of the object are not those CAs, in this order.
func (tt target) has(t testing.TB, o *unstructured.Unstructured, cas ...rig.CA) error {
	t.Helper()
	now := get(t, o)
	for _, path := range tt.bundles {
		if got, want := field(t, now.Object, path), rig.PEM(cas...); !bytes.Equal(got, want) {
			return cluster.NotYet("%s is %s, expected %s", path, rig.Names(got), rig.Names(want))
		}
	}
	return nil
}

func field(t testing.TB, object any, path string) []byte {
	t.Helper()
	for key := range strings.SplitSeq(path, ".") {
		switch o := object.(type) {
		case []any:
			object = o[key[0]-'0']
		case map[string]any:
			object = o[key]
		}
	}
	encoded, _ := object.(string)
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// unset removes the field.
func unset(object any, path string) {
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		switch o := object.(type) {
		case []any:
			object = o[key[0]-'0']
		case map[string]any:
			object = o[key]
		}
	}
	delete(object.(map[string]any), keys[len(keys)-1])
}

// managedFields returns what the controller owns of the object.
func managedFields(o *unstructured.Unstructured) string {
	for _, f := range o.GetManagedFields() {
		if f.Manager == inject.FieldManager {
			return f.FieldsV1.GetRawString()
		}
	}
	return ""
}
