package standalone_test

import (
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/install"
)

func parse(t testing.TB, manifest string) *unstructured.Unstructured {
	t.Helper()
	u := new(unstructured.Unstructured)
	if err := yaml.Unmarshal([]byte(manifest), &u.Object); err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	return u
}

func definition(t testing.TB, plural, kind string) *unstructured.Unstructured {
	return parse(t, strings.NewReplacer("PLURAL", plural, "KIND", kind).Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.install.test}
spec:
  group: install.test
  names: {plural: PLURAL, singular: singularPLURAL, kind: KIND, listKind: KINDList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`))
}

func TestWhatIsInstalledTakesEffectAtOnce(t *testing.T) {
	c := plane(t)
	client, err := dynamic.NewForConfig(c.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	resource := schema.GroupVersionResource{Group: "install.test", Version: "v1", Resource: "widgets"}
	// The order is the wrong one: definitions come first all the same.
	if err := install.Objects(t.Context(), c.AdminConfig(), parse(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: install-test}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [install.test], apiVersions: ["*"], resources: ["*"], operations: [CREATE]}]
  validations: [{expression: "object.metadata.name != 'forbidden'", message: this name is forbidden}]
`), parse(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: install-test}
spec: {policyName: install-test, validationActions: [Deny]}
`), parse(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: install-test}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [install.test], apiVersions: ["*"], resources: ["*"], operations: [CREATE]}]
  mutations:
    - patchType: JSONPatch
      jsonPatch: {expression: '[JSONPatch{op: "add", path: "/metadata/annotations", value: {"stamped": "yes"}}]'}
`), parse(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: install-test}
spec: {policyName: install-test}
`), definition(t, "widgets", "Widget")); err != nil {
		t.Fatal(err)
	}
	widget := parse(t, "{apiVersion: install.test/v1, kind: Widget, metadata: {name: forbidden}}")
	if _, err := client.Resource(resource).
		Namespace("default").
		Create(t.Context(), widget, metav1.CreateOptions{}); err == nil ||
		!strings.Contains(err.Error(), "this name is forbidden") {
		t.Errorf("the validating policy is not enforced: %v", err)
	}
	widget.SetName("allowed")
	made, err := client.Resource(resource).Namespace("default").Create(t.Context(), widget, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.GetAnnotations()["stamped"] != "yes" {
		t.Errorf("the mutating policy is not enforced: annotations are %v", made.GetAnnotations())
	}
	for _, resource := range []string{
		"validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies",
		"mutatingadmissionpolicybindings",
	} {
		list, err := client.Resource(
			schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: resource},
		).
			List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			if strings.Contains(item.GetName(), "probe") {
				t.Errorf("%s was left behind", item.GetName())
			}
		}
	}
}

func TestRequestsAreAcceptedFromTheFirstMomentOn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"first", "second"} {
		c := start(t, controlplane.Options{DataDir: dir, API: true})
		client, err := dynamic.NewForConfig(c.AdminConfig())
		if err != nil {
			t.Fatal(err)
		}
		requests := client.Resource(
			schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificaterequests"},
		).
			Namespace("default")
		request := parse(t, "{apiVersion: cert-manager.io/v1, kind: CertificateRequest, spec: {request: "+
			"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K, issuerRef: {name: ca}}}")
		request.SetName(name)
		made, err := requests.Create(t.Context(), request, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("%s start: %v", name, err)
		}
		if user, _, _ := unstructured.NestedString(made.Object, "spec", "username"); user != "kubernetes-admin" {
			t.Errorf("%s start: the request was made by %q", name, user)
		}
		c.Stop()
	}
}

func TestInstallingAgainWritesNothing(t *testing.T) {
	c := plane(t)
	client, err := dynamic.NewForConfig(c.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	versions := func() map[string]string {
		found := map[string]string{}
		for _, r := range []schema.GroupVersionResource{
			{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
			{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
			{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
		} {
			list, err := client.Resource(r).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range list.Items {
				if strings.Contains(item.GetName(), "cert-manager.io") || strings.HasPrefix(item.GetName(), "perennial-") {
					found[r.Resource+"/"+item.GetName()] = item.GetResourceVersion()
				}
			}
		}
		return found
	}
	before := versions()
	if len(before) < 10 {
		t.Fatalf("installed are only %v", before)
	}
	if err := install.API(t.Context(), c.AdminConfig()); err != nil {
		t.Fatal(err)
	}
	for name, version := range versions() {
		if before[name] != version {
			t.Errorf("%s was written again", name)
		}
	}
}

func TestADefinitionThatCannotBeServedIsReportedWithTheServersReason(t *testing.T) {
	c := plane(t)
	if err := install.Objects(t.Context(), c.AdminConfig(), definition(t, "taken", "Taken")); err != nil {
		t.Fatal(err)
	}
	invalid := definition(t, "invalid", "Invalid")
	unstructured.RemoveNestedField(invalid.Object, "spec", "scope")
	err := install.Objects(t.Context(), c.AdminConfig(), invalid)
	if err == nil || !strings.Contains(err.Error(), "invalid.install.test") ||
		!strings.Contains(err.Error(), "spec.scope") {
		t.Errorf("an invalid definition: %v", err)
	}
	if err := install.Objects(t.Context(), c.AdminConfig(), &apiextensionsv1.CustomResourceDefinition{}); err == nil ||
		!strings.Contains(err.Error(), "apiVersion and kind") {
		t.Errorf("an object without kind: %v", err)
	}
}

func TestObjectsOfANewKindAreCollectedWithTheirOwner(t *testing.T) {
	c := plane(t)
	k := admin(t, c)
	client, err := dynamic.NewForConfig(c.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := install.Objects(t.Context(), c.AdminConfig(), definition(t, "owners", "Owner"),
		definition(t, "belongings", "Belonging")); err != nil {
		t.Fatal(err)
	}
	namespace := newNamespace(t, k)
	owners := client.Resource(schema.GroupVersionResource{Group: "install.test", Version: "v1", Resource: "owners"}).
		Namespace(namespace)
	belongings := client.Resource(
		schema.GroupVersionResource{Group: "install.test", Version: "v1", Resource: "belongings"},
	).
		Namespace(namespace)
	owner, err := owners.Create(
		t.Context(),
		parse(t, "{apiVersion: install.test/v1, kind: Owner, metadata: {name: a}}"),
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	belonging := parse(t, "{apiVersion: install.test/v1, kind: Belonging, metadata: {name: b}}")
	belonging.SetOwnerReferences(
		[]metav1.OwnerReference{{APIVersion: "install.test/v1", Kind: "Owner", Name: "a", UID: owner.GetUID()}},
	)
	if _, err := belongings.Create(t.Context(), belonging, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := owners.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := belongings.Get(t.Context(), "b", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) && err != nil {
			return err
		}
		return gone(err)
	})
}

func TestTheGatewayAPIIsInstalledByOption(t *testing.T) {
	c := start(t, controlplane.Options{DataDir: t.TempDir(), GatewayAPI: true})
	list, err := admin(t, c).Discovery().ServerResourcesForGroupVersion("gateway.networking.k8s.io/v1")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, r := range list.APIResources {
		kinds[r.Kind] = true
	}
	for _, kind := range []string{"GatewayClass", "Gateway", "HTTPRoute", "ListenerSet"} {
		if !kinds[kind] {
			t.Errorf("%s is missing", kind)
		}
	}
	if _, err := admin(
		t,
		plane(t),
	).Discovery().
		ServerResourcesForGroupVersion("gateway.networking.k8s.io/v1"); !apierrors.IsNotFound(
		err,
	) {
		t.Errorf("without the option: %v", err)
	}
}
