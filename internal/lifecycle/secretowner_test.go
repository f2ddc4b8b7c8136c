package lifecycle

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// TestWhatProvesThatASecretWasMadeForAnotherNamespace checks the Secret of a Certificate for a
// Gateway of another namespace.
func TestWhatProvesThatASecretWasMadeForAnotherNamespace(t *testing.T) {
	owns := func(manager string) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate,
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + signer.RequestedByAnnotation + `":{}}}}`)}}
	}
	const pem = "certificate"
	answered := &cmapi.CertificateRequest{Status: cmapi.CertificateRequestStatus{Certificate: []byte(pem)}}
	for name, test := range map[string]struct {
		by         string
		managed    []metav1.ManagedFieldsEntry
		current    *cmapi.CertificateRequest
		overwrites bool
	}{
		"made for it":                           {"Gateway/edge/web", owns(makerManager), nil, false},
		"made for another of that namespace":    {"ListenerSet/edge/other", owns(makerManager), nil, false},
		"made for one of another namespace":     {"Gateway/evil/web", owns(makerManager), nil, true},
		"copied by another client":              {"Gateway/edge/web", owns("reflector"), nil, true},
		"annotated by a user":                   {"Gateway/edge/web", owns("kubectl-annotate"), nil, true},
		"without managed fields":                {"Gateway/edge/web", nil, nil, true},
		"not annotated":                         {"", owns(makerManager), nil, true},
		"with what was issued for it":           {"", nil, answered, false},
		"with what was issued, and restored":    {"Gateway/edge/web", nil, answered, false},
		"with a request that has no answer":     {"", nil, &cmapi.CertificateRequest{}, true},
		"with a spoiled annotation, by us even": {"edge", owns(makerManager), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := &Observation{
				Certificate: &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{
					Annotations: map[string]string{signer.RequestedByAnnotation: "Gateway/edge/web"}}},
				Secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ManagedFields: test.managed,
					Annotations: map[string]string{}}, Data: map[string][]byte{corev1.TLSCertKey: []byte(pem)}},
				Current: test.current,
			}
			if test.by != "" {
				o.Secret.Annotations[signer.RequestedByAnnotation] = test.by
			}
			if got := o.overwrites(); got != test.overwrites {
				t.Errorf("overwrites: %t, want %t", got, test.overwrites)
			}
		})
	}
}
