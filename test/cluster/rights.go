package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/perennial-pki/perennial/deploy"
)

// TakeRights takes verbs away from the controller until the test ends: those that match, of the
// rules of its ClusterRoles.
func TakeRights(t *testing.T, match func(rule rbacv1.PolicyRule, verb string) bool) {
	t.Helper()
	admin := Admin(t)
	var roles rbacv1.ClusterRoleList
	if err := admin.List(t.Context(), &roles); err != nil {
		t.Fatal(err)
	}
	taken := false
	for _, role := range roles.Items {
		if !strings.HasPrefix(role.Name, deploy.ServiceAccount+":") {
			continue
		}
		full := role.DeepCopy()
		for i := range role.Rules {
			rule := &role.Rules[i]
			rule.Verbs = slices.DeleteFunc(rule.Verbs, func(verb string) bool { return match(full.Rules[i], verb) })
		}
		role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return len(r.Verbs) == 0 })
		if equality.Semantic.DeepEqual(role.Rules, full.Rules) {
			continue
		}
		taken = true
		if err := admin.Update(t.Context(), &role); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			role.Rules = full.Rules
			if err := admin.Update(context.Background(), &role); err != nil {
				t.Error(err)
			}
		})
	}
	if !taken {
		t.Fatal("the controller has no such right")
	}
}
