package lifecycle_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// world is the namespace of a test.
type world struct {
	testing.TB
	client.WithWatch
	namespace string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{TB: t, WithWatch: cluster.Admin(t), namespace: cluster.Namespace(t)}
}

// run runs a controller for this namespace only.
func (w *world) run(o controller.Options) *cluster.Controller {
	w.Helper()
	o.Namespace = w.namespace
	return cluster.Run(w, o)
}

func (w *world) create(objects ...client.Object) {
	w.Helper()
	for _, o := range objects {
		o.SetNamespace(w.namespace)
		if err := w.Create(w.Context(), o); err != nil {
			w.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// change changes an object like a user that edits it.
func change[T client.Object](w *world, o T, edit func(T)) {
	w.Helper()
	cluster.Eventually(w, func() error {
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: o.GetName()}, o); err != nil {
			return err
		}
		edit(o)
		return w.Update(w.Context(), o)
	})
}

// changeStatus changes the status of an object, as another controller would.
func changeStatus[T client.Object](w *world, o T, edit func(T)) {
	w.Helper()
	cluster.Eventually(w, func() error {
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: o.GetName()}, o); err != nil {
			return err
		}
		edit(o)
		return w.Status().Update(w.Context(), o)
	})
}

func named[T client.Object](o T, name string) T {
	o.SetName(name)
	return o
}

// caIssuer creates an Issuer of type ca with its own CA of the given lifetime, and returns the CA's
// certificate.
func (w *world) caIssuer(name string, valid time.Duration) *x509.Certificate {
	w.Helper()
	root := w.caSecret(name, valid)
	w.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: name}}},
		},
	)
	return root
}

// caSecret writes a new CA to the Secret.
func (w *world) caSecret(name string, valid time.Duration) *x509.Certificate {
	w.Helper()
	root, key := newCA(w, name, valid)
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		w.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}, Type: corev1.SecretTypeTLS}
	data := map[string][]byte{corev1.TLSCertKey: pki.EncodeCertificatePEM(root), corev1.TLSPrivateKeyKey: keyPEM}
	err = w.Get(w.Context(), client.ObjectKeyFromObject(secret), secret)
	secret.Data = data
	if err == nil {
		err = w.Update(w.Context(), secret)
	} else {
		err = w.Create(w.Context(), secret)
	}
	if err != nil {
		w.Fatal(err)
	}
	return root
}

// selfSigned creates an Issuer of type selfSigned.
func (w *world) selfSigned(name string) {
	w.Helper()
	w.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
}

// certificate returns a Certificate for a DNS name, with a key that is fast to generate.
func certificate(name, issuer string, edit ...func(*cmapi.Certificate)) *cmapi.Certificate {
	crt := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.CertificateSpec{
			DNSNames: []string{name + ".example.com"}, SecretName: name, IssuerRef: cmmeta.IssuerReference{Name: issuer},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
	for _, e := range edit {
		e(crt)
	}
	return crt
}

func (w *world) getCertificate(name string) *cmapi.Certificate {
	w.Helper()
	crt := &cmapi.Certificate{}
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, crt); err != nil {
		w.Fatal(err)
	}
	return crt
}

// until waits until check returns nil for the Certificate.
func (w *world) until(name string, check func(*cmapi.Certificate) error) *cmapi.Certificate {
	w.Helper()
	crt := &cmapi.Certificate{}
	cluster.Eventually(w, func() error {
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, crt); err != nil {
			return err
		}
		if err := check(crt); err != nil {
			return fmt.Errorf("Certificate %s: %w; its status: %+v", name, err, crt.Status)
		}
		return nil
	})
	return crt
}

// untilReady waits until the Certificate is Ready, with at least the given revision, and no
// issuance is running.
func (w *world) untilReady(name string, revision int) *cmapi.Certificate {
	w.Helper()
	return w.until(name, ready(revision))
}

func ready(revision int) func(*cmapi.Certificate) error {
	return func(crt *cmapi.Certificate) error {
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
		switch {
		case c == nil || c.Status != cmmeta.ConditionTrue || c.ObservedGeneration != crt.Generation:
			return cluster.NotYet("not Ready")
		case crt.Status.Revision == nil || *crt.Status.Revision < revision:
			return cluster.NotYet("not at revision %d", revision)
		case cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing) != nil:
			return cluster.NotYet("still issuing")
		}
		return nil
	}
}

// condition waits until the condition has the status and reason, and returns it.
func (w *world) condition(
	name string,
	t cmapi.CertificateConditionType,
	status cmmeta.ConditionStatus,
	reason string,
) *cmapi.CertificateCondition {
	w.Helper()
	crt := w.until(name, func(crt *cmapi.Certificate) error {
		c := cmapi.GetCertificateCondition(&crt.Status, t)
		if c == nil || c.Status != status || c.Reason != reason {
			return cluster.NotYet("%s is not %s for %s", t, status, reason)
		}
		return nil
	})
	return cmapi.GetCertificateCondition(&crt.Status, t)
}

func (w *world) secret(name string) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{}
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, secret); err != nil {
		w.Fatal(err)
	}
	return secret
}

// untilSecret waits until check returns nil for the Secret.
func (w *world) untilSecret(name string, check func(*corev1.Secret) error) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{}
	cluster.Eventually(w, func() error {
		if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, secret); err != nil {
			return err
		}
		return check(secret)
	})
	return secret
}

// leaf returns the certificate in the Secret, and fails unless it matches the private key.
func (w *world) leaf(secret *corev1.Secret) *x509.Certificate {
	w.Helper()
	key, err := pki.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		w.Fatalf("Secret %s: %v", secret.Name, err)
	}
	chain, err := pki.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		w.Fatalf("Secret %s: %v", secret.Name, err)
	}
	if !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
		w.Fatalf("Secret %s holds a private key and a certificate that do not belong together", secret.Name)
	}
	return chain[0]
}

func (w *world) requests() []cmapi.CertificateRequest {
	w.Helper()
	var list cmapi.CertificateRequestList
	if err := w.List(w.Context(), &list, client.InNamespace(w.namespace)); err != nil {
		w.Fatal(err)
	}
	return list.Items
}

// nextKeys returns the Secrets with private keys whose certificates are not issued yet.
func (w *world) nextKeys() []corev1.Secret {
	w.Helper()
	var list corev1.SecretList
	if err := w.List(
		w.Context(),
		&list,
		client.InNamespace(w.namespace),
		client.MatchingLabels{cmapi.IsNextPrivateKeySecretLabelKey: "true"},
	); err != nil {
		w.Fatal(err)
	}
	return list.Items
}

// renew requests a new certificate, like perennial renew.
func (w *world) renew(name string) {
	w.Helper()
	changeStatus(w, named(&cmapi.Certificate{}, name), func(crt *cmapi.Certificate) {
		cmapi.SetCertificateCondition(&crt.Status, time.Now(), cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "ManuallyTriggered",
			Message: "Certificate re-issuance manually triggered", ObservedGeneration: crt.Generation,
		})
	})
}

// untilEvent waits until there is an event about the object, and returns its message.
func (w *world) untilEvent(kind, name, reason string) string {
	w.Helper()
	message := ""
	cluster.Eventually(w, func() error {
		var list corev1.EventList
		if err := w.List(w.Context(), &list, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
				message = e.Message
				return nil
			}
		}
		return cluster.NotYet("no event %s about %s %s", reason, kind, name)
	})
	return message
}

// externalIssuer approves and signs requests to issuers of the group test.example.com, like the
// controller of another project, until the test ends.
func (w *world) externalIssuer() {
	w.Helper()
	root, key := newCA(w, "external", 24*time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	watcher, err := w.Watch(ctx, &cmapi.CertificateRequestList{}, client.InNamespace(w.namespace))
	if err != nil {
		cancel()
		w.Fatal(err)
	}
	done := make(chan struct{})
	w.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for e := range watcher.ResultChan() {
			cr, ok := e.Object.(*cmapi.CertificateRequest)
			if !ok || cr.Spec.IssuerRef.Group != "test.example.com" || len(cr.Status.Certificate) > 0 {
				continue
			}
			csr, err := pki.DecodeCSRPEM(cr.Spec.Request)
			if err != nil {
				w.Errorf("external issuer: %v", err)
				return
			}
			now := time.Now()
			template, err := pki.Template{NotBefore: now, NotAfter: now.Add(time.Hour)}.Certificate(csr)
			if err != nil {
				w.Errorf("external issuer: %v", err)
				return
			}
			leaf, err := pki.Sign(rand.Reader, template, root, csr.PublicKey, key)
			if err != nil {
				w.Errorf("external issuer: %v", err)
				return
			}
			cr.Status.Certificate, cr.Status.CA = pki.EncodeCertificatePEM(leaf), pki.EncodeCertificatePEM(root)
			cmapi.SetCertificateRequestCondition(
				&cr.Status,
				now,
				cmapi.CertificateRequestCondition{Type: "Approved", Status: "True", Reason: "test", Message: "approved"},
			)
			cmapi.SetCertificateRequestCondition(
				&cr.Status,
				now,
				cmapi.CertificateRequestCondition{Type: "Ready", Status: "True", Reason: "Issued", Message: "signed"},
			)
			_ = w.Status().Update(ctx, cr) // a conflict comes again as an event
		}
	}()
}

func clientKey(o client.Object) client.ObjectKey { return client.ObjectKeyFromObject(o) }

// newClock returns a clock that stands at the current time until it is stepped.
func newClock() *clocktesting.FakeClock { return clocktesting.NewFakeClock(time.Now()) }

// nudge triggers a reconciliation of the Certificate, because a stepped clock does not fire timers.
func (w *world) nudge(name string) {
	w.Helper()
	change(w, named(&cmapi.Certificate{}, name), func(crt *cmapi.Certificate) {
		if crt.Annotations == nil {
			crt.Annotations = map[string]string{}
		}
		crt.Annotations["nudged"] = time.Now().String()
	})
}
