package tenants_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestATenantsLargeKeysDoNotHoldUpOthers makes a tenant request certificates with keys of RSA 4096
// en masse. Those of another tenant, which come later, are ready long before these are all done.
func TestATenantsLargeKeysDoNotHoldUpOthers(t *testing.T) {
	const many = 40
	greedy, crowded := tenant(t)
	modest, quiet := tenant(t)
	certificate := func(c client.Client, namespace, name string, key cmapi.CertificatePrivateKey) {
		t.Helper()
		try(t, c, &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: cmapi.CertificateSpec{SecretName: name, DNSNames: []string{name + ".example.com"}, PrivateKey: &key,
				IssuerRef: cmmeta.IssuerReference{Name: "self"}}})
	}
	ready := func(namespace string) int {
		t.Helper()
		var list cmapi.CertificateList
		if err := cluster.Admin(t).List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range list.Items {
			c := cmapi.GetCertificateCondition(&list.Items[i].Status, cmapi.CertificateConditionReady)
			if c != nil && c.Status == cmmeta.ConditionTrue {
				n++
			}
		}
		return n
	}
	until := func(n int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if is := ready(quiet); is < n {
				return cluster.NotYet("%d of %d certificates of the other tenant are ready, and %d of %d of the first", is, n,
					ready(crowded), many)
			}
			return nil
		})
	}
	for namespace, c := range map[string]client.Client{crowded: greedy, quiet: modest} {
		try(t, c, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "self"},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	}
	for i := range many {
		certificate(greedy, crowded, fmt.Sprintf("large-%d", i),
			cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 4096})
	}
	cluster.Run(t, controller.Options{})
	cluster.Eventually(t, func() error { // its keys are being generated
		var list cmapi.CertificateList
		if err := greedy.List(t.Context(), &list, client.InNamespace(crowded)); err != nil {
			return err
		}
		for i := range list.Items {
			if c := cmapi.GetCertificateCondition(&list.Items[i].Status,
				cmapi.CertificateConditionIssuing); c == nil || c.Status != cmmeta.ConditionTrue {
				continue
			}
			return nil
		}
		return cluster.NotYet("no key is generated")
	})
	for i := range 3 {
		certificate(modest, quiet, fmt.Sprintf("ecdsa-%d", i),
			cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm})
		until(i + 1)
	}
	certificate(modest, quiet, "rsa", cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 2048})
	until(4)
	if n := ready(crowded); n > many/2 {
		t.Errorf("%d of %d certificates of the first tenant were ready before those of the other", n, many)
	}
	// What still waits is not generated.
	if err := greedy.DeleteAllOf(t.Context(), &cmapi.Certificate{}, client.InNamespace(crowded)); err != nil {
		t.Fatal(err)
	}
}
