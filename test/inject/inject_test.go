package inject_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestEveryTargetFollowsItsAnnotations(t *testing.T) {
	rig.Run(t, rig.Options{})
	apiServer, err := inject.APIServerCA(cluster.Config(t))()
	if err != nil {
		t.Fatal(err)
	}
	apiServerCert, err := pki.DecodeCertificatePEM(apiServer)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range targets {
		t.Run(tt.resource, func(t *testing.T) {
			ns := cluster.Namespace(t)
			first, second := rig.NewCA(t, "first"), rig.NewCA(t, "second")
			third, fourth := rig.NewCA(t, "third"), rig.NewCA(t, "fourth")
			secretWithCA(t, ns, "tls", "webhook", first)
			secretWithCA(t, ns, "other", "", fourth)
			o := tt.object(t)
			o.SetAnnotations(map[string]string{cmapi.WantInjectAnnotation: ns + "/webhook"})
			rig.Create(t, o)
			soon := func(cas ...rig.CA) {
				t.Helper()
				cluster.Eventually(t, func() error { return tt.has(t, o, cas...) })
			}
			soon(first)

			setCA(t, ns, "tls", second, first) // as a rotation begins
			soon(first, second)                // what is there keeps its place
			setCA(t, ns, "tls", second)        // and ends: clients with the old CA must still connect
			setCA(t, ns, "tls", third)
			soon(first, second, third)
			if got, want := managedFields(get(t, o)), tt.owned; got != want {
				t.Errorf("owns %s, expected %s", got, want)
			}

			// Another source.
			ends := func(words string, suffix func(bundle []byte) bool) {
				t.Helper()
				cluster.Eventually(t, func() error {
					if got := field(t, get(t, o).Object, tt.bundles[0]); !suffix(got) {
						return cluster.NotYet("the bundle is %s, want %s at its end", rig.Names(got), words)
					}
					return nil
				})
			}
			rig.Patch(t, o.DeepCopy(), `{"metadata": {"annotations": {%q: null, %q: %q}}}`,
				cmapi.WantInjectAnnotation, cmapi.WantInjectFromSecretAnnotation, ns+"/other")
			ends("fourth", func(got []byte) bool { return strings.HasSuffix(rig.Names(got), ", fourth") })
			// And the third.
			rig.Patch(t, o.DeepCopy(), `{"metadata": {"annotations": {%q: null, %q: "true"}}}`,
				cmapi.WantInjectFromSecretAnnotation, cmapi.WantInjectAPIServerCAAnnotation)
			ends("the CA of the API server", func(got []byte) bool {
				return bytes.HasSuffix(got, pki.EncodeCertificatePEM(apiServerCert))
			})

			refills(t, tt, o, pki.EncodeCertificatePEM(apiServerCert))

			// Without the annotation, the bundle stays, and has no field manager.
			rig.Patch(t, o.DeepCopy(), `{"metadata": {"annotations": {%q: null}}}`, cmapi.WantInjectAPIServerCAAnnotation)
			cluster.Eventually(t, func() error {
				if fields := managedFields(get(t, o)); fields != "" {
					return cluster.NotYet("there is an owner of %s", fields)
				}
				return nil
			})
			if got := field(t, get(t, o).Object, tt.bundles[0]); !bytes.Equal(got, pki.EncodeCertificatePEM(apiServerCert)) {
				t.Errorf("the bundle is %s", rig.Names(got))
			}
		})
	}
}

// refills empties the bundles as a client does, for example with a new version of a manifest, or to
// remove an old CA. Then they have the present CA alone.
func refills(t *testing.T, tt target, o *unstructured.Unstructured, ca []byte) {
	t.Helper()
	empty := get(t, o)
	for _, path := range tt.bundles {
		unset(empty.Object, path)
	}
	if err := rig.Admin(t).Update(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		for _, path := range tt.bundles {
			if got := field(t, get(t, o).Object, path); !bytes.Equal(got, ca) {
				return cluster.NotYet("%s is %s", path, rig.Names(got))
			}
		}
		return nil
	})
}

func TestMistakesAreReportedByEvents(t *testing.T) {
	rig.Run(t, rig.Options{})
	ns := cluster.Namespace(t)
	first := rig.NewCA(t, "first")
	secretWithCA(t, ns, "good", "", first)
	for name, change := range map[string]func(*corev1.Secret){
		"closed":  func(s *corev1.Secret) { s.Annotations = nil },
		"empty":   func(s *corev1.Secret) { s.Data = nil },
		"no-pem":  func(s *corev1.Secret) { s.Data["ca.crt"] = []byte("certificate") },
		"key":     func(s *corev1.Secret) { _, s.Data["ca.crt"] = serverCertificate(t, first) },
		"foreign": func(s *corev1.Secret) { s.Annotations[cmapi.CertificateNameKey] = "another" },
	} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:   ns,
				Name:        name,
				Annotations: map[string]string{cmapi.AllowsInjectionFromSecretAnnotation: "true"},
			},
			Data: map[string][]byte{cmmeta.TLSCAKey: rig.PEM(first)},
		}
		change(secret)
		rig.Create(t, secret)
	}
	for _, name := range []string{"foreign", "missing"} {
		rig.Create(
			t,
			&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: cmapi.CertificateSpec{
				SecretName: name, CommonName: name, IssuerRef: cmmeta.IssuerReference{Name: "missing"},
			}},
		)
	}
	for _, test := range []struct {
		name              string
		annotation, value string
		reason, message   string
	}{
		{"a name without namespace", cmapi.WantInjectAnnotation, "webhook", "InvalidAnnotation", `annotation cert-manager.io/inject-ca-from is "webhook": write it as namespace/name`},
		{"a word that is neither true nor false", cmapi.WantInjectAPIServerCAAnnotation, "yes", "InvalidAnnotation", `annotation cert-manager.io/inject-apiserver-ca is "yes": it can be "true" or "false"`},
		{"a Certificate that does not exist", cmapi.WantInjectAnnotation, ns + "/none", "SourceNotFound", "Certificate " + ns + "/none, named by annotation cert-manager.io/inject-ca-from, does not exist"},
		{"a Certificate without Secret", cmapi.WantInjectAnnotation, ns + "/missing", "SourceNotFound", "Secret " + ns + "/missing of Certificate " + ns + "/missing does not exist yet"},
		{"a Secret of another Certificate", cmapi.WantInjectAnnotation, ns + "/foreign", "SourceNotAllowed", "Secret " + ns + `/foreign belongs to Certificate "another", not to Certificate ` + ns + "/foreign"},
		{"a Secret that does not exist", cmapi.WantInjectFromSecretAnnotation, ns + "/none", "SourceNotFound", "Secret " + ns + "/none, named by annotation cert-manager.io/inject-ca-from-secret, does not exist"},
		{"a Secret that does not allow it", cmapi.WantInjectFromSecretAnnotation, ns + "/closed", "SourceNotAllowed", "Secret " + ns + `/closed does not allow it: annotate it with cert-manager.io/allow-direct-injection: "true"`},
		{"a Secret without CA", cmapi.WantInjectFromSecretAnnotation, ns + "/empty", "SourceHasNoCA", "Secret " + ns + "/empty has no ca.crt: its issuer does not tell its CA"},
		{"a Secret that holds something else", cmapi.WantInjectFromSecretAnnotation, ns + "/no-pem", "SourceInvalid", "ca.crt of Secret " + ns + "/no-pem: "},
		{"a Secret with a private key in the place of its CA", cmapi.WantInjectFromSecretAnnotation, ns + "/key", "SourceInvalid", "ca.crt of Secret " + ns + "/key: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := targets[1].object(t)
			o.SetName("")
			o.SetGenerateName("mistake-")
			o.SetAnnotations(map[string]string{test.annotation: test.value})
			rig.Create(t, o)
			event := eventOf(t, o, corev1.EventTypeWarning)
			if event.Reason != test.reason || !strings.HasPrefix(event.Message, test.message) {
				t.Errorf("got %s: %s\nexpected %s: %s", event.Reason, event.Message, test.reason, test.message)
			}
			if got := field(t, get(t, o).Object, "webhooks.0.clientConfig.caBundle"); len(got) > 0 {
				t.Errorf("the bundle is %s", rig.Names(got))
			}
			// Repaired, it works.
			rig.Patch(
				t,
				o.DeepCopy(),
				`{"metadata": {"annotations": {%q: null, %q: %q}}}`,
				test.annotation,
				cmapi.WantInjectFromSecretAnnotation,
				ns+"/good",
			)
			if test.annotation == cmapi.WantInjectFromSecretAnnotation {
				annotate(t, o, test.annotation, ns+"/good")
			}
			cluster.Eventually(t, func() error { return targets[1].has(t, o, first) })
		})
	}
	t.Run("a CRD that is not converted", func(t *testing.T) {
		o := targets[2].object(t)
		o.SetAnnotations(map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/good"})
		unstructured.RemoveNestedField(o.Object, "spec", "conversion")
		rig.Create(t, o)
		if event := eventOf(t, o, corev1.EventTypeWarning); event.Reason != "NothingToInject" {
			t.Errorf("got %s: %s", event.Reason, event.Message)
		}
	})
	t.Run("two annotations at once", func(t *testing.T) {
		o := targets[0].object(t)
		o.SetAnnotations(
			map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/good", cmapi.WantInjectAnnotation: ns + "/missing"},
		)
		rig.Create(t, o)
		if event := eventOf(t, o, corev1.EventTypeWarning); event.Reason != "InvalidAnnotation" {
			t.Errorf("got %s: %s", event.Reason, event.Message)
		}
		cluster.Eventually(t, func() error { return targets[0].has(t, o, first) })
	})
}

// TestARefusedInjectionIsReported refuses each write in turn, and checks that the refusal is
// reported and that the write succeeds once it is allowed. Admission policies do not apply to
// webhook configurations.
func TestARefusedInjectionIsReported(t *testing.T) {
	rig.Run(t, rig.Options{})
	for _, tt := range targets {
		if strings.HasSuffix(tt.resource, "webhookconfigurations") {
			continue
		}
		t.Run(tt.resource, func(t *testing.T) {
			ns := cluster.Namespace(t)
			first, second := rig.NewCA(t, "first"), rig.NewCA(t, "second")
			secretWithCA(t, ns, "tls", "webhook", first)
			o := tt.object(t)
			o.SetAnnotations(map[string]string{cmapi.WantInjectAnnotation: ns + "/webhook"})
			cluster.Eventually(t, func() error { // that of another test goes
				err := rig.Admin(t).Get(t.Context(), client.ObjectKeyFromObject(o), o.DeepCopy())
				if apierrors.IsNotFound(err) {
					return nil
				}
				return cluster.NotYet("%s is there: %v", o.GetName(), err)
			})
			rig.Create(t, o)
			cluster.Eventually(t, func() error { return tt.has(t, o, first) })
			told := func() {
				t.Helper()
				cluster.Eventually(t, func() error {
					e := eventOf(t, o, corev1.EventTypeWarning)
					if e.Reason != "InjectionFailed" || !strings.Contains(e.Message, cluster.FrozenBecause) ||
						!strings.HasSuffix(e.Message, "It is tried again every 5 minutes") {
						return cluster.NotYet("the event is %s: %s", e.Reason, e.Message)
					}
					return nil
				})
			}
			end := cluster.Freeze(t, ns, o.GroupVersionKind().Group, tt.resource, admissionv1.Update)
			setCA(t, ns, "tls", second)
			told()
			end()
			rig.Patch(t, o.DeepCopy(), `{"metadata": {"annotations": {"test/now": "1"}}}`) // rather than wait for five minutes
			setCA(t, ns, "tls", second, first)
			cluster.Eventually(t, func() error { return tt.has(t, o, first, second) })
		})
	}
}

// eventOf waits for an event of the object.
func eventOf(t testing.TB, o *unstructured.Unstructured, eventType string) corev1.Event {
	t.Helper()
	var found corev1.Event
	cluster.Eventually(t, func() error {
		var events corev1.EventList
		if err := rig.Admin(t).List(t.Context(), &events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
			return err
		}
		i := slices.IndexFunc(
			events.Items,
			func(e corev1.Event) bool { return e.InvolvedObject.UID == o.GetUID() && e.Type == eventType },
		)
		if i < 0 {
			return cluster.ErrNotYet
		}
		found = events.Items[i]
		return nil
	})
	return found
}

func TestARestartWritesNothing(t *testing.T) {
	first := rig.NewCA(t, "first")
	ns := cluster.Namespace(t)
	secretWithCA(t, ns, "ca", "", first)
	o, other := targets[0].object(t), targets[1].object(t)
	for _, o := range []*unstructured.Unstructured{o, other} {
		o.SetAnnotations(map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/ca"})
		rig.Create(t, o)
	}
	running := rig.Run(t, rig.Options{})
	cluster.Eventually(t, func() error { return targets[0].has(t, o, first) })
	cluster.Eventually(t, func() error { return targets[1].has(t, other, first) })
	running.Stop()

	version := get(t, o).GetResourceVersion()
	rig.Patch(t, other.DeepCopy(), `{"metadata": {"annotations": {%q: null}}}`, cmapi.WantInjectFromSecretAnnotation)
	running = rig.Run(t, rig.Options{})
	cluster.Eventually(t, func() error {
		if managedFields(get(t, other)) != "" { // a removal while no controller ran is noticed
			return cluster.ErrNotYet
		}
		if passes := running.Passes(t, "cainjector"); passes < 2 {
			return cluster.NotYet("%d of 2 were looked at", passes)
		}
		return nil
	})
	if now := get(t, o).GetResourceVersion(); now != version {
		t.Error("it was written")
	}
}

func TestATargetThatIsTurnedOffIsLeftAlone(t *testing.T) {
	first := rig.NewCA(t, "first")
	ns := cluster.Namespace(t)
	secretWithCA(t, ns, "ca", "", first)
	on := inject.Targets()
	on = slices.DeleteFunc(on, func(t inject.Target) bool { return t.Resource == "mutatingwebhookconfigurations" })
	rig.Run(t, rig.Options{Targets: on})
	off, o := targets[0].object(t), targets[1].object(t)
	for _, o := range []*unstructured.Unstructured{off, o} { // the one that is turned off first
		o.SetAnnotations(map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/ca"})
		rig.Create(t, o)
	}
	cluster.Eventually(t, func() error { return targets[1].has(t, o, first) })
	if got := field(t, get(t, off).Object, targets[0].bundles[0]); len(got) > 0 {
		t.Errorf("the bundle is %s", rig.Names(got))
	}
}

// A user that manages a configuration by server-side apply can remove a webhook from it once the
// annotation is removed.
func TestWebhooksCanBeTakenOutByServerSideApply(t *testing.T) {
	rig.Run(t, rig.Options{})
	first := rig.NewCA(t, "first")
	ns := cluster.Namespace(t)
	secretWithCA(t, ns, "ca", "", first)
	apply := func(annotations map[string]string, n int64) (*unstructured.Unstructured, error) {
		o := targets[1].object(t)
		o.SetAnnotations(annotations)
		list, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
		_ = unstructured.SetNestedSlice(o.Object, list[:n], "webhooks")
		err := rig.Admin(t).Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("flux"))
		return o, err
	}
	o, err := apply(map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/ca"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rig.Admin(t).Delete(context.Background(), o) })
	cluster.Eventually(t, func() error { return targets[1].has(t, o, first) })
	if _, err := apply(nil, 2); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		_, err := apply(nil, 1)
		if apierrors.IsInvalid(err) {
			return cluster.NotYet("%v", err)
		}
		return err
	})
	list, _, err := unstructured.NestedSlice(get(t, o).Object, "webhooks")
	if err != nil || len(list) != 1 {
		t.Fatalf("has %d webhooks: %v", len(list), err)
	}
	if got := field(t, get(t, o).Object, "webhooks.0.clientConfig.caBundle"); !bytes.Equal(got, rig.PEM(first)) {
		t.Errorf("the bundle is %s", rig.Names(got))
	}
}

func TestForeignSecretsCauseNoPass(t *testing.T) {
	running := rig.Run(t, rig.Options{})
	first := rig.NewCA(t, "first")
	ns := cluster.Namespace(t)
	secretWithCA(t, ns, "ca", "", first)
	o := targets[0].object(t)
	o.SetAnnotations(map[string]string{cmapi.WantInjectFromSecretAnnotation: ns + "/ca"})
	rig.Create(t, o)
	cluster.Eventually(t, func() error { return targets[0].has(t, o, first) })
	second := rig.NewCA(t, "second")
	setCA(t, ns, "ca", second)
	cluster.Eventually(t, func() error { return targets[0].has(t, o, first, second) })
	passesOfOne := running.Passes(t, "cainjector")

	for i := range 100 {
		rig.Create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("foreign-%d", i)}})
	}
	third := rig.NewCA(t, "third")
	setCA(t, ns, "ca", third) // comes after them in the watch
	cluster.Eventually(t, func() error { return targets[0].has(t, o, first, second, third) })
	if passes := running.Passes(t, "cainjector") - passesOfOne; passes > 5 {
		t.Errorf("100 unrelated Secrets caused about %d passes", passes)
	}
}
