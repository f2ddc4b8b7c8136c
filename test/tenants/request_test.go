package tenants_test

import (
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// external is an issuer of another project.
var external = cmmeta.IssuerReference{Name: "ca", Kind: "StepClusterIssuer", Group: "certmanager.step.sm"}

// approver returns a user that may approve all requests of the tests, like approver-policy.
func approver(t *testing.T) client.Client {
	t.Helper()
	c, namespace := tenant(t)
	admin := cluster.Admin(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "approver-"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificaterequests"},
			Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificaterequests/status"},
			Verbs: []string{"update", "patch"}},
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"signers"}, Verbs: []string{"approve"}},
	}}
	if err := admin.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io",
			Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: tenantName}},
	}
	if err := admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error { return c.List(t.Context(), &cmapi.CertificateRequestList{}) })
	return c
}

// approve approves a request as an approver.
func approve(t *testing.T, c client.Client, cr *cmapi.CertificateRequest) error {
	t.Helper()
	is := &cmapi.CertificateRequest{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(cr), is); err != nil {
		t.Fatal(err)
	}
	cmapi.SetCertificateRequestCondition(&is.Status, time.Now(), cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue, Reason: "policy.cert-manager.io",
		Message: "approved",
	})
	return c.Status().Update(t.Context(), is)
}

// TestARequestWhoseCSRAsksForMoreFailsAtOnce makes a tenant request more in the CSR than in the
// spec, from each type of issuer.
func TestARequestWhoseCSRAsksForMoreFailsAtOnce(t *testing.T) {
	for _, test := range []struct {
		name        string
		controllers []string
	}{
		{"the controller approves", nil},
		{"others approve", []string{"*", "-certificaterequests-approver"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace, Controllers: test.controllers})
			user, namespace := tenant(t)
			policy := approver(t)
			for _, issuer := range []cmmeta.IssuerReference{external, {Name: "none"}, {Name: "none", Kind: "ClusterIssuer"}} {
				for name, ask := range map[string]pki.Request{
					"is-ca": {CommonName: "ca", DNSNames: []string{"a.example.com"}, IsCA: true, EncodeBasicConstraints: true},
					"more-usages": {DNSNames: []string{"a.example.com"}, Usages: []string{"code signing", "client auth"},
						EncodeUsages: true},
				} {
					failsAtOnce(t, user, policy, namespace, name, issuer, ask)
				}
			}
		})
	}
}

// failsAtOnce expects of a request that asks for more than its spec that it fails, and is not
// approved.
func failsAtOnce(
	t *testing.T,
	user, policy client.Client,
	namespace, name string,
	issuer cmmeta.IssuerReference,
	ask pki.Request,
) {
	t.Helper()
	admin := cluster.Admin(t)
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: name + "-"},
		Spec:       cmapi.CertificateRequestSpec{IssuerRef: issuer, Request: csr(t, ask)},
	}
	try(t, user, cr)
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
			return err
		}
		if cmapi.CertificateRequestReadyReason(&cr.Status) != cmapi.CertificateRequestReasonFailed {
			return cluster.NotYet("%s of %s: %+v", name, issuer.Kind, cr.Status.Conditions)
		}
		return nil
	})
	if cmapi.CertificateRequestIsApproved(&cr.Status) || cr.Status.FailureTime == nil {
		t.Errorf("%s of %s: %+v", name, issuer.Kind, cr.Status)
	}
	c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionInvalidRequest)
	if c == nil || !strings.Contains(c.Message, "spec.request: the CSR") {
		t.Errorf("%s of %s: %+v", name, issuer.Kind, cr.Status.Conditions)
	}
	forbidden(t, "approval of "+name, approve(t, policy, cr), "cannot be approved, as it has failed")
}

// TestAnOwnerThatATenantWritesExemptsNoName makes a tenant write the reference to a Certificate,
// whose names were checked, into a request for another name.
func TestAnOwnerThatATenantWritesExemptsNoName(t *testing.T) {
	cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace})
	user, namespace := tenant(t)
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.example.com"},
			IssuerRef: cmmeta.IssuerReference{Name: "none"}}}
	try(t, user, crt)
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web-of-a-tenant",
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))}},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: cmmeta.IssuerReference{Name: "none", Kind: "ClusterIssuer"},
			Request: csr(t, pki.Request{DNSNames: []string{"other.example.com/path"}})},
	}
	cr.OwnerReferences[0].BlockOwnerDeletion = nil
	try(t, user, cr)
	cluster.Eventually(t, func() error {
		if err := user.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
			return err
		}
		c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionInvalidRequest)
		if c == nil || !strings.Contains(c.Message, `the DNS name "other.example.com/path"`) {
			return cluster.NotYet("the conditions are %+v", cr.Status.Conditions)
		}
		return nil
	})
	if cmapi.CertificateRequestIsApproved(&cr.Status) {
		t.Errorf("it is approved: %+v", cr.Status.Conditions)
	}
}

// TestOthersApproveWhatTheControllerHasChecked makes an external approver approve a valid request,
// which waits for the controller's condition Checked.
func TestOthersApproveWhatTheControllerHasChecked(t *testing.T) {
	user, namespace := tenant(t)
	policy := approver(t)
	admin := cluster.Admin(t)
	var all []*cmapi.CertificateRequest
	for _, issuer := range []cmmeta.IssuerReference{external, {Name: "none"}} {
		cr := &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "good-"},
			Spec: cmapi.CertificateRequestSpec{IssuerRef: issuer,
				Request: csr(t, pki.Request{DNSNames: []string{"a.example.com"}})},
		}
		try(t, user, cr)
		forbidden(t, "approval before the controller runs", approve(t, policy, cr), "cannot be approved yet")
		all = append(all, cr)
	}
	cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace,
		Controllers: []string{"*", "-certificaterequests-approver"}})
	for _, cr := range all {
		cluster.Eventually(t, func() error { return approve(t, policy, cr) })
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
			t.Fatal(err)
		}
		if c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionChecked); c == nil ||
			!cmapi.CertificateRequestIsApproved(&cr.Status) {
			t.Errorf("the conditions are %+v", cr.Status.Conditions)
		}
	}
}

// TestATenantCannotWriteTheControllersAnnotations makes a tenant create and change requests, Orders
// and Challenges with annotations of the controller.
func TestATenantCannotWriteTheControllersAnnotations(t *testing.T) {
	s := share(t)
	user, namespace := tenant(t, statusRules()...)
	for _, key := range []string{"perennial.dev/replaces", "perennial.dev/manually-triggered", "perennial.dev/revoke-for",
		"perennial.dev/acme-profile"} {
		cr := &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a", Annotations: map[string]string{key: "x"}},
			Spec: cmapi.CertificateRequestSpec{IssuerRef: s.issuer,
				Request: csr(t, pki.Request{DNSNames: []string{"a.example.com"}})},
		}
		forbidden(t, key, user.Create(t.Context(), cr), "is the controller's own")
	}
	// Nor by way of a Certificate, whose annotations are copied to its requests.
	crt := s.certificate(namespace, "web")
	crt.Annotations = map[string]string{"perennial.dev/replaces": "x", "perennial.dev/manually-triggered": "x",
		"perennial.dev/anything": "x", "example.com/note": "x"}
	try(t, user, crt)
	s.ready(crt)
	cr := &cmapi.CertificateRequest{}
	if err := user.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "web-1"}, cr); err != nil {
		t.Fatal(err)
	}
	for key, value := range cr.Annotations {
		if strings.HasPrefix(key, "perennial.dev/") && value == "x" {
			t.Errorf("the request has the annotation %s of its Certificate", key)
		}
	}
	if cr.Annotations["example.com/note"] != "x" {
		t.Errorf("the annotations are %v", cr.Annotations)
	}
	next := cr.DeepCopy()
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, "perennial.dev/attempt", "1")
	forbidden(t, "an annotation of a request", user.Update(t.Context(), next), "is the controller's own")
}
