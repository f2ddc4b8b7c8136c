package lifecycle_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// kstatus returns the state of the object for tools that wait for it.
func (w *world) kstatus(o client.Object, kind schema.GroupVersionKind) string {
	w.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kind)
	if err := w.Get(w.Context(), client.ObjectKeyFromObject(o), u); err != nil {
		w.Fatal(err)
	}
	return cluster.Kstatus(u)
}

func (w *world) untilKstatus(name, want string) {
	w.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	cluster.Eventually(w, func() error {
		if is := w.kstatus(crt, cmapi.SchemeGroupVersion.WithKind("Certificate")); is != want {
			return cluster.NotYet("kstatus is %s, want %s: %+v", is, want, w.getCertificate(name).Status)
		}
		return nil
	})
}

// tooEarly watches the Certificates of the namespace. The returned function ends the watch, and
// returns the versions at which a tool would have continued before the certificate of that
// generation existed.
func (w *world) tooEarly() func() []string {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(cmapi.SchemeGroupVersion.WithKind("CertificateList"))
	watcher, err := w.Watch(ctx, list, client.InNamespace(w.namespace))
	if err != nil {
		w.Fatal(err)
	}
	var group sync.WaitGroup
	var found []string
	group.Go(func() {
		for e := range watcher.ResultChan() {
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok || cluster.Kstatus(u) != cluster.Current {
				continue
			}
			if revision, _, _ := unstructured.NestedInt64(u.Object, "status", "revision"); revision < u.GetGeneration() {
				found = append(found, fmt.Sprintf("generation %d: %v", u.GetGeneration(), u.Object["status"]))
			}
		}
	})
	return func() []string {
		cancel()
		watcher.Stop()
		group.Wait()
		return found
	}
}

func TestToolsThatWaitSeeThatACertificateIsInProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	end := w.tooEarly()
	w.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}}})
	w.create(certificate("a", "ca"))
	w.untilKstatus("a", cluster.InProgress) // before any controller
	w.run(controller.Options{})
	w.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "DoesNotExist")
	w.untilKstatus("a", cluster.InProgress)
	w.caSecret("ca", 24*time.Hour)
	w.untilKstatus("a", cluster.Current)
	for _, name := range []string{"b.example.com", "c.example.com"} {
		change(w, named(&cmapi.Certificate{}, "a"), func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{name} })
		w.untilKstatus("a", cluster.Current)
		if leaf := w.leaf(w.secret("a")); leaf.DNSNames[0] != name {
			t.Errorf("current with a certificate for %v, want %s", leaf.DNSNames, name)
		}
	}
	w.create(certificate("quick", "ca"))
	w.untilKstatus("quick", cluster.Current)
	w.leaf(w.secret("quick"))
	for _, early := range end() {
		t.Errorf("a tool would not have waited: %s", early)
	}
}

func TestToolsThatWaitEndWhenOnlyAPersonCanHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.caIssuer("ca", 24*time.Hour)
	w.run(controller.Options{Controllers: []string{"*", "-certificaterequests-approver"}})
	w.create(certificate("a", "ca"), certificate("invalid", "ca", windows("Mars/Olympus", "0 2 * * 6", time.Hour)))
	w.untilKstatus("invalid", cluster.Failed)
	w.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "DoesNotExist") // at once, as others approve
	w.untilKstatus("a", cluster.InProgress)
	w.deny("a-1")
	w.untilKstatus("a", cluster.Failed)
	change(w, named(&cmapi.Certificate{}, "a"),
		func(crt *cmapi.Certificate) { crt.Spec.DNSNames = []string{"b.example.com"} })
	cluster.Eventually(t, func() error {
		cr := w.untilRequest("a-1")
		if cmapi.CertificateRequestIsDenied(&cr.Status) {
			return cluster.NotYet("the denied request is still there")
		}
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: "Approved",
			Status: "True", Reason: "test", Message: "yes"})
		return w.Status().Update(t.Context(), cr)
	})
	w.untilKstatus("a", cluster.Current)
}

func TestObjectsWithoutAStatusAreInProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	meta := metav1.ObjectMeta{Name: "idle-" + w.namespace, Namespace: w.namespace}
	for kind, o := range map[string]client.Object{
		"Issuer": &cmapi.Issuer{ObjectMeta: meta,
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}},
		"ClusterIssuer": &cmapi.ClusterIssuer{ObjectMeta: meta,
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}},
		"Certificate": certificate(meta.Name, "a"),
	} {
		o.SetNamespace(w.namespace)
		if kind == "ClusterIssuer" {
			o.SetNamespace("")
		}
		if err := w.Create(w.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Delete(context.Background(), o) })
		if is := w.kstatus(o, cmapi.SchemeGroupVersion.WithKind(kind)); is != cluster.InProgress {
			t.Errorf("a %s without a controller is %s", kind, is)
		}
	}
}

func TestALeafIsRenewedWithItsCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.selfSigned("root")
	w.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}}})
	w.run(controller.Options{})
	w.create(certificate("ca", "root", func(crt *cmapi.Certificate) { crt.Spec.IsCA = true; crt.Spec.CommonName = "CA" }))
	ca := w.untilReady("ca", 1)
	w.create(certificate("a", "ca", func(crt *cmapi.Certificate) {
		crt.Spec.Duration, crt.Spec.RenewBefore = &metav1.Duration{Duration: 8760 * time.Hour},
			&metav1.Duration{Duration: 720 * time.Hour}
	}))
	crt := w.untilReady("a", 1)
	at := crt.Status.RenewalTime
	if at == nil || at.Time.Before(ca.Status.RenewalTime.Time) || !at.Time.Before(crt.Status.NotAfter.Time) {
		t.Errorf("renewalTime is %v, and the CA is renewed at %v", at, ca.Status.RenewalTime)
	}
	if c := cmapi.GetCertificateCondition(&crt.Status, "LifetimeCapped"); c != nil {
		t.Errorf("a person is asked to do what is done: %s", c.Message)
	}
	// From now on nothing renews the CA.
	if err := w.Delete(t.Context(), ca); err != nil {
		t.Fatal(err)
	}
	w.condition("a", "LifetimeCapped", cmmeta.ConditionTrue, "NotAfterCapped")
	if at := w.getCertificate("a").Status.RenewalTime; at != nil {
		t.Errorf("renewalTime is %v", at)
	}
}

// TestToolsThatWaitForAnIssuerEndWhenOnlyAPersonCanHelp uses issuers with wrong settings, and one
// whose Secret may still be created.
func TestToolsThatWaitForAnIssuerEndWhenOnlyAPersonCanHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := newClock()
	kind := cmapi.SchemeGroupVersion.WithKind("Issuer")
	until := func(name, want string) {
		t.Helper()
		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
		cluster.Eventually(t, func() error {
			if is := w.kstatus(issuer, kind); is != want {
				return cluster.NotYet("kstatus of %s is %s, want %s", name, is, want)
			}
			return nil
		})
	}
	ca := func(secret string) cmapi.IssuerSpec {
		return cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: secret}}}
	}
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "wrong"}, Data: map[string][]byte{"tls.crt": []byte("x")}},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "wrong"}, Spec: ca("wrong")},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "early"}, Spec: ca("late")})
	w.run(controller.Options{Clock: clock})
	until("wrong", cluster.Failed)
	w.issuerSays("early", cmmeta.ConditionFalse, "does not exist: create it")
	until("early", cluster.InProgress)
	w.caSecret("wrong", 24*time.Hour)
	until("wrong", cluster.Current)
	clock.Step(time.Minute)
	// the queue has its own clock
	change(
		w,
		named(&cmapi.Issuer{}, "early"),
		func(i *cmapi.Issuer) { i.Spec.CA.OCSPServers = []string{"http://ocsp.example.com"} },
	)
	until("early", cluster.Failed)
	w.caSecret("late", 24*time.Hour)
	until("early", cluster.Current)
}

// TestToolsThatWaitEndWhenTheKeystorePasswordStaysMissing uses a Certificate that cannot be stored
// without it.
func TestToolsThatWaitEndWhenTheKeystorePasswordStaysMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := newClock()
	w.caIssuer("ca", 24*time.Hour)
	w.run(controller.Options{Clock: clock})
	w.create(certificate("a", "ca", pkcs12("pw")))
	w.until("a", func(crt *cmapi.Certificate) error {
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil || !strings.Contains(c.Message, `Secret "pw" of spec.keystores.pkcs12.passwordSecretRef does not exist`) {
			return cluster.NotYet("it does not say that the password is missing")
		}
		return nil
	})
	w.untilKstatus("a", cluster.InProgress)
	clock.Step(time.Minute + time.Second)
	w.nudge("a")
	w.untilKstatus("a", cluster.Failed)
	if s := stalled(w.getCertificate("a")); !strings.Contains(s.Message, "create it with an entry") {
		t.Errorf("Stalled says %q", s.Message)
	}
	w.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pw"}, StringData: map[string]string{"password": "changeit"}},
	)
	w.untilReady("a", 1)
	w.untilKstatus("a", cluster.Current)
	// So it is with another keystore of a certificate that is there.
	change(w, named(&cmapi.Certificate{}, "a"), func(crt *cmapi.Certificate) {
		crt.Spec.Keystores.JKS = &cmapi.JKSKeystore{Create: true, PasswordSecretRef: cmmeta.SecretKeySelector{
			LocalObjectReference: cmmeta.LocalObjectReference{Name: "other"}, Key: "password"}}
	})
	w.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "KeystorePasswordSecretNotFound")
	w.untilKstatus("a", cluster.InProgress)
	clock.Step(time.Minute + time.Second)
	w.nudge("a")
	w.untilKstatus("a", cluster.Failed)
}
