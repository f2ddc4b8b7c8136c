package lifecycle_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestWhatASecretLosesComesBackWithoutANewCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: "DER"}, {Type: "CombinedPEM"}}
		crt.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, Password: ptr.To("secret")}}
		crt.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{
			Labels:      map[string]string{"team": "a"},
			Annotations: map[string]string{"note": "x"},
		}
	}))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	serial := w.leaf(w.secret("a")).SerialNumber
	for name, harm := range map[string]struct {
		do   func(*corev1.Secret)
		well func(*corev1.Secret) bool
	}{
		"an output format":           {func(s *corev1.Secret) { delete(s.Data, "key.der") }, func(s *corev1.Secret) bool { return len(s.Data["key.der"]) > 0 }},
		"a changed output format":    {func(s *corev1.Secret) { s.Data["tls-combined.pem"] = []byte("x") }, func(s *corev1.Secret) bool { return len(s.Data["tls-combined.pem"]) > 1 }},
		"a keystore":                 {func(s *corev1.Secret) { delete(s.Data, "keystore.jks") }, func(s *corev1.Secret) bool { return len(s.Data["keystore.jks"]) > 0 }},
		"a label of the template":    {func(s *corev1.Secret) { delete(s.Labels, "team") }, func(s *corev1.Secret) bool { return s.Labels["team"] == "a" }},
		"an annotation of the names": {func(s *corev1.Secret) { s.Annotations["cert-manager.io/alt-names"] = "other" }, func(s *corev1.Secret) bool { return s.Annotations["cert-manager.io/alt-names"] == "a.example.com" }},
		"our own label":              {func(s *corev1.Secret) { delete(s.Labels, "controller.cert-manager.io/fao") }, func(s *corev1.Secret) bool { return s.Labels["controller.cert-manager.io/fao"] == "true" }},
		"ca.crt":                     {func(s *corev1.Secret) { delete(s.Data, "ca.crt") }, func(s *corev1.Secret) bool { return len(s.Data["ca.crt"]) > 0 }},
	} {
		change(w, named(&corev1.Secret{}, "a"), harm.do)
		secret := w.untilSecret("a", func(s *corev1.Secret) error {
			if !harm.well(s) {
				return cluster.NotYet("%s is not back", name)
			}
			return nil
		})
		if w.leaf(secret).SerialNumber.Cmp(serial) != 0 {
			t.Errorf("losing %s led to a new certificate", name)
		}
	}
}

func TestWhatOthersPutIntoTheSecretStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: map[string]string{"team": "a"}}
	}))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	change(w, named(&corev1.Secret{}, "a"), func(s *corev1.Secret) {
		s.Labels["theirs"], s.Data["theirs"] = "1", []byte("1")
	})
	change(w, named(&cmapi.Certificate{}, "a"), func(crt *cmapi.Certificate) {
		crt.Spec.SecretTemplate.Labels = map[string]string{"owner": "b"}
	})
	w.untilSecret("a", func(s *corev1.Secret) error {
		if _, old := s.Labels["team"]; old || s.Labels["owner"] != "b" {
			return cluster.NotYet("labels %v", s.Labels)
		}
		if s.Labels["theirs"] != "1" || string(s.Data["theirs"]) != "1" {
			t.Fatal("what others put there is gone")
		}
		return nil
	})
	w.renew("a")
	w.untilReady("a", 2)
	if s := w.secret("a"); string(s.Data["theirs"]) != "1" {
		t.Error("renewal removed what others put there")
	}
}

func TestALostSecretOrPairIsIssuedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"), certificate("b", "ca"))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	w.untilReady("b", 1)
	if err := w.Delete(t.Context(), w.secret("a")); err != nil {
		t.Fatal(err)
	}
	w.untilReady("a", 2)
	change(w, named(&corev1.Secret{}, "a"), func(s *corev1.Secret) { s.Data["tls.key"] = nil })
	w.untilReady("a", 3)
	// A pair that does not belong together.
	_, key := newCA(t, "other", time.Hour)
	other, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	change(w, named(&corev1.Secret{}, "b"), func(s *corev1.Secret) { s.Data["tls.key"] = other })
	w.untilReady("b", 2)
	w.leaf(w.secret("b"))
}

func TestARotationPolicyDecidesWhetherTheKeyStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(
		certificate(
			"keeps",
			"ca",
			func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever },
		),
		certificate("changes", "ca"),
	)
	w.run(controller.Options{})
	for name, stays := range map[string]bool{"keeps": true, "changes": false} {
		w.untilReady(name, 1)
		before := w.secret(name)
		w.renew(name)
		w.untilReady(name, 2)
		after := w.secret(name)
		if bytes.Equal(before.Data["tls.key"], after.Data["tls.key"]) != stays {
			t.Errorf("%s: the key stayed: %t", name, !stays)
		}
		if bytes.Equal(before.Data["tls.crt"], after.Data["tls.crt"]) {
			t.Errorf("%s: the certificate is the same", name)
		}
	}
	// A key that may not change, and does not fit any more.
	change(w, named(&cmapi.Certificate{}, "keeps"), func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.Size = 384 })
	c := w.condition("keeps", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "CannotRegenerateKey")
	if want := "rotationPolicy"; !bytes.Contains([]byte(c.Message), []byte(want)) {
		t.Errorf("the message %q does not speak of %s", c.Message, want)
	}
	change(
		w,
		named(&cmapi.Certificate{}, "keeps"),
		func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyAlways },
	)
	w.untilReady("keeps", 3)
	// A key that may not change, and is encrypted by its owner: openssl says what that looks like.
	out, err := exec.CommandContext(t.Context(), "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
		"ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:secret").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Data: map[string][]byte{"tls.key": out,
		"tls.crt": nil}, Type: corev1.SecretTypeTLS})
	w.create(certificate("mine", "ca",
		func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever }))
	c = w.condition("mine", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "CannotRegenerateKey")
	for _, want := range []string{`the private key in Secret "mine" cannot be read`, "Store it unencrypted",
		"delete the entry tls.key"} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("the message %q does not say %q", c.Message, want)
		}
	}
	if is := w.secret("mine"); !bytes.Equal(is.Data["tls.key"], out) {
		t.Error("the key was replaced")
	}
}

func TestKeystoresFollowTheirPasswordAliasAndProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		ref := cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "password"}, Key: "word"}
		crt.Spec.Keystores = &cmapi.CertificateKeystores{
			JKS:    &cmapi.JKSKeystore{Create: true, PasswordSecretRef: ref},
			PKCS12: &cmapi.PKCS12Keystore{Create: true, PasswordSecretRef: ref},
		}
	}))
	w.run(controller.Options{})
	w.until("a", func(crt *cmapi.Certificate) error {
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil ||
			!bytes.Contains(
				[]byte(c.Message),
				[]byte(`Secret "password" of spec.keystores.jks.passwordSecretRef does not exist`),
			) {
			return cluster.NotYet("no word about the password")
		}
		return nil
	})
	w.untilEvent("Certificate", "a", "KeystorePasswordSecretNotFound")
	w.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "password"}, Data: map[string][]byte{"word": []byte("first")}},
	)
	w.untilReady("a", 1)
	serial := w.leaf(w.secret("a")).SerialNumber

	check := func(password, alias string, profile pki.PKCS12Profile) {
		t.Helper()
		secret := w.untilSecret("a", func(s *corev1.Secret) error {
			return keystoresOpen(s, password, alias, profile)
		})
		if w.leaf(secret).SerialNumber.Cmp(serial) != 0 {
			t.Error("there is a new certificate, though only keystores changed")
		}
	}
	check("first", "", pki.LegacyRC2)
	change(w, named(&corev1.Secret{}, "password"), func(s *corev1.Secret) { s.Data["word"] = []byte("second") })
	check("second", "", pki.LegacyRC2)
	change(
		w,
		named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.Keystores.JKS.Alias = ptr.To("mine") },
	)
	check("second", "mine", pki.LegacyRC2)
	for _, profile := range []cmapi.PKCS12Profile{"LegacyDES", "Modern2023", "Modern2026"} {
		change(
			w,
			named(&cmapi.Certificate{}, "a"),
			func(crt *cmapi.Certificate) { crt.Spec.Keystores.PKCS12.Profile = profile },
		)
		check("second", "mine", pki.PKCS12Profile(profile))
	}
	change(w, named(&cmapi.Certificate{}, "a"), func(crt *cmapi.Certificate) { crt.Spec.Keystores.JKS.Create = false })
	w.untilSecret("a", func(s *corev1.Secret) error {
		if len(s.Data["keystore.jks"])+len(s.Data["truststore.jks"]) > 0 {
			return cluster.NotYet("the JKS keystore is still there")
		}
		return nil
	})
}

// keystoresOpen checks that the keystores of a Secret open with a password, and have its
// certificate.
func keystoresOpen(s *corev1.Secret, password, alias string, profile pki.PKCS12Profile) error {
	chain, err := pki.DecodeChainPEM(s.Data["tls.crt"])
	if err != nil {
		return err
	}
	cas, err := pki.DecodeBundlePEM(s.Data["ca.crt"])
	if err != nil {
		return err
	}
	jks := pki.JKSOptions{Password: password, Alias: alias}
	if err := pki.CheckJKS(s.Data["keystore.jks"], jks, chain[0]); err != nil {
		return fmt.Errorf("keystore.jks: %w", err)
	}
	if err := pki.CheckJKSTruststore(s.Data["truststore.jks"], jks, cas); err != nil {
		return fmt.Errorf("truststore.jks: %w", err)
	}
	if err := pki.CheckPKCS12(s.Data["keystore.p12"], password, chain[0]); err != nil {
		return fmt.Errorf("keystore.p12: %w", err)
	}
	if err := pki.CheckPKCS12Truststore(s.Data["truststore.p12"], password, cas); err != nil {
		return fmt.Errorf("truststore.p12: %w", err)
	}
	if is, err := pki.PKCS12ProfileOf(s.Data["keystore.p12"]); err != nil || is != profile {
		return fmt.Errorf("keystore.p12 has profile %s, %v", is, err)
	}
	return nil
}

func TestOfTwoCertificatesForOneSecretTheOlderHasIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	same := func(crt *cmapi.Certificate) { crt.Spec.SecretName = "shared" }
	w.create(certificate("a", "ca", same))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	w.create(certificate("b", "ca", same))
	c := w.condition("b", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "IncorrectCertificate")
	if want := `Secret was issued for "a". If this message is not transient, you might have two conflicting Certificates pointing to the same secret.`; !bytes.HasPrefix(
		[]byte(c.Message),
		[]byte(want),
	) {
		t.Errorf("message %q, want %q", c.Message, want)
	}
	if n := *w.getCertificate("a").Status.Revision; n != 1 || len(w.requests()) != 1 {
		t.Errorf("the two fight: revision %d, %d requests", n, len(w.requests()))
	}
	if err := w.Delete(t.Context(), w.getCertificate("a")); err != nil {
		t.Fatal(err)
	}
	w.untilReady("b", 1) // without a poll
	if got := w.leaf(w.secret("shared")).DNSNames[0]; got != "b.example.com" {
		t.Errorf("the Secret is for %s", got)
	}
}

func TestASecretGoesWithItsCertificateIfAskedTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"))
	first := w.run(controller.Options{})
	w.untilReady("a", 1)
	if refs := w.secret("a").OwnerReferences; len(refs) != 0 {
		t.Fatalf("owner references %v, want none", refs)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	w.run(controller.Options{Lifecycle: lifecycle.Settings{OwnSecrets: true}})
	w.untilSecret("a", func(s *corev1.Secret) error {
		if !metav1.IsControlledBy(s, w.getCertificate("a")) {
			return cluster.NotYet("no owner reference")
		}
		return nil
	})
	if err := w.Delete(t.Context(), w.getCertificate("a")); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		err := w.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "a"}, &corev1.Secret{})
		if err == nil {
			return cluster.NotYet("the Secret is still there")
		}
		return client.IgnoreNotFound(err)
	})
}

func TestATemporaryCertificateStandsInUntilTheIssuerAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Annotations = map[string]string{cmapi.IssueTemporaryCertificateAnnotation: "true"}
	}))
	w.run(controller.Options{})
	secret := w.untilSecret("a", func(*corev1.Secret) error { return nil })
	temporary := w.leaf(secret)
	if temporary.DNSNames[0] != "a.example.com" {
		t.Errorf("the stand-in is for %v", temporary.DNSNames)
	}
	w.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "MissingData")
	w.caIssuer("ca", 24*time.Hour)
	w.untilReady("a", 1)
	after := w.secret("a")
	if w.leaf(after).Issuer.CommonName != "ca" {
		t.Errorf("issued by %s", w.leaf(after).Issuer)
	}
	if !bytes.Equal(after.Data["tls.key"], secret.Data["tls.key"]) && len(w.nextKeys()) != 0 {
		t.Error("a private key is left over")
	}
	if len(after.Annotations["perennial.dev/temporary-certificate"]) != 0 {
		t.Error("it is still marked as temporary")
	}
}
