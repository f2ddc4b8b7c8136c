package fault_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/perennial-pki/perennial/internal/fault"
)

// TestUnnamed has the errors of the API server in which the name of an object occurs.
func TestUnnamed(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for name, test := range map[string]struct {
		err  error
		says string
	}{
		"forbidden": {apierrors.NewForbidden(secrets, "pair", errors.New(
			`User "controller" cannot get resource "secrets" in API group "" in the namespace "elsewhere"`)),
			`forbidden: User "controller" cannot get resource "secrets" in API group "" in the namespace "elsewhere"`},
		"refused by a policy": {apierrors.NewForbidden(secrets, "pair", errors.New("elsewhere/pair is frozen")),
			"forbidden: elsewhere is frozen"},
		"missing":  {apierrors.NewNotFound(secrets, "pair"), "secrets not found"},
		"conflict": {apierrors.NewConflict(secrets, "pair", errors.New("changed")), "Operation cannot be fulfilled on secrets: changed"},
		"timeout": {apierrors.NewGenericServerResponse(504, "get", secrets, "pair", "", 0, true),
			"the server was unable to return a response in the time allotted, but may still be processing the request " +
				"(get secrets)"},
		"no answer": {fmt.Errorf("read Secret elsewhere/pair: %w", &url.Error{Op: "Get",
			URL: "https://10.0.0.1/api/v1/namespaces/elsewhere/secrets/pair", Err: context.DeadlineExceeded}),
			"context deadline exceeded"},
		"wrapped": {fmt.Errorf("read Secret elsewhere/pair: %w", apierrors.NewTooManyRequests("pair is busy", 1)),
			"pair is busy"}, // a word of the server, not a name
	} {
		t.Run(name, func(t *testing.T) {
			got := fault.Unnamed(test.err, "pair")
			if got.Error() != test.says {
				t.Errorf("it says %q, want %q", got, test.says)
			}
			if !errors.Is(got, test.err) || fault.RefusedByAPI(got) != fault.RefusedByAPI(test.err) ||
				apierrors.IsNotFound(got) != apierrors.IsNotFound(test.err) {
				t.Error("its class is lost")
			}
		})
	}
	if fault.Unnamed(nil, "pair") != nil {
		t.Error("there is an error where there was none")
	}
}

// TestRetried checks that only a refusal asks a user to change something.
func TestRetried(t *testing.T) {
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "orders"}, "a", errors.New("exceeded quota."))
	for _, test := range []struct {
		err     error
		advises bool
	}{{refused, true}, {apierrors.NewTimeoutError("slow", 1), false}, {errors.New("connection refused"), false}} {
		got := fault.Retried(test.err)
		if !strings.HasPrefix(got, strings.TrimSuffix(test.err.Error(), ".")+". ") ||
			strings.Contains(got, "Change what refuses it") != test.advises || !strings.HasSuffix(got, fault.NextAttempt) {
			t.Errorf("of %q it says %q", test.err, got)
		}
	}
}
