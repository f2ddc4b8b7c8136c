package controller_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// externalKind installs a kind of issuers of another project, until the test ends.
func externalKind(t *testing.T, kind, plural string, scope apiextensionsv1.ResourceScope) schema.GroupVersionKind {
	t.Helper()
	const group = "issuers.example.net"
	c, err := client.New(cluster.Plane(t).AdminConfig(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := apiextensionsv1.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: scope, Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: kind, Plural: plural},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{
					Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				Schema: &apiextensionsv1.CustomResourceValidation{
					OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: ptr.To(true)}},
			}},
		}}
	if err := c.Create(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Delete(context.Background(), crd) })
	cluster.Eventually(t, func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(crd), crd); err != nil {
			return err
		}
		for _, c := range crd.Status.Conditions {
			if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
				return nil
			}
		}
		return cluster.NotYet("conditions %+v", crd.Status.Conditions)
	})
	return schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}
}

// grantController binds a rule to the controller's ServiceAccount until the test ends.
func grantController(t *testing.T, rule rbacv1.PolicyRule) {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: deploy.Namespace, Name: deploy.ServiceAccount}}})
	t.Cleanup(func() {
		for _, o := range []client.Object{&rbacv1.ClusterRoleBinding{}, &rbacv1.ClusterRole{}} {
			o.SetName(name)
			_ = cluster.Admin(t).Delete(context.Background(), o)
		}
	})
}

// asked creates a CertificateRequest as a person would.
func asked(t *testing.T, ns, name string, ref cmmeta.IssuerReference) *cmapi.CertificateRequest {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{DNSNames: []string{name + ".example.com"}}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: ref, Request: pki.EncodeCSRPEM(der)}}
	create(t, cr)
	return cr
}

func TestAnExternalIssuerIsApprovedByItsWholeNameAndRealPlural(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	for _, test := range []struct {
		kind, plural string
		scope        apiextensionsv1.ResourceScope
		signer       string
	}{
		{"StepClusterIssuer", "stepclusterissuers", apiextensionsv1.ClusterScoped,
			"stepclusterissuers.issuers.example.net/prod.ca"},
		{"Authority", "authorities", apiextensionsv1.ClusterScoped, "authorities.issuers.example.net/prod.ca"},
		{"ClusterPolicy", "clusterpolicies", apiextensionsv1.NamespaceScoped, "clusterpolicies.issuers.example.net/" + ns +
			".prod.ca"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			kind := externalKind(t, test.kind, test.plural, test.scope)
			running, _ := run(t, nil)
			cr := asked(t, ns, strings.ToLower(test.kind), cmmeta.IssuerReference{Name: "prod.ca", Kind: kind.Kind,
				Group: kind.Group})
			cluster.Eventually(t, func() error {
				if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
					return err
				}
				c := cmapi.GetCertificateRequestCondition(&cr.Status, "ApprovalForbidden")
				if c == nil || c.Reason != "MissingPermission" {
					return cluster.NotYet("conditions %+v", cr.Status.Conditions)
				}
				want := fmt.Sprintf("ServiceAccount %s/%s may not approve this request: it needs the verb approve on "+
					"signers.cert-manager.io %q", deploy.Namespace, deploy.ServiceAccount, test.signer)
				if !strings.Contains(c.Message, want) {
					return cluster.NotYet("it says %q, not %q", c.Message, want)
				}
				return nil
			})
			grantController(t, rbacv1.PolicyRule{APIGroups: []string{"cert-manager.io"}, Resources: []string{"signers"},
				ResourceNames: []string{test.signer}, Verbs: []string{"approve"}})
			// The controller believes an answer about its rights for a minute.
			if err := running.Stop(); err != nil {
				t.Fatal(err)
			}
			run(t, nil)
			isApproved(t, cr)
		})
	}
}

// isApproved waits until a request is approved, and is not reported as one that may not be
// approved.
func isApproved(t *testing.T, cr *cmapi.CertificateRequest) {
	t.Helper()
	admin := cluster.Admin(t)
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
			return err
		}
		if !cmapi.CertificateRequestIsApproved(&cr.Status) || cmapi.GetCertificateRequestCondition(&cr.Status,
			"ApprovalForbidden") != nil {
			return cluster.NotYet("conditions %+v", cr.Status.Conditions)
		}
		return nil
	})
}

func TestStatusSaysHowAnExternalIssuerIs(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	run(t, nil)
	kind := externalKind(t, "StepIssuer", "stepissuers", apiextensionsv1.NamespaceScoped)
	crt := leaf(ns, "a", cmmeta.IssuerReference{Name: "prod", Kind: "StepIsuer", Group: kind.Group})
	create(t, crt)
	says := func(words ...string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			var out, errs bytes.Buffer
			p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &errs, Clock: clock.RealClock{}}
			p.Run(t.Context(), p.Command(), []string{"status", "certificate", "a", "-n", ns, "--kubeconfig",
				cluster.Plane(t).KubeconfigPath()})
			for _, w := range words {
				if !strings.Contains(out.String(), w) {
					return cluster.NotYet("no %q in\n%s%s", w, out.String(), errs.String())
				}
			}
			return nil
		})
	}
	says(`the cluster has no kind "StepIsuer" in the group "issuers.example.net"`,
		"correct spec.issuerRef, or install the issuer's controller")
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		crt.Spec.IssuerRef.Kind = kind.Kind
		return admin.Update(t.Context(), crt)
	})
	says(`create StepIssuer.issuers.example.net "prod", or correct spec.issuerRef`)
	issuer := &unstructured.Unstructured{Object: map[string]any{}}
	issuer.SetGroupVersionKind(kind)
	issuer.SetNamespace(ns)
	issuer.SetName("prod")
	create(t, issuer)
	issuer.Object["status"] = map[string]any{"conditions": []any{map[string]any{
		"type": "Ready", "status": "False", "message": "wrong provisioner password",
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}}}
	if err := admin.Status().Update(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	says("mend StepIssuer.issuers.example.net prod: wrong provisioner password")
}

// TestAnExternalIssuerThatIsCorrectedIsAskedAgain starts with a failed request, hours before its
// next attempt.
func TestAnExternalIssuerThatIsCorrectedIsAskedAgain(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	kind := externalKind(t, "CorrectedIssuer", "correctedissuers", apiextensionsv1.NamespaceScoped)
	grantController(t, rbacv1.PolicyRule{APIGroups: []string{kind.Group}, Resources: []string{"correctedissuers"},
		Verbs: []string{"get"}})
	now := clocktesting.NewFakeClock(time.Now())
	run(t, func(o *controller.Options) { o.Clock = now })
	issuer := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"provisioner": "wrong"}}}
	issuer.SetGroupVersionKind(kind)
	issuer.SetNamespace(ns)
	issuer.SetName("prod")
	create(t, issuer)
	crt := leaf(ns, "a", cmmeta.IssuerReference{Name: "prod", Kind: kind.Kind, Group: kind.Group})
	create(t, crt)
	cr := &cmapi.CertificateRequest{}
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "a-1"}, cr); err != nil {
			return err
		}
		at := metav1.NewTime(now.Now())
		cr.Status.FailureTime = &at
		cmapi.SetCertificateRequestCondition(&cr.Status, at.Time, cmapi.CertificateRequestCondition{Type: "Ready",
			Status: "False", Reason: "Failed", Message: "wrong provisioner"})
		return admin.Status().Update(t.Context(), cr)
	})
	failed := cr.UID
	nudge := func() {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			metav1.SetMetaDataAnnotation(&crt.ObjectMeta, "nudged", time.Now().String())
			return admin.Update(t.Context(), crt)
		})
	}
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing); c == nil ||
			c.Status != cmmeta.ConditionFalse || !strings.Contains(c.Message, "within a minute after the issuer does") {
			return cluster.NotYet("conditions %+v", crt.Status.Conditions)
		}
		return nil
	})
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
		t.Fatal(err)
	}
	issuer.Object["spec"] = map[string]any{"provisioner": "right"}
	if err := admin.Update(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	now.Step(2 * time.Minute) // less than any back-off
	nudge()
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "a-1"}, cr); err != nil {
			return err
		}
		if cr.UID == failed {
			return cluster.NotYet("the failed request is still there")
		}
		return nil
	})
}
