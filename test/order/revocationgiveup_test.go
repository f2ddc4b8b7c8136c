package order_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestARevocationIsGivenUpAndSaysWhatToDo(t *testing.T) {
	clock, seen := &cluster.Clock{}, &registrar{}
	r := start(t, pebble.Options{Wrap: seen.wrap}, func(o *controller.Options) { o.Clock = clock })
	r.issuer()
	refused, _, _ := r.revocable("refused", "")
	stays, _, _ := r.revocable("stays", cmapi.RevocationReasonKeyCompromise)
	goes, _, _ := r.revocable(
		"goes",
		"",
		func(crt *cmapi.Certificate) { crt.Spec.DeletionPolicy = cmapi.DeletionPolicyDelete },
	)

	// What the CA refuses for good is not tried for long.
	seen.mu.Lock()
	seen.refuse = func(revocation) (string, int) { return "unauthorized", http.StatusForbidden }
	seen.mu.Unlock()
	r.delete(refused)
	r.gone(refused)
	if message := r.event(
		"Certificate",
		"refused",
		"RevocationFailed",
	); !strings.Contains(
		message,
		"perennial revoke --secret refused -n "+r.namespace+" --reason cessationOfOperation",
	) {
		t.Errorf("the event says %q", message)
	}

	// A CA that is broken may recover, but is not waited for longer than ten minutes.
	seen.mu.Lock()
	seen.refuse = func(revocation) (string, int) { return "serverInternal", http.StatusInternalServerError }
	seen.mu.Unlock()
	for _, crt := range []*cmapi.Certificate{stays, goes} {
		r.delete(crt)
		r.event("Certificate", crt.Name, "RevocationError")
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			t.Fatalf("it is not waited for: %v", err)
		}
	}
	clock.Step(10 * time.Minute)
	for crt, what := range map[*cmapi.Certificate]string{
		stays: "perennial revoke --secret stays", goes: "with the account key of Issuer \"pebble\"",
	} {
		cluster.Eventually(t, func() error { // a step of the clock does not fire timers
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); apierrors.IsNotFound(err) {
				return nil
			}
			crt.Annotations = map[string]string{"nudged": time.Now().String()}
			_ = r.admin.Update(t.Context(), crt)
			return cluster.NotYet("Certificate %s is still there", crt.Name)
		})
		if message := r.event("Certificate", crt.Name, "RevocationFailed"); !strings.Contains(message, what) {
			t.Errorf("the event says %q", message)
		}
	}
}

// forbid removes permissions to get objects from the controller until the test ends.
func (r *rig) forbid(resources ...string) {
	r.t.Helper()
	cluster.TakeRights(r.t, func(rule rbacv1.PolicyRule, verb string) bool {
		forbidden := func(resource string) bool { return slices.Contains(resources, resource) }
		return verb == "get" && slices.ContainsFunc(rule.Resources, forbidden)
	})
	for _, resource := range resources {
		cluster.Eventually(r.t, func() error {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + deploy.Namespace + ":" + deploy.ServiceAccount,
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb:      "get",
					Resource:  resource,
					Namespace: r.namespace,
					Name:      r.namespace,
				},
			}}
			if err := r.admin.Create(r.t.Context(), review); err != nil {
				return err
			}
			if review.Status.Allowed {
				return cluster.NotYet("the controller may get %s: %s", resource, review.Status.Reason)
			}
			return nil
		})
	}
}

// forbidNotes creates a policy that forbids all clients to record revocations on Secrets of the
// namespace.
func (r *rig) forbidNotes(secret string) {
	r.t.Helper()
	here := metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: r.namespace}}
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &here,
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{
						admissionv1.Update,
					},
					Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Validations: []admissionv1.Validation{
				{
					Expression: `!("perennial.dev/revoked" in object.metadata.?annotations.orValue({}))`,
					Message:    "notes on Secrets are forbidden here",
				},
			},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: r.namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	for _, o := range []client.Object{policy, binding} {
		if err := r.admin.Create(r.t.Context(), o); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = r.admin.Delete(context.Background(), o) })
	}
	note := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"perennial.dev/revoked": "no"}}}`))
	cluster.Eventually(r.t, func() error {
		o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: secret}}
		if err := r.admin.Patch(
			r.t.Context(),
			o,
			note,
			client.DryRunAll,
		); err == nil ||
			!strings.Contains(err.Error(), "notes on Secrets are forbidden here") {
			return cluster.NotYet("the policy is not in force: %v", err)
		}
		return nil
	})
}

func TestARevocationIsGivenUpWhateverTheControllerMayNotDo(t *testing.T) {
	clock, seen := &cluster.Clock{}, &registrar{}
	r := start(t, pebble.Options{Wrap: seen.wrap}, func(o *controller.Options) { o.Clock = clock })
	r.issuer()
	pebbles := &cmapi.Issuer{}
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "pebble"}, pebbles); err != nil {
		t.Fatal(err)
	}
	former := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "former"}, Spec: pebbles.Spec}
	r.create(former)
	unnoted, noted, _ := r.revocable("unnoted", "")
	unread, hidden, _ := r.revocable("unread", cmapi.RevocationReasonSuperseded)
	unseen, _, _ := r.revocable("unseen", "", func(crt *cmapi.Certificate) { crt.Spec.IssuerRef.Name = "former" })

	r.forbidNotes("unnoted")
	r.forbid("namespaces", "secrets")
	r.delete(unnoted)
	r.reported(unnoted, "RevocationError", "notes on Secrets are forbidden here")

	// Whether its namespace ends cannot be known.
	r.delete(former)
	r.gone(former)
	r.delete(unseen)
	r.reported(unseen, "RevocationError", `there is no longer an ACME Issuer "former"`)

	// A Secret without the label of the controller is read when it is needed.
	seen.mu.Lock()
	seen.refuse = func(a revocation) (string, int) {
		if a.serial == hidden.SerialNumber.String() {
			return "serverInternal", http.StatusInternalServerError
		}
		return "", 0
	}
	seen.mu.Unlock()
	r.delete(unread)
	r.reported(unread, "RevocationError", "is not revoked yet")
	unlabel := client.RawPatch(
		types.MergePatchType,
		[]byte(`{"metadata": {"labels": {"`+cmapi.PartOfCertManagerControllerLabelKey+`": null}}}`),
	)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "unread"}}
	if err := r.admin.Patch(t.Context(), secret, unlabel); err != nil {
		t.Fatal(err)
	}
	r.reported(unread, "RevocationError", `The Secret "unread", whose certificate is to be revoked, cannot be read yet`)
	seen.mu.Lock()
	seen.refuse = nil
	seen.mu.Unlock()

	for _, crt := range []*cmapi.Certificate{unnoted, unread, unseen} {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			t.Errorf("%s is not waited for: %v", crt.Name, err)
		}
	}
	clock.Step(10 * time.Minute)
	r.reported(
		unnoted,
		"RevocationFailed",
		"delete the Secret, or note it by hand: perennial revoke --secret unnoted -n "+r.namespace,
	)
	r.reported(unread, "RevocationFailed", `Gave up reading the Secret "unread"`)
	r.reported(unread, "Revoked", r.ca.Directory) // all the same
	r.reported(unseen, "RevocationFailed", "Gave up revoking")
	for _, crt := range []*cmapi.Certificate{unnoted, unread, unseen} {
		r.gone(crt)
	}
	if got := seen.of(noted.SerialNumber.String()); len(got) == 0 || !got[0].byAccount {
		t.Errorf("the CA was asked: %+v", got)
	}
}

// reported waits for an event. It changes the object, because a step of the clock does not fire
// timers.
func (r *rig) reported(crt *cmapi.Certificate, reason, words string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err == nil {
			metav1.SetMetaDataAnnotation(&crt.ObjectMeta, "nudged", time.Now().String())
			_ = r.admin.Update(r.t.Context(), crt)
		}
		var list corev1.EventList
		if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		var all []string
		for _, e := range list.Items {
			if e.InvolvedObject.Kind != "Certificate" || e.InvolvedObject.Name != crt.Name {
				continue
			}
			if e.Reason == reason && strings.Contains(e.Message, words) {
				return nil
			}
			all = append(all, e.Reason+" "+e.Message)
		}
		return cluster.NotYet("no event says %q about %s: %q", words, crt.Name, all)
	})
}
