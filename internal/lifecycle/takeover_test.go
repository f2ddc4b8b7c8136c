package lifecycle

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/pki"
)

var issuerAnnotationKeys = []string{
	cmapi.IssuerNameAnnotationKey, cmapi.IssuerKindAnnotationKey, cmapi.IssuerGroupAnnotationKey,
}

func TestASecretThatWasNotIssuedForTheCertificateIsNotReady(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*scene)
		reason string
	}{
		"its annotations name no issuer": {func(s *scene) {
			for _, k := range issuerAnnotationKeys {
				delete(s.Secret.Annotations, k)
			}
		}, reasonIncorrectIssuer},
		"it holds a temporary certificate of cert-manager": {func(s *scene) {
			ca, own := s.newKey(), s.certificateFor(s.key)
			parent := &x509.Certificate{Subject: pkix.Name{CommonName: "cert-manager.local"}, IsCA: true}
			leaf, err := pki.Sign(rand.Reader, own, parent, s.key.Public(), ca)
			if err != nil {
				s.Fatal(err)
			}
			s.Secret.Data[corev1.TLSCertKey] = pki.EncodeCertificatePEM(leaf)
		}, reasonMissingData},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t).issued()
			test.change(s)
			d := Decide(s.after(time.Hour).Observation)
			ready := cmapi.GetCertificateCondition(&d.Status, cmapi.CertificateConditionReady)
			if d.Request == nil || ready.Status != "False" || ready.Reason != test.reason {
				t.Errorf("%s, Ready %s: %s", outcome(d), ready.Reason, ready.Message)
			}
		})
	}
}

// cert-manager writes kind and group of the issuer as the Certificate has them, empty ones too.
func TestAnnotationsThatNameTheIssuerInOtherWordsStay(t *testing.T) {
	for name, change := range map[string]func(map[string]string){
		"empty":   func(a map[string]string) { a[issuerAnnotationKeys[1]], a[issuerAnnotationKeys[2]] = "", "" },
		"missing": func(a map[string]string) { delete(a, issuerAnnotationKeys[1]); delete(a, issuerAnnotationKeys[2]) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t).issued()
			change(s.Secret.Annotations)
			cfg := &secretConfig{labels: s.Secret.Labels, annotations: s.Secret.Annotations, data: s.Secret.Data}
			s.Secret.ManagedFields = managedFields(cfg)
			if d := Decide(s.after(time.Hour).Observation); d.Apply != nil || d.Request != nil {
				t.Errorf("%s: want nothing done", outcome(d))
			}
		})
	}
}

func TestKeystoresAreEncodedAnewOnlyWhenTheirContentChanges(t *testing.T) {
	s := newScene(t)
	password := "changeit"
	s.Certificate.Spec.Keystores = &cmapi.CertificateKeystores{
		JKS:    &cmapi.JKSKeystore{Create: true, Password: &password},
		PKCS12: &cmapi.PKCS12Keystore{Create: true, Password: &password},
	}
	s.JKSPassword, s.PKCS12Password = Password{Value: password}, Password{Value: password}
	s.issued()
	before := s.Secret.Data
	for name, test := range map[string]struct {
		change  func()
		another bool
	}{
		"a label": {func() { delete(s.Secret.Labels, cmapi.PartOfCertManagerControllerLabelKey) }, false},
		"a label, and no digest": {func() {
			delete(s.Secret.Labels, cmapi.PartOfCertManagerControllerLabelKey)
			s.Certificate.Status.KeystoreDigest = ""
		}, false},
		"the password": {func() { s.JKSPassword.Value = "another" }, true},
		"the password, without digest": {
			func() { s.JKSPassword.Value = "a third"; s.Certificate.Status.KeystoreDigest = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			test.change()
			d := Decide(s.after(time.Hour).Observation)
			if d.Apply == nil {
				t.Fatalf("%s: want the Secret written", outcome(d))
			}
			s.carryOut(d)
			if same := bytes.Equal(before[cmapi.JKSSecretKey], s.Secret.Data[cmapi.JKSSecretKey]); same == test.another {
				t.Errorf("the same keystore: %t", same)
			}
			before = s.Secret.Data
			if d := Decide(s.after(time.Hour).Observation); d.Apply != nil {
				t.Error("the Secret is written once more")
			}
		})
	}
}

func TestADurationThatIsAddedEndsAWait(t *testing.T) {
	s := newScene(t)
	s.Certificate.Spec.Duration = nil
	s.requested().failed("Failed")
	s.carryOut(Decide(s.Observation))
	if d := Decide(s.after(time.Minute).Observation); d.Request != nil {
		t.Fatalf("%s: want a wait", outcome(d))
	}
	s.Certificate.Spec.Duration = duration(24 * time.Hour)
	if d := Decide(s.after(time.Minute).Observation); d.Request == nil || d.Request.Attempt != 1 {
		t.Errorf("%s: want a first attempt", outcome(d))
	}
}
