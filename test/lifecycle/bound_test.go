package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// overwrite writes a pair to the Secret whenever the Secret holds another one, like a tool that
// syncs Secrets.
func (w *world) overwrite(name, manager string, pair map[string][]byte) {
	w.Helper()
	cluster.Eventually(w, func() error {
		secret := &corev1.Secret{}
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, secret); err != nil {
			return err
		}
		if string(secret.Data["tls.crt"]) == string(pair["tls.crt"]) {
			return cluster.NotYet("it is not issued again")
		}
		was := secret.DeepCopy()
		secret.Data["tls.crt"], secret.Data["tls.key"] = pair["tls.crt"], pair["tls.key"]
		return w.Patch(w.Context(), secret, client.MergeFrom(was), client.FieldOwner(manager))
	})
}

func (w *world) delayed(name string, words ...string) *cmapi.CertificateCondition {
	w.Helper()
	c := w.condition(name, cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "ReissueDelayed")
	for _, want := range words {
		if !strings.Contains(c.Message, want) {
			w.Errorf("the message %q does not say %q", c.Message, want)
		}
	}
	return c
}

func TestAToolThatOverwritesASecretIsNotFoughtWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"))
	running := w.run(controller.Options{})
	w.untilReady("a", 1)
	foreign, key := newCA(w, "vault", time.Hour)
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	pair := map[string][]byte{"tls.crt": pki.EncodeCertificatePEM(foreign), "tls.key": keyPEM}
	w.overwrite("a", "vault-sync", pair)
	w.overwrite("a", "vault-sync", pair)
	w.delayed("a", `the field manager "vault-sync"`, `changes Secret "a"`, "issued before its renewal time once",
		"set another spec.secretName")
	if crt := w.getCertificate("a"); *crt.Status.Revision != 2 {
		t.Errorf("it is at revision %d, want 2", *crt.Status.Revision)
	}
	cluster.Eventually(t, func() error {
		var events corev1.EventList
		if err := w.List(t.Context(), &events, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "ReissueDelayed" && e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "vault-sync") {
				return nil
			}
		}
		return cluster.NotYet("no event says so")
	})
	if is := w.secret("a"); string(is.Data["tls.crt"]) != string(pair["tls.crt"]) ||
		is.Labels["controller.cert-manager.io/fao"] == "" {
		t.Errorf("the Secret was changed")
	}

	// Neither another process nor another Certificate of the name begins anew.
	running.Stop()
	w.run(controller.Options{})
	change(w, named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"b.example.com"} })
	w.until("a", func(crt *cmapi.Certificate) error {
		if crt.Status.Revision == nil || *crt.Status.Revision != 3 {
			return cluster.NotYet("the changed spec is not issued") // the second that counts, at once
		}
		return nil
	})
	old := w.getCertificate("a")
	if err := w.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		err := w.Get(t.Context(), client.ObjectKeyFromObject(old), &cmapi.Certificate{})
		if client.IgnoreNotFound(err) == nil && err != nil {
			return nil
		}
		return cluster.NotYet("it is there")
	})
	if err := w.Delete(t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	w.create(certificate("a", "ca"))
	w.untilReady("a", 1) // the second edit in an hour
	if err := w.Delete(t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	w.delayed("a", "issued before its renewal time 3 times", "was deleted each time")
}

func TestACertificateIsNotRenewedInTheFirstTenthOfItsLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.Duration, crt.Spec.RenewBefore = &metav1.Duration{Duration: time.Hour},
			&metav1.Duration{Duration: time.Hour - time.Second}
	}))
	w.run(controller.Options{})
	crt := w.untilReady("a", 1)
	life := crt.Status.NotAfter.Sub(crt.Status.NotBefore.Time)
	if used := crt.Status.RenewalTime.Sub(crt.Status.NotBefore.Time); used < life/10 {
		t.Errorf("it is renewed after %s of %s", used, life)
	}
	c := w.condition("a", "RenewBeforeCapped", cmmeta.ConditionTrue, "RenewBeforeCapped")
	if want := "spec.renewBefore 59m59s asks for renewal before a tenth"; !strings.Contains(c.Message, want) {
		t.Errorf("the message %q does not say %q", c.Message, want)
	}
}
