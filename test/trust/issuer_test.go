package trust_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

func TestAReplacedCAStaysUntilItsLastCertificateExpires(t *testing.T) {
	now := clocktesting.NewFakeClock(time.Now())
	ns, _ := sources(t, rig.Options{Clock: now})
	old, next := rig.NewCA(t, "old"), rig.NewCA(t, "next")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(old)})
	selected := namespace(t, "replaced")
	b := bundle(t, "replaced", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.KeepReplacedFor = &metav1.Duration{Duration: time.Hour}
	})
	soonHas(t, selected, "replaced", old)

	set(t, source, "ca.crt", rig.PEM(next))
	soonHas(t, selected, "replaced", next, old)
	status := soonStatus(
		t,
		b,
		condition(
			api.ConditionReady,
			metav1.ConditionTrue,
			"2 CA certificates in 1 namespace, 1 of them retained: see status.certificates",
		),
	)
	retained := status.Certificates[1].Retained
	if retained == nil || retained.Until.Sub(retained.Since.Time) != time.Hour ||
		!strings.Contains(retained.Reason, "spec.keepReplacedFor is 1h0m0s") {
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
		if !strings.Contains(c.Data["ca.crt"], string(rig.PEM(old))) ||
			!strings.Contains(c.Data["ca.crt"], string(rig.PEM(next))) {
			return cluster.NotYet("the bundle is %s", rig.Names(c.Data["ca.crt"]))
		}
		return nil
	})
	source = secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(next)})
	soonHas(t, selected, "replaced", next, old)

	// That time is over, but a certificate of the old CA is alive, in a Secret of this system.
	expiry := now.Now().Add(3 * time.Hour).Truncate(time.Second)
	rig.Create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ns,
			Name:      "leaf",
			Labels:    map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"},
		},
		Data: map[string][]byte{corev1.TLSCertKey: leafOf(t, old, expiry)},
	})
	now.Step(2 * time.Hour)
	touch := func(value string) {
		rig.Patch(t, source.DeepCopy(), `{"metadata": {"annotations": {"touched": %q}}}`, value)
	}
	touch("1")
	soonStatus(t, b, func(s *api.TrustBundleStatus) error {
		if len(s.Certificates) != 2 || s.Certificates[1].Retained.UsedBy != ns+"/leaf" ||
			!s.Certificates[1].Retained.Until.Time.Equal(expiry) {
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
	old, next := rig.NewCA(t, "old"), rig.NewCA(t, "next")
	source := secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(old)})
	selected := namespace(t, "leaves")
	bundle(t, "leaves", func(s *api.TrustBundleSpec) {
		s.Sources = fromSecret("ca")
		s.KeepReplacedFor = &metav1.Duration{Duration: 2 * time.Second}
	})
	soonHas(t, selected, "leaves", old)
	replaced := time.Now()
	set(t, source, "ca.crt", rig.PEM(next))
	soonHas(t, selected, "leaves", next)
	if kept := time.Since(replaced); kept < time.Second { // times are stored in whole seconds
		t.Errorf("it left after %s", kept)
	}
}

// The CA of an issuer is replaced: clients with the bundle trust the certificates of both CAs at
// all times.
func TestTheBundleOfAnIssuerHasBothCAsWhileOneReplacesTheOther(t *testing.T) {
	_, _ = sources(t, rig.Options{Certificates: true})
	ns := cluster.Namespace(t)
	admin := rig.Admin(t)
	rig.CAIssuer(t, ns, "server", cmapi.CertificateSpec{CommonName: "server", DNSNames: []string{"server"}})
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
	old := leaf()
	soon(t, func() error { return verifies(old) })
	rig.Renew(t, ns, "ca")
	soonStatus(t, b, func(s *api.TrustBundleStatus) error {
		if s.CertificateCount != 2 || s.RetainedCount != 0 {
			return cluster.NotYet("%d certificates, %d retained", s.CertificateCount, s.RetainedCount)
		}
		return nil
	})
	if err := verifies(old); err != nil {
		t.Errorf("a certificate of the replaced CA: %v", err)
	}
	rig.Renew(t, ns, "server")
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
