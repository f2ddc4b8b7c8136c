package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// namespace creates a namespace with a label that the test's bundles select.
func namespace(t testing.TB, label string) string {
	t.Helper()
	ns := cluster.Namespace(t)
	rig.Patch(
		t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		`{"metadata": {"labels": {"trust": %q}}}`,
		label,
	)
	return ns
}

// sources is a new namespace for the sources, with a controller that reads there.
func sources(t testing.TB, o rig.Options) (string, *rig.Controllers) {
	t.Helper()
	o.Namespace = cluster.Namespace(t)
	return o.Namespace, rig.Run(t, o)
}

func secret(t testing.TB, namespace, name string, data map[string][]byte) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "trust"}},
		Data:       data,
	}
	rig.Create(t, s)
	return s
}

// set replaces an entry of a Secret.
func set(t testing.TB, s *corev1.Secret, key string, value []byte) {
	t.Helper()
	before := s.DeepCopy()
	s.Data[key] = value
	if err := rig.Admin(t).Patch(t.Context(), s, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// bundle creates a TrustBundle for the namespaces with its label, named like the label.
func bundle(t testing.TB, name string, change func(*api.TrustBundleSpec)) *api.TrustBundle {
	t.Helper()
	b := &api.TrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TrustBundleSpec{Target: api.TrustTarget{
		NamespaceSelector: metav1.LabelSelector{
			MatchLabels: map[string]string{"trust": name},
		},
		ConfigMap: &api.TrustTargetObject{},
	}}}
	change(&b.Spec)
	rig.Create(t, b)
	return b
}

// leafOf is a certificate that the CA signed, PEM.
func leafOf(t testing.TB, c rig.CA, until time.Time) []byte {
	t.Helper()
	leaf, _ := c.Sign(t, x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, NotAfter: until})
	return pki.EncodeCertificatePEM(leaf)
}

func fromSecret(name string) []api.TrustSource {
	return []api.TrustSource{{Secret: &api.TrustObjectSource{Name: name}}}
}

func configMap(t testing.TB, namespace, name string) (*corev1.ConfigMap, error) {
	t.Helper()
	c := &corev1.ConfigMap{}
	return c, rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, c)
}

// has returns an error if the ConfigMap of a bundle does not hold exactly those CAs.
func has(t testing.TB, namespace, name string, cas ...rig.CA) error {
	t.Helper()
	c, err := configMap(t, namespace, name)
	if err != nil {
		return err
	}
	if got, want := c.Data["ca.crt"], string(rig.PEM(cas...)); got != want {
		return cluster.NotYet("ConfigMap %s/%s holds %s, expected %s", namespace, name, rig.Names(got), rig.Names(want))
	}
	return nil
}

func soon(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, f)
}

func soonHas(t testing.TB, namespace, name string, cas ...rig.CA) {
	t.Helper()
	soon(t, func() error { return has(t, namespace, name, cas...) })
}

// soonGone waits until there is no such ConfigMap.
func soonGone(t testing.TB, namespace, name string) {
	t.Helper()
	soon(t, func() error {
		if _, err := configMap(t, namespace, name); !apierrors.IsNotFound(err) {
			return cluster.NotYet("ConfigMap %s/%s: %v", namespace, name, err)
		}
		return nil
	})
}

// soonStatus waits until the status is about the current spec and ok accepts it.
func soonStatus(t testing.TB, b *api.TrustBundle, ok func(*api.TrustBundleStatus) error) *api.TrustBundleStatus {
	t.Helper()
	now := &api.TrustBundle{}
	soon(t, func() error {
		if err := rig.Admin(t).Get(t.Context(), client.ObjectKeyFromObject(b), now); err != nil {
			return err
		}
		if now.Status.ObservedGeneration != now.Generation {
			return cluster.ErrNotYet
		}
		return ok(&now.Status)
	})
	return &now.Status
}

func condition(kind string, status metav1.ConditionStatus, message string) func(*api.TrustBundleStatus) error {
	return func(s *api.TrustBundleStatus) error {
		c := meta.FindStatusCondition(s.Conditions, kind)
		if c == nil || c.Status != status || !strings.Contains(c.Message, message) {
			return cluster.NotYet("%s is %+v, expected %s with: %s", kind, c, status, message)
		}
		return nil
	}
}
