package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/deploy"
)

// FrozenBecause is the message of Freeze's refusals.
const FrozenBecause = "changes are frozen over the holidays"

// Freeze installs an admission policy that refuses operations of the controller on a resource in
// the namespace, or all of them if the resource is cluster-scoped. It returns when the policy is
// enforced; end waits until it no longer is.
func Freeze(t testing.TB, namespace, group, resource string, operations ...admissionv1.OperationType) (end func()) {
	t.Helper()
	admin := Admin(t)
	name := names.SimpleNameGenerator.GenerateName("freeze-")
	deny := admissionv1.Deny
	rule := func(group, resource string, operations ...admissionv1.OperationType) admissionv1.NamedRuleWithOperations {
		return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: operations, Rule: admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"},
				Resources: []string{resource}},
		}}
	}
	plain, _, _ := strings.Cut(resource, "/") // without a subresource
	controller := fmt.Sprintf("system:serviceaccount:%s:%s", deploy.Namespace, deploy.ServiceAccount)
	fail := admissionv1.Fail
	objects := []client.Object{
		&admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: admissionv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionv1.MatchResources{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
					ResourceRules: []admissionv1.NamedRuleWithOperations{rule(group, resource, operations...),
						rule("", "configmaps", admissionv1.Create)},
				},
				MatchConditions: []admissionv1.MatchCondition{{Name: "frozen", Expression: fmt.Sprintf(
					`request.name == %q || request.userInfo.username == %q && request.resource.resource == %q`, name, controller,
					plain)}},
				Validations: []admissionv1.Validation{{Expression: "false", Message: FrozenBecause}},
			}},
		&admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: name, ValidationActions: []admissionv1.ValidationAction{deny},
			}},
	}
	for _, o := range objects {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want bool) {
		t.Helper()
		Eventually(t, func() error {
			probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
			if err := admin.Create(t.Context(), probe, client.DryRunAll); (err != nil) != want {
				return NotYet("the policy holds: %t; %v", !want, err)
			}
			return nil
		})
	}
	remove := func() {
		for _, o := range objects {
			if err := client.IgnoreNotFound(admin.Delete(context.Background(), o)); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(remove)
	holds(true)
	return func() {
		t.Helper()
		remove()
		holds(false)
	}
}
