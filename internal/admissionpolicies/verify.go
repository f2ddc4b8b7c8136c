package admissionpolicies

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/api"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// required returns the denying policies, and the binding of each by the name of the policy.
func required() (policies []admissionv1.ValidatingAdmissionPolicy,
	bindings map[string]admissionv1.ValidatingAdmissionPolicyBinding, err error) {
	objects, err := api.Policies()
	if err != nil {
		return nil, nil, err
	}
	bindings = map[string]admissionv1.ValidatingAdmissionPolicyBinding{}
	for _, o := range objects {
		switch o.GetKind() {
		case "ValidatingAdmissionPolicy":
			var p admissionv1.ValidatingAdmissionPolicy
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p); err != nil {
				return nil, nil, fmt.Errorf("policy %s: %w", o.GetName(), err)
			}
			policies = append(policies, p)
		case "ValidatingAdmissionPolicyBinding":
			var b admissionv1.ValidatingAdmissionPolicyBinding
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &b); err != nil {
				return nil, nil, fmt.Errorf("binding %s: %w", o.GetName(), err)
			}
			if denies(b) {
				bindings[b.Spec.PolicyName] = b
			}
		}
	}
	policies = slices.DeleteFunc(policies, func(p admissionv1.ValidatingAdmissionPolicy) bool {
		_,
			found := bindings[p.Name]
		return !found
	})
	return policies, bindings, nil
}

func denies(b admissionv1.ValidatingAdmissionPolicyBinding) bool {
	return slices.Contains(b.Spec.ValidationActions, admissionv1.Deny)
}

// Problems returns which of the denying policies are missing, differ from those of this version, or
// have no binding that denies.
func Problems(installed []admissionv1.ValidatingAdmissionPolicy,
	bound []admissionv1.ValidatingAdmissionPolicyBinding) ([]string, error) {
	policies, bindings, err := required()
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, want := range policies {
		at := slices.IndexFunc(installed, func(p admissionv1.ValidatingAdmissionPolicy) bool { return p.Name == want.Name })
		if at < 0 {
			problems = append(problems, fmt.Sprintf("ValidatingAdmissionPolicy %s does not exist: install it", want.Name))
			continue
		}
		problem := policyDiffers(want.Spec, installed[at].Spec)
		if revision(&installed[at]) > revision(&want) {
			problem = failsOpen(installed[at].Spec) // a later version is being installed
		}
		if problem == "" {
			problem = notBound(want.Name, bindings[want.Name], bound)
		}
		if problem != "" {
			problems = append(problems, fmt.Sprintf("ValidatingAdmissionPolicy %s %s", want.Name, problem))
		}
	}
	return problems, nil
}

// revision returns the revision of a policy's rules.
func revision(p *admissionv1.ValidatingAdmissionPolicy) int {
	n, _ := strconv.Atoi(p.Annotations[api.RevisionAnnotation]) // 0 if there is none
	return n
}

// again says what to do about a policy that was changed.
const again = ": install that of this version again"

// policyDiffers says why a policy does not deny all that it should. It may deny more.
func policyDiffers(want, is admissionv1.ValidatingAdmissionPolicySpec) string {
	match, wanted := is.MatchConstraints, want.MatchConstraints
	problem := failsOpen(is)
	switch {
	case problem != "":
		return problem
	case match.MatchPolicy != nil && *match.MatchPolicy != admissionv1.Equivalent:
		return "has the matchPolicy " + string(*match.MatchPolicy) + again
	case !equality.Semantic.DeepEqual(want.ParamKind, is.ParamKind):
		return "has another paramKind" + again
	}
	for _, rule := range wanted.ResourceRules {
		for _, resource := range rule.Resources {
			for _, operation := range rule.Operations {
				if !covered(match.ResourceRules, rule, resource, operation) {
					return fmt.Sprintf("does not judge %s of %s.%s", operation, resource, rule.APIGroups[0]) + again
				}
			}
		}
	}
	for _, condition := range is.MatchConditions {
		if !slices.Contains(want.MatchConditions, condition) {
			return fmt.Sprintf("has another matchCondition %q", condition.Name) + again
		}
	}
	for _, variable := range want.Variables {
		if !slices.Contains(is.Variables, variable) {
			return fmt.Sprintf("has another variable %q", variable.Name) + again
		}
	}
	for _, validation := range want.Validations {
		if !slices.ContainsFunc(is.Validations,
			func(v admissionv1.Validation) bool { return v.Expression == validation.Expression }) {
			return "has other validations" + again
		}
	}
	return ""
}

// failsOpen says which setting makes a policy admit requests without an evaluation of its rules.
func failsOpen(is admissionv1.ValidatingAdmissionPolicySpec) string {
	match := is.MatchConstraints
	switch {
	case is.FailurePolicy != nil && *is.FailurePolicy != admissionv1.Fail:
		return "has the failurePolicy " + string(*is.FailurePolicy) +
			", by which an error lets everything pass: set it to Fail"
	case match == nil || selects(match.NamespaceSelector) || selects(match.ObjectSelector) ||
		len(match.ExcludeResourceRules) > 0:
		return "leaves objects out by its matchConstraints" + again
	}
	return ""
}

func selects(s *metav1.LabelSelector) bool {
	return s != nil && (len(s.MatchLabels) > 0 || len(s.MatchExpressions) > 0)
}

// covered reports whether one of the rules matches an operation on a resource as the wanted rule
// does.
func covered(rules []admissionv1.NamedRuleWithOperations, want admissionv1.NamedRuleWithOperations, resource string,
	operation admissionv1.OperationType) bool {
	return slices.ContainsFunc(rules, func(r admissionv1.NamedRuleWithOperations) bool {
		all := r.Scope != nil && *r.Scope != admissionv1.AllScopes && (want.Scope == nil || *r.Scope != *want.Scope)
		return !all && len(r.ResourceNames) == 0 &&
			hasAll(r.APIGroups, want.APIGroups) && hasAll(r.APIVersions, want.APIVersions) && matches(r.Resources, resource) &&
			(slices.Contains(r.Operations, operation) || slices.Contains(r.Operations, admissionv1.OperationAll))
	})
}

func hasAll(is, want []string) bool {
	return slices.Contains(is, "*") || !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(is, w) })
}

// matches reports whether the resources of a rule include want, which may be a subresource.
func matches(resources []string, want string) bool {
	resource, subresource, sub := strings.Cut(want, "/")
	if slices.Contains(resources, want) || slices.Contains(resources, "*/*") || !sub && slices.Contains(resources, "*") {
		return true
	}
	return sub && (slices.Contains(resources, resource+"/*") || slices.Contains(resources, "*/"+subresource))
}

// notBound says why no binding of a policy denies for all requests.
func notBound(policy string, want admissionv1.ValidatingAdmissionPolicyBinding,
	bound []admissionv1.ValidatingAdmissionPolicyBinding) string {
	problem := "has no binding: install its ValidatingAdmissionPolicyBinding"
	for _, b := range bound {
		m := b.Spec.MatchResources
		switch {
		case b.Spec.PolicyName != policy:
		case !denies(b):
			problem = fmt.Sprintf("does not deny, as its binding %s has the validationActions %v: set them to Deny", b.Name,
				b.Spec.ValidationActions)
		case m != nil && (selects(m.NamespaceSelector) || selects(m.ObjectSelector) || len(m.ResourceRules) > 0 ||
			len(m.ExcludeResourceRules) > 0):
			problem = fmt.Sprintf("does not judge everywhere, as its binding %s has matchResources: remove them", b.Name)
		case !equality.Semantic.DeepEqual(want.Spec.ParamRef, b.Spec.ParamRef):
			problem = fmt.Sprintf("has a binding %s with another paramRef", b.Name) + again
		default:
			return ""
		}
	}
	return problem
}

// enforced makes a dry-run request for a Certificate that the policy perennial-secret-template
// denies to all users, and reports whether the API server refuses it. A refusal for another reason
// proves nothing, and is no problem either.
func enforced(ctx context.Context, c client.Client, namespace string) bool {
	err := c.Create(ctx, &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "perennial-check-", Namespace: namespace},
		Spec: cmapi.CertificateSpec{
			DNSNames: []string{"check.example.com"}, SecretName: "perennial-check", IssuerRef: cmmeta.IssuerReference{
				Name: "perennial-check"},
			SecretTemplate: &cmapi.CertificateSecretTemplate{Labels: map[string]string{"a label cannot have blanks": ""}},
		},
	}, client.DryRunAll)
	return err != nil
}
