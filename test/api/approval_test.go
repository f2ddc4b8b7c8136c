package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// A permission is a cluster-wide RBAC rule for a user.
type permission struct {
	verb, group, resource, name string // resource with its subresource: certificates/status
}

// approve is the permission to approve requests of an issuer.
func approve(signer string) permission {
	return permission{"approve", "cert-manager.io", "signers", signer}
}

// updateRequests is the other permission that an approver needs.
var updateRequests = permission{"update", "cert-manager.io", "certificaterequests/status", ""}

// grant creates a user with the permissions and returns its name when they are effective.
func grant(t *testing.T, permissions ...permission) string {
	t.Helper()
	client := admin(t)
	var rules []string
	for _, p := range permissions {
		rule := fmt.Sprintf(`{verbs: [%q], apiGroups: [%q], resources: [%q]`, p.verb, p.group, p.resource)
		if p.name != "" {
			rule += fmt.Sprintf(`, resourceNames: [%q]`, p.name)
		}
		rules = append(rules, rule+"}")
	}
	role := create(t, client, clusterRoles, object(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {generateName: user-}
rules: [`+strings.Join(rules, ", ")+`]
`))
	user := role.GetName()
	create(t, client, clusterRoleBindings, object(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: `+user+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: `+user+`}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: `+user+`}]
`))
	for _, p := range permissions {
		resource, subresource, _ := strings.Cut(p.resource, "/")
		review := object(t, fmt.Sprintf(`
apiVersion: authorization.k8s.io/v1
kind: SubjectAccessReview
spec:
  user: %s
  resourceAttributes: {verb: %q, group: %q, resource: %q, subresource: %q, name: %q}
`, user, p.verb, p.group, resource, subresource, p.name))
		eventually(t, "RBAC gives "+user+" its permissions", func() (bool, error) {
			out, err := client.Resource(
				schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"},
			).
				Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil {
				return false, err
			}
			allowed, _, err := unstructured.NestedBool(out.Object, "status", "allowed")
			return allowed, err
		})
	}
	return user
}

func TestApprovalTakesAPermission(t *testing.T) {
	const none = ""
	tests := []struct {
		name   string
		issuer string // spec.issuerRef
		signer string // the name that the user may approve
		needs  string // what the refusal tells the user to ask for; none if it is accepted
	}{
		{"for an Issuer by its name", `{name: ca}`, "issuers.cert-manager.io/default.ca", none},
		{
			"for an Issuer with kind and group",
			`{name: ca, kind: Issuer, group: cert-manager.io}`,
			"issuers.cert-manager.io/default.ca",
			none,
		},
		{"for all Issuers", `{name: ca}`, "issuers.cert-manager.io/*", none},
		{
			"not for an Issuer of the same name in another namespace",
			`{name: ca}`,
			"issuers.cert-manager.io/other.ca",
			`{ca Issuer cert-manager.io}: give it the verb approve on signers.cert-manager.io "issuers.cert-manager.io/default.ca"`,
		},
		{
			"not for an Issuer without a namespace",
			`{name: ca}`,
			"issuers.cert-manager.io/ca",
			`{ca Issuer cert-manager.io}: give it the verb approve on signers.cert-manager.io "issuers.cert-manager.io/default.ca"`,
		},
		{
			"not for an Issuer as a ClusterIssuer",
			`{name: ca}`,
			"clusterissuers.cert-manager.io/*",
			`{ca Issuer cert-manager.io}: give it the verb approve on signers.cert-manager.io "issuers.cert-manager.io/default.ca"`,
		},
		{"for a ClusterIssuer by its name", `{name: ca, kind: ClusterIssuer}`, "clusterissuers.cert-manager.io/ca", none},
		{"for all ClusterIssuers", `{name: ca, kind: ClusterIssuer}`, "clusterissuers.cert-manager.io/*", none},
		{
			"not for a ClusterIssuer as an Issuer",
			`{name: ca, kind: ClusterIssuer}`,
			"issuers.cert-manager.io/*",
			`{ca ClusterIssuer cert-manager.io}: give it the verb approve on signers.cert-manager.io "clusterissuers.cert-manager.io/ca"`,
		},
		{
			"not for a ClusterIssuer with a namespace",
			`{name: ca, kind: ClusterIssuer}`,
			"clusterissuers.cert-manager.io/default.ca",
			`{ca ClusterIssuer cert-manager.io}: give it the verb approve on signers.cert-manager.io "clusterissuers.cert-manager.io/ca"`,
		},

		{
			"for an external issuer in a namespace",
			`{name: ca, kind: StepIssuer, group: example.com}`,
			"stepissuers.example.com/default.ca",
			none,
		},
		{
			"for an external issuer without a namespace",
			`{name: ca, kind: StepClusterIssuer, group: example.com}`,
			"stepclusterissuers.example.com/ca",
			none,
		},
		{
			"for all external issuers of a kind",
			`{name: ca, kind: StepIssuer, group: example.com}`,
			"stepissuers.example.com/*",
			none,
		},
		{
			"for an external issuer of the default kind",
			`{name: ca, group: example.com}`,
			"issuers.example.com/default.ca",
			none,
		},
		{
			"not for an external issuer as one of ours",
			`{name: ca, group: example.com}`,
			"issuers.cert-manager.io/*",
			`{ca Issuer example.com}: give it the verb approve on signers.cert-manager.io "issuers.example.com/default.ca"`,
		},
		{
			"not for an external issuer in another namespace",
			`{name: ca, kind: StepIssuer, group: example.com}`,
			"stepissuers.example.com/other.ca",
			`{ca StepIssuer example.com}: give it the verb approve on signers.cert-manager.io "stepissuers.example.com/default.ca"`,
		},
		{
			"not for an external issuer whose name looks like another namespace's",
			`{name: other.ca, kind: StepIssuer, group: example.com}`,
			"stepissuers.example.com/other.ca",
			`{other.ca StepIssuer example.com}: give it the verb approve on signers.cert-manager.io "stepissuers.example.com/default.other.ca"`,
		},
		{
			"not for an external issuer without a namespace whose name looks like a namespace's",
			`{name: ca, kind: StepClusterIssuer, group: example.com}`,
			"stepclusterissuers.example.com/default.ca",
			`{ca StepClusterIssuer example.com}: give it the verb approve on signers.cert-manager.io "stepclusterissuers.example.com/ca"`,
		},
		{
			"for an external issuer with an irregular plural, as the annotation says",
			`{name: ca, kind: Policy, group: example.com}`,
			"policies.example.com/default.ca",
			none,
		},
		{
			"not for an external issuer by the plural that the annotation replaces",
			`{name: ca, kind: Policy, group: example.com}`,
			"policys.example.com/default.ca",
			`{ca Policy example.com}: give it the verb approve on signers.cert-manager.io "policies.example.com/default.ca"`,
		},
		{
			"for an external issuer without a namespace, as the annotation says",
			`{name: pki.ca, kind: Authority, group: example.com}`,
			"authorities.example.com/pki.ca",
			none,
		},
		{
			"not for an external issuer with a namespace, as the annotation says",
			`{name: ca, kind: Authority, group: example.com}`,
			"authorities.example.com/default.ca",
			`{ca Authority example.com}: give it the verb approve on signers.cert-manager.io "authorities.example.com/ca"`,
		},
		{
			"for an external issuer with a namespace, as the annotation says",
			`{name: ca, kind: ClusterLocal, group: example.com}`,
			"clusterlocals.example.com/default.ca",
			none,
		},
		{
			"not for an external issuer without a namespace, as the annotation says",
			`{name: ca, kind: ClusterLocal, group: example.com}`,
			"clusterlocals.example.com/ca",
			`{ca ClusterLocal example.com}: give it the verb approve on signers.cert-manager.io "clusterlocals.example.com/default.ca"`,
		},
	}
	signers(
		t,
		"Policy.example.com=policies, Authority.example.com=authorities/Cluster,\n  "+
			"ClusterLocal.example.com=clusterlocals/Namespaced,Odd.example.com=odds/Nowhere",
	)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			name := grant(t, updateRequests, approve(test.signer))
			stored := create(
				t,
				admin(t),
				certificateRequests,
				object(t, certificateRequest, `spec: {issuerRef: `+test.issuer+`}`),
			)
			stored = setStatus(t, admin(t), certificateRequests, stored,
				`status: {conditions: [{type: Checked, status: "True"}]}`)
			for _, decision := range []string{"Approved", "Denied"} {
				err := dryUpdate(t, as(t, user(name)), certificateRequests, stored,
					`status: {conditions: [{type: Checked, status: "True"}, {type: `+decision+`, status: "True"}]}`, "status")
				if test.needs == none {
					accepted.check(t, err)
					continue
				}
				refused(
					"",
					`user "`+name+`" does not have permissions to set approved/denied conditions for issuer `+test.needs,
				).check(t, err)
				if !apierrors.IsForbidden(err) {
					t.Errorf("is not Forbidden: %v", err)
				}
			}
		})
	}

	t.Run("an entry of the annotation that makes no sense approves nothing", func(t *testing.T) {
		stored := create(
			t,
			admin(t),
			certificateRequests,
			object(t, certificateRequest, `spec: {issuerRef: {name: ca, kind: Odd, group: example.com}}`),
		)
		refused(
			"",
			"the entry Odd.example.com= in the annotation perennial.dev/signers of the namespace default must be followed "+
				"by <resource>, <resource>/Cluster or <resource>/Namespaced",
		).check(t,
			dryUpdate(
				t,
				admin(t),
				certificateRequests,
				stored,
				`status: {conditions: [{type: Approved, status: "True"}]}`,
				"status",
			))
	})
}

// signers sets the annotation with the resource names of external issuers until the test ends.
func signers(t *testing.T, annotation string) {
	t.Helper()
	client := admin(t).Resource(namespaces)
	annotate := func(ctx context.Context, value any) error {
		patch, err := json.Marshal(
			map[string]any{"metadata": map[string]any{"annotations": map[string]any{"perennial.dev/signers": value}}},
		)
		if err != nil {
			return err
		}
		_, err = client.Patch(ctx, "default", types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	if err := annotate(t.Context(), annotation); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := annotate(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	// The policies see the namespace through a cache.
	stored := create(
		t,
		admin(t),
		certificateRequests,
		object(t, certificateRequest, `spec: {issuerRef: {name: ca, kind: Odd, group: example.com}}`),
	)
	eventually(t, "the annotation counts", func() (bool, error) {
		err := dryUpdate(
			t,
			admin(t),
			certificateRequests,
			stored,
			`status: {conditions: [{type: Approved, status: "True"}]}`,
			"status",
		)
		return apierrors.IsForbidden(err), nil
	})
}

func TestOnlyTheDecisionItselfTakesAPermission(t *testing.T) {
	client := admin(t)
	name := grant(t, updateRequests)
	stored := create(t, client, certificateRequests,
		object(t, certificateRequest, `spec: {issuerRef: {name: ca, kind: StepIssuer, group: example.com}}`))
	other := as(t, user(name))
	t.Run("an issuer may say that it is not ready", func(t *testing.T) {
		accepted.check(
			t,
			dryUpdate(
				t,
				other,
				certificateRequests,
				stored,
				`status: {conditions: [{type: Ready, status: "False", reason: Pending}]}`,
				"status",
			),
		)
	})
	approved := setStatus(
		t,
		client,
		certificateRequests,
		stored,
		`status: {conditions: [{type: Approved, status: "True"}]}`,
	)
	t.Run("an issuer may sign what others approved", func(t *testing.T) {
		accepted.check(
			t,
			dryUpdate(
				t,
				other,
				certificateRequests,
				approved,
				`status: {certificate: aGVsbG8=, conditions: [{type: Approved, status: "True"}, {type: Ready, status: "True", reason: Issued}]}`,
				"status",
			),
		)
	})
	t.Run("an issuer may not deny what others approved", func(t *testing.T) {
		if err := dryUpdate(
			t,
			other,
			certificateRequests,
			approved,
			`status: {conditions: [{type: Denied, status: "True"}]}`,
			"status",
		); err == nil {
			t.Error("was accepted")
		}
	})
}

func TestApprovalWaitsUntilTheRequestIsChecked(t *testing.T) {
	for name, issuer := range map[string]string{"ours": `{name: ca}`,
		"external": `{name: ca, kind: StepIssuer, group: example.com}`} {
		t.Run(name, func(t *testing.T) {
			approver := grant(t, updateRequests, approve("issuers.cert-manager.io/*"), approve("stepissuers.example.com/*"))
			other := as(t, user(approver))
			stored := create(t, admin(t), certificateRequests, object(t, certificateRequest, `spec: {issuerRef: `+issuer+`}`))
			approved := `{type: Approved, status: "True"}`
			wait := "CertificateRequest " + stored.GetName() +
				" cannot be approved yet, as the controller has not checked its CSR: " +
				"try again when it has the condition Checked; if that does not come, see whether the controller runs"
			refused("", wait).check(t, dryUpdate(t, other, certificateRequests, stored, `status: {conditions: [`+approved+`]}`,
				"status"))
			if err := dryUpdate(t, other, certificateRequests, stored, `status: {conditions: [{type: Checked, status: "True"}, `+
				approved+`]}`, "status"); !apierrors.IsForbidden(err) {
				t.Errorf("an approver can mark a request as checked: %v", err)
			}
			accepted.check(t, dryUpdate(t, other, certificateRequests, stored,
				`status: {conditions: [{type: Denied, status: "True"}]}`, "status"))
			failed := setStatus(t, admin(t), certificateRequests, stored,
				`status: {conditions: [{type: Ready, status: "False", reason: Failed}]}`)
			refused("", "CertificateRequest "+stored.GetName()+
				" cannot be approved, as it has failed: see its condition Ready").check(t,
				dryUpdate(t, other, certificateRequests, failed,
					`status: {conditions: [{type: Ready, status: "False", reason: Failed}, `+approved+`]}`, "status"))
			checked := setStatus(t, admin(t), certificateRequests, failed,
				`status: {conditions: [{type: Checked, status: "True"}]}`)
			accepted.check(t, dryUpdate(t, other, certificateRequests, checked,
				`status: {conditions: [{type: Checked, status: "True"}, `+approved+`]}`, "status"))
			if err := dryUpdate(t, other, certificateRequests, checked, `status: {conditions: []}`,
				"status"); !apierrors.IsForbidden(err) {
				t.Errorf("an approver can take the mark away: %v", err)
			}
		})
	}
}
