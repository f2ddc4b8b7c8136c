package lifecycle_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

func lives(d, before time.Duration) func(*cmapi.Certificate) {
	return func(crt *cmapi.Certificate) {
		crt.Spec.Duration = &metav1.Duration{Duration: d}
		if before > 0 {
			crt.Spec.RenewBefore = &metav1.Duration{Duration: before}
		}
	}
}

func TestAShortLivedCertificateIsRenewedInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", lives(time.Minute, 45*time.Second)))
	w.run(controller.Options{})
	first := w.untilReady("a", 1)
	before := w.leaf(w.secret("a"))
	if want := before.NotAfter.Add(-45 * time.Second); first.Status.RenewalTime.After(want) ||
		first.Status.RenewalTime.Time.Before(before.NotBefore) {
		t.Errorf("renewal at %s, want at most at %s and not before %s", first.Status.RenewalTime, want, before.NotBefore)
	}
	w.untilReady("a", 2)
	if after := w.leaf(w.secret("a")); !after.NotAfter.After(before.NotAfter) {
		t.Errorf("the renewed certificate ends at %s, the first at %s", after.NotAfter, before.NotAfter)
	}
}

func TestACertificateThatIsNotToBeRenewedExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", lives(time.Minute, 0), func(crt *cmapi.Certificate) {
		crt.Spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
	}))
	clock := newClock()
	w.run(controller.Options{Clock: clock})
	crt := w.untilReady("a", 1)
	if crt.Status.RenewalTime != nil {
		t.Errorf("renewal at %s, want never", crt.Status.RenewalTime)
	}
	clock.Step(2 * time.Minute)
	w.nudge("a")
	w.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "Expired")
	if n := *w.getCertificate("a").Status.Revision; n != 1 {
		t.Errorf("revision %d", n)
	}
}

func TestALeafEndsWithItsCAAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.caIssuer("ca", time.Hour)
	w.create(certificate("a", "ca", lives(24*time.Hour, 0)))
	w.run(controller.Options{})
	crt := w.untilReady("a", 1)
	if leaf := w.leaf(w.secret("a")); !leaf.NotAfter.Equal(root.NotAfter) {
		t.Errorf("the leaf ends at %s, its CA at %s", leaf.NotAfter, root.NotAfter)
	}
	if crt.Status.RenewalTime != nil {
		t.Errorf("it is to be renewed at %s, though that would not make it live longer", crt.Status.RenewalTime)
	}
	if c := cmapi.GetCertificateCondition(&crt.Status, "LifetimeCapped"); c == nil || c.Status != cmmeta.ConditionTrue {
		t.Errorf("no condition says that it is capped: %+v", crt.Status.Conditions)
	}
	w.untilEvent("Certificate", "a", "NotAfterCapped")
	// A new CA makes it live as long as was asked for.
	w.caSecret("ca", 365*24*time.Hour)
	clock := w.until("a", func(crt *cmapi.Certificate) error {
		if crt.Status.RenewalTime == nil {
			return cluster.NotYet("no renewal because of the new CA")
		}
		return nil
	})
	if in := time.Until(clock.Status.RenewalTime.Time); in > 10*time.Minute {
		t.Errorf("the leaf of the replaced CA is renewed only in %s", in)
	}
}

func TestAChangedCAReissuesItsLeavesAndBothAreTrustedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.caIssuer("ca", 24*time.Hour)
	for _, name := range []string{"a", "b", "c"} {
		w.create(certificate(name, "ca", lives(time.Minute, 15*time.Second)))
	}
	w.run(controller.Options{})
	for _, name := range []string{"a", "b", "c"} {
		w.untilReady(name, 1)
	}
	fresh := w.caSecret("ca", 48*time.Hour)
	for _, name := range []string{"a", "b", "c"} {
		w.untilSecret(name, func(s *corev1.Secret) error {
			cas, err := pki.DecodeBundlePEM(s.Data["ca.crt"])
			if err != nil {
				return err
			}
			if len(cas) != 2 {
				return cluster.NotYet("%s: ca.crt has %d certificates, want the old and the new CA", name, len(cas))
			}
			// A client that reads only the first trusts the server that shows this leaf.
			if !pki.SignedBy(w.leaf(s), cas[0]) {
				t.Errorf("%s: the first certificate of ca.crt is not that of the leaf's issuer", name)
			}
			return nil
		})
	}
	for _, name := range []string{"a", "b", "c"} {
		w.untilSecret(name, func(s *corev1.Secret) error {
			leaf := w.leaf(s)
			if !pki.SignedBy(leaf, fresh) {
				if !pki.SignedBy(leaf, old) {
					t.Errorf("%s was signed by neither CA", name)
				}
				return cluster.NotYet("%s is still of the old CA", name)
			}
			return nil
		})
	}
}

// TestAReplacedCAIsForgottenWithItsLastLeaf checks the issuer's status, which is the source of
// ca.crt.
func TestAReplacedCAIsForgottenWithItsLastLeaf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", lives(time.Hour, 0)))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	w.caSecret("ca", 48*time.Hour)
	issuer := named(&cmapi.Issuer{}, "ca")
	issuer.Namespace = w.namespace
	until := func(previous int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := w.Get(t.Context(), clientKey(issuer), issuer); err != nil {
				return err
			}
			if issuer.Status.CA == nil || len(issuer.Status.CA.Previous) != previous {
				return cluster.NotYet("status.ca %+v", issuer.Status.CA)
			}
			return nil
		})
	}
	until(1)
	w.renew("a")
	w.untilReady("a", 2)
	// The issuer looks once a minute; a change of its spec makes it look now.
	change(w, issuer, func(i *cmapi.Issuer) { i.Spec.CA.OCSPServers = []string{"http://ocsp.example.com"} })
	until(0)
	w.untilSecret("a", func(s *corev1.Secret) error {
		if cas, err := pki.DecodeBundlePEM(s.Data["ca.crt"]); err != nil || len(cas) != 1 {
			return cluster.NotYet("ca.crt has %d certificates, %v", len(cas), err)
		}
		return nil
	})
}

func TestARestartWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.selfSigned("self")
	w.create(certificate("a", "ca"), certificate("b", "self"))
	first := w.run(controller.Options{})
	w.untilReady("a", 1)
	w.untilReady("b", 1)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	versions := func() map[string]string {
		v := map[string]string{}
		for _, name := range []string{"a", "b"} {
			v["Certificate "+name], v["Secret "+name] = w.getCertificate(name).ResourceVersion, w.secret(name).ResourceVersion
		}
		return v
	}
	before := versions()
	w.run(controller.Options{})
	w.create(certificate("c", "ca")) // when it is ready, the others have been processed
	w.untilReady("c", 1)
	for what, version := range versions() {
		if before[what] != version {
			t.Errorf("%s was written", what)
		}
	}
}
