package origin

import (
	"crypto/rand"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

func csrFor(t *testing.T, names ...string) []byte {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.Request{DNSNames: names}.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCSRPEM(der)
}

// scene is an Order of a ClusterIssuer and the requests that it may belong to.
type scene struct {
	order *cmacme.Order
	cr    *cmapi.CertificateRequest
	csr   *certificatesv1.CertificateSigningRequest
	// stale is what the cache has in the place of cr.
	stale *cmapi.CertificateRequest
}

func newScene(t *testing.T) *scene {
	t.Helper()
	ref := cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "shared"}
	pem := csrFor(t, "a.example.com")
	s := &scene{
		cr: &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a-1", UID: "cr"},
			Spec: cmapi.CertificateRequestSpec{IssuerRef: ref, Request: pem}},
		csr: &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "a-1", UID: "csr"},
			Spec: certificatesv1.CertificateSigningRequestSpec{Request: pem,
				SignerName: "clusterissuers.cert-manager.io/shared"}},
		order: &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a-1-1"},
			Spec: cmacme.OrderSpec{IssuerRef: ref, Request: pem, DNSNames: []string{"a.example.com"}}},
	}
	s.cr.Status.Conditions = []cmapi.CertificateRequestCondition{
		{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue}}
	s.csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{
		{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	s.ofCR(s.cr)
	return s
}

func (s *scene) ofCR(cr *cmapi.CertificateRequest) {
	s.order.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(cr, cmapi.SchemeGroupVersion.WithKind("CertificateRequest"))}
}

func (s *scene) ofCSR() {
	s.order.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(s.csr, certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"))}
}

func TestAnOrderIsMadeForAnApprovedRequest(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{cmapi.AddToScheme, certificatesv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(*scene)
		says   string // "" if it is
	}{
		"a CertificateRequest": {func(*scene) {}, ""},
		"a Kubernetes CSR":     {func(s *scene) { s.ofCSR() }, ""},
		"one whose PEM has comments": {func(s *scene) {
			s.cr.Spec.Request = append([]byte("of a user\n"), s.cr.Spec.Request...)
		}, ""},
		"one that the cache does not have yet": {func(s *scene) { s.stale = &cmapi.CertificateRequest{} }, ""},
		"one that the cache has unapproved": {func(s *scene) {
			s.stale = s.cr.DeepCopy()
			s.stale.Status = cmapi.CertificateRequestStatus{}
		}, ""},
		"none":         {func(s *scene) { s.order.OwnerReferences = nil }, "it belongs to no request"},
		"another kind": {func(s *scene) { s.order.OwnerReferences[0].Kind = "Certificate" }, "which is no request"},
		"another group": {func(s *scene) { s.order.OwnerReferences[0].APIVersion = "example.com/v1" },
			"which is no request"},
		"one that is gone":     {func(s *scene) { s.order.OwnerReferences[0].Name = "gone" }, "does not exist"},
		"an earlier one":       {func(s *scene) { s.order.OwnerReferences[0].UID = "earlier" }, "does not exist"},
		"of another namespace": {func(s *scene) { s.order.Namespace = "other" }, "does not exist"},
		"one that is not approved": {func(s *scene) { s.cr.Status = cmapi.CertificateRequestStatus{} },
			"is not approved"},
		"one that is denied": {func(s *scene) {
			s.cr.Status.Conditions = append(s.cr.Status.Conditions, cmapi.CertificateRequestCondition{
				Type: cmapi.CertificateRequestConditionDenied, Status: cmmeta.ConditionTrue})
		}, "is not approved"},
		"a Kubernetes CSR that is not approved": {func(s *scene) {
			s.ofCSR()
			s.csr.Status.Conditions = nil
		}, "is not approved"},
		"a Kubernetes CSR that is denied": {func(s *scene) {
			s.ofCSR()
			s.csr.Status.Conditions[0].Type = certificatesv1.CertificateDenied
		}, "is not approved"},
		"a Kubernetes CSR to another issuer": {func(s *scene) {
			s.ofCSR()
			s.csr.Spec.SignerName = "issuers.cert-manager.io/ns.shared"
		}, "spec.issuerRef"},
		"one to another issuer": {func(s *scene) { s.cr.Spec.IssuerRef.Kind = "Issuer" }, "spec.issuerRef"},
		"one to an external issuer": {func(s *scene) {
			s.cr.Spec.IssuerRef.Group, s.order.Spec.IssuerRef.Group = "example.com", "example.com"
		}, "spec.issuerRef"},
		"one for another key":    {func(s *scene) { s.cr.Spec.Request = csrFor(t, "a.example.com") }, "spec.request"},
		"one that is unreadable": {func(s *scene) { s.cr.Spec.Request = []byte("x") }, "spec.request"},
		"one for other names":    {func(s *scene) { s.order.Spec.DNSNames = []string{"victim.example.com"} }, "its names"},
		"one for fewer names": {func(s *scene) {
			s.order.Spec.DNSNames = append(s.order.Spec.DNSNames, "victim.example.com")
		}, "its names"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.change(s)
			cached := s.cr
			if s.stale != nil {
				cached = s.stale
			}
			with := func(objects ...client.Object) client.Client {
				return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
			}
			c := &Checker{Client: with(), Live: with(s.cr, s.csr)}
			if cached.Name != "" {
				c.Client = with(cached)
			}
			err := c.Check(t.Context(), s.order)
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := fault.Of(err); err == nil || f.Class != fault.Misconfigured || f.Reason != NotOfRequest ||
				!strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "delete it") {
				t.Errorf("it says %v", err)
			}
		})
	}
}
