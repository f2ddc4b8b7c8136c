package trust_test

import (
	"bytes"
	"context"
	"crypto/x509"
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
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

func TestABundleHasTheCAsOfAllSourcesInAllFormats(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one, two, three, four, five := rig.NewCA(
		t,
		"one",
	), rig.NewCA(
		t,
		"two",
	), rig.NewCA(
		t,
		"three",
	), rig.NewCA(
		t,
		"four",
	), rig.NewCA(
		t,
		"five",
	)
	secret(t, ns, "one", map[string][]byte{"ca.crt": rig.PEM(one)})
	secret(t, ns, "two", map[string][]byte{"tls.crt": rig.PEM(two), "ca.crt": rig.PEM(one)})
	secret(t, ns, "secrets-of-the-label", map[string][]byte{"root.pem": rig.PEM(three)})
	rig.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "four"},
		Data: map[string]string{"a.pem": string(rig.PEM(four))}, BinaryData: map[string][]byte{"b.pem": rig.PEM(one, four)}})

	admin := rig.Admin(t)
	issuer := &cmapi.ClusterIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: "formats"},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "none"}}},
	}
	rig.Create(t, issuer)
	previous := rig.NewCA(t, "previous")
	withCA := issuer.DeepCopy()
	withCA.Status.CA = &cmapi.CAIssuerStatus{
		Certificate: string(rig.PEM(five)),
		Fingerprint: "5",
		NotAfter:    metav1.NewTime(five.NotAfter),
		Since:       metav1.Now(),
		Previous: []cmapi.PreviousCA{
			{
				Certificate: string(rig.PEM(previous)),
				Fingerprint: "4",
				NotAfter:    metav1.NewTime(previous.NotAfter),
				ReplacedAt:  metav1.Now(),
			},
		},
	}
	if err := admin.Status().Patch(t.Context(), withCA, client.MergeFrom(issuer)); err != nil {
		t.Fatal(err)
	}

	selected, other := namespace(t, "formats"), namespace(t, "another")
	literal := rig.NewCA(t, "literal")
	all := &api.TrustTargetObject{
		Name:        "trust",
		PEM:         &api.TrustPEM{Key: "roots.pem"},
		PKCS12:      &api.TrustPKCS12{},
		JKS:         &api.TrustJKS{Password: new(api.TrustPassword("geheim"))},
		Labels:      map[string]string{"team": "a"},
		Annotations: map[string]string{"note": "b"},
	}
	b := bundle(t, "formats", func(s *api.TrustBundleSpec) {
		s.Sources = []api.TrustSource{
			{Secret: &api.TrustObjectSource{Name: "one"}},
			{Secret: &api.TrustObjectSource{Name: "two", Key: "tls.crt"}},
			{
				Secret: &api.TrustObjectSource{
					Selector: &metav1.LabelSelector{
						MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "In", Values: []string{"trust"}}},
					},
					Key: "root.pem",
				},
			},
			{ConfigMap: &api.TrustObjectSource{Name: "four", AllKeys: true}},
			{Issuer: &api.TrustIssuerSource{Name: "formats"}},
			{InLine: string(rig.PEM(literal, one))},
		}
		s.Target.ConfigMap, s.Target.Secret = all, all.DeepCopy()
	})
	// Of the Secrets with the label only one has the key.
	status := soonStatus(
		t,
		b,
		condition(
			api.ConditionSourcesValid,
			metav1.ConditionFalse,
			`spec.sources[2] (Secrets with labels "app in (trust)", root.pem): one, root.pem: it has no such key; `,
		),
	)
	want := []rig.CA{one, two, three, four, five, previous, literal}
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
		if !bytes.Equal(data["roots.pem"], rig.PEM(want...)) {
			t.Errorf("%s: roots.pem holds %s", kind, rig.Names(string(data["roots.pem"])))
		}
		if err := pki.CheckPKCS12Truststore(data["truststore.p12"], "changeit", certs); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := pki.CheckJKSTruststore(data["truststore.jks"], pki.JKSOptions{Password: "geheim"}, certs); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if c.Labels["team"] != "a" || c.Annotations["note"] != "b" || c.Labels[api.TrustBundleLabelKey] != "formats" ||
		len(c.Annotations[api.TrustHashAnnotationKey]) != 64 {
		t.Errorf("has labels %v and annotations %v", c.Labels, c.Annotations)
	}
	if _, err := configMap(t, other, "trust"); !apierrors.IsNotFound(err) {
		t.Errorf("in a namespace that is not selected: %v", err)
	}
	if status.CertificateCount != 7 || status.RetainedCount != 0 || status.NamespaceCount != 1 ||
		len(status.Certificates) != 7 {
		t.Errorf(
			"the status counts %d certificates, %d retained, %d namespaces",
			status.CertificateCount,
			status.RetainedCount,
			status.NamespaceCount,
		)
	}
	if last := status.Certificates[6]; last.Source != "inLine" || last.Certificate != "" || last.Subject != "CN=literal" ||
		last.Fingerprint != pki.Fingerprint(literal.Certificate) {
		t.Errorf("the status says %+v", last)
	}

	// A format that is no longer wanted goes, and what others put there stays.
	rig.Patch(t, c, `{"data": {"mine": "x"}}`)
	rig.Patch(t, b, `{"spec": {"target": {"configMap": {"jks": null}}}}`)
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
	one := rig.NewCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(one)})
	first := namespace(t, "follows")
	b := bundle(t, "follows", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	soonHas(t, first, "follows", one)
	second := namespace(t, "follows")
	soonHas(t, second, "follows", one)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 2 namespaces"))

	rig.Patch(
		t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: first}},
		`{"metadata": {"labels": {"trust": null}}}`,
	)
	soonGone(t, first, "follows")
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "in 1 namespace"))

	// The controller restores changed or deleted objects.
	rig.Patch(
		t,
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: second, Name: "follows"}},
		`{"data": {"ca.crt": "mine"}}`,
	)
	soonHas(t, second, "follows", one)
	if err := rig.Admin(t).
		Delete(
			t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: second, Name: "follows"}},
		); err != nil {
		t.Fatal(err)
	}
	soonHas(t, second, "follows", one)

	// Under another name the old one goes.
	rig.Patch(t, b, `{"spec": {"target": {"configMap": {"name": "other"}}}}`)
	soonHas(t, second, "other", one)
	soonGone(t, second, "follows")
	// A Secret in its place.
	rig.Patch(t, b, `{"spec": {"target": {"configMap": null, "secret": {}}}}`)
	soonGone(t, second, "other")
	soon(t, func() error {
		s := &corev1.Secret{}
		if err := rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: second, Name: "follows"}, s); err != nil {
			return err
		}
		if !bytes.Equal(s.Data["ca.crt"], rig.PEM(one)) {
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
	one := rig.NewCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(one)})
	good, bad := namespace(t, "others"), namespace(t, "others")
	rig.Create(
		t,
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: bad, Name: "others"},
			Data:       map[string]string{"mine": "x"},
		},
	)
	b := bundle(t, "others", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	soonHas(t, good, "others", one)
	why := "ConfigMap " + bad +
		"/others exists and is not of this TrustBundle: delete it, choose another name in spec.target, or have it " +
		"taken over: " +
		"kubectl label configmap -n " + bad + " others perennial.dev/trust-bundle=others"
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
	soonStatus(
		t,
		other,
		condition(
			api.ConditionDistributed,
			metav1.ConditionFalse,
			`ConfigMap `+good+`/others is of TrustBundle "others": choose another name in spec.target`,
		),
	)
	// With another name there is no conflict.
	rig.Patch(t, other, `{"spec": {"target": {"configMap": {"name": "free"}}}}`)
	soonStatus(t, other, condition(api.ConditionReady, metav1.ConditionTrue, ""))
	// An object whose label says so is taken over.
	rig.Patch(t, c, `{"metadata": {"labels": {"perennial.dev/trust-bundle": "others"}}}`)
	soonHas(t, bad, "others", one)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, ""))
}

func TestWhatCannotBeTrustedIsNamed(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	ns, _ := sources(t, rig.Options{Clock: clock})
	good := rig.NewCA(t, "good")
	expired := rig.NewCA(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	secret(t, ns, "good", map[string][]byte{"ca.crt": rig.PEM(good)})
	secret(t, ns, "leaf", map[string][]byte{"ca.crt": leafOf(t, good, good.NotAfter)})
	secret(t, ns, "expired", map[string][]byte{"ca.crt": rig.PEM(expired)})
	secret(t, ns, "oversize", map[string][]byte{"ca.crt": bytes.Repeat(rig.PEM(good), 1000)})
	secret(
		t,
		ns,
		"key",
		map[string][]byte{"ca.crt": append(rig.PEM(rig.NewCA(t, "with key")), rig.KeyPEM(t, good.Key)...)},
	)
	rig.Create(
		t,
		&cmapi.ClusterIssuer{
			ObjectMeta: metav1.ObjectMeta{Name: "self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
	selected := namespace(t, "named")
	b := bundle(t, "named", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("good") })
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, ""))

	for _, test := range []struct {
		name   string
		source string
		want   string
	}{
		{"a certificate that is not a CA's", `{"secret": {"name": "leaf"}}`, "spec.sources[1] (Secret leaf, ca.crt): " +
			"certificate 1 (CN=leaf) is not that of a CA"},
		{"an expired CA", `{"secret": {"name": "expired"}}`, "spec.sources[1] (Secret expired, ca.crt): certificate 1 " +
			"(CN=expired) expired at "},
		{"an oversize bundle", `{"secret": {"name": "oversize"}}`, "spec.sources[1] (Secret oversize, ca.crt): "},
		{"a private key", `{"secret": {"name": "key"}}`, "spec.sources[1] (Secret key, ca.crt): "},
		{"a Secret that does not exist", `{"secret": {"name": "none"}}`, "spec.sources[1] (Secret none, ca.crt): it " +
			"does not exist in namespace " + ns},
		{"a ConfigMap that does not exist", `{"configMap": {"name": "none"}}`, "spec.sources[1] (ConfigMap none, " +
			"ca.crt): it does not exist in namespace " + ns},
		{"a key that does not exist", `{"secret": {"name": "good", "key": "root.crt"}}`, "spec.sources[1] (Secret good, " +
			"root.crt): it has no such key"},
		{"labels that nothing has", `{"secret": {"selector": {"matchLabels": {"app": "none"}}}}`, `spec.sources[1] (Secrets with labels "app=none", ca.crt): there are none`},
		{"a selector that is none", `{"configMap": {"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}`, "selector: "},
		{"an issuer that does not exist", `{"issuer": {"name": "none"}}`, "spec.sources[1] (ClusterIssuer none): it " +
			"does not exist, or does not tell its CA as issuers of type ca do once they are ready"},
		{"an issuer that is no CA", `{"issuer": {"name": "self"}}`, "spec.sources[1] (ClusterIssuer self): it does not " +
			"exist, or does not tell its CA"},
		{"a literal that is none", `{"inLine": "x"}`, "spec.sources[1] (inLine): "},
	} {
		t.Run(test.name, func(t *testing.T) {
			rig.Patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}, %s]}}`, test.source)
			status := soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, test.want))
			if err := condition(api.ConditionReady, metav1.ConditionFalse, test.want)(status); err != nil {
				t.Error(err)
			}
			missing := strings.Contains(test.name, "exist") || strings.Contains(test.name, "nothing has") ||
				test.name == "an issuer that is no CA" // its Secret may be on its way
			if is := meta.IsStatusConditionTrue(status.Conditions, api.ConditionStalled); is == missing {
				t.Errorf("it is stalled: %t: %+v", is, status.Conditions)
			}
			if strings.Contains(fmt.Sprint(status.Conditions), "PRIVATE KEY-----\n") {
				t.Error("a condition holds the key")
			}
			if err := has(t, selected, "named", good); err != nil {
				t.Errorf("the good source is not in the bundle alone: %v", err)
			}
		})
	}
	t.Run("what stays missing is for a person", func(t *testing.T) {
		rig.Patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}, {"secret": {"name": "none"}}]}}`)
		soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, "it does not exist in namespace "))
		clock.Step(time.Minute)
		nudge(t, b)
		soonStatus(t, b, condition(api.ConditionStalled, metav1.ConditionTrue, "it does not exist in namespace "))
	})
	t.Run("a bundle that is too large as a whole", func(t *testing.T) {
		var large string
		for i := range 2 {
			data := make([]byte, 0, 200_000)
			for j := 0; len(data) < 180_000; j++ {
				data = append(
					data,
					rig.PEM(
						rig.NewCA(
							t,
							fmt.Sprintf("large-%d-%d", i, j),
							func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 4000)} },
						),
					)...)
			}
			name := fmt.Sprintf("large-%d", i)
			secret(t, ns, name, map[string][]byte{"ca.crt": data})
			large += fmt.Sprintf(`, {"secret": {"name": %q}}`, name)
		}
		rig.Patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}%s]}}`, large)
		soonStatus(t, b, condition(api.ConditionDistributed, metav1.ConditionFalse, "the bundle of all sources: "))
		if err := has(t, selected, "named", good); err != nil {
			t.Errorf("the bundle is no longer what it was: %v", err)
		}
	})
	t.Run("repaired it is ready", func(t *testing.T) {
		rig.Patch(t, b, `{"spec": {"sources": [{"secret": {"name": "good"}}]}}`)
		status := soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 1 namespace"))
		if meta.FindStatusCondition(status.Conditions, api.ConditionStalled) != nil {
			t.Errorf("it is still stalled: %+v", status.Conditions)
		}
	})
	t.Run("a bundle of nothing is not written", func(t *testing.T) {
		empty := bundle(t, "empty", func(s *api.TrustBundleSpec) {
			s.Sources = fromSecret("leaf")
			s.Target.NamespaceSelector.MatchLabels["trust"] = "named"
		})
		soonStatus(
			t,
			empty,
			condition(api.ConditionDistributed, metav1.ConditionFalse, "no source has a CA certificate that can be used"),
		)
		if _, err := configMap(t, selected, "empty"); !apierrors.IsNotFound(err) {
			t.Errorf("it is: %v", err)
		}
	})
}

func TestWhatIsTakenOutOfTheSpecLeavesAtOnce(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one, two, three, literal := rig.NewCA(t, "one"), rig.NewCA(t, "two"), rig.NewCA(t, "three"), rig.NewCA(t, "literal")
	secret(t, ns, "one", map[string][]byte{"ca.crt": rig.PEM(one)})
	source := secret(t, ns, "two", map[string][]byte{"ca.crt": rig.PEM(two)})
	selected := namespace(t, "spec")
	b := bundle(t, "spec", func(s *api.TrustBundleSpec) {
		s.Sources = append(fromSecret("one"), append(fromSecret("two"), api.TrustSource{InLine: string(rig.PEM(literal))})...)
	})
	soonHas(t, selected, "spec", one, two, literal)
	set(t, source, "ca.crt", rig.PEM(three))
	soonHas(t, selected, "spec", one, three, literal, two)
	rig.Patch(t, b, `{"spec": {"distrust": [%q]}}`, pki.Fingerprint(two.Certificate))
	soonHas(t, selected, "spec", one, three, literal)
	rig.Patch(t, b, `{"spec": {"sources": [{"secret": {"name": "one"}}]}}`)
	soonHas(t, selected, "spec", one)
	// Even the last CA can be distrusted: the bundle is then empty.
	rig.Patch(t, b, `{"spec": {"distrust": [%q]}}`, pki.Fingerprint(one.Certificate))
	soonHas(t, selected, "spec")
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

func (c countedStatus) Patch(
	ctx context.Context,
	o client.Object,
	p client.Patch,
	opts ...client.SubResourcePatchOption,
) error {
	c.writes.add("patch status")
	return c.SubResourceWriter.Patch(ctx, o, p, opts...)
}

func TestNothingIsWrittenTwice(t *testing.T) {
	w := &writes{}
	wrap := func(c client.Client) client.Client { return counted{c, w} }
	ns, running := sources(t, rig.Options{WrapClient: wrap})
	one, two := rig.NewCA(t, "one"), rig.NewCA(t, "two")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(one)})
	var selected []string
	for range 3 {
		selected = append(selected, namespace(t, "twice"))
	}
	b := bundle(t, "twice", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.Target.ConfigMap = &api.TrustTargetObject{PEM: &api.TrustPEM{}, PKCS12: &api.TrustPKCS12{}, JKS: &api.TrustJKS{}}
	})
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 3 namespaces"))
	set(t, source, "ca.crt", rig.PEM(one, two))
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "2 CA certificates in 3 namespaces"))
	if got, want := w.get(), map[string]int{"patch": 6, "patch status": 2}; !maps.Equal(got, want) {
		t.Errorf("wrote %v, expected %v", got, want)
	}

	// Updates without a change, and unrelated Secrets, cause no writes. Unrelated Secrets also cause
	// no reconciliation.
	before := running.Passes(t, "trustbundles")
	other := cluster.Namespace(t)
	for i := range 50 {
		secret(t, other, fmt.Sprintf("foreign-%d", i), nil)
		secret(t, ns, fmt.Sprintf("foreign-%d", i), nil)
	}
	rig.Patch(t, source, `{"metadata": {"annotations": {"note": "x"}}}`) // comes after them in the watch
	soon(t, func() error {
		if running.Passes(t, "trustbundles") == before {
			return cluster.ErrNotYet
		}
		return nil
	})
	if n := running.Passes(t, "trustbundles") - before; n > 3 {
		t.Errorf("100 unrelated Secrets caused about %d passes", n)
	}
	running.Stop()
	if got, want := w.get(), map[string]int{"patch": 6, "patch status": 2}; !maps.Equal(got, want) {
		t.Errorf("wrote %v, expected %v", got, want)
	}

	// A restart finds the truststores of the process before it, with other salts than it would use
	// itself.
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
