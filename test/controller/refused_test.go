package controller_test

import (
	"crypto/rand"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestWhichWriteForASigningRequestIsRefusedIsSaid makes the API server refuse, and then allow, the
// controller's writes for Kubernetes CertificateSigningRequests.
func TestWhichWriteForASigningRequestIsRefusedIsSaid(t *testing.T) {
	ns := cluster.Namespace(t)
	admin := cluster.Admin(t)
	refusal := &cluster.Refusal{}
	run(t, func(o *controller.Options) { o.WrapClient = refusal.Wrap })
	clusterCA(t, "refused")
	untilReady(t, deploy.Namespace, "refused")
	root := &corev1.Secret{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: deploy.Namespace, Name: "refused"}, root); err != nil {
		t.Fatal(err)
	}
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ca"}, Data: root.Data},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ca"}, Spec: cmapi.IssuerSpec{
			IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}}})
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{CommonName: "me", DNSNames: []string{"me.example.com"}}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		rule   func(cluster.Write) bool
		edit   func(*certificatesv1.CertificateSigningRequest)
		reason string
		failed bool
	}{
		"the certificate": {rule: writesStatus, reason: "StatusNotWritten"},
		"the failure": {rule: writesStatus, reason: "StatusNotWritten", failed: true,
			edit: func(csr *certificatesv1.CertificateSigningRequest) {
				csr.Annotations = map[string]string{"experimental.cert-manager.io/request-duration": "soon"}
			}},
		"the access review": {reason: "AccessReviewRefused", rule: func(w cluster.Write) bool {
			_, is := w.Object.(*authorizationv1.SubjectAccessReview)
			return is && w.Verb == "create"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			refusal.Begin(test.rule)
			csr := &certificatesv1.CertificateSigningRequest{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "refused-"},
				Spec: certificatesv1.CertificateSigningRequestSpec{
					SignerName: "issuers.cert-manager.io/" + ns + ".ca", Request: pki.EncodeCSRPEM(der),
					Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
				},
			}
			if test.edit != nil {
				test.edit(csr)
			}
			create(t, csr)
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
				Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "fine"}}
			if err := admin.SubResource("approval").Update(t.Context(), csr); err != nil {
				t.Fatal(err)
			}
			signingEvent(t, csr.Name, test.reason, cluster.RefusedBecause)
			refusal.End()
			cluster.Eventually(t, func() error {
				if err := admin.Get(t.Context(), client.ObjectKeyFromObject(csr), csr); err != nil {
					return err
				}
				if test.failed != (len(csr.Status.Conditions) > 1) || test.failed == (len(csr.Status.Certificate) > 0) {
					return cluster.NotYet("the status is %+v", csr.Status)
				}
				return nil
			})
		})
	}
}

// writesStatus matches the status of a CertificateSigningRequest.
func writesStatus(w cluster.Write) bool {
	_, is := w.Object.(*certificatesv1.CertificateSigningRequest)
	return is && w.Verb == "status"
}
