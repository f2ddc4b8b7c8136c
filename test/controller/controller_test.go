package controller_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// run runs a controller for the whole cluster, with the shipped settings, on free ports. Tests that
// use it do not run in parallel.
func run(t *testing.T, edit func(*controller.Options)) (*cluster.Controller, controller.Options) {
	t.Helper()
	o := controller.Options{
		ClusterResourceNamespace: deploy.Namespace,
		MetricsAddress:           freeAddress(t),
		HealthAddress:            freeAddress(t),
	}
	if edit != nil {
		edit(&o)
	}
	return cluster.Run(t, o), o
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	admin := cluster.Admin(t)
	for _, o := range objects {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
		t.Cleanup(func() { _ = admin.Delete(context.Background(), o) })
	}
}

func leaf(namespace, name string, issuer cmmeta.IssuerReference) *cmapi.Certificate {
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: cmapi.CertificateSpec{DNSNames: []string{name + ".example.com"}, SecretName: name, IssuerRef: issuer,
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}},
	}
}

// clusterCA creates a self-signed ClusterIssuer, a CA from it in the cluster resource namespace,
// and a ClusterIssuer of that CA.
func clusterCA(t *testing.T, name string) {
	t.Helper()
	root := leaf(deploy.Namespace, name, cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: name + "-self"})
	root.Spec.IsCA, root.Spec.CommonName, root.Spec.DNSNames = true, name, nil
	create(
		t,
		&cmapi.ClusterIssuer{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
		root,
		&cmapi.ClusterIssuer{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: name}}},
		},
	)
}

func untilReady(t *testing.T, namespace, name string) {
	t.Helper()
	admin := cluster.Admin(t)
	crt := &cmapi.Certificate{}
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s: %+v", name, crt.Status)
		}
		return nil
	})
}

func TestAClusterIssuerServesAllNamespaces(t *testing.T) {
	ns1, ns2 := cluster.Namespace(t), cluster.Namespace(t)
	run(t, nil)
	clusterCA(t, "all")
	create(
		t,
		leaf(ns1, "a", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "all"}),
		leaf(ns2, "b", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "all"}),
	)
	untilReady(t, ns1, "a")
	untilReady(t, ns2, "b")
}

func TestMetricsAndHealthAreServedUnderTheNamesThatDashboardsKnow(t *testing.T) {
	ns := cluster.Namespace(t)
	_, o := run(t, nil)
	clusterCA(t, "metrics")
	create(t, leaf(ns, "measured", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "metrics"}))
	untilReady(t, ns, "measured")
	get := func(url string) (int, string) {
		t.Helper()
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body := get("http://" + o.HealthAddress + path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	labels := fmt.Sprintf(
		`issuer_group="cert-manager.io",issuer_kind="ClusterIssuer",issuer_name="metrics",name="measured",namespace=%q`,
		ns,
	)
	want := []string{
		`certmanager_certificate_ready_status{condition="True",` + labels + `} 1`,
		`certmanager_certificate_ready_status{condition="False",` + labels + `} 0`,
		`certmanager_certificate_ready_status{condition="Unknown",` + labels + `} 0`,
		`certmanager_certificate_expiration_timestamp_seconds{` + labels + `} `,
		`certmanager_certificate_not_after_timestamp_seconds{` + labels + `} `,
		`certmanager_certificate_not_before_timestamp_seconds{` + labels + `} `,
		`certmanager_certificate_renewal_timestamp_seconds{` + labels + `} `,
		`certmanager_clusterissuer_ready_status{condition="True",name="metrics"} 1`,
		`certmanager_controller_sync_call_count{controller="certificates"} `,
		`certmanager_clock_time_seconds_gauge `,
		`certmanager_clock_time_seconds `,
		fmt.Sprintf(`perennial_build_info{goversion=%q,revision=%q,version=%q} 1`,
			runtime.Version(), version.Commit(), version.Get()),
		`perennial_certificate_issuance_duration_seconds_count{issuer_group="cert-manager.io",issuer_kind="ClusterIssuer",issuer_name="metrics"} 1`,
	}
	cluster.Eventually(t, func() error {
		_, text := get("http://" + o.MetricsAddress + "/metrics")
		for _, w := range want {
			if !strings.Contains(text, w) {
				return cluster.NotYet("no series %s", w)
			}
		}
		return nil
	})
}

func TestOnlyOneControllerWorksAtATime(t *testing.T) {
	ns := cluster.Namespace(t)
	elect := func(o *controller.Options) {
		o.LeaderElection = true
		o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = 4*time.Second, 3*time.Second, time.Second
	}
	first, _ := run(t, elect)
	clusterCA(t, "one")
	untilReady(t, deploy.Namespace, "one")
	holder := func() string {
		t.Helper()
		k, err := kubernetes.NewForConfig(cluster.Plane(t).AdminConfig())
		if err != nil {
			t.Fatal(err)
		}
		lease, err := k.CoordinationV1().
			Leases("kube-system").
			Get(t.Context(), "cert-manager-controller", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	was := holder()
	_, o := run(t, elect)
	cluster.Eventually(t, func() error { // the second is there and ready, but waits
		response, err := http.Get("http://" + o.HealthAddress + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return cluster.NotYet("not ready")
		}
		return nil
	})
	create(t, leaf(ns, "a", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "one"}))
	untilReady(t, ns, "a")
	if now := holder(); now != was {
		t.Fatalf("the Lease went from %s to %s though both live", was, now)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	create(t, leaf(ns, "b", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "one"}))
	untilReady(t, ns, "b")
	if now := holder(); now == was || now == "" {
		t.Errorf("the Lease is held by %q", now)
	}
}

func TestApprovalIsLimitedByRBAC(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	cluster.TakeRights(t, func(_ rbacv1.PolicyRule, verb string) bool { return verb == "approve" })
	mayApprove := func() bool {
		t.Helper()
		k, err := kubernetes.NewForConfig(cluster.Config(t))
		if err != nil {
			t.Fatal(err)
		}
		review, err := k.AuthorizationV1().
			SelfSubjectAccessReviews().
			Create(t.Context(), approveReview(), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return review.Status.Allowed
	}
	cluster.Eventually(t, func() error { // RBAC reads its cache
		if mayApprove() {
			return cluster.NotYet("the right is still there")
		}
		return nil
	})
	run(t, nil)
	create(
		t,
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
		leaf(ns, "a", cmmeta.IssuerReference{Name: "self"}),
	)
	cr := &cmapi.CertificateRequest{}
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "a-1"}, cr); err != nil {
			return err
		}
		if c := cmapi.GetCertificateRequestCondition(
			&cr.Status,
			cmapi.CertificateRequestConditionReady,
		); c == nil ||
			c.Message != "Not signing CertificateRequest until it is Approved" {
			return cluster.NotYet("conditions %+v", cr.Status.Conditions)
		}
		return nil
	})
	// An administrator approves in its place. The private key was stored meanwhile, for it may take
	// days.
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(cr), cr); err != nil {
			return err
		}
		cmapi.SetCertificateRequestCondition(
			&cr.Status,
			time.Now(),
			cmapi.CertificateRequestCondition{Type: "Approved", Status: "True", Reason: "Admin", Message: "fine"},
		)
		return admin.Status().Update(t.Context(), cr)
	})
	untilReady(t, ns, "a")
}

func TestKubernetesSigningRequestsAreServed(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	run(t, nil)
	clusterCA(t, "csr")
	untilReady(t, deploy.Namespace, "csr")
	create(
		t,
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "dotted.name"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)

	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{CommonName: "me", DNSNames: []string{"me.example.com"}}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(
		as *rest.Config, signer string, edit func(*certificatesv1.CertificateSigningRequest),
	) *certificatesv1.CertificateSigningRequest {
		t.Helper()
		csr := &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				SignerName: signer, Request: pki.EncodeCSRPEM(der), ExpirationSeconds: ptr.To(int32(3600)),
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
			},
		}
		if edit != nil {
			edit(csr)
		}
		c, err := client.New(as, client.Options{Scheme: controller.Scheme()})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), csr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = admin.Delete(context.Background(), csr) })
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{
			{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "fine"},
		}
		if err := admin.SubResource("approval").Update(t.Context(), csr); err != nil {
			t.Fatal(err)
		}
		return csr
	}
	certificateOf := func(csr *certificatesv1.CertificateSigningRequest) *x509.Certificate {
		t.Helper()
		return signed(t, csr)
	}
	root := cluster.Plane(t).AdminConfig()

	byCA := certificateOf(ask(root, "clusterissuers.cert-manager.io/csr", nil))
	if byCA.Issuer.CommonName != "csr" || byCA.DNSNames[0] != "me.example.com" ||
		byCA.NotAfter.Sub(byCA.NotBefore) != time.Hour {
		t.Errorf("the CA signed %v for %v, %s long", byCA.Issuer, byCA.DNSNames, byCA.NotAfter.Sub(byCA.NotBefore))
	}
	create(
		t,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "key"}, Data: map[string][]byte{"tls.key": keyPEM}},
	)
	self := certificateOf(
		ask(root, "issuers.cert-manager.io/"+ns+".dotted.name", func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Annotations = map[string]string{"experimental.cert-manager.io/private-key-secret-name": "key"}
		}),
	)
	if self.CheckSignatureFrom(self) != nil &&
		self.CheckSignature(self.SignatureAlgorithm, self.RawTBSCertificate, self.Signature) != nil {
		t.Error("the certificate of the selfSigned issuer was signed by another issuer")
	}

	// A key that is missing is said by an event, and waited for; an annotation that is missing is
	// final.
	const keyAnnotation = "experimental.cert-manager.io/private-key-secret-name"
	waits := ask(root, "issuers.cert-manager.io/"+ns+".dotted.name", func(csr *certificatesv1.CertificateSigningRequest) {
		csr.Annotations = map[string]string{keyAnnotation: "later"}
	})
	signingEvent(t, waits.Name, "SecretNotFound", ns+"/later not found", keyAnnotation)
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "later"},
		Data: map[string][]byte{"tls.key": keyPEM}})
	certificateOf(waits)
	none := ask(root, "issuers.cert-manager.io/"+ns+".dotted.name", nil)
	failsWith(t, none, "MissingAnnotation", keyAnnotation)

	// A user without the right to an Issuer of a namespace.
	create(
		t,
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "ask"},
			Rules: []rbacv1.PolicyRule{
				{
					APIGroups: []string{"certificates.k8s.io"},
					Resources: []string{"certificatesigningrequests"},
					Verbs:     []string{"create"},
				},
			},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "ask"},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "ask"},
			Subjects:   []rbacv1.Subject{{Kind: "User", Name: "mallory", APIGroup: "rbac.authorization.k8s.io"}},
		},
	)
	mallory := rest.CopyConfig(root)
	mallory.Impersonate.UserName = "mallory"
	var denied *certificatesv1.CertificateSigningRequest
	cluster.Eventually(t, func() error {
		c, err := client.New(mallory, client.Options{Scheme: controller.Scheme()})
		if err != nil {
			return err
		}
		return c.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				SignerName: "example.com/none",
				Request:    pki.EncodeCSRPEM(der),
				Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth},
			},
		}, client.DryRunAll)
	})
	denied = ask(mallory, "issuers.cert-manager.io/"+ns+".dotted.name", nil)
	failsWith(t, denied, "DeniedReference", "mallory")
}

// signed waits until a CertificateSigningRequest is signed.
func signed(t *testing.T, csr *certificatesv1.CertificateSigningRequest) *x509.Certificate {
	t.Helper()
	admin := cluster.Admin(t)
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(csr), csr); err != nil {
			return err
		}
		if len(csr.Status.Certificate) == 0 {
			return cluster.NotYet("conditions %+v", csr.Status.Conditions)
		}
		return nil
	})
	block, _ := pem.Decode(csr.Status.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// signingEvent waits for a warning about a CertificateSigningRequest that has all the words.
func signingEvent(t *testing.T, name, reason string, words ...string) {
	t.Helper()
	admin := cluster.Admin(t)
	cluster.Eventually(t, func() error {
		var list corev1.EventList
		if err := admin.List(t.Context(), &list, client.InNamespace(metav1.NamespaceDefault)); err != nil {
			return err
		}
		for _, e := range list.Items {
			missing := func(word string) bool { return !strings.Contains(e.Message, word) }
			if e.InvolvedObject.Name == name && e.Reason == reason && e.Type == corev1.EventTypeWarning &&
				!slices.ContainsFunc(words, missing) {
				return nil
			}
		}
		return cluster.NotYet("no event %s about %s, of %d", reason, name, len(list.Items))
	})
}

// failsWith waits until a CertificateSigningRequest has failed for a reason.
func failsWith(t *testing.T, csr *certificatesv1.CertificateSigningRequest, reason, says string) {
	t.Helper()
	admin := cluster.Admin(t)
	cluster.Eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(csr), csr); err != nil {
			return err
		}
		for _, c := range csr.Status.Conditions {
			if c.Type == certificatesv1.CertificateFailed && c.Reason == reason && strings.Contains(c.Message, says) {
				return nil
			}
		}
		return cluster.NotYet("conditions %+v", csr.Status.Conditions)
	})
}
