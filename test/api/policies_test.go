package api_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/perennial-pki/perennial/api"
	"github.com/perennial-pki/perennial/standalone/install"
)

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() (bool, error)) {
	t.Helper()
	err := wait.PollUntilContextTimeout(
		t.Context(),
		20*time.Millisecond,
		time.Minute,
		true,
		func(context.Context) (bool, error) { return condition() },
	)
	if err != nil {
		t.Fatalf("wait until %s: %v", what, err)
	}
}

// user is the configuration to impersonate a user.
func user(name string) rest.ImpersonationConfig { return rest.ImpersonationConfig{UserName: name} }

// requester is a user with all attributes of authentication.
func requester(t *testing.T) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{
		UserName: grant(t, permission{"create", "cert-manager.io", "certificaterequests", ""}),
		UID:      "0000-1111",
		Groups:   []string{"developers", "system:authenticated"},
		Extra:    map[string][]string{"example.com/department": {"pki", "web"}, "example.com/floor": {"3"}},
	}
}

func TestARequestNamesItsCreator(t *testing.T) {
	creator := requester(t)
	want := map[string]any{
		"username": creator.UserName,
		"uid":      "0000-1111",
		"groups":   []any{"developers", "system:authenticated"},
		"extra":    map[string]any{"example.com/department": []any{"pki", "web"}, "example.com/floor": []any{"3"}},
	}
	for name, patch := range map[string]string{
		"if the client says nothing":  `{}`,
		"if the client claims others": `spec: {username: system:admin, uid: "0", groups: [system:masters], extra: {a: [b]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			stored, err := as(
				t,
				creator,
			).Resource(certificateRequests).
				Namespace("default").
				Create(t.Context(), object(t, certificateRequest, patch), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, identity(t, stored)); diff != "" {
				t.Errorf("(-expected +found):\n%s", diff)
			}
		})
	}
	t.Run("if there is nothing but a name, what the client claims besides is removed", func(t *testing.T) {
		plain := user(grant(t, permission{"create", "cert-manager.io", "certificaterequests", ""}))
		stored, err := as(t, plain).Resource(certificateRequests).Namespace("default").Create(t.Context(),
			object(
				t,
				certificateRequest,
				`spec: {username: system:admin, uid: "0", groups: [system:masters], extra: {a: [b]}}`,
			), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(
			map[string]any{"username": plain.UserName, "groups": []any{"system:authenticated"}},
			identity(t, stored),
		); diff != "" {
			t.Errorf("(-expected +found):\n%s", diff)
		}
	})
}

// identity returns the fields of a request's spec that identify its creator.
func identity(t *testing.T, request *unstructured.Unstructured) map[string]any {
	t.Helper()
	spec, _, err := unstructured.NestedMap(request.Object, "spec")
	if err != nil {
		t.Fatal(err)
	}
	for key := range spec {
		if !slices.Contains([]string{"username", "uid", "groups", "extra"}, key) {
			delete(spec, key)
		}
	}
	return spec
}

// An API server before Kubernetes 1.36 does not stamp requests with their creator. It must not
// accept forged fields, either.
func TestForgedRequestersAreRefusedWithoutTheWebhook(t *testing.T) {
	creator := requester(t)
	client := as(t, creator)
	bindings := admin(
		t,
	).Resource(
		schema.GroupVersionResource{
			Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings",
		},
	)
	if err := bindings.Delete(t.Context(), "perennial-requester", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	stamped := func() (bool, error) {
		stored, err := client.Resource(certificateRequests).
			Namespace("default").
			Create(t.Context(), object(t, certificateRequest), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return false, err
		}
		return len(identity(t, stored)) > 0, nil
	}
	t.Cleanup(func() {
		if err := install.API(context.Background(), adminConfig(t)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "requests are no longer stamped", func() (bool, error) {
		yes, err := stamped()
		return !yes, err
	})

	forged := func(field, what string) verdict {
		return refused("", "spec."+field+" must be the "+what+" of the user who creates the CertificateRequest: leave it out")
	}
	for _, e := range []example{
		{"nothing is accepted", `{}`, accepted},
		{"emptiness is accepted", `spec: {username: "", uid: "", groups: [], extra: {}}`, accepted},
		{"the truth is accepted", `spec: {username: ` + creator.UserName + `, uid: 0000-1111, groups: [system:authenticated, developers], extra: {example.com/floor: ["3"], example.com/department: [web, pki]}}`, accepted},
		{"the name of another is refused", `spec: {username: system:admin}`, forged("username", "name")},
		{"the UID of another is refused", `spec: {uid: "0"}`, forged("uid", "UID")},
		{"a further group is refused", `spec: {groups: [system:authenticated, developers, system:masters]}`, forged("groups", "groups")},
		{"a group too few is refused", `spec: {groups: [system:authenticated]}`, forged("groups", "groups")},
		{"a further attribute is refused", `spec: {extra: {example.com/floor: ["3"], example.com/department: [web, pki], a: [b]}}`, forged("extra", "extra attributes")},
		{"an attribute too few is refused", `spec: {extra: {example.com/floor: ["3"]}}`, forged("extra", "extra attributes")},
		{"another value of an attribute is refused", `spec: {extra: {example.com/floor: ["4"], example.com/department: [web, pki]}}`, forged("extra", "extra attributes")},
		{"another attribute is refused", `spec: {extra: {example.com/roof: ["3"], example.com/department: [web, pki]}}`, forged("extra", "extra attributes")},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryRun(t, client, certificateRequests, object(t, certificateRequest, e.patch)))
		})
	}
	t.Run("attributes of a user who has none are refused", func(t *testing.T) {
		plain := as(t, user(grant(t, permission{"create", "cert-manager.io", "certificaterequests", ""})))
		forged(
			"extra",
			"extra attributes",
		).check(t, dryRun(t, plain, certificateRequests, object(t, certificateRequest, `spec: {extra: {a: [b]}}`)))
	})
}

func TestOnlyTheControllerWritesOrdersAndChallenges(t *testing.T) {
	const acmeGroup = "acme.cert-manager.io"
	act := permission{"act", "perennial.dev", "controllers", ""}
	for _, kind := range []struct {
		resource schema.GroupVersionResource
		manifest string
	}{
		{orders, order},
		{challenges, challenge},
	} {
		t.Run(kind.resource.Resource, func(t *testing.T) {
			name := kind.resource.Resource
			edit := []permission{
				{"create", acmeGroup, name, ""},
				{"update", acmeGroup, name, ""},
				{"delete", acmeGroup, name, ""},
			}
			editor := grant(t, edit...)
			controller := as(t, user(grant(t, append(edit, act)...)))
			denied := refused(
				"",
				`user "`+editor+`" cannot write the spec of `+name+`, which the controller alone does: create a Certificate instead`,
			)

			t.Run("an editor cannot create one", func(t *testing.T) {
				err := dryRun(t, as(t, user(editor)), kind.resource, object(t, kind.manifest))
				denied.check(t, err)
				if !apierrors.IsForbidden(err) {
					t.Errorf("is not Forbidden: %v", err)
				}
			})
			t.Run("the controller can", func(t *testing.T) {
				accepted.check(t, dryRun(t, controller, kind.resource, object(t, kind.manifest)))
			})
			stored := create(t, admin(t), kind.resource, object(t, kind.manifest))
			if kind.resource == orders { // no client can change the spec of a Challenge
				t.Run("an editor cannot change what it asks for", func(t *testing.T) {
					denied.check(t, dryUpdate(t, as(t, user(editor)), kind.resource, stored, `spec: {dnsNames: [other.example.com]}`))
				})
			}
			t.Run("an editor can remove a finalizer", func(t *testing.T) {
				accepted.check(
					t,
					dryUpdate(t, as(t, user(editor)), kind.resource, stored, `metadata: {finalizers: null, labels: {a: b}}`),
				)
			})
			t.Run("an editor can delete it", func(t *testing.T) {
				err := as(
					t,
					user(editor),
				).Resource(kind.resource).
					Namespace("default").
					Delete(t.Context(), stored.GetName(), metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
				accepted.check(t, err)
			})
		})
	}
}

func TestOnlyTheControllerWritesWhatOrdersAndChallengesHaveComeTo(t *testing.T) {
	act := permission{"act", "perennial.dev", "controllers", ""}
	for _, kind := range []struct {
		resource         schema.GroupVersionResource
		manifest, status string
	}{
		{orders, order, `status: {state: valid, certificate: aGVsbG8=}`},
		{challenges, challenge, `status: {presented: true, state: pending}`},
	} {
		name := kind.resource.Resource
		t.Run(name, func(t *testing.T) {
			write := permission{"update", "acme.cert-manager.io", name + "/status", ""}
			editor := grant(t, write, permission{"update", "acme.cert-manager.io", name, ""})
			stored := create(t, admin(t), kind.resource, object(t, kind.manifest))
			refused("", `user "`+editor+`" cannot write the status of `+name+
				`, which the controller alone does: create a Certificate instead`).check(t,
				dryUpdate(t, as(t, user(editor)), kind.resource, stored, kind.status, "status"))
			accepted.check(t, dryUpdate(t, as(t, user(grant(t, write, act))), kind.resource, stored, kind.status, "status"))
		})
	}
}

func TestOnlyTheControllerWritesItsAnnotations(t *testing.T) {
	act := permission{"act", "perennial.dev", "controllers", ""}
	for _, kind := range []struct {
		resource schema.GroupVersionResource
		manifest string
		may      []permission
	}{
		{certificateRequests, certificateRequest, []permission{{"create", "cert-manager.io", "certificaterequests", ""},
			{"update", "cert-manager.io", "certificaterequests", ""}}},
		{orders, order, []permission{{"update", "acme.cert-manager.io", "orders", ""}}},
		{challenges, challenge, []permission{{"update", "acme.cert-manager.io", "challenges", ""}}},
	} {
		name := kind.resource.Resource
		t.Run(name, func(t *testing.T) {
			editor := grant(t, kind.may...)
			other, controller := as(t, user(editor)), as(t, user(grant(t, append(kind.may, act)...)))
			denied := func(key string) verdict {
				return refused("", `metadata.annotations[perennial.dev/`+key+`] is the controller's own, and user "`+editor+
					`" cannot write it: leave out annotations whose name begins with perennial.dev/`)
			}
			if kind.resource == certificateRequests {
				denied("replaces").check(t,
					dryRun(t, other, kind.resource, object(t, kind.manifest, `metadata: {annotations: {perennial.dev/replaces: x}}`)))
				accepted.check(t, dryRun(t, controller, kind.resource,
					object(t, kind.manifest, `metadata: {annotations: {perennial.dev/replaces: x}}`)))
			}
			stored := create(t, admin(t), kind.resource,
				object(t, kind.manifest, `metadata: {annotations: {perennial.dev/attempt: "3"}}`))
			denied("manually-triggered").check(t, dryUpdate(t, other, kind.resource, stored,
				`metadata: {annotations: {perennial.dev/manually-triggered: now}}`))
			denied("attempt").check(t, dryUpdate(t, other, kind.resource, stored,
				`metadata: {annotations: {perennial.dev/attempt: "1"}}`))
			denied("attempt").check(t, dryUpdate(t, other, kind.resource, stored,
				`metadata: {annotations: {perennial.dev/attempt: null}}`))
			accepted.check(t, dryUpdate(t, other, kind.resource, stored,
				`metadata: {annotations: {example.com/note: a}, labels: {a: b}}`))
			accepted.check(t, dryUpdate(t, controller, kind.resource, stored,
				`metadata: {annotations: {perennial.dev/attempt: "4"}}`))
		})
	}
}

func TestUsersWriteNothingOfTheStatusOfACertificateButIssuing(t *testing.T) {
	client, write := admin(t), permission{"update", "cert-manager.io", "certificates/status", ""}
	editor := grant(t, write)
	other := as(t, user(editor))
	const now, ready = `lastTransitionTime: "2026-01-02T03:04:05Z"`,
		`type: Ready, status: "False", reason: Pending, message: m`
	one := `{certificate: aGVsbG8=, issuerRef: {name: ca}}`
	stored := setStatus(t, client, certificates, create(t, client, certificates, object(t, certificate)),
		`status: {revision: 3, revocable: `+one+`, conditions: [{`+ready+`, `+now+`}]}`)
	renew := `{type: Issuing, status: "True", reason: ManuallyTriggered}`
	kept := `{` + ready + `, ` + now + `}`
	denied := func(what string) verdict {
		return refused("", `user "`+editor+`" cannot write `+what+
			`, which the controller alone does: change nothing but the condition Issuing`)
	}
	for _, e := range []example{
		{"to have it renewed", `conditions: [` + kept + `, ` + renew + `]`, accepted},
		{"without a field that the program does not know", `revocable: null, conditions: [` + kept + `, ` + renew + `]`,
			accepted},
		{"another certificate to revoke", `revocable: {certificate: d29ybGQ=, issuerRef: {name: ca}}`,
			denied("status.revocable")},
		{"another revision", `revision: 1`, denied("status.revision")},
		{"a failure that was none", `failedIssuanceAttempts: 9`, denied("status.failedIssuanceAttempts")},
		{"Ready", `conditions: [{type: Ready, status: "True", reason: Ready, message: m, ` + now + `}]`,
			denied("the condition Ready")},
		{"no condition", `conditions: []`, denied("the condition Ready")},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, other, certificates, stored, `status: {`+e.patch+`}`, "status"))
		})
	}
	controller := as(t, user(grant(t, write, permission{"act", "perennial.dev", "controllers", ""})))
	accepted.check(t, dryUpdate(t, controller, certificates, stored, `status: {revision: 4}`, "status"))
}

func TestOnlyTheControllerAnswersRequestsToItsIssuers(t *testing.T) {
	for name, test := range map[string]struct {
		issuer string
		want   func(user string, what string) verdict
	}{
		"ours": {`{name: ca}`, func(user, what string) verdict {
			return refused("", `user "`+user+
				`" can add the conditions Approved and Denied to this CertificateRequest, but cannot write `+what+
				`, which the controller alone does`)
		}},
		"external": {`{name: ca, kind: StepIssuer, group: example.com}`, func(string, string) verdict { return accepted }},
	} {
		t.Run(name, func(t *testing.T) {
			editor := grant(t, updateRequests)
			stored := create(t, admin(t), certificateRequests,
				object(t, certificateRequest, `spec: {issuerRef: `+test.issuer+`}`))
			for patch, what := range map[string]string{
				`certificate: aGVsbG8=`:               "status.certificate, status.ca and status.failureTime",
				`ca: aGVsbG8=`:                        "status.certificate, status.ca and status.failureTime",
				`failureTime: "2026-01-02T03:04:05Z"`: "status.certificate, status.ca and status.failureTime",
				`conditions: [{type: Ready, status: "True", reason: Issued}]`:       "other conditions",
				`conditions: [{type: InvalidRequest, status: "True", reason: Odd}]`: "other conditions",
			} {
				test.want(editor, what).check(t, dryUpdate(t, as(t, user(editor)), certificateRequests, stored,
					`status: {`+patch+`}`, "status"))
			}
		})
	}
}

func TestPoliciesBindFailClosed(t *testing.T) {
	policies, err := api.Policies()
	if err != nil {
		t.Fatal(err)
	}
	bound, warns := map[string]bool{}, map[string]bool{}
	for _, policy := range policies {
		actions, _, _ := unstructured.NestedStringSlice(policy.Object, "spec", "validationActions")
		to, _, _ := unstructured.NestedString(policy.Object, "spec", "policyName")
		warns[to] = slices.Equal(actions, []string{"Warn"})
	}
	for _, policy := range policies {
		name := policy.GetKind() + " " + policy.GetName()
		if !strings.HasPrefix(policy.GetName(), "perennial-") {
			t.Errorf("%s: the name does not begin with perennial-", name)
		}
		switch policy.GetKind() {
		case "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy":
			if failure, _, _ := unstructured.NestedString(policy.Object, "spec", "failurePolicy"); failure != "Fail" &&
				!(warns[policy.GetName()] && failure == "Ignore") {
				t.Errorf("%s: failurePolicy is %q", name, failure)
			}
			bound[name] = bound[name] || false
		case "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding":
			to, _, _ := unstructured.NestedString(policy.Object, "spec", "policyName")
			bound[strings.TrimSuffix(policy.GetKind(), "Binding")+" "+to] = true
			actions, _, _ := unstructured.NestedStringSlice(policy.Object, "spec", "validationActions")
			if policy.GetKind() == "ValidatingAdmissionPolicyBinding" && !slices.Equal(actions, []string{"Deny"}) && !warns[to] {
				t.Errorf("%s: validationActions are %v", name, actions)
			}
			if ref, ok, _ := unstructured.NestedMap(
				policy.Object,
				"spec",
				"paramRef",
			); ok &&
				ref["parameterNotFoundAction"] != "Deny" {
				t.Errorf("%s: parameterNotFoundAction is %v", name, ref["parameterNotFoundAction"])
			}
		}
	}
	for policy, ok := range bound {
		if !ok {
			t.Errorf("%s has no binding", policy)
		}
	}
}
