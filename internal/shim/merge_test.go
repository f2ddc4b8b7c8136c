package shim

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// wantOne returns the Certificate that an Ingress asks for.
func wantOne(t *testing.T, o *networkingv1.Ingress) (*certificateSource, *cmapi.Certificate) {
	t.Helper()
	s := ofIngress(o)
	d := desiredBy(s, Settings{})
	if len(d.certificates) != 1 || len(d.mistakes) > 0 {
		t.Fatalf("got %+v", d)
	}
	return s, d.certificates[0]
}

// TestWhatTheUserHasSetStays edits a Certificate as a user does, and then the object.
func TestWhatTheUserHasSetStays(t *testing.T) {
	edit := func(c *cmapi.Certificate) {
		c.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true}}
		c.Spec.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: cmapi.CertificateOutputFormatDER}}
		c.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: map[string]string{"a": "b"}}
		c.Spec.Usages = []cmapi.KeyUsage{cmapi.UsageServerAuth}
		c.Spec.Subject = &cmapi.X509Subject{Countries: []string{"CH"}}
		c.Spec.RenewBeforePercentage = ptr.To(int32(40))
		c.Labels = set(c.Labels, "mine", "1")
		c.Annotations = set(c.Annotations, "mine", "1")
	}
	s, crt := wantOne(t, ingress(nil))
	edit(crt)
	_, again := wantOne(t, ingress(nil))
	if got := merge(crt, again, s); !equality.Semantic.DeepEqual(got, crt) {
		t.Errorf("got %+v, want %+v", got, crt)
	}
	// The annotations own the fields that they set, and no others.
	s, should := wantOne(t, ingress(map[string]string{"cert-manager.io/subject-organizations": "Example",
		"cert-manager.io/usages": "client auth"}))
	got := merge(crt, should, s)
	if !slices.Equal(got.Spec.Subject.Organizations, []string{"Example"}) || !slices.Equal(got.Spec.Subject.Countries,
		[]string{"CH"}) ||
		!slices.Equal(got.Spec.Usages, []cmapi.KeyUsage{cmapi.UsageClientAuth}) || got.Spec.Keystores == nil ||
		got.Spec.SecretTemplate == nil {
		t.Errorf("with annotations it is %+v", got.Spec)
	}
	// Without the annotations those fields are removed, and no others.
	s, should = wantOne(t, ingress(nil))
	got = merge(got, should, s)
	if len(got.Spec.Subject.Organizations) > 0 || !slices.Equal(got.Spec.Subject.Countries, []string{"CH"}) ||
		!slices.Equal(got.Spec.Usages, should.Spec.Usages) ||
		got.Spec.Keystores == nil || *got.Spec.RenewBeforePercentage != 40 {
		t.Errorf("without them it is %+v", got.Spec)
	}
}

func TestWhatAnAnnotationHasSetGoesWithIt(t *testing.T) {
	s, plain := wantOne(t, ingress(nil))
	for _, a := range setters {
		o := ingress(map[string]string{a.key: examples[a.key]})
		with, should := wantOne(t, o)
		got := merge(plain, should, with)
		if equality.Semantic.DeepEqual(got.Spec, plain.Spec) {
			t.Errorf("%s sets nothing", a.key)
		}
		_, again := wantOne(t, ingress(nil))
		if back := merge(got, again, s); !equality.Semantic.DeepEqual(back, plain) {
			t.Errorf("%s leaves %+v, want %+v", a.key, back, plain)
		}
	}
}

var examples = map[string]string{
	"cert-manager.io/common-name": "www.example.com", "cert-manager.io/alt-names": "a.example.com",
	"cert-manager.io/ip-sans":  "192.0.2.1",
	"cert-manager.io/uri-sans": "spiffe://a/b", "cert-manager.io/email-sans": "a@example.com",
	"cert-manager.io/subject-organizations":       "A",
	"cert-manager.io/subject-organizationalunits": "A", "cert-manager.io/subject-countries": "DE",
	"cert-manager.io/subject-provinces":  "A",
	"cert-manager.io/subject-localities": "A", "cert-manager.io/subject-postalcodes": "A",
	"cert-manager.io/subject-streetaddresses": "A",
	"cert-manager.io/subject-serialnumber":    "7", "cert-manager.io/duration": "240h",
	"cert-manager.io/renew-before":            "24h",
	"cert-manager.io/renew-before-percentage": "30", "cert-manager.io/usages": "server auth",
	"cert-manager.io/revision-history-limit": "3",
	"cert-manager.io/private-key-algorithm":  "ECDSA", "cert-manager.io/private-key-encoding": "PKCS8",
	"cert-manager.io/private-key-size":            "4096",
	"cert-manager.io/private-key-rotation-policy": "Never", "perennial.dev/acme-profile": "shortlived",
	"perennial.dev/deletion-policy":  "Delete",
	"perennial.dev/rehearsal-issuer": "ClusterIssuer/staging", "perennial.dev/revoke-on-delete": "true",
	"perennial.dev/revocation-reason": "superseded",
	"cert-manager.io/secret-template": `{"labels":{"a":"b"}}`,
}

// TestATakeOverChangesNothing starts with a Certificate as cert-manager's shim writes it.
func TestATakeOverChangesNothing(t *testing.T) {
	o := ingress(map[string]string{"cert-manager.io/alt-names": "WWW.example.com,Shop.example.com,10.0.0.1",
		"cert-manager.io/uri-sans": "spiffe://a/b"})
	o.Labels = map[string]string{"app.kubernetes.io/instance": "shop", "app": "shop"}
	s, should := wantOne(t, o)
	if _, found := should.Labels["app.kubernetes.io/instance"]; found || should.Labels["app"] != "shop" {
		t.Errorf("the labels are %v", should.Labels)
	}
	is := should.DeepCopy()
	is.Annotations = nil
	is.Labels = map[string]string{"app.kubernetes.io/instance": "shop", "app": "shop", "tier": "1"}
	is.Spec.DNSNames = []string{"www.example.com", "WWW.example.com", "Shop.example.com", "10.0.0.1"}
	is.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer"}
	is.Spec.URIs = nil
	is.Status.Revision = ptr.To(3)
	for name, test := range map[string]struct {
		issuing bool
		until   int
	}{"at rest": {false, 3}, "in the middle of an issuance": {true, 4}} {
		is := is.DeepCopy()
		if test.issuing {
			is.Status.Conditions = []cmapi.CertificateCondition{
				{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue}}
		}
		got := merge(is, should, s)
		if !slices.Equal(got.Spec.DNSNames, is.Spec.DNSNames) || got.Spec.IssuerRef != is.Spec.IssuerRef {
			t.Errorf("%s: the spec is %+v", name, got.Spec)
		}
		if _, found := got.Labels["app.kubernetes.io/instance"]; found || got.Labels["app"] != "shop" ||
			got.Labels["tier"] != "1" {
			t.Errorf("%s: the labels are %v", name, got.Labels)
		}
		d := signer.DeferralOf(got.Annotations)
		if len(got.Spec.URIs) != 1 || len(d.Now([]string{"spec.uris"}, test.until)) != 0 ||
			len(d.Now([]string{"spec.uris"}, test.until+1)) != 1 {
			t.Errorf("%s: the URIs are %v, deferred %+v", name, got.Spec.URIs, d)
		}
		got.Status = cmapi.CertificateStatus{Revision: ptr.To(9)}
		if again := merge(got, should, s); !equality.Semantic.DeepEqual(again, got) {
			t.Errorf("%s: the next pass makes %+v of %+v", name, again, got)
		}
	}
}

// passed are the annotations that a Certificate may get from its object.
var passed = []string{
	cmacme.ACMECertificateHTTP01IngressNameOverride,
	cmacme.ACMECertificateHTTP01IngressClassOverride,
	cmacme.ACMECertificateHTTP01IngressClassNameOverride,
	cmacme.ACMECertificateHTTP01ParentRefKind,
	cmacme.ACMECertificateHTTP01ParentRefName,
	cmacme.ACMECertificateHTTP01ParentRefNamespace,
	cmapi.IssueTemporaryCertificateAnnotation,
	cmapi.VenafiCustomFieldsAnnotationKey,
}

// TestWhatCertManagerLeftBehindDoesNotReissueAtATakeOver: cert-manager reads these annotations when
// it creates a Certificate, and does not compare them later.
func TestWhatCertManagerLeftBehindDoesNotReissueAtATakeOver(t *testing.T) {
	for key, field := range map[string]string{
		"cert-manager.io/usages":                      "spec.usages",
		"cert-manager.io/email-sans":                  "spec.emailAddresses",
		"cert-manager.io/ip-sans":                     "spec.ipAddresses",
		"cert-manager.io/subject-organizations":       "spec.subject.organizations",
		"cert-manager.io/subject-serialnumber":        "spec.subject.serialNumber",
		"cert-manager.io/uri-sans":                    "spec.uris",
		"cert-manager.io/subject-streetaddresses":     "spec.subject.streetAddresses",
		"perennial.dev/acme-profile":                  "spec.acmeProfile",
		"cert-manager.io/subject-postalcodes":         "spec.subject.postalCodes",
		"cert-manager.io/subject-localities":          "spec.subject.localities",
		"cert-manager.io/subject-provinces":           "spec.subject.provinces",
		"cert-manager.io/subject-countries":           "spec.subject.countries",
		"cert-manager.io/subject-organizationalunits": "spec.subject.organizationalUnits",
	} {
		_, is := wantOne(t, ingress(nil))
		is.Annotations, is.Status.Revision = nil, ptr.To(3)
		s, should := wantOne(t, ingress(map[string]string{key: examples[key]}))
		got := merge(is, should, s)
		d := signer.DeferralOf(got.Annotations)
		if equality.Semantic.DeepEqual(got.Spec, is.Spec) || len(d.Now([]string{field}, 3)) != 0 ||
			len(d.Now([]string{field}, 4)) != 1 {
			t.Errorf("%s: deferred %+v of %+v", key, d, got.Spec)
		}
		// What the user changes after the take-over applies at once.
		s, should = wantOne(t, ingress(nil))
		got = merge(got, should, s)
		if d := signer.DeferralOf(got.Annotations); len(d.Now([]string{field}, 3)) != 1 {
			t.Errorf("%s: a change after the take-over is deferred: %+v", key, d)
		}
	}
}

func TestAnnotationsThatTheUserHasSetOnACertificateStay(t *testing.T) {
	s, crt := wantOne(t, ingress(nil))
	for name, made := range map[string]bool{"made here": true, "made by cert-manager": false} {
		is := crt.DeepCopy()
		if !made {
			is.Annotations = map[string]string{}
		}
		for _, key := range passed {
			is.Annotations[key] = "mine"
		}
		_, should := wantOne(t, ingress(nil))
		got := merge(is, should, s)
		for _, key := range passed {
			if got.Annotations[key] != "mine" {
				t.Errorf("%s: %s is %q", name, key, got.Annotations[key])
			}
		}
	}
}

func TestAnnotationsThatTheObjectHasSetGoWithIt(t *testing.T) {
	settings := Settings{ExtraAnnotations: []string{"example.com/extra"}}
	o := ingress(map[string]string{"acme.cert-manager.io/http01-edit-in-place": "true", "example.com/extra": "1"})
	s := ofIngress(o)
	crt := desiredBy(s, settings).certificates[0]
	for name, annotations := range map[string]map[string]string{
		"made here":            crt.Annotations,
		"made by cert-manager": {"acme.cert-manager.io/http01-override-ingress-name": "www"},
	} {
		is := crt.DeepCopy()
		is.Annotations = annotations
		is = merge(is, crt, s)
		plain, should := wantOne(t, ingress(nil))
		got := merge(is, should, plain)
		for _, key := range slices.Concat(passed, settings.ExtraAnnotations) {
			if v, found := got.Annotations[key]; found {
				t.Errorf("%s: %s is still %q", name, key, v)
			}
		}
	}
}
