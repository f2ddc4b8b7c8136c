package order_test

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestTheSecretHasTheCAOfTheChainIfTheIssuerSaysSo(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		Keystores:  &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, Password: ptr.To("changeit")}},
	}}
	r.create(crt)
	r.ready(crt)
	key := client.ObjectKeyFromObject(crt)
	chain, _ := cluster.Pair(t, key)
	top := pki.EncodeCertificatePEM(chain[len(chain)-1])
	until := func(told bool) {
		t.Helper()
		cluster.Eventually(t, func() error {
			secret := &corev1.Secret{}
			if err := r.admin.Get(t.Context(), key, secret); err != nil {
				return err
			}
			ca, truststore := secret.Data[cmmeta.TLSCAKey], secret.Data[cmapi.JKSTruststoreKey]
			if told != bytes.Equal(ca, top) || told != (len(truststore) > 0) {
				return cluster.NotYet("ca.crt is %q, and the truststore has %d bytes", ca, len(truststore))
			}
			return nil
		})
	}
	set := func(include cmacme.ACMEIncludeCA) {
		t.Helper()
		cluster.Eventually(t, func() error {
			issuer := &cmapi.Issuer{}
			if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "pebble"}, issuer); err != nil {
				return err
			}
			issuer.Spec.ACME.IncludeCA = include
			return r.admin.Update(t.Context(), issuer)
		})
	}
	until(false)
	set(cmacme.ACMEIncludeCAFromChain)
	until(true)
	// What is issued from now on says so, too.
	other := r.certificate("other", "other.example.com")
	r.ready(other)
	var requests cmapi.CertificateRequestList
	if err := r.admin.List(t.Context(), &requests, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, cr := range requests.Items {
		if told := len(cr.Status.CA) > 0; told != (cr.Name == "other-1") {
			t.Errorf("request %s: ca %q", cr.Name, cr.Status.CA)
		}
	}
	set(cmacme.ACMEIncludeCANone)
	until(false)
	if again, _ := cluster.Pair(t, key); !again[0].Equal(chain[0]) {
		t.Error("it was issued anew")
	}
}
