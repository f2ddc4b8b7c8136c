// Package tenants_test makes a user with cert-manager's edit role in one namespace try to access
// the objects of others.
package tenants_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/standalone/serviceaccount"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// tenantName is the ServiceAccount of a tenant in its namespace.
const tenantName = "tenant"

// statusRules are permissions for all status subresources, which an administrator may have granted
// in addition.
func statusRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificates/status", "certificaterequests/status",
			"issuers/status"}, Verbs: []string{"update", "patch"}},
		{APIGroups: []string{"acme.cert-manager.io"}, Resources: []string{"challenges/status", "orders/status"},
			Verbs: []string{"update", "patch"}},
	}
}

// gatewayRules are the permissions for the Gateway API that the role edit has in most clusters.
func gatewayRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{
		APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"gateways", "listenersets"},
		Verbs: []string{"create", "delete", "deletecollection", "patch", "update", "get", "list", "watch"},
	}}
}

// tenant creates a namespace with a user that has the role edit, including the rules of
// deploy/perennial.yaml, and returns a client of that user.
func tenant(t *testing.T, rules ...rbacv1.PolicyRule) (client.Client, string) {
	t.Helper()
	admin, namespace := cluster.Admin(t), cluster.Namespace(t)
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tenantName},
		Rules: append(gatewayRules(), rules...)}
	for _, o := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tenantName}}, role,
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tenantName},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: tenantName},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: tenantName}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "edit"},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "edit"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: tenantName}},
		},
	} {
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := serviceaccount.Config(t.Context(), cluster.Plane(t).AdminConfig(), namespace, tenantName)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: controller.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error { // RBAC reads its cache
		if err := c.List(t.Context(), &corev1.SecretList{}, client.InNamespace(namespace)); err != nil {
			return err
		}
		return c.List(t.Context(), &cmapi.CertificateList{}, client.InNamespace(namespace)) // aggregated
	})
	return c, namespace
}

// registrar records the serial numbers of certificates in revocation requests to a CA.
type registrar struct {
	mu    sync.Mutex
	asked []string
}

func (g *registrar) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/revoke-cert" {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			var message struct{ Payload string }
			var payload struct{ Certificate string }
			_ = json.Unmarshal(body, &message)
			if raw, err := base64.RawURLEncoding.DecodeString(message.Payload); err == nil {
				_ = json.Unmarshal(raw, &payload)
			}
			der, _ := base64.RawURLEncoding.DecodeString(payload.Certificate)
			if cert, err := x509.ParseCertificate(der); err == nil {
				g.mu.Lock()
				g.asked = append(g.asked, cert.SerialNumber.String())
				g.mu.Unlock()
			}
		}
		h.ServeHTTP(w, r)
	})
}

func (g *registrar) heard(serial string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.asked, serial)
}

// shared is a controller and a ClusterIssuer of an ACME server for all tenants.
type shared struct {
	t      *testing.T
	admin  client.WithWatch
	issuer cmmeta.IssuerReference
	saw    *registrar
	// controller is the one that runs.
	controller *cluster.Controller
}

// share starts an ACME server, its ClusterIssuer, and the controller under the shipped RBAC.
func share(t *testing.T, change ...func(*controller.Options, *cmacme.ACMEIssuer)) *shared {
	t.Helper()
	s := &shared{t: t, admin: cluster.Admin(t), saw: &registrar{}}
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	port := cluster.FreePort(t)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: port, Wrap: s.saw.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	site := fmt.Sprintf("127.0.0.1:%d", port)
	options := controller.Options{ClusterResourceNamespace: deploy.Namespace, HTTP01Address: site,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, site)
		}}
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{GenerateName: "pebble-"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
			Server: ca.Directory, CABundle: ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: fmt.Sprintf("account-%d",
					port)}},
			Solvers: []cmacme.ACMEChallengeSolver{
				{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}}},
		}}}}
	for _, f := range change {
		f(&options, issuer.Spec.ACME)
	}
	s.controller = cluster.Run(t, options)
	s.create(issuer)
	s.issuer = cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer.Name}
	return s
}

func (s *shared) create(o client.Object) {
	s.t.Helper()
	if err := s.admin.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = s.admin.Delete(context.Background(), o) })
}

// certificate is a Certificate of the shared issuer.
func (s *shared) certificate(namespace, name string) *cmapi.Certificate {
	return &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: s.issuer,
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
}

func (s *shared) ready(crt *cmapi.Certificate) (*x509.Certificate, crypto.Signer) {
	s.t.Helper()
	cluster.Eventually(s.t, func() error {
		if err := s.admin.Get(s.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("Certificate %s: %+v", crt.Name, crt.Status.Conditions)
		}
		return nil
	})
	chain, key := cluster.Pair(s.t, client.ObjectKey{Namespace: crt.Namespace, Name: crt.Spec.SecretName})
	return chain[0], key
}

func (s *shared) gone(o client.Object) {
	s.t.Helper()
	cluster.Eventually(s.t, func() error {
		if err := s.admin.Get(s.t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return cluster.NotYet("%T %s is still there: %v", o, o.GetName(), err)
		}
		return nil
	})
}

// try creates an object as a tenant.
func try(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// forbidden checks that the API server refused a tenant's request with these words.
func forbidden(t *testing.T, what string, err error, words string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: want Forbidden, %q; got: %v", what, words, err)
	}
}

// csr is a CSR, PEM, of a new key.
func csr(t *testing.T, r pki.Request) []byte {
	t.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := r.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCSRPEM(der)
}

// kubeconfig is that of a tenant.
func kubeconfig(t *testing.T, namespace string) string {
	t.Helper()
	return cluster.Kubeconfig(t, namespace, tenantName)
}
