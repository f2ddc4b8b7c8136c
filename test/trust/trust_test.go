package trust_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// ca is a CA that can sign.
type ca struct {
	*x509.Certificate
	key crypto.Signer
}

func newCA(t testing.TB, name string, change ...func(*x509.Certificate)) ca {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	for _, c := range change {
		c(template)
	}
	cert, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca{cert, key}
}

// leaf signs a certificate that expires at the given time.
func (c ca) leaf(t testing.TB, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.Sign(rand.Reader, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: c.NotBefore, NotAfter: until}, c.Certificate, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func pemOf(cas ...ca) []byte {
	var certs []*x509.Certificate
	for _, c := range cas {
		certs = append(certs, c.Certificate)
	}
	return pki.EncodeCertificatePEM(certs...)
}

func create(t testing.TB, o client.Object) {
	t.Helper()
	admin := rig.Admin(t)
	if err := admin.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
	t.Cleanup(func() {
		if err := admin.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil {
			t.Errorf("delete %T %s: %v", o, o.GetName(), err)
		}
	})
}

func patch(t testing.TB, o client.Object, merge string) {
	t.Helper()
	if err := rig.Admin(t).Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(merge))); err != nil {
		t.Fatal(err)
	}
}

// namespace makes a namespace that bundles of the test select, and its label.
func namespace(t testing.TB, label string) string {
	t.Helper()
	ns := cluster.Namespace(t)
	patch(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, fmt.Sprintf(`{"metadata": {"labels": {"trust": %q}}}`, label))
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
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "trust"}}, Data: data}
	create(t, s)
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

// bundle makes a TrustBundle with the name of its label, for the namespaces that have it.
func bundle(t testing.TB, name string, change func(*api.TrustBundleSpec)) *api.TrustBundle {
	t.Helper()
	b := &api.TrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TrustBundleSpec{Target: api.TrustTarget{
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"trust": name}}, ConfigMap: &api.TrustTargetObject{},
	}}}
	change(&b.Spec)
	create(t, b)
	return b
}

func fromSecret(name string) []api.TrustSource {
	return []api.TrustSource{{Secret: &api.TrustObjectSource{Name: name}}}
}

func configMap(t testing.TB, namespace, name string) (*corev1.ConfigMap, error) {
	t.Helper()
	c := &corev1.ConfigMap{}
	return c, rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, c)
}

// has says why the ConfigMap of a bundle does not hold exactly those CAs.
func has(t testing.TB, namespace, name string, cas ...ca) error {
	t.Helper()
	c, err := configMap(t, namespace, name)
	if err != nil {
		return err
	}
	if got, want := c.Data["ca.crt"], string(pemOf(cas...)); got != want {
		return cluster.NotYet("ConfigMap %s/%s holds %s, expected %s", namespace, name, names(got), names(want))
	}
	return nil
}

func names(bundle string) string {
	certs, err := pki.DecodeBundlePEM([]byte(bundle))
	if err != nil {
		return fmt.Sprintf("%.40q", bundle)
	}
	var out []string
	for _, cert := range certs {
		out = append(out, cert.Subject.CommonName)
	}
	return strings.Join(out, ", ")
}

func soon(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, f)
}

func soonHas(t testing.TB, namespace, name string, cas ...ca) {
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

// soonStatus waits until the status is about the present spec and says ok of it.
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

func TestABundleHasTheCAsOfAllSourcesInAllFormats(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one, two, three, four, five := newCA(t, "one"), newCA(t, "two"), newCA(t, "three"), newCA(t, "four"), newCA(t, "five")
	secret(t, ns, "one", map[string][]byte{"ca.crt": pemOf(one)})
	secret(t, ns, "two", map[string][]byte{"tls.crt": pemOf(two), "ca.crt": pemOf(one)})
	secret(t, ns, "secrets-of-the-label", map[string][]byte{"root.pem": pemOf(three)})
	create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "four"},
		Data: map[string]string{"a.pem": string(pemOf(four))}, BinaryData: map[string][]byte{"b.pem": pemOf(one, four)}})

	admin := rig.Admin(t)
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "formats"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "none"}}}}
	create(t, issuer)
	previous := newCA(t, "previous")
	withCA := issuer.DeepCopy()
	withCA.Status.CA = &cmapi.CAIssuerStatus{Certificate: string(pemOf(five)), Fingerprint: "5", NotAfter: metav1.NewTime(five.NotAfter), Since: metav1.Now(),
		Previous: []cmapi.PreviousCA{{Certificate: string(pemOf(previous)), Fingerprint: "4", NotAfter: metav1.NewTime(previous.NotAfter), ReplacedAt: metav1.Now()}}}
	if err := admin.Status().Patch(t.Context(), withCA, client.MergeFrom(issuer)); err != nil {
		t.Fatal(err)
	}

	selected, other := namespace(t, "formats"), namespace(t, "another")
	literal := newCA(t, "literal")
	all := &api.TrustTargetObject{
		Name: "trust", PEM: &api.TrustPEM{Key: "roots.pem"}, PKCS12: &api.TrustPKCS12{}, JKS: &api.TrustJKS{Password: new(api.TrustPassword("geheim"))},
		Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"},
	}
	b := bundle(t, "formats", func(s *api.TrustBundleSpec) {
		s.Sources = []api.TrustSource{
			{Secret: &api.TrustObjectSource{Name: "one"}},
			{Secret: &api.TrustObjectSource{Name: "two", Key: "tls.crt"}},
			{Secret: &api.TrustObjectSource{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "In", Values: []string{"trust"}}}}, Key: "root.pem"}},
			{ConfigMap: &api.TrustObjectSource{Name: "four", AllKeys: true}},
			{Issuer: &api.TrustIssuerSource{Name: "formats"}},
			{InLine: string(pemOf(literal, one))},
		}
		s.Target.ConfigMap, s.Target.Secret = all, all.DeepCopy()
	})
	// Of the Secrets with the label only one has the key.
	status := soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, `spec.sources[2] (Secrets with labels "app in (trust)", root.pem): one, root.pem: it has no such key; `))
	want := []ca{one, two, three, four, five, previous, literal}
	var certs []*x509.Certificate
	for _, c := range want {
		certs = append(certs, c.Certificate)
	}
	c, err := configMap(t, selected, "trust")
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: selected, Name: "trust"}, s); err != nil {
		t.Fatal(err)
	}
	for kind, data := range map[string]map[string][]byte{
		"ConfigMap": {"roots.pem": []byte(c.Data["roots.pem"]), "truststore.p12": c.BinaryData["truststore.p12"], "truststore.jks": c.BinaryData["truststore.jks"]},
		"Secret":    s.Data,
	} {
		if !bytes.Equal(data["roots.pem"], pemOf(want...)) {
			t.Errorf("%s: roots.pem holds %s", kind, names(string(data["roots.pem"])))
		}
		if err := pki.CheckPKCS12Truststore(data["truststore.p12"], "changeit", certs); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := pki.CheckJKSTruststore(data["truststore.jks"], pki.JKSOptions{Password: "geheim"}, certs); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if c.Labels["team"] != "a" || c.Annotations["note"] != "b" || c.Labels[api.TrustBundleLabelKey] != "formats" || len(c.Annotations[api.TrustHashAnnotationKey]) != 64 {
		t.Errorf("has labels %v and annotations %v", c.Labels, c.Annotations)
	}
	if _, err := configMap(t, other, "trust"); !apierrors.IsNotFound(err) {
		t.Errorf("in a namespace that is not selected: %v", err)
	}
	if status.CertificateCount != 7 || status.RetainedCount != 0 || status.NamespaceCount != 1 || len(status.Certificates) != 7 {
		t.Errorf("the status counts %d certificates, %d retained, %d namespaces", status.CertificateCount, status.RetainedCount, status.NamespaceCount)
	}
	if last := status.Certificates[6]; last.Source != "inLine" || last.Certificate != "" || last.Subject != "CN=literal" || last.Fingerprint != pki.Fingerprint(literal.Certificate) {
		t.Errorf("the status says %+v", last)
	}

	// A format that is no longer wanted goes, and what others put there stays.
	patch(t, c, `{"data": {"mine": "x"}}`)
	patch(t, b, `{"spec": {"target": {"configMap": {"jks": null}}}}`)
	soon(t, func() error {
		c, err := configMap(t, selected, "trust")
		if err != nil {
			return err
		}
		if len(c.BinaryData) != 1 || c.Data["mine"] != "x" {
			return cluster.NotYet("has %v and %v", slices.Collect(maps.Keys(c.BinaryData)), c.Data["mine"])
		}
		return nil
	})
}

func TestTheBundleFollowsTheNamespaces(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one := newCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(one)})
	first := namespace(t, "follows")
	b := bundle(t, "follows", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	soonHas(t, first, "follows", one)
	second := namespace(t, "follows")
	soonHas(t, second, "follows", one)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 2 namespaces"))

	patch(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: first}}, `{"metadata": {"labels": {"trust": null}}}`)
	soonGone(t, first, "follows")
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "in 1 namespace"))

	// What somebody changes or deletes comes back.
	patch(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: second, Name: "follows"}}, `{"data": {"ca.crt": "mine"}}`)
	soonHas(t, second, "follows", one)
	if err := rig.Admin(t).Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: second, Name: "follows"}}); err != nil {
		t.Fatal(err)
	}
	soonHas(t, second, "follows", one)

	// Under another name the old one goes.
	patch(t, b, `{"spec": {"target": {"configMap": {"name": "other"}}}}`)
	soonHas(t, second, "other", one)
	soonGone(t, second, "follows")
	// A Secret in its place.
	patch(t, b, `{"spec": {"target": {"configMap": null, "secret": {}}}}`)
	soonGone(t, second, "other")
	soon(t, func() error {
		s := &corev1.Secret{}
		if err := rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: second, Name: "follows"}, s); err != nil {
			return err
		}
		if !bytes.Equal(s.Data["ca.crt"], pemOf(one)) {
			return cluster.ErrNotYet
		}
		return nil
	})
	// And with the TrustBundle all of it goes.
	if err := rig.Admin(t).Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		err := rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: second, Name: "follows"}, &corev1.Secret{})
		if !apierrors.IsNotFound(err) {
			return cluster.NotYet("the Secret: %v", err)
		}
		return nil
	})
}

func TestWhatBelongsToOthersIsLeftAlone(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one := newCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(one)})
	good, bad := namespace(t, "others"), namespace(t, "others")
	create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: bad, Name: "others"}, Data: map[string]string{"mine": "x"}})
	b := bundle(t, "others", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	soonHas(t, good, "others", one)
	why := "ConfigMap " + bad + "/others exists and is not of this TrustBundle: delete it, or choose another name in spec.target"
	status := soonStatus(t, b, condition(api.ConditionDistributed, metav1.ConditionFalse, why))
	if status.NamespaceCount != 1 {
		t.Errorf("counts %d namespaces", status.NamespaceCount)
	}
	if err := condition(api.ConditionReady, metav1.ConditionFalse, why)(status); err != nil {
		t.Error(err)
	}
	c, err := configMap(t, bad, "others")
	if err != nil || len(c.Data) != 1 || len(c.OwnerReferences) != 0 {
		t.Errorf("the ConfigMap is %+v: %v", c, err)
	}

	// It says so of what another TrustBundle wrote, too.
	other := bundle(t, "others-too", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.Target.NamespaceSelector.MatchLabels["trust"] = "others"
		s.Target.ConfigMap.Name = "others"
	})
	soonStatus(t, other, condition(api.ConditionDistributed, metav1.ConditionFalse, `ConfigMap `+good+`/others is of TrustBundle "others": choose another name in spec.target`))
	// With another name there is no conflict.
	patch(t, other, `{"spec": {"target": {"configMap": {"name": "free"}}}}`)
	soonStatus(t, other, condition(api.ConditionReady, metav1.ConditionTrue, ""))
	// An object whose label says so is taken over.
	patch(t, c, `{"metadata": {"labels": {"perennial.dev/trust-bundle": "others"}}}`)
	soonHas(t, bad, "others", one)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, ""))
}

func TestWhatCannotBeTrustedIsNamed(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	good := newCA(t, "good")
	expired := newCA(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	secret(t, ns, "good", map[string][]byte{"ca.crt": pemOf(good)})
	secret(t, ns, "leaf", map[string][]byte{"ca.crt": pki.EncodeCertificatePEM(good.leaf(t, good.NotAfter))})
	secret(t, ns, "expired", map[string][]byte{"ca.crt": pemOf(expired)})
	secret(t, ns, "oversize", map[string][]byte{"ca.crt": bytes.Repeat(pemOf(good), 1000)})
	keyPEM, err := pki.EncodeKeyPEM(good.key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	secret(t, ns, "key", map[string][]byte{"ca.crt": append(pemOf(newCA(t, "with key")), keyPEM...)})
	create(t, &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "self"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	selected := namespace(t, "named")
	b := bundle(t, "named", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("good") })
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, ""))

	for _, test := range []struct {
		name   string
		source string
		want   string
	}{
		{"a certificate that is not a CA's", `{"secret": {"name": "leaf"}}`, "spec.sources[1] (Secret leaf, ca.crt): certificate 1 (CN=leaf) is not that of a CA"},
		{"an expired CA", `{"secret": {"name": "expired"}}`, "spec.sources[1] (Secret expired, ca.crt): certificate 1 (CN=expired) expired at "},
		{"an oversize bundle", `{"secret": {"name": "oversize"}}`, "spec.sources[1] (Secret oversize, ca.crt): "},
		{"a private key", `{"secret": {"name": "key"}}`, "spec.sources[1] (Secret key, ca.crt): "},
		{"a Secret that does not exist", `{"secret": {"name": "none"}}`, "spec.sources[1] (Secret none, ca.crt): it does not exist in namespace " + ns},
		{"a ConfigMap that does not exist", `{"configMap": {"name": "none"}}`, "spec.sources[1] (ConfigMap none, ca.crt): it does not exist in namespace " + ns},
		{"a key that does not exist", `{"secret": {"name": "good", "key": "root.crt"}}`, "spec.sources[1] (Secret good, root.crt): it has no such key"},
		{"labels that nothing has", `{"secret": {"selector": {"matchLabels": {"app": "none"}}}}`, `spec.sources[1] (Secrets with labels "app=none", ca.crt): there are none`},
		{"a selector that is none", `{"configMap": {"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}`, "selector: "},
		{"an issuer that does not exist", `{"issuer": {"name": "none"}}`, "spec.sources[1] (ClusterIssuer none): it does not exist, or does not tell its CA as issuers of type ca do once they are ready"},
		{"an issuer that is no CA", `{"issuer": {"name": "self"}}`, "spec.sources[1] (ClusterIssuer self): it does not exist, or does not tell its CA"},
		{"a literal that is none", `{"inLine": "x"}`, "spec.sources[1] (inLine): "},
	} {
		t.Run(test.name, func(t *testing.T) {
			patch(t, b, fmt.Sprintf(`{"spec": {"sources": [{"secret": {"name": "good"}}, %s]}}`, test.source))
			status := soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, test.want))
			if err := condition(api.ConditionReady, metav1.ConditionFalse, test.want)(status); err != nil {
				t.Error(err)
			}
			if strings.Contains(fmt.Sprint(status.Conditions), "PRIVATE KEY-----\n") {
				t.Error("a condition holds the key")
			}
			if err := has(t, selected, "named", good); err != nil {
				t.Errorf("the good source is not in the bundle alone: %v", err)
			}
		})
	}
	t.Run("a bundle that is too large as a whole", func(t *testing.T) {
		var large string
		for i := range 2 {
			data := make([]byte, 0, 200_000)
			for j := 0; len(data) < 180_000; j++ {
				data = append(data, pemOf(newCA(t, fmt.Sprintf("large-%d-%d", i, j), func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 4000)} }))...)
			}
			name := fmt.Sprintf("large-%d", i)
			secret(t, ns, name, map[string][]byte{"ca.crt": data})
			large += fmt.Sprintf(`, {"secret": {"name": %q}}`, name)
		}
		patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}`+large+`]}}`)
		soonStatus(t, b, condition(api.ConditionDistributed, metav1.ConditionFalse, "the bundle of all sources: "))
		if err := has(t, selected, "named", good); err != nil {
			t.Errorf("the bundle is no longer what it was: %v", err)
		}
	})
	t.Run("repaired it is ready", func(t *testing.T) {
		patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}]}}`)
		soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 1 namespace"))
	})
	t.Run("a bundle of nothing is not written", func(t *testing.T) {
		empty := bundle(t, "empty", func(s *api.TrustBundleSpec) {
			s.Sources = fromSecret("leaf")
			s.Target.NamespaceSelector.MatchLabels["trust"] = "named"
		})
		soonStatus(t, empty, condition(api.ConditionDistributed, metav1.ConditionFalse, "no source has a CA certificate that can be used"))
		if _, err := configMap(t, selected, "empty"); !apierrors.IsNotFound(err) {
			t.Errorf("it is: %v", err)
		}
	})
}

func TestAReplacedCAStaysUntilItsLastCertificateExpires(t *testing.T) {
	now := clocktesting.NewFakeClock(time.Now())
	ns, _ := sources(t, rig.Options{Clock: now})
	old, next := newCA(t, "old"), newCA(t, "next")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(old)})
	selected := namespace(t, "replaced")
	b := bundle(t, "replaced", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.KeepReplacedFor = &metav1.Duration{Duration: time.Hour}
	})
	soonHas(t, selected, "replaced", old)

	set(t, source, "ca.crt", pemOf(next))
	soonHas(t, selected, "replaced", next, old)
	status := soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "2 CA certificates in 1 namespace, 1 of them retained: see status.certificates"))
	retained := status.Certificates[1].Retained
	if retained == nil || retained.Until.Sub(retained.Since.Time) != time.Hour || !strings.Contains(retained.Reason, "spec.keepReplacedFor is 1h0m0s") {
		t.Errorf("retained is %+v", retained)
	}

	// The source is lost altogether, and comes back.
	if err := rig.Admin(t).Delete(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	soonStatus(t, b, func(s *api.TrustBundleStatus) error {
		if s.RetainedCount != 2 {
			return cluster.NotYet("%d are retained", s.RetainedCount)
		}
		return nil
	})
	soon(t, func() error {
		c, err := configMap(t, selected, "replaced")
		if err != nil {
			return err
		}
		if !strings.Contains(c.Data["ca.crt"], string(pemOf(old))) || !strings.Contains(c.Data["ca.crt"], string(pemOf(next))) {
			return cluster.NotYet("the bundle is %s", names(c.Data["ca.crt"]))
		}
		return nil
	})
	source = secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(next)})
	soonHas(t, selected, "replaced", next, old)

	// That time is over, but a certificate of the old CA is alive, in a Secret of this system.
	expiry := now.Now().Add(3 * time.Hour).Truncate(time.Second)
	create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "leaf", Labels: map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"}},
		Data:       map[string][]byte{corev1.TLSCertKey: pki.EncodeCertificatePEM(old.leaf(t, expiry))},
	})
	now.Step(2 * time.Hour)
	touch := func(value string) {
		patch(t, source.DeepCopy(), fmt.Sprintf(`{"metadata": {"annotations": {"touched": %q}}}`, value))
	}
	touch("1")
	soonStatus(t, b, func(s *api.TrustBundleStatus) error {
		if len(s.Certificates) != 2 || s.Certificates[1].Retained.UsedBy != ns+"/leaf" || !s.Certificates[1].Retained.Until.Time.Equal(expiry) {
			return cluster.NotYet("the certificates are %+v", s.Certificates)
		}
		return nil
	})
	if err := has(t, selected, "replaced", next, old); err != nil {
		t.Errorf("the CA is gone while a certificate of it is alive: %v", err)
	}
	now.Step(time.Hour)
	touch("2")
	soonHas(t, selected, "replaced", next)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 1 namespace"))
}

func TestAReplacedCALeavesByItself(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	old, next := newCA(t, "old"), newCA(t, "next")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(old)})
	selected := namespace(t, "leaves")
	bundle(t, "leaves", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.KeepReplacedFor = &metav1.Duration{Duration: 2 * time.Second}
	})
	soonHas(t, selected, "leaves", old)
	replaced := time.Now()
	set(t, source, "ca.crt", pemOf(next))
	soonHas(t, selected, "leaves", next)
	if kept := time.Since(replaced); kept < time.Second { // times are stored in whole seconds
		t.Errorf("it left after %s", kept)
	}
}

func TestWhatIsTakenOutOfTheSpecLeavesAtOnce(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one, two, three, literal := newCA(t, "one"), newCA(t, "two"), newCA(t, "three"), newCA(t, "literal")
	secret(t, ns, "one", map[string][]byte{"ca.crt": pemOf(one)})
	source := secret(t, ns, "two", map[string][]byte{"ca.crt": pemOf(two)})
	selected := namespace(t, "spec")
	b := bundle(t, "spec", func(s *api.TrustBundleSpec) {
		s.Sources = append(fromSecret("one"), append(fromSecret("two"), api.TrustSource{InLine: string(pemOf(literal))})...)
	})
	soonHas(t, selected, "spec", one, two, literal)
	set(t, source, "ca.crt", pemOf(three))
	soonHas(t, selected, "spec", one, three, literal, two)
	patch(t, b, fmt.Sprintf(`{"spec": {"distrust": [%q]}}`, pki.Fingerprint(two.Certificate)))
	soonHas(t, selected, "spec", one, three, literal)
	patch(t, b, `{"spec": {"sources": [{"secret": {"name": "one"}}]}}`)
	soonHas(t, selected, "spec", one)
	// Of the last one nobody may be trusted.
	patch(t, b, fmt.Sprintf(`{"spec": {"distrust": [%q]}}`, pki.Fingerprint(one.Certificate)))
	soonHas(t, selected, "spec")
}

// The CA of an issuer is replaced: from the first moment on clients with the bundle trust certificates of both.
func TestTheBundleOfAnIssuerHasBothCAsWhileOneReplacesTheOther(t *testing.T) {
	_, _ = sources(t, rig.Options{Certificates: true})
	ns := cluster.Namespace(t)
	admin := rig.Admin(t)
	ecdsa := &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}
	certificate := func(name, issuer string, isCA bool) {
		create(t, &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: cmapi.CertificateSpec{
			CommonName: name, DNSNames: []string{name}, IsCA: isCA, SecretName: name, IssuerRef: cmmeta.IssuerReference{Name: issuer}, PrivateKey: ecdsa,
		}})
	}
	create(t, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "root"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	certificate("ca", "root", true)
	create(t, &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ca"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}}})
	certificate("server", "ca", false)
	selected := namespace(t, "issuer")
	b := bundle(t, "issuer", func(s *api.TrustBundleSpec) {
		s.Sources = []api.TrustSource{{Issuer: &api.TrustIssuerSource{Kind: "Issuer", Namespace: ns, Name: "ca"}}}
	})
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate"))

	leaf := func() *x509.Certificate {
		t.Helper()
		var cert *x509.Certificate
		soon(t, func() error {
			s := &corev1.Secret{}
			if err := admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "server"}, s); err != nil {
				return err
			}
			var err error
			cert, err = pki.DecodeCertificatePEM(s.Data[corev1.TLSCertKey])
			return err
		})
		return cert
	}
	verifies := func(cert *x509.Certificate) error {
		c, err := configMap(t, selected, "issuer")
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(c.Data["ca.crt"]))
		_, err = cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: "server"})
		return err
	}
	renew := func(name string) {
		t.Helper()
		crt := &cmapi.Certificate{}
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, crt); err != nil {
			t.Fatal(err)
		}
		before := crt.DeepCopy()
		cmapi.SetCertificateCondition(&crt.Status, time.Now(), cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "ManuallyTriggered", ObservedGeneration: crt.Generation,
		})
		if err := admin.Status().Patch(t.Context(), crt, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
	old := leaf()
	soon(t, func() error { return verifies(old) })
	renew("ca")
	soonStatus(t, b, func(s *api.TrustBundleStatus) error {
		if s.CertificateCount != 2 || s.RetainedCount != 0 {
			return cluster.NotYet("%d certificates, %d retained", s.CertificateCount, s.RetainedCount)
		}
		return nil
	})
	if err := verifies(old); err != nil {
		t.Errorf("a certificate of the replaced CA: %v", err)
	}
	renew("server")
	var renewed *x509.Certificate
	soon(t, func() error {
		if renewed = leaf(); renewed.Equal(old) {
			return cluster.ErrNotYet
		}
		return nil
	})
	for name, cert := range map[string]*x509.Certificate{"new": renewed, "old": old} {
		if err := verifies(cert); err != nil {
			t.Errorf("the %s certificate: %v", name, err)
		}
	}
}

// counted is a client that counts what it writes.
type counted struct {
	client.Client
	writes *writes
}

type writes struct {
	mu     sync.Mutex
	counts map[string]int
}

func (w *writes) add(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = map[string]int{}
	}
	w.counts[what]++
}

func (w *writes) get() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts)
}

func (c counted) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	c.writes.add("patch")
	return c.Client.Patch(ctx, o, p, opts...)
}

func (c counted) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	c.writes.add("delete")
	return c.Client.Delete(ctx, o, opts...)
}

func (c counted) Status() client.SubResourceWriter { return countedStatus{c.Client.Status(), c.writes} }

type countedStatus struct {
	client.SubResourceWriter
	writes *writes
}

func (c countedStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	c.writes.add("patch status")
	return c.SubResourceWriter.Patch(ctx, o, p, opts...)
}

func TestNothingIsWrittenTwice(t *testing.T) {
	w := &writes{}
	wrap := func(c client.Client) client.Client { return counted{c, w} }
	ns, running := sources(t, rig.Options{WrapClient: wrap})
	one, two := newCA(t, "one"), newCA(t, "two")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": pemOf(one)})
	var selected []string
	for range 3 {
		selected = append(selected, namespace(t, "twice"))
	}
	b := bundle(t, "twice", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.Target.ConfigMap = &api.TrustTargetObject{PEM: &api.TrustPEM{}, PKCS12: &api.TrustPKCS12{}, JKS: &api.TrustJKS{}}
	})
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 3 namespaces"))
	set(t, source, "ca.crt", pemOf(one, two))
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "2 CA certificates in 3 namespaces"))
	if got, want := w.get(), map[string]int{"patch": 6, "patch status": 2}; !maps.Equal(got, want) {
		t.Errorf("wrote %v, expected %v", got, want)
	}

	// Changes that change nothing, and Secrets that nobody asked for, write nothing and, the latter, cause no pass.
	before := running.Passes(t, "trustbundles")
	other := cluster.Namespace(t)
	for i := range 50 {
		secret(t, other, fmt.Sprintf("foreign-%d", i), nil)
		secret(t, ns, fmt.Sprintf("foreign-%d", i), nil)
	}
	patch(t, source, `{"metadata": {"annotations": {"note": "x"}}}`) // comes after them in the watch
	soon(t, func() error {
		if running.Passes(t, "trustbundles") == before {
			return cluster.ErrNotYet
		}
		return nil
	})
	if n := running.Passes(t, "trustbundles") - before; n > 3 {
		t.Errorf("100 Secrets that nobody asked for caused about %d passes", n)
	}
	running.Stop()
	if got, want := w.get(), map[string]int{"patch": 6, "patch status": 2}; !maps.Equal(got, want) {
		t.Errorf("wrote %v, expected %v", got, want)
	}

	// A restart finds the truststores of the process before it, with other salts than it would use itself.
	again := rig.Run(t, rig.Options{Namespace: ns, WrapClient: wrap})
	soon(t, func() error {
		if again.Passes(t, "trustbundles") == 0 {
			return cluster.ErrNotYet
		}
		return nil
	})
	fourth := namespace(t, "twice")
	soonHas(t, fourth, "twice", one, two)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "2 CA certificates in 4 namespaces"))
	if got, want := w.get(), map[string]int{"patch": 7, "patch status": 3}; !maps.Equal(got, want) {
		t.Errorf("wrote %v, expected %v", got, want)
	}
	a, err := configMap(t, selected[0], "twice")
	if err != nil {
		t.Fatal(err)
	}
	c, err := configMap(t, fourth, "twice")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.BinaryData["truststore.p12"], c.BinaryData["truststore.p12"]) {
		t.Error("the namespaces have different truststores of the same bundle")
	}
}
