package controller_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestALabelDoesNotFillTheMemory makes a tenant put the label of cached Secrets on its own large
// Secrets, before the controller starts and later.
func TestALabelDoesNotFillTheMemory(t *testing.T) {
	const large = 1 << 20
	admin, namespace := cluster.Admin(t), cluster.Namespace(t)
	fill := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			o := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("large-%d", i),
					Labels: map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"}},
				Data: map[string][]byte{"tls.crt": make([]byte, large-(10<<10))},
			}
			if err := admin.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(0, 40)
	before := heap()
	cluster.Run(t, controller.Options{Namespace: namespace})
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "self"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}}
	if err := admin.Create(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "site"},
		Spec: cmapi.CertificateSpec{
			SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "self"},
		}}
	if err := admin.Create(t.Context(), crt); err != nil {
		t.Fatal(err)
	}
	ready := func(revision int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
			if c == nil || c.Status != cmmeta.ConditionTrue || crt.Status.Revision == nil || *crt.Status.Revision != revision {
				return cluster.NotYet("its status is %+v", crt.Status)
			}
			return nil
		})
	}
	ready(1)
	fill(40, 60)
	// Its own Secrets have no place in the cache, and are read as others are: a deleted one is made
	// again, once.
	if err := admin.Delete(t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "site"}}); err != nil {
		t.Fatal(err)
	}
	ready(2)
	if grown := heap() - before; grown > 40*large {
		t.Errorf("the controller keeps %d MiB more", grown>>20)
	}
}

// heap is what is in use, without garbage.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
