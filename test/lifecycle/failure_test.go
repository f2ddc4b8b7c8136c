package lifecycle_test

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
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
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

func (w *world) deny(request string) {
	w.Helper()
	changeStatus(w, named(&cmapi.CertificateRequest{}, request), func(cr *cmapi.CertificateRequest) {
		cmapi.SetCertificateRequestCondition(&cr.Status, cr.CreationTimestamp.Time, cmapi.CertificateRequestCondition{
			Type:    cmapi.CertificateRequestConditionDenied,
			Status:  cmmeta.ConditionTrue,
			Reason:  "Policy",
			Message: "not on a Friday",
		})
	})
}

func (w *world) untilRequest(name string) *cmapi.CertificateRequest {
	w.Helper()
	cr := &cmapi.CertificateRequest{}
	cluster.Eventually(
		w,
		func() error { return w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, cr) },
	)
	return cr
}

func TestAFailureIsCountedOnceAndWaitsUnlessSomethingChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"))
	w.run(controller.Options{Controllers: []string{"*", "-certificaterequests-approver"}})
	w.untilRequest("a-1")
	w.deny("a-1")
	c := w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "Denied")
	for _, want := range []string{
		"The certificate request has failed to complete and will be retried: The CertificateRequest was denied by an " +
			"approval controller: Policy: not on a Friday", "The next attempt is at ", "attempt 1", "perennial renew a -n " +
			w.namespace} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("the message %q does not say %q", c.Message, want)
		}
	}
	crt := w.getCertificate("a")
	if crt.Status.LastFailureTime == nil || *crt.Status.FailedIssuanceAttempts != 1 {
		t.Fatalf("status %+v, want one failed attempt", crt.Status)
	}
	cr := w.untilRequest("a-1")
	cluster.Eventually(t, func() error {
		cr = w.untilRequest("a-1")
		if c := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady); c == nil ||
			c.Reason != "Denied" ||
			!strings.Contains(c.Message, "Policy: not on a Friday") {
			return cluster.NotYet("the request says %+v", c)
		}
		return nil
	})
	// That the request is marked as denied, later than it was, is no other denial.
	w.nudge("a")
	if crt = w.getCertificate("a"); *crt.Status.FailedIssuanceAttempts != 1 {
		t.Errorf("%d attempts", *crt.Status.FailedIssuanceAttempts)
	}
	if message := w.untilEvent("Certificate", "a", "Denied"); !strings.Contains(message, "Policy: not on a Friday") {
		t.Errorf("the event says %q", message)
	}
	if keys := w.nextKeys(); len(keys) != 0 {
		t.Errorf("%d private keys are left after a failure", len(keys))
	}
	// A person requests another attempt: it starts at once, and fails again.
	failed := w.untilRequest("a-1").UID
	w.renew("a")
	cluster.Eventually(t, func() error {
		if w.untilRequest("a-1").UID == failed {
			return cluster.NotYet("the failed request is still there")
		}
		return nil
	})
	w.deny("a-1")
	w.until("a", func(crt *cmapi.Certificate) error {
		if n := crt.Status.FailedIssuanceAttempts; n == nil || *n != 2 {
			return cluster.NotYet("not two attempts")
		}
		return nil
	})
	// Another spec: the failure is forgotten.
	change(
		w,
		named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"b.example.com"} },
	)
	cluster.Eventually(t, func() error {
		cr := w.untilRequest("a-1")
		if cmapi.CertificateRequestIsDenied(&cr.Status) {
			return cluster.NotYet("the denied request is still there")
		}
		cr.Status.Conditions = append(
			cr.Status.Conditions,
			cmapi.CertificateRequestCondition{Type: "Approved", Status: "True", Reason: "test", Message: "yes"},
		)
		return w.Status().Update(t.Context(), cr)
	})
	crt = w.untilReady("a", 1)
	if crt.Status.FailedIssuanceAttempts != nil || crt.Status.LastFailureTime != nil {
		t.Errorf("after success the status still counts failures: %+v", crt.Status)
	}
}

func TestAnAnswerForAnotherKeyIsAskedForOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(controller.Options{})
	crt := certificate("a", "ca")
	crt.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "Stale", Group: "issuers.example.com"}
	w.create(crt)
	_, key := newCA(w, "a", time.Hour)
	template, err := pki.Template{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}.Certificate(
		&x509.CertificateRequest{
			PublicKey: key.Public(), DNSNames: []string{"a.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	stale, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	first := w.untilRequest("a-1")
	changeStatus(w, named(&cmapi.CertificateRequest{}, "a-1"), func(cr *cmapi.CertificateRequest) {
		cr.Status.Certificate = pki.EncodeCertificatePEM(stale)
		cmapi.SetCertificateRequestCondition(&cr.Status, time.Now(), cmapi.CertificateRequestCondition{Type: "Ready",
			Status: "True", Reason: "Issued"})
	})
	c := w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "KeyMismatch")
	for _, want := range []string{"it is for another private key than that of the request", "The next attempt is at "} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("the message %q does not say %q", c.Message, want)
		}
	}
	// The private key is removed with the failure. The next reconciliation creates no other request.
	cluster.Eventually(t, func() error {
		if n := len(w.nextKeys()); n > 0 {
			return cluster.NotYet("%d private keys are left", n)
		}
		return nil
	})
	change(w, named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Labels = map[string]string{"look": "again"} })
	change(w, named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.RevisionHistoryLimit = ptr.To(int32(3)) })
	w.until("a", func(crt *cmapi.Certificate) error {
		if c := cmapi.GetCertificateCondition(&crt.Status,
			cmapi.CertificateConditionIssuing); c.ObservedGeneration != crt.Generation {
			return cluster.NotYet("the change is not seen")
		}
		return nil
	})
	if is := w.untilRequest("a-1"); is.UID != first.UID {
		t.Error("another request was made")
	}
}

func TestAnotherIssuerEndsTheWaitAfterARefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"))
	w.run(controller.Options{Controllers: []string{"*", "-certificaterequests-approver"}})
	w.untilRequest("a-1")
	w.deny("a-1")
	w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "Denied")
	change(
		w,
		named(&cmapi.Issuer{}, "ca"),
		func(i *cmapi.Issuer) { i.Spec.CA.OCSPServers = []string{"http://ocsp.example.com"} },
	)
	cluster.Eventually(t, func() error {
		if cr := w.untilRequest("a-1"); cmapi.CertificateRequestIsDenied(&cr.Status) {
			return cluster.NotYet("the denied request is still there")
		}
		return nil
	})
}

func TestAMissingIssuerIsNamedAndFoundAsSoonAsItIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(certificate("a", "ca"))
	w.run(controller.Options{})
	says := func(want string) {
		t.Helper()
		w.until("a", func(crt *cmapi.Certificate) error {
			c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
			if c == nil || c.Status != cmmeta.ConditionTrue || !strings.Contains(c.Message, want) {
				return cluster.NotYet("the condition does not say %q", want)
			}
			return nil
		})
	}
	says(`there is no Issuer "ca" in namespace "` + w.namespace + `"; create it or correct spec.issuerRef`)
	w.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "ca"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}},
		},
	)
	says("Secret " + w.namespace + "/ca with the key pair of the CA, spec.ca.secretName, does not exist: create it")
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ca"}, Data: map[string][]byte{"tls.crt": []byte("x")}})
	says("it has no entry tls.key")
	w.caSecret("ca", time.Hour)
	w.untilReady("a", 1)
}

func TestWhatNoIssuerCouldSignIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.run(controller.Options{})
	for name, test := range map[string]struct {
		edit func(*cmapi.Certificate)
		says string
	}{
		"oid":      {func(crt *cmapi.Certificate) { crt.Spec.LiteralSubject = "CN=a,FLAVOUR=sweet" }, "spec.literalSubject"},
		"zone":     {windows("Mars/Olympus", "0 2 * * 6", time.Hour), "spec.renewal.windows[0].timezone"},
		"cron":     {windows("", "61 2 * * 6", time.Hour), "spec.renewal.windows[0].cron"},
		"neverday": {windows("", "0 0 30 2 *", time.Hour), "a date that never comes"},
		"names": {func(crt *cmapi.Certificate) {
			for n := range 1200 {
				crt.Spec.DNSNames = append(crt.Spec.DNSNames, fmt.Sprintf("host-%04d.names.example.com", n))
			}
		}, "with its 1201 names, and at most 36500 are read"},
		"large": {func(crt *cmapi.Certificate) {
			crt.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 8192}
			crt.Spec.Duration = &metav1.Duration{Duration: 30 * time.Minute}
		}, "an RSA key of 8192 bits takes long to generate"},
	} {
		w.create(certificate(name, "ca", test.edit))
		c := w.condition(name, cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "InvalidSpec")
		if !strings.Contains(c.Message, test.says) {
			t.Errorf("%s: the message %q does not name %s", name, c.Message, test.says)
		}
	}
	if n := len(w.requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	change(w, named(&cmapi.Certificate{}, "cron"), windows("", "1 2 * * 6", time.Hour))
	w.untilReady("cron", 1)
}

func windows(zone, cron string, length time.Duration) func(*cmapi.Certificate) {
	return func(crt *cmapi.Certificate) {
		crt.Spec.Renewal = &cmapi.CertificateRenewal{
			Policy: cmapi.CertificateRenewalPolicyRenewBefore,
			Windows: []cmapi.CertificateRenewalWindows{
				{Timezone: zone, Cron: cron, WindowDuration: &metav1.Duration{Duration: length}},
			},
		}
	}
}

func TestRequestsOfOlderRevisionsAreKeptAsManyAsTheHistoryWants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) { crt.Spec.RevisionHistoryLimit = ptr.To(int32(2)) }))
	w.run(controller.Options{})
	for revision := 1; revision <= 3; revision++ {
		w.untilReady("a", revision)
		if revision < 3 {
			w.renew("a")
		}
	}
	cluster.Eventually(t, func() error {
		names := map[string]bool{}
		for _, cr := range w.requests() {
			names[cr.Name] = true
		}
		if len(names) != 2 || !names["a-2"] || !names["a-3"] {
			return cluster.NotYet("there are %v, want a-2 and a-3", names)
		}
		return nil
	})
}

func TestARequestOfAnotherOwnerWithOurNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("b", "ca"))
	first := w.run(controller.Options{})
	w.untilReady("b", 1)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	foreign := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "a-1"}, Spec: cmapi.CertificateRequestSpec{
		IssuerRef: cmmeta.IssuerReference{Name: "none"}, Request: w.requests()[0].Spec.Request,
	}}
	w.create(foreign, certificate("a", "ca"))
	w.run(controller.Options{})
	c := w.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, "NameTaken")
	if !strings.Contains(c.Message, `CertificateRequest "a-1" exists`) {
		t.Errorf("message %q", c.Message)
	}
	if err := w.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	// It belongs to no Certificate, so that its end is not seen at once; any change is enough.
	change(
		w,
		named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"c.example.com"} },
	)
	w.untilReady("a", 1)
}

func TestACertificateThatIsMadeAnewUsesNoRequestOfTheOldOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.create(certificate("a", "ca"))
	w.run(controller.Options{})
	w.untilReady("a", 1)
	old := w.untilRequest("a-1").UID
	if err := w.Delete(
		t.Context(),
		w.getCertificate("a"),
		client.PropagationPolicy(metav1.DeletePropagationOrphan),
	); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), w.secret("a")); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		err := w.Create(
			t.Context(),
			func() *cmapi.Certificate { c := certificate("a", "ca"); c.Namespace = w.namespace; return c }(),
		)
		return err
	})
	w.untilReady("a", 1)
	if w.untilRequest("a-1").UID == old {
		t.Error("the request of the Certificate before is in use")
	}
	w.leaf(w.secret("a"))
}
