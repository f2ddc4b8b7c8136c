package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// audited changes the binding of a policy to Audit only, until the returned function is called.
func audited(t *testing.T, policy string) (restore func()) {
	t.Helper()
	admin := cluster.Admin(t)
	set := func(ctx context.Context, action admissionv1.ValidationAction) error {
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
		if err := admin.Get(ctx, client.ObjectKey{Name: policy}, binding); err != nil {
			return err
		}
		binding.Spec.ValidationActions = []admissionv1.ValidationAction{action}
		return admin.Update(ctx, binding)
	}
	if err := set(t.Context(), admissionv1.Audit); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := set(context.Background(), admissionv1.Deny); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	return restore
}

// scrape returns the line of a metric.
func scrape(t *testing.T, address, name string) string {
	t.Helper()
	reply, err := http.Get("http://" + address + "/metrics") //nolint:noctx // in a test
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// unprotected waits until an issuer has the condition Unprotected with these words or, without
// words, until it does not have the condition.
func (s *shared) unprotected(words string) {
	s.t.Helper()
	cluster.Eventually(s.t, func() error {
		issuer := &cmapi.ClusterIssuer{}
		if err := s.admin.Get(s.t.Context(), client.ObjectKey{Name: s.issuer.Name}, issuer); err != nil {
			return err
		}
		c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionUnprotected)
		switch {
		case cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady) == nil:
			return cluster.NotYet("the issuer has no status")
		case words == "" && c != nil, words != "" && (c == nil || !strings.Contains(c.Message, words)):
			return cluster.NotYet("want %q; the conditions are %+v", words, issuer.Status.Conditions)
		}
		return nil
	})
}

// waits waits until a request of a Certificate waits for the policies, and checks that it is not
// approved.
func (s *shared) waits(crt *cmapi.Certificate) {
	s.t.Helper()
	cr := &cmapi.CertificateRequest{}
	cluster.Eventually(s.t, func() error {
		if err := s.admin.Get(s.t.Context(), client.ObjectKey{Namespace: crt.Namespace, Name: crt.Name + "-1"},
			cr); err != nil {
			return err
		}
		c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady)
		if c == nil || !strings.Contains(c.Message, "not enforced") && !strings.Contains(c.Message, "may not read") {
			return cluster.NotYet("the conditions are %+v", cr.Status.Conditions)
		}
		return nil
	})
	if cmapi.CertificateRequestIsApproved(&cr.Status) || len(cr.Status.Certificate) > 0 {
		s.t.Errorf("it is approved or signed: %+v", cr.Status.Conditions)
	}
}

// TestWithoutItsPoliciesNothingThatAllShareIsUsed changes a binding from Deny to Audit, and checks
// that the controller stops until it denies again.
func TestWithoutItsPoliciesNothingThatAllShareIsUsed(t *testing.T) {
	s := &shared{t: t, admin: cluster.Admin(t)}
	metrics := cluster.FreePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", metrics)
	cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace, MetricsAddress: address})
	issuer := &cmapi.ClusterIssuer{}
	issuer.GenerateName, issuer.Spec.SelfSigned = "self-", &cmapi.SelfSignedIssuer{}
	s.create(issuer)
	s.issuer = cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer.Name}
	s.unprotected("")
	namespace := cluster.Namespace(t)
	before := s.certificate(namespace, "before")
	s.create(before)
	s.ready(before)
	check := func() (string, int) {
		out, err := exec.Command(cluster.Program(t), "check", "api", "--kubeconfig",
			cluster.Plane(t).KubeconfigPath()).CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return string(out), exit.ExitCode()
		}
		return string(out), 0
	}
	if out, code := check(); code != 0 {
		t.Errorf("check api: %d %s", code, out)
	}

	restore := audited(t, "perennial-acme-objects")
	s.unprotected("perennial-acme-objects does not deny")
	if line := scrape(t, address,
		"perennial_admission_policies_enforced"); line != "perennial_admission_policies_enforced 0" {
		t.Errorf("the metric is %q", line)
	}
	if out, code := check(); code != 3 || !strings.Contains(out, "perennial-acme-objects does not deny") {
		t.Errorf("check api: %d %s", code, out)
	}
	later := s.certificate(namespace, "later")
	s.create(later)
	s.waits(later)

	restore()
	s.unprotected("")
	s.ready(later)
	if line := scrape(t, address,
		"perennial_admission_policies_enforced"); line != "perennial_admission_policies_enforced 1" {
		t.Errorf("the metric is %q", line)
	}
}

// TestAControllerThatMayNotReadPoliciesNeedsAFlag removes the permission to read whether policies
// are enforced.
func TestAControllerThatMayNotReadPoliciesNeedsAFlag(t *testing.T) {
	cluster.TakeRights(t, func(rule rbacv1.PolicyRule, _ string) bool {
		return slices.Contains(rule.Resources, "validatingadmissionpolicies")
	})
	controllers, err := client.New(cluster.Config(t), client.Options{Scheme: controller.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error { // RBAC reads its cache
		if err := controllers.List(t.Context(), &admissionv1.ValidatingAdmissionPolicyList{}); err == nil {
			return cluster.NotYet("the right is still there")
		}
		return nil
	})
	namespace := cluster.Namespace(t)
	s := selfSigned(t)
	s.unprotected("--assume-admission-policies")
	crt := s.certificate(namespace, "a")
	s.create(crt)
	s.waits(crt)

	if err := s.controller.Stop(); err != nil { // two at once would issue against each other
		t.Fatal(err)
	}
	assuming := &shared{t: t, admin: cluster.Admin(t), issuer: s.issuer}
	cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace, AssumePolicies: true})
	assuming.ready(crt)
}
