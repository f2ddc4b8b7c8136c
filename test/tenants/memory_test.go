package tenants_test

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestATenantsLabelsDoNotFillTheMemory makes a tenant create objects that the controller caches
// because of a label, or only to see that they change, and that are as large as the API allows.
func TestATenantsLabelsDoNotFillTheMemory(t *testing.T) {
	const each, large, content = 80, 250 << 10, 400 << 10 // bytes of annotations and of data
	user, namespace := tenant(t)
	create := func(kind string, o func(metav1.ObjectMeta) client.Object, labels map[string]string) {
		t.Helper()
		for i := range each {
			try(t, user, o(metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", kind, i),
				Labels: maps.Clone(labels), Annotations: map[string]string{"example.com/note": strings.Repeat("x", large)}}))
		}
	}
	full := func(m metav1.ObjectMeta) client.Object {
		return &corev1.Secret{ObjectMeta: m, Data: map[string][]byte{"tls.crt": make([]byte, content)}}
	}
	secret := func(m metav1.ObjectMeta) client.Object { return &corev1.Secret{ObjectMeta: m} }
	configMap := func(m metav1.ObjectMeta) client.Object { return &corev1.ConfigMap{ObjectMeta: m} }
	create("ours", full, map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"})
	create("trust", secret, map[string]string{perennial.TrustBundleLabelKey: "none"})
	create("trust", configMap, map[string]string{perennial.TrustBundleLabelKey: "none"})
	create("plain", secret, nil)

	before := heap()
	cluster.Run(t, controller.Options{})
	try(t, user, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "self"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: cmapi.CertificateSpec{SecretName: "web", DNSNames: []string{"web.example.com"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			IssuerRef:  cmmeta.IssuerReference{Name: "self"}}}
	try(t, user, crt)
	cluster.Eventually(t, func() error { // no pass begins before the caches are filled
		if err := user.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
		if c == nil || c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("its status is %+v", crt.Status)
		}
		return nil
	})
	// A namespace may have 16 MiB in the cache of Secrets.
	const most = 32 << 20
	if grown := heap() - before; grown > most {
		t.Errorf("the controller keeps %d MiB more, want at most %d", grown>>20, most>>20)
	} else {
		t.Logf("the controller keeps %d MiB more", grown>>20)
	}
}

// heap is the size of live objects.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
