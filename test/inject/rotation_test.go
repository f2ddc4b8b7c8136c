package inject_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

// webhookServer is an admission webhook that allows everything. Each connection is used for one
// call, so that the certificate is verified anew each time.
func webhookServer(t *testing.T, certificate func() *tls.Certificate, served func()) (url string) {
	t.Helper()
	listener, err := tls.Listen(
		"tcp",
		"127.0.0.1:0",
		&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := certificate(); c != nil {
				return c, nil
			}
			return nil, errors.New("there is no certificate yet")
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var review admissionv1.AdmissionReview
			if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&review); err != nil || review.Request == nil {
				http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
				return
			}
			served()
			review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
			_ = json.NewEncoder(w).Encode(review)
		}),
	}
	s.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(listener) // ends with Close
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "https://" + listener.Addr().String()
}

func secretOf(t *testing.T, namespace, name string) (*corev1.Secret, error) {
	t.Helper()
	secret := &corev1.Secret{}
	return secret, rig.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, secret)
}

// A CA, and then the certificate of a webhook, are replaced while the API server continuously calls
// the webhook.
func TestNoCallFailsWhileTheCAOfAWebhookIsReplaced(t *testing.T) {
	rig.Run(t, rig.Options{Certificates: true})
	ns := cluster.Namespace(t)
	admin := rig.Admin(t)
	rig.CAIssuer(t, ns, "webhook", cmapi.CertificateSpec{IPAddresses: []string{"127.0.0.1"}})

	// The server loads its certificate whenever its Secret changes, at once.
	var served atomic.Pointer[tls.Certificate]
	watch, err := admin.Watch(
		t.Context(),
		&corev1.SecretList{},
		client.InNamespace(ns),
		client.MatchingFields{"metadata.name": "webhook"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watch.Stop)
	go serveLatest(watch, &served)
	var calls atomic.Int64
	url := webhookServer(t, served.Load, func() { calls.Add(1) })
	// A second server has a certificate of the next CA as soon as there is that CA. Clients that can
	// connect to it have the new bundle.
	var next atomic.Pointer[tls.Certificate]
	nextURL := webhookServer(t, next.Load, func() {})

	fail, none := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone
	webhook := func(name, url string) admissionregistrationv1.ValidatingWebhook {
		return admissionregistrationv1.ValidatingWebhook{
			Name: name + ".example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, FailurePolicy: &fail,
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url},
			Rules: []admissionregistrationv1.RuleWithOperations{
				{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule: admissionregistrationv1.Rule{
						APIGroups:   []string{""},
						APIVersions: []string{"v1"},
						Resources:   []string{"configmaps"},
					},
				},
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": ns}},
			ObjectSelector:    &metav1.LabelSelector{MatchLabels: map[string]string{"ask": name}},
		}
	}
	rig.Create(t, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "rotation",
			Annotations: map[string]string{cmapi.WantInjectAnnotation: ns + "/webhook"},
		},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{webhook("current", url), webhook("next", nextURL)},
	})
	call := func(webhook string) error {
		return admin.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: ns, GenerateName: "call-", Labels: map[string]string{"ask": webhook}}}, client.DryRunAll)
	}
	cluster.Eventually(t, func() error {
		if err := call("current"); err != nil {
			return err
		}
		if calls.Load() == 0 {
			return cluster.NotYet("the webhook is not called")
		}
		return nil
	})

	// From here on no call may fail.
	ctx, stop := context.WithCancel(t.Context())
	var failures atomic.Int64
	var group sync.WaitGroup
	keepsCalling := func() {
		for ctx.Err() == nil {
			if err := call("current"); err != nil && ctx.Err() == nil && failures.Add(1) <= 3 {
				t.Errorf("after %d calls: %v", calls.Load(), err)
			}
		}
	}
	group.Go(keepsCalling)
	group.Go(keepsCalling)
	t.Cleanup(group.Wait)
	t.Cleanup(stop)
	moreCalls := func() {
		t.Helper()
		until := calls.Load() + 20
		cluster.Eventually(t, func() error {
			if calls.Load() < until {
				return cluster.ErrNotYet
			}
			return nil
		})
	}

	newCert := replacedCA(t, ns)
	chain, key := serverCertificate(t, newCert)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	next.Store(&pair)
	// Before any certificate is replaced the API server trusts those of the new CA, too.
	cluster.Eventually(t, func() error { return call("next") })
	moreCalls()

	rig.Renew(t, ns, "webhook")
	cluster.Eventually(t, func() error {
		c := served.Load()
		if c == nil || !pki.SignedBy(c.Leaf, newCert.Certificate) {
			return cluster.NotYet("the webhook serves a certificate of the old CA")
		}
		return nil
	})
	moreCalls()
	stop()
	group.Wait()
	if n := failures.Load(); n > 0 {
		t.Errorf("%d of %d calls failed", n, n+calls.Load())
	}
	t.Logf("%d calls, %d failed", calls.Load(), failures.Load())
}

// serveLatest stores the certificate of a Secret whenever it changes.
func serveLatest(watch watch.Interface, served *atomic.Pointer[tls.Certificate]) {
	for event := range watch.ResultChan() {
		secret, ok := event.Object.(*corev1.Secret)
		if !ok {
			continue
		}
		if pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err == nil {
			served.Store(&pair)
		}
	}
}

// replacedCA renews a CA, and waits for the new one.
func replacedCA(t *testing.T, ns string) (newCert rig.CA) {
	t.Helper()
	caSecret, err := secretOf(t, ns, "ca")
	if err != nil {
		t.Fatal(err)
	}
	oldCA, err := pki.DecodeCertificatePEM(caSecret.Data[corev1.TLSCertKey])
	if err != nil {
		t.Fatal(err)
	}
	rig.Renew(t, ns, "ca")
	cluster.Eventually(t, func() error {
		secret, err := secretOf(t, ns, "ca")
		if err != nil {
			return err
		}
		if newCert.Certificate, err = pki.DecodeCertificatePEM(secret.Data[corev1.TLSCertKey]); err != nil {
			return err
		}
		if newCert.Certificate.Equal(oldCA) {
			return cluster.NotYet("the CA is the old one")
		}
		newCert.Key, err = pki.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
		return err
	})
	return newCert
}
