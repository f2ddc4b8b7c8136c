package cluster

import (
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/standalone/install"
)

func gatewayAPI(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	objects, err := install.GatewayAPI()
	if err != nil {
		t.Fatal(err)
	}
	var crds []*unstructured.Unstructured
	for _, o := range objects {
		crds = append(crds, o.(*unstructured.Unstructured))
	}
	return crds
}

// InstallGatewayAPI installs the CRDs of the Gateway API and waits until they are served.
func InstallGatewayAPI(t testing.TB) {
	t.Helper()
	admin := Admin(t)
	for _, crd := range gatewayAPI(t) {
		if err := admin.Create(t.Context(), crd); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	Eventually(t, func() error {
		for _, kind := range []string{"Gateway", "ListenerSet", "HTTPRoute", "ReferenceGrant"} {
			list := &unstructured.UnstructuredList{}
			list.SetAPIVersion("gateway.networking.k8s.io/v1")
			list.SetKind(kind + "List")
			if err := admin.List(t.Context(), list, client.Limit(1)); err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
		return nil
	})
}

// RemoveGatewayAPI removes the CRDs of the Gateway API, and waits until they are gone.
func RemoveGatewayAPI(t testing.TB) {
	t.Helper()
	admin := Admin(t)
	for _, crd := range gatewayAPI(t) {
		if err := client.IgnoreNotFound(admin.Delete(t.Context(), crd)); err != nil {
			t.Fatal(err)
		}
	}
	for _, crd := range gatewayAPI(t) {
		Eventually(t, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crd), crd); !apierrors.IsNotFound(err) {
				return NotYet("%s is there: %v", crd.GetName(), err)
			}
			return nil
		})
	}
}
