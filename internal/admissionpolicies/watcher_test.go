package admissionpolicies

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/perennial-pki/perennial/api"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// installed are the policies and bindings as the API server returns them, with its defaults.
func installed(t *testing.T) (policies []admissionv1.ValidatingAdmissionPolicy,
	bindings []admissionv1.ValidatingAdmissionPolicyBinding) {
	t.Helper()
	policies, named, err := required()
	if err != nil {
		t.Fatal(err)
	}
	if len(policies) < 7 {
		t.Fatalf("only %d policies deny", len(policies))
	}
	for i := range policies {
		m := policies[i].Spec.MatchConstraints
		m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector = ptr.To(admissionv1.Equivalent), &metav1.LabelSelector{},
			&metav1.LabelSelector{}
		for j := range m.ResourceRules {
			m.ResourceRules[j].Scope = ptr.To(admissionv1.AllScopes)
		}
		bindings = append(bindings, named[policies[i].Name])
	}
	return policies, bindings
}

func TestWhatIsWrongWithPolicies(t *testing.T) {
	const name = "perennial-acme-objects"
	type (
		policy  = admissionv1.ValidatingAdmissionPolicy
		binding = admissionv1.ValidatingAdmissionPolicyBinding
	)
	for title, test := range map[string]struct {
		change func(*policy, *binding)
		says   string
	}{
		"nothing":           {func(*policy, *binding) {}, ""},
		"it is missing":     {func(p *policy, _ *binding) { p.Name = "other" }, "does not exist"},
		"it has no binding": {func(_ *policy, b *binding) { b.Spec.PolicyName = "other" }, "has no binding"},
		"its binding audits": {func(_ *policy,
			b *binding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{"Audit"}
		}, "validationActions [Audit]"},
		"its binding warns": {func(_ *policy, b *binding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{"Warn", "Audit"}
		}, "does not deny"},
		"its binding denies and audits": {func(_ *policy, b *binding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{"Deny", "Audit"}
		}, ""},
		"its binding leaves out objects": {func(_ *policy, b *binding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{
				ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}
		}, "does not judge everywhere"},
		"its binding leaves out namespaces": {func(_ *policy, b *binding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{
					MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Exists"}}}}
		}, "does not judge everywhere"},
		"its binding has empty selectors": {func(_ *policy, b *binding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{ObjectSelector: &metav1.LabelSelector{},
				NamespaceSelector: &metav1.LabelSelector{}, MatchPolicy: ptr.To(admissionv1.Equivalent)}
		}, ""},
		"an error lets pass": {
			func(p *policy, _ *binding) { p.Spec.FailurePolicy = ptr.To(admissionv1.Ignore) }, "failurePolicy Ignore"},
		"the default is to fail": {func(p *policy, _ *binding) { p.Spec.FailurePolicy = nil }, ""},
		"it leaves out namespaces": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.NamespaceSelector.MatchLabels = map[string]string{"a": "b"}
		}, "leaves objects out"},
		"it leaves out objects": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ObjectSelector.MatchLabels = map[string]string{"a": "b"}
		}, "leaves objects out"},
		"it excludes": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ExcludeResourceRules = p.Spec.MatchConstraints.ResourceRules
		}, "leaves objects out"},
		"it judges no status": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ResourceRules[0].Resources = []string{"orders", "challenges"}
		}, "does not judge CREATE of orders/status"},
		"it judges no updates": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{"CREATE"}
		}, "does not judge UPDATE of orders"},
		"it judges some names": {
			func(p *policy, _ *binding) { p.Spec.MatchConstraints.ResourceRules[0].ResourceNames = []string{"a"} },
			"does not judge CREATE of orders"},
		"it judges more": {
			func(p *policy, _ *binding) { p.Spec.MatchConstraints.ResourceRules[0].Resources = []string{"*/*"} }, ""},
		"it judges all operations": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{"*"}
		}, ""},
		"it has an exception": {func(p *policy, _ *binding) {
			p.Spec.MatchConditions = append(p.Spec.MatchConditions, admissionv1.MatchCondition{Name: "not-mine",
				Expression: "false"})
		}, `another matchCondition "not-mine"`},
		"its condition is another": {
			func(p *policy, _ *binding) { p.Spec.MatchConditions[0].Expression = "false" }, "another matchCondition"},
		"it lets all pass": {func(p *policy, _ *binding) { p.Spec.Validations[0].Expression = "true" }, "other validations"},
		"it demands more": {func(p *policy, _ *binding) {
			p.Spec.Validations = append(p.Spec.Validations, admissionv1.Validation{Expression: "1 == 1"})
		}, ""},
		"it is of a later version": {func(p *policy, _ *binding) {
			p.Annotations, p.Spec.Validations[0].Expression = map[string]string{api.RevisionAnnotation: "99"}, "1 == 1"
		}, ""},
		"a later version may fail open": {func(p *policy, _ *binding) {
			p.Annotations, p.Spec.FailurePolicy = map[string]string{api.RevisionAnnotation: "99"}, ptr.To(admissionv1.Ignore)
		}, "failurePolicy Ignore"},
	} {
		t.Run(title, func(t *testing.T) {
			policies, bindings := installed(t)
			for i := range policies {
				if policies[i].Name == name {
					test.change(&policies[i], &bindings[i])
				}
			}
			problems, err := Problems(policies, bindings)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(problems, "; ")
			if (got == "") != (test.says == "") || !strings.Contains(got, test.says) || got != "" && !strings.HasPrefix(got,
				"ValidatingAdmissionPolicy "+name) {
				t.Errorf("it says %q", got)
			}
		})
	}
}

// server is an API server that has the policies and refuses what they refuse, unless a test turns
// that off.
type server struct {
	client.WithWatch
	stored  client.WithWatch
	refuses bool
	list    error
}

func newServer(t *testing.T) *server {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{admissionv1.AddToScheme, cmapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	policies, bindings := installed(t)
	var objects []client.Object
	for i := range policies {
		objects = append(objects, &policies[i], &bindings[i])
	}
	s := &server{refuses: true, stored: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()}
	s.WithWatch = interceptor.NewClient(s.stored, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			if s.refuses {
				return apierrors.NewInvalid(cmapi.SchemeGroupVersion.WithKind("Certificate").GroupKind(), "check", nil)
			}
			return nil
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
			if s.list != nil {
				return s.list
			}
			return c.List(ctx, list, o...)
		},
		Watch: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
			return nil, errors.New("no right to watch")
		},
	})
	return s
}

func newWatcher(t *testing.T, s *server, assumed bool) *Watcher {
	t.Helper()
	w, err := New(s, "default", assumed, logr.Discard(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWhatIsSeenOfPolicies(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: "admissionregistration.k8s.io",
		Resource: "validatingadmissionpolicies"}, "", errors.New("no"))
	for name, test := range map[string]struct {
		change  func(*server)
		assumed bool
		says    string
	}{
		"all is well": {func(*server) {}, false, ""},
		"the server does not enforce": {
			func(s *server) { s.refuses = false }, false, "admission plugin ValidatingAdmissionPolicy"},
		"they may not be read":              {func(s *server) { s.list = forbidden }, false, "--assume-admission-policies"},
		"they may not be read, but assumed": {func(s *server) { s.list = forbidden }, true, ""},
		"the server has none": {
			func(s *server) { s.list = apierrors.NewNotFound(schema.GroupResource{}, "") }, false, "since 1.30"},
		"the server does not answer": {
			func(s *server) { s.list = apierrors.NewInternalError(errors.New("later")) }, false, "cannot be seen"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			test.change(s)
			w := newWatcher(t, s, test.assumed)
			if !test.assumed {
				_ = w.look(t.Context())
			}
			got := w.Unprotected()
			if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
				t.Errorf("it says %q", got)
			}
			if metric := testutil.ToFloat64(w.enforced); (metric == 1) != (got == "") {
				t.Errorf("the metric is %v", metric)
			}
			cluster := &signer.Issuer{GenericIssuer: &cmapi.ClusterIssuer{}, Kind: signer.KindClusterIssuer}
			own := &signer.Issuer{GenericIssuer: &cmapi.Issuer{}, Kind: signer.KindIssuer}
			if err := w.Guard(cluster); (err == nil) != (got == "") {
				t.Errorf("a ClusterIssuer: %v", err)
			}
			if err := w.Guard(own); err != nil {
				t.Errorf("an Issuer: %v", err)
			}
		})
	}
}

func TestAServerThatDoesNotAnswerForNowChangesNothing(t *testing.T) {
	s := newServer(t)
	w := newWatcher(t, s, false)
	_ = w.look(t.Context())
	s.list = apierrors.NewInternalError(errors.New("later"))
	if err := w.look(t.Context()); err == nil || w.Unprotected() != "" {
		t.Errorf("%v, it says %q", err, w.Unprotected())
	}
}

func TestPoliciesAreLookedAtAgainWithoutAWatch(t *testing.T) {
	s := newServer(t)
	w := newWatcher(t, s, false)
	w.every = 10 * time.Millisecond
	w.Settle(t.Context())
	if problem := w.Unprotected(); problem != "" {
		t.Fatal(problem)
	}
	changed := make(chan string, 10)
	w.OnChange(func() { changed <- w.Unprotected() })
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- w.Start(ctx) }()
	if err := s.stored.Delete(ctx,
		&admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "perennial-approval"}}); err != nil {
		t.Fatal(err)
	}
	if problem := <-changed; !strings.Contains(problem, "perennial-approval has no binding") {
		t.Errorf("it says %q", problem)
	}
	_, bindings := installed(t)
	for i := range bindings {
		if bindings[i].Name == "perennial-approval" {
			if err := s.stored.Create(ctx, &bindings[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if problem := <-changed; problem != "" {
		t.Errorf("it says %q", problem)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
