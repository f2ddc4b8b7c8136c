package internet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// NamesAndCA are the DNS server of example.com and a CA that uses it.
func NamesAndCA(t testing.TB) (*dnsserver.Server, *pebble.Server) {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return names, ca
}

// Apply creates the objects of a manifest for the duration of the test, calls prepare for each
// object first, and returns the last one. An unknown field is an error.
func Apply(
	t testing.TB,
	admin client.Client,
	manifest string,
	prepare func(*unstructured.Unstructured),
) client.ObjectKey {
	t.Helper()
	var last client.ObjectKey
	for document := range strings.SplitSeq(manifest, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &u.Object); err != nil {
			t.Fatal(err)
		}
		prepare(u)
		if err := admin.Create(t.Context(), u, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = admin.Delete(context.Background(), u) })
		last = client.ObjectKeyFromObject(u)
	}
	return last
}

// At sets the server of an issuer in a manifest to this CA.
func At(ca *pebble.Server, u *unstructured.Unstructured) {
	if issuer, found, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "acme"); found {
		spec := issuer.(map[string]any)
		spec["server"], spec["caBundle"] = ca.Directory, base64.StdEncoding.EncodeToString(ca.CABundle)
	}
}

// Issued waits until a Certificate is Ready, and checks that its Secret is for these names, which
// must be sorted.
func Issued(t testing.TB, admin client.Client, key client.ObjectKey, names ...string) {
	t.Helper()
	crt := &cmapi.Certificate{}
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), key, crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("%s", Story(t, admin))
		}
		return nil
	})
	secret := &corev1.Secret{}
	if err := admin.Get(
		t.Context(),
		client.ObjectKey{Namespace: key.Namespace, Name: crt.Spec.SecretName},
		secret,
	); err != nil {
		t.Fatal(err)
	}
	if secret.Type != corev1.SecretTypeTLS {
		t.Errorf("the Secret is of type %s", secret.Type)
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(leaf.DNSNames)); !slices.Equal(got, names) {
		t.Errorf("the certificate is for %v", got)
	}
}

// Story returns the objects that a person would look at to find a failure.
func Story(t testing.TB, admin client.Client, where ...client.ListOption) string {
	var b strings.Builder
	var issuers cmapi.ClusterIssuerList
	var namespaced cmapi.IssuerList
	var orders cmacme.OrderList
	var challenges cmacme.ChallengeList
	if err := admin.List(t.Context(), &issuers); err != nil {
		return err.Error()
	}
	for _, list := range []client.ObjectList{&namespaced, &orders, &challenges} {
		if err := admin.List(t.Context(), list, where...); err != nil {
			return err.Error()
		}
	}
	for _, i := range issuers.Items {
		fmt.Fprintf(&b, "issuer %s: %+v\n", i.Name, i.Status.Conditions)
	}
	for _, i := range namespaced.Items {
		fmt.Fprintf(&b, "issuer %s/%s: %+v\n", i.Namespace, i.Name, i.Status.Conditions)
	}
	for _, o := range orders.Items {
		fmt.Fprintf(&b, "order %s: %q %s\n", o.Name, o.Status.State, o.Status.Reason)
	}
	for _, c := range challenges.Items {
		fmt.Fprintf(&b, "challenge %s: %q %s\n", c.Name, c.Status.State, c.Status.Reason)
	}
	return b.String()
}
