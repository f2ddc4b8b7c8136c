package tenants_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

var (
	readVerbs  = []string{"get", "list", "watch"}
	writeVerbs = []string{"create", "update", "patch", "delete", "deletecollection"}
)

// roleVerbs returns the verbs that a role has for a resource, also for a subresource.
func roleVerbs(role, resource string) []string {
	var verbs []string
	if !strings.Contains(resource, "/") {
		verbs = slices.Clone(readVerbs)
	}
	if role == "view" {
		return verbs
	}
	switch resource {
	case "certificates", "certificaterequests", "issuers":
		return append(verbs, writeVerbs...)
	case "certificates/status": // for a renewal; a policy protects all other fields
		return []string{"update", "patch"}
	}
	return verbs
}

// bind gives a role to a user, in all namespaces if the namespace is empty.
func bind(t *testing.T, user, role, namespace string) {
	t.Helper()
	ref := rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "User", Name: user}}
	var o client.Object = &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: user},
		RoleRef: ref, Subjects: subjects}
	if namespace == "" {
		o = &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: ref, Subjects: subjects}
	}
	admin := cluster.Admin(t)
	if err := admin.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Delete(context.Background(), o) })
}

// permitted asks the API server whether a user has a permission.
func permitted(t *testing.T, user string, attributes authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &attributes}}
	if err := cluster.Admin(t).Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

// served returns all resources of our groups that the API server serves, with their subresources.
func served(t *testing.T) map[string][]metav1.APIResource {
	t.Helper()
	d, err := discovery.NewDiscoveryClientForConfig(cluster.Plane(t).AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]metav1.APIResource{}
	for _, version := range []string{cmapi.GroupVersion.String(), cmacme.GroupVersion.String(),
		perennial.GroupVersion.String()} {
		list, err := d.ServerResourcesForGroupVersion(version)
		if err != nil || len(list.APIResources) == 0 {
			t.Fatalf("%s has no resources: %v", version, err)
		}
		group, _, _ := strings.Cut(version, "/")
		all[group] = list.APIResources
	}
	return all
}

// TestWhatTheRolesOfKubernetesMayDo compares the permissions of the roles view, edit and admin with
// what they are meant to be, for each resource that is served. A user has the role in one
// namespace, another in the whole cluster.
func TestWhatTheRolesOfKubernetesMayDo(t *testing.T) {
	resources := served(t)
	for _, role := range []string{"view", "edit", "admin"} {
		t.Run(role, func(t *testing.T) {
			namespace, elsewhere := cluster.Namespace(t), cluster.Namespace(t)
			local, wide := role+"-of-"+namespace, role+"-of-all-"+namespace
			bind(t, local, role, namespace)
			bind(t, wide, role, "")
			last := authorizationv1.ResourceAttributes{Group: "perennial.dev", Resource: "trustbundles", Verb: "watch"}
			first := authorizationv1.ResourceAttributes{Namespace: namespace, Group: "acme.cert-manager.io",
				Resource: "orders", Verb: "watch"}
			cluster.Eventually(t, func() error { // RBAC reads its cache
				if !permitted(t, wide, last) || !permitted(t, local, first) {
					return cluster.NotYet("the role is bound")
				}
				return nil
			})
			for group, list := range resources {
				for _, r := range list {
					checkVerbs(t, role, group, r, namespace, elsewhere)
				}
			}
		})
	}
}

// checkVerbs compares what a role permits on a resource with what it is meant to: to a user that
// has it in one namespace, and to one that has it in the whole cluster.
func checkVerbs(t *testing.T, role, group string, r metav1.APIResource, namespace, elsewhere string) {
	t.Helper()
	local, wide := role+"-of-"+namespace, role+"-of-all-"+namespace
	for _, verb := range slices.Concat(readVerbs, writeVerbs) {
		check := func(user, namespace string, want bool) {
			t.Helper()
			resource, sub, _ := strings.Cut(r.Name, "/")
			if got := permitted(t, user, authorizationv1.ResourceAttributes{Namespace: namespace, Group: group,
				Resource: resource, Subresource: sub, Verb: verb}); got != want {
				t.Errorf("%s may %s %s.%s in namespace %q: %t, want %t", user, verb, r.Name, group, namespace, got, want)
			}
		}
		want := slices.Contains(roleVerbs(role, r.Name), verb)
		if !r.Namespaced {
			check(wide, "", want)
			check(local, "", false)
			continue
		}
		check(wide, elsewhere, want)
		check(local, namespace, want)
		check(local, elsewhere, false)
	}
}

// TestATenantRenewsItsCertificate needs certificates/status, and uses nothing else of it.
func TestATenantRenewsItsCertificate(t *testing.T) {
	user, namespace := tenant(t)
	cluster.Run(t, controller.Options{Namespace: namespace})
	try(t, user, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "self"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.example.com"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			IssuerRef:  cmmeta.IssuerReference{Name: "self"}}}
	try(t, user, crt)
	revision := func(want int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := user.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			if crt.Status.Revision == nil || *crt.Status.Revision != want {
				return cluster.NotYet("its status is %+v", crt.Status)
			}
			return nil
		})
	}
	revision(1)
	if out, err := exec.Command(cluster.Program(t), "renew", "web", "-n", namespace,
		"--kubeconfig", kubeconfig(t, namespace)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	revision(2)

	const words = "which the controller alone does"
	for what, change := range map[string]func(*cmapi.CertificateStatus){
		"a revision": func(s *cmapi.CertificateStatus) { *s.Revision = 7 },
		"what is revoked": func(s *cmapi.CertificateStatus) {
			s.Revocable = &cmapi.RevocableCertificate{Certificate: []byte("x"), IssuerRef: crt.Spec.IssuerRef}
		},
		"readiness": func(s *cmapi.CertificateStatus) { s.Conditions[0].Status = cmmeta.ConditionFalse },
	} {
		next := crt.DeepCopy()
		change(&next.Status)
		forbidden(t, what, user.Status().Update(t.Context(), next), words)
	}
}
