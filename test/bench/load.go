package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/standalone/controlplane"
)

type bench struct {
	options
	dir, binary string
	plane       *controlplane.ControlPlane
	admin       client.WithWatch
	root        *x509.Certificate
	rootKey     crypto.Signer
}

const issuerName = "bench-ca"

// The issuers of the load: one that signs in the controller's process, and an external one.
var (
	inProcess = cmmeta.IssuerReference{Name: issuerName, Kind: "ClusterIssuer"}
	elsewhere = cmmeta.IssuerReference{Name: issuerName, Kind: "OutsideIssuer", Group: "bench.example.com"}
)

// prepare creates the CA and the issuer.
func (b *bench) prepare(ctx context.Context) (err error) {
	cfg := b.plane.AdminConfig()
	if b.admin, err = client.NewWithWatch(cfg, client.Options{Scheme: controller.Scheme()}); err != nil {
		return err
	}
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		return err
	}
	der, err := pki.Request{CommonName: "bench root"}.CSR(rand.Reader, key)
	if err != nil {
		return err
	}
	csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		return err
	}
	now := time.Now()
	template, err := pki.Template{NotBefore: now, NotAfter: now.AddDate(10, 0, 0), IsCA: true}.Certificate(csr)
	if err != nil {
		return err
	}
	root, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		return err
	}
	b.root, b.rootKey = root, key
	for _, o := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: issuerName}, Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{corev1.TLSCertKey: pki.EncodeCertificatePEM(root), corev1.TLSPrivateKeyKey: keyPEM},
		},
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "approve-elsewhere"},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{cmmeta.DefaultIssuerGroup}, Resources: []string{"signers"}, Verbs: []string{"approve"},
				ResourceNames: []string{"outsideissuers." + elsewhere.Group + "/*"},
			}},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "approve-elsewhere"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "approve-elsewhere"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: deploy.Namespace, Name: "perennial-controller"}},
		},
		&cmapi.ClusterIssuer{
			ObjectMeta: metav1.ObjectMeta{Name: issuerName},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: issuerName}}},
		},
	} {
		if err := b.admin.Create(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) namespace(ctx context.Context, name string) error {
	return b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

func certificate(issuer cmmeta.IssuerReference, namespace string, i int) *cmapi.Certificate {
	name := fmt.Sprintf("crt-%05d", i)
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".bench.example.com"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			IssuerRef:  issuer,
		},
	}
}

// each calls f for 0 to n-1, from several clients in parallel, each with its own connection.
func (b *bench) each(ctx context.Context, n int, f func(ctx context.Context, c client.Client, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int)
	var group sync.WaitGroup
	for range b.clients {
		c, err := client.New(b.plane.AdminConfig(), client.Options{Scheme: controller.Scheme()})
		if err != nil {
			return err
		}
		group.Go(func() {
			for i := range work {
				if err := f(ctx, c, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		work <- i
	}
	close(work)
	group.Wait()
	return context.Cause(ctx)
}

// ceiling is the number of certificates a second that the API server could take if nothing but
// their writes was necessary.
func (b *bench) ceiling(ctx context.Context) (float64, error) {
	const namespace = "ceiling"
	if err := b.namespace(ctx, namespace); err != nil {
		return 0, err
	}
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		return 0, err
	}
	request := pki.Request{DNSNames: []string{"crt-00000.bench.example.com"}, EncodeUsages: true}
	der, err := request.CSR(rand.Reader, key)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	leaf, err := pki.TemporaryCertificate(rand.Reader, request, key, now, now.AddDate(0, 3, 0))
	if err != nil {
		return 0, err
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS1)
	if err != nil {
		return 0, err
	}
	csrPEM, certPEM := pki.EncodeCSRPEM(der), pki.EncodeCertificatePEM(leaf)

	began := time.Now()
	err = b.each(ctx, b.certificates, func(ctx context.Context, c client.Client, i int) error {
		crt := certificate(inProcess, namespace, i)
		if err := c.Create(ctx, crt); err != nil {
			return err
		}
		stamp := metav1.Now()
		event := func(n int, reason, message string) error {
			return c.Create(ctx, &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%d", crt.Name, n)},
				InvolvedObject: corev1.ObjectReference{
					Kind:            "Certificate",
					Namespace:       namespace,
					Name:            crt.Name,
					UID:             crt.UID,
					APIVersion:      "cert-manager.io/v1",
					ResourceVersion: crt.ResourceVersion,
				},
				Type:                "Normal",
				Reason:              reason,
				Message:             message,
				FirstTimestamp:      stamp,
				LastTimestamp:       stamp,
				Count:               1,
				Source:              corev1.EventSource{Component: "cert-manager-perennial"},
				ReportingController: "cert-manager-perennial",
			})
		}
		if err := event(1, "Issuing", "Issuing certificate as Secret does not exist"); err != nil {
			return err
		}
		cr := &cmapi.CertificateRequest{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace,
				Name:      crt.Name + "-1",
				Annotations: map[string]string{
					"cert-manager.io/certificate-name":        crt.Name,
					"cert-manager.io/certificate-revision":    "1",
					"cert-manager.io/private-key-secret-name": crt.Name + "-0123456789",
					"perennial.dev/issuer-generation":         string(crt.UID) + ".1",
				},
				OwnerReferences: []metav1.OwnerReference{
					*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate")),
				},
			},
			Spec: cmapi.CertificateRequestSpec{IssuerRef: crt.Spec.IssuerRef, Request: csrPEM},
		}
		if err := c.Create(ctx, cr); err != nil {
			return err
		}
		if err := event(2, "Requested", fmt.Sprintf("Created new CertificateRequest resource %q", cr.Name)); err != nil {
			return err
		}
		was := cr.DeepCopy()
		cr.Status.Certificate, cr.Status.CA = certPEM, certPEM
		for _, condition := range []cmapi.CertificateRequestCondition{
			{Type: "Approved", Status: "True", Reason: "cert-manager.io", Message: "Certificate request has been approved " +
				"by cert-manager.io"},
			{Type: "Ready", Status: "True", Reason: "Issued", Message: "Certificate fetched from issuer successfully"},
		} {
			cmapi.SetCertificateRequestCondition(&cr.Status, stamp.Time, condition)
		}
		if err := c.Status().
			Patch(ctx, cr, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
		secret := corev1ac.Secret(crt.Name, namespace).WithType(corev1.SecretTypeTLS).
			WithLabels(map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"}).
			WithAnnotations(map[string]string{
				"cert-manager.io/alt-names":        crt.Spec.DNSNames[0],
				"cert-manager.io/certificate-name": crt.Name,
				"cert-manager.io/common-name":      "",
				"cert-manager.io/ip-sans":          "",
				"cert-manager.io/uri-sans":         "",
				"cert-manager.io/issuer-name":      issuerName,
				"cert-manager.io/issuer-kind":      "ClusterIssuer",
				"cert-manager.io/issuer-group":     "cert-manager.io",
			}).
			WithData(map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM, "ca.crt": certPEM})
		if err := c.Apply(
			ctx,
			secret,
			client.FieldOwner("cert-manager-certificates-issuing"),
			client.ForceOwnership,
		); err != nil {
			return err
		}
		before := crt.DeepCopy()
		cmapi.SetCertificateCondition(&crt.Status, stamp.Time, cmapi.CertificateCondition{
			Type:               "Ready",
			Status:             "True",
			Reason:             "Ready",
			Message:            "Certificate is up to date and has not expired",
			ObservedGeneration: 1,
		})
		crt.Status.NotBefore, crt.Status.NotAfter, crt.Status.RenewalTime = &stamp, &stamp, &stamp
		crt.Status.Revision = ptr.To(
			1,
		)
		if err := c.Status().
			Patch(ctx, crt, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
		return event(3, "Issuing", "The certificate has been successfully issued")
	})
	rate := float64(b.certificates) / time.Since(began).Seconds()
	if err != nil {
		return 0, err
	}
	return rate, b.vanish(ctx, namespace)
}

// vanish deletes a namespace and waits until all its objects are gone, so that the controller never
// sees the objects of the ceiling.
func (b *bench) vanish(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := b.admin.Delete(ctx, ns); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(
		ctx,
		100*time.Millisecond,
		2*time.Minute,
		true,
		func(ctx context.Context) (bool, error) {
			err := b.admin.Get(ctx, client.ObjectKeyFromObject(ns), ns)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		},
	)
}

// issue creates n certificates and waits until all are Ready. It returns the sorted times for each,
// and the time for all.
func (b *bench) issue(
	ctx context.Context,
	issuer cmmeta.IssuerReference,
	namespace string,
	n int,
) ([]time.Duration, time.Duration, error) {
	if err := b.namespace(ctx, namespace); err != nil {
		return nil, 0, err
	}
	watcher, err := b.admin.Watch(ctx, &cmapi.CertificateList{}, client.InNamespace(namespace))
	if err != nil {
		return nil, 0, err
	}
	defer watcher.Stop()
	var mu sync.Mutex
	created := map[string]time.Time{}
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		failed <- b.each(ctx, n, func(ctx context.Context, c client.Client, i int) error {
			crt := certificate(issuer, namespace, i)
			mu.Lock()
			created[crt.Name] = time.Now()
			mu.Unlock()
			return c.Create(ctx, crt)
		})
	}()
	ready := map[string]bool{}
	var took []time.Duration
	for len(ready) < n {
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case err := <-failed:
			if err != nil {
				return nil, 0, err
			}
			failed = nil
		case <-time.After(2 * time.Minute):
			return nil, 0, fmt.Errorf("nothing became ready for 2 minutes, %d of %d are", len(ready), n)
		case e, ok := <-watcher.ResultChan():
			if !ok || e.Type == watch.Error {
				return nil, 0, fmt.Errorf("watch ended: %v", e.Object)
			}
			crt := e.Object.(*cmapi.Certificate)
			c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
			if ready[crt.Name] || c == nil || c.Status != cmmeta.ConditionTrue {
				continue
			}
			ready[crt.Name] = true
			mu.Lock()
			took = append(took, time.Since(created[crt.Name]))
			mu.Unlock()
		}
	}
	all := time.Since(began)
	slices.Sort(took)
	return took, all, nil
}

// signOutside simulates an external signer: it answers each request of the external issuer once the
// request is approved.
func (b *bench) signOutside(ctx context.Context) {
	watcher, err := b.admin.Watch(ctx, &cmapi.CertificateRequestList{})
	if err != nil {
		step("the signer cannot watch: " + err.Error())
		return
	}
	defer watcher.Stop()
	for e := range watcher.ResultChan() {
		cr, ok := e.Object.(*cmapi.CertificateRequest)
		if !ok || e.Type != watch.Modified || cr.Spec.IssuerRef != elsewhere ||
			!cmapi.CertificateRequestIsApproved(&cr.Status) ||
			len(cr.Status.Certificate) > 0 {
			continue
		}
		if err := b.signOne(ctx, cr); err != nil && ctx.Err() == nil {
			step("the signer failed: " + err.Error())
			return
		}
	}
}

func (b *bench) signOne(ctx context.Context, cr *cmapi.CertificateRequest) error {
	csr, err := pki.DecodeCSRPEM(cr.Spec.Request)
	if err != nil {
		return err
	}
	now := time.Now()
	template, err := pki.Template{NotBefore: now, NotAfter: now.AddDate(0, 3, 0)}.Certificate(csr)
	if err != nil {
		return err
	}
	leaf, err := pki.Sign(rand.Reader, template, b.root, csr.PublicKey, b.rootKey)
	if err != nil {
		return err
	}
	was := cr.DeepCopy()
	cr.Status.Certificate, cr.Status.CA = pki.EncodeCertificatePEM(leaf), pki.EncodeCertificatePEM(b.root)
	cmapi.SetCertificateRequestCondition(
		&cr.Status,
		now,
		cmapi.CertificateRequestCondition{Type: "Ready", Status: "True", Reason: "Issued", Message: "issued"},
	)
	return b.admin.Status().Patch(ctx, cr, client.MergeFrom(was))
}
