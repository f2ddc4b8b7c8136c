package inject

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

func TestWanted(t *testing.T) {
	const (
		fromCertificate = cmapi.WantInjectAnnotation
		fromSecret      = cmapi.WantInjectFromSecretAnnotation
		fromAPIServer   = cmapi.WantInjectAPIServerCAAnnotation
	)
	name := types.NamespacedName{Namespace: "default", Name: "webhook.tls"}
	for _, test := range []struct {
		name        string
		annotations map[string]string
		want        source
		err         string // contained in the error
	}{
		{name: "no annotation is nothing", annotations: map[string]string{"cert-manager.io/inject": "a/b"}},
		{name: "a certificate", annotations: map[string]string{fromCertificate: "default/webhook.tls"}, want: source{fromCertificate, name}},
		{name: "a secret", annotations: map[string]string{fromSecret: "default/webhook.tls"}, want: source{fromSecret, name}},
		{name: "the API server", annotations: map[string]string{fromAPIServer: "true"}, want: source{annotation: fromAPIServer}},
		{name: "not the API server", annotations: map[string]string{fromAPIServer: "false"}},
		{name: "another word for the API server is a mistake", annotations: map[string]string{fromAPIServer: "yes"},
			err: `annotation cert-manager.io/inject-apiserver-ca is "yes": it can be "true" or "false"`},
		{name: "a name without namespace is a mistake", annotations: map[string]string{fromCertificate: "webhook"},
			err: `annotation cert-manager.io/inject-ca-from is "webhook": write it as namespace/name`},
		{name: "an empty value is a mistake", annotations: map[string]string{fromSecret: ""}, err: `is "": write it as namespace/name`},
		{name: "an empty namespace is a mistake", annotations: map[string]string{fromSecret: "/a"}, err: "write it as namespace/name"},
		{name: "an empty name is a mistake", annotations: map[string]string{fromSecret: "a/"}, err: "write it as namespace/name"},
		{name: "two slashes are a mistake", annotations: map[string]string{fromSecret: "a/b/c"}, err: "write it as namespace/name"},
		{name: "capitals are a mistake", annotations: map[string]string{fromCertificate: "Default/webhook"}, err: "write it as namespace/name"},
		{name: "of two the Secret is followed, and it is said", annotations: map[string]string{
			fromCertificate: "a/b", fromSecret: "default/webhook.tls",
		},
			want: source{fromSecret, name}, err: "of several annotations cert-manager.io/inject-ca-from-secret is " +
				"followed; remove it or cert-manager.io/inject-ca-from"},
		{name: "the Certificate goes before the API server", annotations: map[string]string{
			fromCertificate: "default/webhook.tls", fromAPIServer: "true",
		},
			want: source{fromCertificate, name}, err: "remove it or cert-manager.io/inject-apiserver-ca"},
		{name: "an API server that is turned off is no second one", annotations: map[string]string{
			fromCertificate: "default/webhook.tls", fromAPIServer: "false",
		},
			want: source{fromCertificate, name}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := sourceOf(test.annotations)
			if got != test.want {
				t.Errorf("got %v, expected %v", got, test.want)
			}
			switch {
			case test.err == "" && err != nil:
				t.Error(err)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("got error %v, expected one with: %s", err, test.err)
			case err != nil && fault.Of(err).Class != fault.Misconfigured:
				t.Errorf("class %s: it would be retried without end", fault.Of(err).Class)
			}
		})
	}
}

func FuzzWanted(f *testing.F) {
	f.Add("default/webhook", "", "true")
	f.Add("a/b/c", "kube-system/ca.example", "false")
	f.Add("\x00/ü", "/", "")
	f.Fuzz(func(t *testing.T, certificate, secret, apiServer string) {
		s, err := sourceOf(map[string]string{
			cmapi.WantInjectAnnotation:            certificate,
			cmapi.WantInjectFromSecretAnnotation:  secret,
			cmapi.WantInjectAPIServerCAAnnotation: apiServer,
		})
		if err != nil && len(err.Error()) > 4096 {
			t.Errorf("the message has %d characters", len(err.Error()))
		}
		if s.none() {
			if err == nil {
				t.Error("annotations without effect and without a word")
			}
			return
		}
		// The annotation for a Secret takes precedence.
		if s.annotation != cmapi.WantInjectFromSecretAnnotation || s.name.String() != secret {
			t.Errorf("%q was read as %v", secret, s)
		}
	})
}

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// newCA makes a CA that is valid for some days, counted from start.
func newCA(t testing.TB, name string, from, to int) *x509.Certificate {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.SelfSign(rand.Reader, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: start.AddDate(0, 0, from), NotAfter: start.AddDate(0, 0, to),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestMerge(t *testing.T) {
	old, current, next := newCA(t, "old", -20, 5), newCA(t, "current", -10, 10), newCA(t, "next", 0, 30)
	expired := newCA(t, "expired", -20, -1)
	var many []*x509.Certificate
	for i := range maxFormer + 3 {
		many = append(many, newCA(t, "many", -100+i, 100))
	}
	var newest []*x509.Certificate
	for i := range maxFormer {
		newest = append(newest, many[len(many)-maxFormer+i])
	}
	list := func(certs ...*x509.Certificate) []*x509.Certificate { return certs }
	for _, test := range []struct {
		name    string
		current []byte
		source  []*x509.Certificate
		want    []*x509.Certificate // nil: nothing
		expiry  *x509.Certificate   // the one that expires first
	}{
		{name: "an empty bundle gets the source", source: list(current), want: list(current), expiry: current},
		{name: "a bundle that is not PEM gets the source", current: []byte("\n"), source: list(current), want: list(current), expiry: current},
		{name: "new CAs go behind the old one, which stays first", current: pki.EncodeCertificatePEM(old),
			source: list(next, current), want: list(old, next, current), expiry: old},
		{name: "one that the source still has keeps its place", current: pki.EncodeCertificatePEM(current, old),
			source: list(next, current), want: list(current, old, next), expiry: old},
		{name: "an expired CA of the bundle goes", current: pki.EncodeCertificatePEM(expired, current), source: list(current), want: list(current), expiry: current},
		{name: "an expired CA of the source is left out", source: list(expired, next), want: list(next), expiry: next},
		{name: "a source whose CAs have all expired is nothing", current: pki.EncodeCertificatePEM(current), source: list(expired)},
		{name: "twice the same is once", current: pki.EncodeCertificatePEM(current, current), source: list(current, current), want: list(current), expiry: current},
		{name: "twice the same does not hide that another is missing", current: pki.EncodeCertificatePEM(current, current), source: list(current, next), want: list(current, next), expiry: current},
		{name: "another order is left as it is", current: pki.EncodeCertificatePEM(current, next), source: list(next, current), want: list(current, next), expiry: current},
		{name: "of many former ones the latest stay", current: pki.EncodeCertificatePEM(many...), source: list(next),
			want: append(newest, next), expiry: next},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, expiry := merge(test.current, test.source, pki.Limits{}, start)
			if test.want == nil {
				if got != nil {
					t.Errorf("got %d bytes, expected none", len(got))
				}
				return
			}
			if want := pki.EncodeCertificatePEM(test.want...); !bytes.Equal(got, want) {
				t.Errorf("got:\n%s\nexpected:\n%s", describe(t, got), describe(t, want))
			}
			if !expiry.Equal(test.expiry.NotAfter) {
				t.Errorf(
					"to be looked at again at %s, expected %s, when %q expires",
					expiry,
					test.expiry.NotAfter,
					test.expiry.Subject.CommonName,
				)
			}
			again, _ := merge(got, test.source, pki.Limits{}, start)
			if !bytes.Equal(again, got) {
				t.Errorf("the next pass makes something else of it:\n%s", describe(t, again))
			}
		})
	}
}

func describe(t *testing.T, bundle []byte) string {
	t.Helper()
	certs, err := pki.DecodeBundlePEM(bundle)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, cert := range certs {
		names = append(names, cert.Subject.CommonName+" since "+cert.NotBefore.Format(time.DateOnly))
	}
	return strings.Join(names, "\n")
}

func FuzzMerge(f *testing.F) {
	ca := newCA(f, "ca", -1, 10)
	f.Add([]byte(""))
	f.Add([]byte("\n"))
	f.Add(pki.EncodeCertificatePEM(ca))
	f.Add(append(pki.EncodeCertificatePEM(newCA(f, "old", -1, 5), newCA(f, "expired", -9, -1)), "rest"...))
	f.Fuzz(func(t *testing.T, current []byte) {
		got, expiry := merge(current, []*x509.Certificate{ca}, pki.Limits{}, start)
		certs, err := pki.DecodeBundlePEM(got)
		if err != nil {
			t.Fatalf("the bundle cannot be read: %v", err)
		}
		if !slices.ContainsFunc(certs, ca.Equal) || len(certs) > 1+maxFormer {
			t.Errorf("the bundle holds %d certificates", len(certs))
		}
		if !expiry.After(start) {
			t.Errorf("to be looked at again at %s, which is past", expiry)
		}
		if again, _ := merge(got, []*x509.Certificate{ca}, pki.Limits{}, start); !bytes.Equal(again, got) {
			t.Error("the next pass makes something else of it")
		}
	})
}

func TestTargets(t *testing.T) {
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	object := func(path string, value any) map[string]any {
		keys := strings.Split(path, ".")
		for i := len(keys) - 1; i >= 0; i-- {
			value = map[string]any{keys[i]: value}
		}
		return value.(map[string]any)
	}
	for _, test := range []struct {
		name     string
		resource string
		object   map[string]any
		want     []bundle
		err      string // contained in the error
		apply    map[string]any
	}{
		{
			name: "each webhook has its bundle", resource: "validatingwebhookconfigurations",
			object: map[string]any{"webhooks": []any{
				map[string]any{"name": "one", "clientConfig": map[string]any{"url": "https://one", "caBundle": encoded("1")}},
				map[string]any{"name": "two", "clientConfig": map[string]any{"url": "https://two"}},
			}},
			want: []bundle{{"one", []byte("1")}, {"two", []byte{}}},
			apply: map[string]any{"webhooks": []any{
				map[string]any{"name": "one", "clientConfig": map[string]any{"caBundle": encoded("1")}},
				map[string]any{"name": "two", "clientConfig": map[string]any{"caBundle": ""}},
			}},
		},
		{name: "a configuration without webhooks has none", resource: "mutatingwebhookconfigurations", object: map[string]any{}, err: "webhooks is empty"},
		{
			name: "a conversion webhook has one", resource: "customresourcedefinitions",
			object: object(
				"spec.conversion",
				map[string]any{"strategy": "Webhook", "webhook": object("clientConfig.caBundle", encoded("c"))},
			),
			want:  []bundle{{"", []byte("c")}},
			apply: object("spec.conversion.webhook.clientConfig.caBundle", encoded("c")),
		},
		{name: "a CRD that is not converted has none", resource: "customresourcedefinitions", object: object(
			"spec.conversion.strategy", "None",
		),
			err: "spec.conversion.strategy is not Webhook"},
		{name: "an APIService has one", resource: "apiservices",
			object: object("spec.service.name", "a"), want: []bundle{{"", []byte{}}}, apply: object("spec.caBundle", "")},
		{name: "an APIService of the API server itself has none", resource: "apiservices", object: object("spec.version", "v1"), err: "spec.service is not set"},
		{name: "an APIService without verification has none", resource: "apiservices",
			object: object(
				"spec", map[string]any{"service": map[string]any{"name": "a"}, "insecureSkipTLSVerify": true},
			), err: "spec.insecureSkipTLSVerify is true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			targets := Targets()
			i := slices.IndexFunc(targets, func(t Target) bool { return t.Resource == test.resource })
			got, err := targets[i].bundles(test.object)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || fault.Of(err).Class != fault.Misconfigured {
					t.Errorf("got error %v, expected one with: %s", err, test.err)
				}
				return
			}
			if err != nil || !same(got, test.want) {
				t.Fatalf("got %v and error %v, expected %v", got, err, test.want)
			}
			if apply := targets[i].apply(got); !reflect.DeepEqual(apply, test.apply) {
				t.Errorf("applies %v, expected %v", apply, test.apply)
			}
		})
	}
}

func TestTheCacheKeepsOnlyWhatIsLookedAt(t *testing.T) {
	in := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "a",
		Annotations: map[string]string{
			"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("x", 1000),
			cmapi.WantInjectAnnotation:                         "a/b",
		},
		Labels: map[string]string{"app": "a"},
		ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1("{}")},
			{Manager: FieldManager, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1("{}")},
		},
	}}
	want := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name:          "a",
		Annotations:   map[string]string{cmapi.WantInjectAnnotation: "a/b"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: FieldManager, Operation: metav1.ManagedFieldsOperationApply}},
	}}
	got, err := strip(in)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v and error %v, expected %v", got, err, want)
	}
}
