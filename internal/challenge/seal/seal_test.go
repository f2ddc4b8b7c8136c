package seal

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

const namespace = "cluster-resources"

func clientWith(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

func challenge() *cmacme.Challenge {
	ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a-1-1"}}
	ch.Spec.Type, ch.Spec.DNSName, ch.Spec.Key = cmacme.ACMEChallengeTypeDNS01, "a.example.com", "value"
	ch.Spec.IssuerRef = cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "shared"}
	ch.Spec.Solver.DNS01 = &cmacme.ACMEChallengeSolverDNS01{Webhook: &cmacme.ACMEIssuerDNS01ProviderWebhook{
		Config: &apiextensionsv1.JSON{Raw: []byte(`{"b": 1, "a": {"d": true, "c": 2}}`)}}}
	return ch
}

// sealed asks a process that has just started.
func sealed(t *testing.T, c client.Client, ch *cmacme.Challenge) bool {
	t.Helper()
	is, err := (&Sealer{Client: c, Namespace: namespace}).Sealed(t.Context(), ch)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestOnlyWhatTheControllerMadeIsSealed(t *testing.T) {
	c := clientWith(t)
	own := challenge()
	if err := (&Sealer{Client: c, Namespace: namespace}).Seal(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*cmacme.Challenge)
		sealed bool
	}{
		"it": {func(*cmacme.Challenge) {}, true},
		"it, as the API server writes it": {func(ch *cmacme.Challenge) {
			ch.Spec.Solver.DNS01.Webhook.Config.Raw = []byte(`{"a":{"c":2,"d":true},"b":1}`)
			ch.UID, ch.ResourceVersion, ch.Finalizers = "u", "1", []string{cmacme.ACMEDomainQualifiedFinalizer}
			ch.Status.Presented = true
		}, true},
		"without a seal":      {func(ch *cmacme.Challenge) { ch.Annotations = nil }, false},
		"a seal that is none": {func(ch *cmacme.Challenge) { ch.Annotations[Annotation] = "x" }, false},
		"another's seal": {func(ch *cmacme.Challenge) {
			other := &Sealer{Client: clientWith(t), Namespace: namespace}
			if err := other.Seal(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
		}, false},
		"copied to another name":      {func(ch *cmacme.Challenge) { ch.Name = "b" }, false},
		"copied to another namespace": {func(ch *cmacme.Challenge) { ch.Namespace = "evil" }, false},
		"for another name":            {func(ch *cmacme.Challenge) { ch.Spec.DNSName = "b.example.com" }, false},
		"for another value":           {func(ch *cmacme.Challenge) { ch.Spec.Key = "other" }, false},
		"of another issuer":           {func(ch *cmacme.Challenge) { ch.Spec.IssuerRef.Name = "other" }, false},
		"with another solver": {func(ch *cmacme.Challenge) {
			ch.Spec.Solver.DNS01.Webhook.Config.Raw = []byte(`{"a":{"c":2,"d":true},"b":2}`)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ch := own.DeepCopy()
			test.change(ch)
			if got := sealed(t, c, ch); got != test.sealed {
				t.Errorf("sealed: %t, want %t", got, test.sealed)
			}
		})
	}
}

func TestTheKeyOfTheSeals(t *testing.T) {
	own := challenge()
	c := clientWith(t)
	if sealed(t, c, own) {
		t.Error("it is sealed")
	}
	key := client.ObjectKey{Namespace: namespace, Name: SecretName}
	if err := c.Get(t.Context(), key, &corev1.Secret{}); err == nil {
		t.Error("a check made the key")
	}
	if err := (&Sealer{Client: c, Namespace: namespace}).Seal(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if sealed(t, c, own) {
		t.Error("the seal is valid without the key")
	}
	secret.ResourceVersion, secret.Data = "", map[string][]byte{"key": []byte("short")}
	if err := c.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	_, err := (&Sealer{Client: c, Namespace: namespace}).Sealed(t.Context(), own)
	if err == nil || !strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "short") {
		t.Errorf("a short key: %v", err)
	}
}

// TestAKeyThatCannotBeReadIsNotNamed checks errors that users of Challenges read.
func TestAKeyThatCannotBeReadIsNotNamed(t *testing.T) {
	refused := interceptor.NewClient(clientWith(t).(client.WithWatch), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return apierrors.NewForbidden(corev1.Resource("secrets"), SecretName, errors.New("the reads are frozen"))
		}})
	damaged := clientWith(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName}})
	for want, c := range map[string]client.Client{"the reads are frozen": refused, "damaged": damaged} {
		err := (&Sealer{Client: c, Namespace: namespace}).Seal(t.Context(), challenge())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), SecretName) ||
			strings.Contains(err.Error(), namespace) {
			t.Errorf("it says %v, want %q and no name", err, want)
		}
	}
}
