package trust_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/test/inject/rig"
)

// Each refusal is one sentence about one field.
func TestTheAPIServerRefusesWhatCannotWork(t *testing.T) {
	const valid = `
apiVersion: perennial.dev/v1alpha1
kind: TrustBundle
metadata: {name: example}
spec:
  sources:
  - inLine: x
  target:
    namespaceSelector: {}
    configMap: {}
`
	for _, test := range []struct {
		name    string
		replace string // of valid
		by      string
		field   string // empty: it is accepted
		message string
	}{
		{name: "the example that the others change"},
		{"a name that is no value of a label", "name: example", "name: " + strings.Repeat("a", 64), "", ""},
		{"no source", "sources:\n  - inLine: x", "sources: []", "spec.sources", "should have at least 1 items"},
		{"an empty source", "inLine: x", "{}", "spec.sources[0]", "a source must have exactly one of issuer, secret, " +
			"configMap and inLine"},
		{"two sources in one", "inLine: x", "{inLine: x, secret: {name: a}}", "spec.sources[0]", "a source must have " +
			"exactly one of issuer, secret, configMap and inLine"},
		{"a ClusterIssuer", "inLine: x", "issuer: {name: a}", "", ""},
		{"an Issuer", "inLine: x", "issuer: {kind: Issuer, namespace: shop, name: a}", "", ""},
		{"an Issuer without namespace", "inLine: x", "issuer: {kind: Issuer, name: a}", "spec.sources[0].issuer", "namespace must be set if kind is Issuer, and not if it is ClusterIssuer"},
		{"a ClusterIssuer in a namespace", "inLine: x", "issuer: {namespace: shop, name: a}", "spec.sources[0].issuer", "namespace must be set if kind is Issuer, and not if it is ClusterIssuer"},
		{"an issuer of another kind", "inLine: x", "issuer: {kind: AWSPCAIssuer, name: a}", "spec.sources[0].issuer.kind", `supported values: "Issuer", "ClusterIssuer"`},
		{"a Secret by name", "inLine: x", "secret: {name: a, key: tls.crt}", "", ""},
		{"Secrets by label", "inLine: x", "secret: {selector: {matchLabels: {a: b}}}", "", ""},
		{"all of a ConfigMap", "inLine: x", "configMap: {name: a, allKeys: true}", "", ""},
		{"a Secret without name", "inLine: x", "secret: {key: a}", "spec.sources[0].secret", "exactly one of name and " +
			"selector must be set"},
		{"a ConfigMap by name and label", "inLine: x", "configMap: {name: a, selector: {}}", "spec.sources[0].configMap", "exactly one of name and selector must be set"},
		{"a key and all keys", "inLine: x", "configMap: {name: a, key: b, allKeys: true}", "spec.sources[0].configMap", "key must not be set together with allKeys"},
		{"no target", "    configMap: {}\n", "", "spec.target", "target must have configMap or secret, or both"},
		{"no selector", "    namespaceSelector: {}\n", "", "spec.target.namespaceSelector", "Required value"},
		{"a ConfigMap and a Secret in all formats", "configMap: {}", "configMap: {pem: {}, pkcs12: {}, jks: {}}\n    " +
			"secret: {name: other}", "", ""},
		{"one key for two formats", "configMap: {}", "configMap: {pem: {key: a}, jks: {key: a}}", "spec.target.configMap", "pem, pkcs12 and jks must not have the same key"},
		{"a key that is none", "configMap: {}", "configMap: {pem: {key: a/b}}", "spec.target.configMap.pem.key", "must be a key of letters, digits, '-', '_' and '.', other than . and those that begin with .."},
		{"a name with capitals", "configMap: {}", "secret: {name: A}", "spec.target.secret.name", "must be a name of " +
			"lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"},
		{"a profile that does not exist", "configMap: {}", "configMap: {pkcs12: {profile: Modern}}", "spec.target.configMap.pkcs12.profile", `supported values: "LegacyRC2", "LegacyDES", "Modern2023", "Modern2026"`},
		{"no password", "configMap: {}", `configMap: {pkcs12: {password: ""}}`, "", ""},
		{"a password that cannot be typed", "configMap: {}", `configMap: {jks: {password: "\t"}}`, "spec.target.configMap.jks.password", "must consist of ASCII characters that can be printed"},
		{"a label of the controller's", "configMap: {}", "configMap: {labels: {perennial.dev/trust-bundle: x}}", "spec.target.configMap.labels", "labels of the controller are its own: remove those whose name begins with perennial.dev/ or controller.cert-manager.io/"},
		{"the label that would hide it", "configMap: {}", `secret: {labels: {controller.cert-manager.io/fao: "true"}}`, "spec.target.secret.labels", "labels of the controller are its own: remove those whose name begins with perennial.dev/ or controller.cert-manager.io/"},
		{"an annotation of the controller's", "configMap: {}", "configMap: {annotations: {perennial.dev/trust-hash: x}}", "spec.target.configMap.annotations", "annotations of perennial.dev are the controller's own: remove those whose name begins with perennial.dev/"},
		{"other labels and annotations", "configMap: {}", "configMap: {labels: {a: b}, annotations: {a: b}}", "", ""},
		{"a long time", "spec:", "spec:\n  keepReplacedFor: 87600h", "", ""},
		{"a time beyond all bounds", "spec:", "spec:\n  keepReplacedFor: 87601h", "spec.keepReplacedFor", "keepReplacedFor must be from 0s to 87600h"},
		{"a fingerprint", "spec:", "spec:\n  distrust: [" + strings.Repeat("0a", 32) + "]", "", ""},
		{"a fingerprint with colons", "spec:", `spec:
  distrust: ["` + strings.TrimSuffix(strings.Repeat("0A:", 32), ":") + `"]`, "", ""},
		{"half a fingerprint", "spec:", "spec:\n  distrust: [" + strings.Repeat("0a", 16) + "]", "spec.distrust[0]", "must be a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.replace != "" && !strings.Contains(valid, test.replace) {
				t.Fatalf("the example has no %q", test.replace)
			}
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(strings.Replace(valid, test.replace, test.by, 1)), u); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(test.by, "name: aaa") {
				test.field, test.message = "<nil>", "metadata.name must not be longer than 63 characters, because it becomes "+
					"the value of a label"
			}
			err := rig.Admin(t).Create(t.Context(), u, client.DryRunAll)
			checkRefusal(t, err, test.field, test.message)
		})
	}
}

// checkRefusal expects that an object was accepted, or refused for one field.
func checkRefusal(t *testing.T, err error, field, message string) {
	t.Helper()
	if field == "" {
		if err != nil {
			t.Errorf("was refused: %v", err)
		}
		return
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		t.Fatalf("got %v, expected %s: %s", err, field, message)
	}
	causes := slices.DeleteFunc(status.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool {
		return strings.Contains(c.Message, "some validation rules were not checked")
	})
	if len(causes) != 1 || causes[0].Field != field || !strings.HasSuffix(causes[0].Message, message) {
		t.Errorf("got %v\nexpected %s: %s", causes, field, message)
	}
}
