package tenants_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestATenantCannotWriteTheControllersCounts makes a controller store its counts in the namespace
// of a tenant, as --namespace does.
func TestATenantCannotWriteTheControllersCounts(t *testing.T) {
	user, namespace := tenant(t)
	c := cluster.Run(t, controller.Options{Namespace: namespace})
	try(t, user, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "self"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	try(t, user, &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.example.com"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			IssuerRef:  cmmeta.IssuerReference{Name: "self"}}})
	secret := &corev1.Secret{}
	cluster.Eventually(t, func() error {
		return user.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "web"}, secret)
	})
	if err := user.Delete(t.Context(), secret); err != nil { // what is issued then counts
		t.Fatal(err)
	}
	var count *corev1.ConfigMap
	cluster.Eventually(t, func() error {
		var all corev1.ConfigMapList
		if err := user.List(t.Context(), &all, client.InNamespace(namespace)); err != nil {
			return err
		}
		for i := range all.Items {
			if strings.HasPrefix(all.Items[i].Name, "perennial-issuances-") {
				count = &all.Items[i]
				return nil
			}
		}
		return cluster.NotYet("nothing is counted")
	})

	const words = "it is the controller's own count"
	next := count.DeepCopy()
	next.Data = map[string]string{"histories": "{}"}
	forbidden(t, "a change", user.Update(t.Context(), next), words)
	forbidden(t, "a deletion", user.Delete(t.Context(), count), words)
	forbidden(
		t,
		"a deletion of all",
		user.DeleteAllOf(t.Context(), &corev1.ConfigMap{}, client.InNamespace(namespace)),
		words,
	)
	for _, name := range []string{"perennial-issuances-3e", "perennial-acme-limits-0"} {
		forbidden(t, name, user.Create(t.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}), words)
	}
	try(t, user, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "own"}})

	// They go with their namespace.
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	admin := cluster.Admin(t)
	if err := admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		err := admin.Get(t.Context(), client.ObjectKeyFromObject(count), &corev1.ConfigMap{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return cluster.NotYet("the counts are still there: %v", err)
	})
}
