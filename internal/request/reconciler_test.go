package request

import (
	"crypto/rand"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
)

// TestOnlyTheCertificateOfARequestExemptsItsNames checks a CSR with a name that can be none, which
// a Certificate from before that check may have.
func TestOnlyTheCertificateOfARequestExemptsItsNames(t *testing.T) {
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const odd = "a.example.com/path"
	der, err := pki.Request{DNSNames: []string{odd}}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := cmapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", UID: "1"},
		Spec: cmapi.CertificateSpec{DNSNames: []string{odd}}}
	other := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b", UID: "2"},
		Spec: cmapi.CertificateSpec{DNSNames: []string{"b.example.com"}}}
	r := &Reconciler{Live: fake.NewClientBuilder().WithScheme(scheme).WithObjects(crt, other).Build()}
	of := func(crt *cmapi.Certificate, change func(*metav1.OwnerReference)) *metav1.OwnerReference {
		ref := metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))
		if change != nil {
			change(ref)
		}
		return ref
	}
	for name, test := range map[string]struct {
		owner     *metav1.OwnerReference
		namespace string
		fit       bool
	}{
		"its Certificate":              {of(crt, nil), "ns", true},
		"none":                         {nil, "ns", false},
		"a Certificate of other names": {of(other, nil), "ns", false},
		"one that is gone":             {of(crt, func(r *metav1.OwnerReference) { r.Name = "gone" }), "ns", false},
		"a former one of that name":    {of(crt, func(r *metav1.OwnerReference) { r.UID = "0" }), "ns", false},
		"one of another namespace":     {of(crt, nil), "other", false},
		"another kind":                 {of(crt, func(r *metav1.OwnerReference) { r.Kind = "Gateway" }), "ns", false},
	} {
		t.Run(name, func(t *testing.T) {
			cr := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, Name: "r"},
				Spec: cmapi.CertificateRequestSpec{IssuerRef: cmmeta.IssuerReference{Name: "x"},
					Request: pki.EncodeCSRPEM(der)}}
			if test.owner != nil {
				cr.OwnerReferences = []metav1.OwnerReference{*test.owner}
			}
			_, unfit, err := r.check(t.Context(), cr)
			if err != nil || (unfit == "") != test.fit || !test.fit && !strings.Contains(unfit, odd) {
				t.Errorf("%q, %v", unfit, err)
			}
		})
	}
}
