package http01_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
	"github.com/perennial-pki/perennial/standalone/serviceaccount"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestAReplicaWhoseCacheLagsAnswersByRightsInItsNamespaceAlone(t *testing.T) {
	r := start(t, func(o *controller.Options) { o.TLSALPN01Address = net.JoinHostPort("127.0.0.1", "0") })
	// Challenges that the CA never validates.
	never := &metav1.Duration{Duration: time.Hour}
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "pebble"}}
	issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server:     r.ca.Directory,
		CABundle:   r.ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{
				HTTP01:                 &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
				WaitInsteadOfSelfCheck: never,
			},
			{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}, WaitInsteadOfSelfCheck: never,
				Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"tls.example.com", "192.0.2.77"}}},
		},
	}
	r.create(issuer)
	r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: cmapi.CertificateSpec{
		SecretName:  "web",
		DNSNames:    []string{"WWW.example.com", "tls.example.com"},
		IPAddresses: []string{"192.0.2.77"},
		IssuerRef:   cmmeta.IssuerReference{Name: "pebble"},
	}})
	challenges := map[string]cmacme.Challenge{}
	cluster.Eventually(t, func() error {
		var list cmacme.ChallengeList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, ch := range list.Items {
			challenges[ch.Spec.DNSName] = ch
		}
		if len(challenges) < 3 {
			return cluster.NotYet("the Challenges are %s", r.story(r.namespace))
		}
		return nil
	})

	// A replica of a controller for one namespace.
	r.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "replica"}})
	r.create(
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Name: "replica"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{"acme.cert-manager.io"}, Resources: []string{"challenges"}, Verbs: []string{"list"}},
			},
		},
	)
	r.create(
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "replica"},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "replica"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.namespace, Name: "replica"}},
		},
	)
	cfg, err := serviceaccount.Config(t.Context(), cluster.Plane(t).AdminConfig(), r.namespace, "replica")
	if err != nil {
		t.Fatal(err)
	}
	direct, err := client.New(cfg, client.Options{Scheme: controller.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	// Its cache is that of another namespace: it will never have them.
	late, err := cache.New(
		cluster.Plane(t).AdminConfig(),
		cache.Options{Scheme: controller.Scheme(), DefaultNamespaces: map[string]cache.Config{cluster.Namespace(t): {}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := http01.AddIndexes(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if err := tlsalpn01.AddIndexes(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	go func() { _ = late.Start(t.Context()) }()
	late.WaitForCacheSync(t.Context())

	pages := (&http01.Solver{Cache: late, Direct: direct, Namespace: r.namespace, Now: time.Now}).Handler()
	www := challenges["www.example.com"]
	for name, test := range map[string]struct {
		host, token string
		status      int
	}{
		"the proof":        {"www.example.com", www.Spec.Token, http.StatusOK},
		"in capitals":      {"WWW.Example.com", www.Spec.Token, http.StatusOK},
		"for another host": {"example.com", www.Spec.Token, http.StatusNotFound},
		"an unknown token": {"www.example.com", "0123456789012345678901234567890123456789", http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, http01.URL(test.host, test.token), nil))
			if w.Code != test.status || test.status == http.StatusOK && w.Body.String() != www.Spec.Key {
				t.Errorf("it answers %d %s", w.Code, w.Body)
			}
		})
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handshakes := &tlsalpn01.Listener{
		Solver: &tlsalpn01.Solver{Cache: late, Live: direct, Namespace: r.namespace, Now: time.Now},
		Log:    logr.Discard(),
	}
	go func() { _ = handshakes.Serve(t.Context(), listener) }()
	for name, answered := range map[string]bool{
		"tls.example.com": true, "77.2.0.192.in-addr.arpa": true, "www.example.com": false,
	} {
		t.Run("the handshake of "+name, func(t *testing.T) {
			conn, err := tls.Dial(
				"tcp",
				listener.Addr().String(),
				&tls.Config{ServerName: name, NextProtos: []string{acme.TLSALPN01Protocol}, InsecureSkipVerify: true},
			)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != answered {
				t.Errorf("got %v", err)
			}
		})
	}
}
