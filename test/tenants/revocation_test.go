package tenants_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestATenantCannotHaveCertificatesOfOthersRevoked makes a tenant claim the certificate of another
// in each place that revocation reads.
func TestATenantCannotHaveCertificatesOfOthersRevoked(t *testing.T) {
	s := share(t)
	victim := s.certificate(cluster.Namespace(t), "victim")
	s.create(victim)
	leaf, _ := s.ready(victim)
	serial := leaf.SerialNumber.String()
	public := pki.EncodeCertificatePEM(leaf) // certificates are public: they are served, and logged
	evil, namespace := tenant(t, statusRules()...)

	// What the status says is to be revoked.
	crt := s.certificate(namespace, "evil")
	crt.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true}
	try(t, evil, crt)
	own, _ := s.ready(crt)
	claim := &cmapi.RevocableCertificate{Certificate: leaf.Raw, IssuerRef: s.issuer}
	cluster.Eventually(t, func() error {
		if err := evil.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if crt.Status.Revocable == nil {
			return cluster.NotYet("the status does not say what is revocable")
		}
		return nil
	})
	update, was := crt.DeepCopy(), crt.DeepCopy()
	update.Status.Revocable = claim
	cluster.Eventually(t, func() error {
		if err := evil.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		update := crt.DeepCopy()
		update.Status.Revocable = claim
		err := evil.Status().Update(t.Context(), update)
		if apierrors.IsConflict(err) {
			return err // the controller wrote at the same time
		}
		forbidden(t, "status.revocable, by update", err, "cannot write status.revocable")
		return nil
	})
	forbidden(t, "status.revocable, by patch", evil.Status().Patch(t.Context(), update, client.MergeFrom(was)),
		"cannot write status.revocable")
	cluster.Eventually(t, func() error { // the controller may write at the same time
		if err := evil.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		update := crt.DeepCopy()
		update.Status.Revocable = nil // as a client of cert-manager's does
		return evil.Status().Update(t.Context(), update)
	})

	// What its request and its Order say was issued.
	cr := &cmapi.CertificateRequest{}
	if err := evil.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "evil-1"}, cr); err != nil {
		t.Fatal(err)
	}
	next := cr.DeepCopy()
	next.Status.Certificate = public
	forbidden(t, "status.certificate of the request", evil.Status().Update(t.Context(), next),
		"cannot write status.certificate")
	forged := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "forged",
			// Of a later revision, or the controller deletes it as one of the past.
			Annotations: map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: "1000"},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))},
		},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: s.issuer,
			Request: csr(t, pki.Request{DNSNames: []string{"nowhere.test"}})},
	}
	try(t, evil, forged)
	next = forged.DeepCopy()
	next.Status.Certificate = public
	forbidden(t, "status.certificate of a forged request", evil.Status().Patch(t.Context(), next,
		client.MergeFrom(forged)), "cannot write status.certificate")
	var orders cmacme.OrderList
	if err := evil.List(t.Context(), &orders, client.InNamespace(namespace)); err != nil || len(orders.Items) == 0 {
		t.Fatalf("%d orders: %v", len(orders.Items), err)
	}
	order := &orders.Items[0]
	nextOrder := order.DeepCopy()
	nextOrder.Status.Reason = "forged" // its certificate does not change for anyone
	forbidden(t, "status of an Order", evil.Status().Patch(t.Context(), nextOrder, client.MergeFrom(order)),
		"cannot write the status of orders")

	// A bare certificate in a Secret that says that it is of this issuer and Certificate.
	bare := s.certificate(namespace, "bare")
	bare.Spec.DNSNames, bare.Spec.Revocation = []string{"nowhere.test"}, &cmapi.CertificateRevocation{OnDelete: true}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bare", Annotations: map[string]string{
			cmapi.CertificateNameKey: "bare", cmapi.IssuerNameAnnotationKey: s.issuer.Name,
			cmapi.IssuerKindAnnotationKey: "ClusterIssuer", cmapi.IssuerGroupAnnotationKey: "cert-manager.io",
		}},
		Data: map[string][]byte{corev1.TLSCertKey: public},
	}
	try(t, evil, secret)
	try(t, evil, bare)
	cluster.Eventually(t, func() error {
		if err := evil.Get(t.Context(), client.ObjectKeyFromObject(bare), bare); err != nil {
			return err
		}
		if len(bare.Finalizers) == 0 {
			return cluster.NotYet("it has no finalizer")
		}
		return nil
	})

	for _, o := range []*cmapi.Certificate{bare, crt} {
		if err := evil.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		s.gone(o)
	}
	if s.saw.heard(serial) {
		t.Error("the CA was asked to revoke the certificate of another tenant")
	}
	if !s.saw.heard(own.SerialNumber.String()) {
		t.Error("the tenant's own certificate was not revoked with its Certificate")
	}
}

// TestATenantCannotRevokeWithAnotherKey makes a tenant run perennial revoke on a Secret with the
// certificate of another tenant and its own key.
func TestATenantCannotRevokeWithAnotherKey(t *testing.T) {
	s := share(t)
	victim := s.certificate(cluster.Namespace(t), "victim")
	s.create(victim)
	leaf, _ := s.ready(victim)
	evil, namespace := tenant(t)
	crt := s.certificate(namespace, "evil")
	try(t, evil, crt)
	s.ready(crt)
	secret := &corev1.Secret{}
	if err := evil.Get(t.Context(), client.ObjectKeyFromObject(crt), secret); err != nil {
		t.Fatal(err)
	}
	mixed := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "mixed",
		Annotations: secret.Annotations}, Data: map[string][]byte{
		corev1.TLSCertKey:       pki.EncodeCertificatePEM(leaf),
		corev1.TLSPrivateKeyKey: slices.Clone(secret.Data[corev1.TLSPrivateKeyKey]),
	}}
	try(t, evil, mixed)
	out, err := exec.Command(cluster.Program(t), "revoke", "--secret", "mixed", "-n", namespace, "--reason", "superseded",
		"--kubeconfig", kubeconfig(t, namespace)).CombinedOutput()
	if err == nil {
		t.Errorf("it was done: %s", out)
	}
	t.Log(strings.TrimSpace(string(out)))
	if s.saw.heard(leaf.SerialNumber.String()) {
		t.Error("the CA was asked to revoke the certificate of another tenant")
	}
}
