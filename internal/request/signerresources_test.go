package request

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/perennial-pki/perennial/internal/external"
)

func TestTheMapOfSignersHasEachKindOnce(t *testing.T) {
	kind := func(name, resource string, namespaced bool) *external.Kind {
		return &external.Kind{GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Kind: name}, Resource: resource,
			Namespaced: namespaced}
	}
	full := ""
	for n := range maxSigners {
		full, _ = withSigner(full, kind(fmt.Sprintf("K%03d", n), "ks", true))
	}
	if n := len(strings.Split(full, ",")); n != maxSigners {
		t.Fatalf("%d entries", n)
	}
	for name, test := range map[string]struct {
		entries string
		kind    *external.Kind
		want    string
		changed bool
	}{
		"the first": {"", kind("Policy", "policies", true), "Policy.example.com=policies/Namespaced", true},
		"it is there": {
			"Policy.example.com=policies/Namespaced", kind("Policy", "policies", true), "Policy.example.com=policies/Namespaced",
			false},
		"its scope is another": {
			"Policy.example.com=policies/Namespaced", kind("Policy", "policies", false), "Policy.example.com=policies/Cluster",
			true},
		"another one": {
			"Policy.example.com=policies/Namespaced", kind("CA", "cas", false),
			"CA.example.com=cas/Cluster,Policy.example.com=policies/Namespaced", true},
		"there are many": {full, kind("Policy", "policies", true), full, false},
		"one of many is corrected": {
			full, kind("K000", "kks", true), strings.Replace(full, "K000.example.com=ks/", "K000.example.com=kks/", 1), true},
	} {
		if got, changed := withSigner(test.entries, test.kind); got != test.want || changed != test.changed {
			t.Errorf("%s: %q, %t", name, got, changed)
		}
	}
}

func TestTheNameOfASignerDecidesWhole(t *testing.T) {
	kind := &external.Kind{GroupVersionKind: schema.GroupVersionKind{Group: "certmanager.step.sm",
		Kind: "StepClusterIssuer"}, Resource: "stepclusterissuers"}
	if got := kind.Signer("shop", "prod.ca"); got != "stepclusterissuers.certmanager.step.sm/prod.ca" {
		t.Error(got)
	}
	kind.Namespaced = true
	if got := kind.Signer("shop", "prod.ca"); got != "stepclusterissuers.certmanager.step.sm/shop.prod.ca" {
		t.Error(got)
	}
}
