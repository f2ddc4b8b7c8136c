// Package webhook_test issues certificates through DNS-01 webhooks for cert-manager. The webhooks
// are separate processes, built with cert-manager's library, behind an APIService of a real
// kube-apiserver.
package webhook_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestTheExampleIssuesAWildcardAndItsApexThroughAWebhook(t *testing.T) {
	r := start(t)
	r.serve()
	r.apply("2-issuer.yaml")
	r.ready(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "acme-webhook", Name: "wildcard"}})
	r.gone("_acme-challenge.example.com")
}

// silence replaces the webhook: it serves discovery for the API server, and answers no other
// request. It returns the current and the maximum number of waiting requests.
func (r *rig) silence() (wait func() (now, most int)) {
	r.Helper()
	tls := filepath.Join(r.files, "tls")
	cluster.Eventually(r, func() error {
		_, err := os.Stat(filepath.Join(tls, "tls.key"))
		return err
	})
	var mu sync.Mutex
	var now, most int
	release := make(chan struct{})
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		r.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodPost {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(
				w,
				`{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"%s/v1alpha1","resources":[{"name":"rfc2136","namespaced":false,"kind":"ChallengePayload","verbs":["create"]}]}`,
				group,
			)
			return
		}
		if got, want := q.UserAgent(), version.UserAgent("perennial"); got != want {
			r.Errorf("User-Agent %s, want %s", got, want)
		}
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		select {
		case <-release:
		case <-q.Context().Done():
		}
		mu.Lock()
		now--
		mu.Unlock()
	})}
	go server.ServeTLS(listener, filepath.Join(tls, "tls.crt"), filepath.Join(tls, "tls.key"))
	r.Cleanup(func() {
		close(release)
		server.Close()
	})
	r.available("True")
	return func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return now, most
	}
}

func TestAWebhookThatNeverAnswersStopsNoOtherSolverOfTheSameCA(t *testing.T) {
	r := start(t)
	wait := r.silence()
	const many = 20
	config := r.settings()
	first := r.certificate(cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: config})
	create := func(o client.Object) {
		t.Helper()
		o.SetNamespace(r.namespace)
		if err := r.admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(issuer, name string) *cmapi.Certificate {
		t.Helper()
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: issuer},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		}}
		create(crt)
		return crt
	}
	for i := range many {
		ask("by-webhook", fmt.Sprint("dead-", i))
	}
	hangs := func() {
		t.Helper()
		cluster.Eventually(t, func() error {
			if now, _ := wait(); now == 0 {
				return cluster.NotYet("no pass waits for the webhook; the challenges say %q", r.reasons(r.namespace))
			}
			return nil
		})
	}
	hangs()
	r.says("Waiting for its turn at the webhook acme.example.com/rfc2136, which takes long to answer others")
	create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "direct"},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
				Server:     r.ca.Directory,
				CABundle:   r.ca.CABundle,
				PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "direct"}},
				Solvers: []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
					Nameservers: []string{
						r.names.Addr,
					},
					RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
						Nameserver:    r.names.Addr,
						TSIGKeyName:   tsigKey,
						TSIGAlgorithm: "HMACSHA256",
						TSIGSecret: cmmeta.SecretKeySelector{
							LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"},
							Key:                  "key",
						},
					},
				}}},
			}}},
		},
	)
	for i := range 3 {
		r.ready(ask("direct", fmt.Sprint("works-", i)))
	}
	hangs()
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(first), first); err != nil {
		t.Fatal(err)
	}
	if c := cmapi.GetCertificateCondition(
		&first.Status,
		cmapi.CertificateConditionReady,
	); c != nil &&
		c.Status == cmmeta.ConditionTrue {
		t.Error("there is a certificate, although the webhook never answered")
	}
	// The end of one may be seen after the beginning of the next.
	if _, most := wait(); most > 2*controller.DefaultWorkers {
		t.Errorf("%d waited for the webhook at once", most)
	}
}

func TestAWebhookThatIsNotInstalledIsNamedAndUsedWhenItComes(t *testing.T) {
	r := start(t)
	for _, o := range []client.Object{
		r.apiService(),
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "acme-webhook:domain-solver"}},
	} {
		if err := r.admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	crt := r.certificate(
		cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: r.settings()},
	)
	r.refused(
		"there is no APIService v1alpha1.acme.example.com: install the webhook that serves the group acme.example.com, " +
			"or correct dns01.webhook.groupName",
	)
	r.apply("1-webhook.yaml")
	r.serve()
	r.ready(crt)
}

func TestAWebhookThatDoesNotRunIsNamedAndUsedWhenItDoes(t *testing.T) {
	r := start(t)
	r.available("False")
	crt := r.certificate(
		cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: r.settings()},
	)
	r.refused("APIService v1alpha1.acme.example.com is not available (FailedDiscoveryCheck: ")
	r.refused("does the webhook behind Service acme-webhook/webhook run?")
	r.serve()
	r.ready(crt)
	r.gone("_acme-challenge.www.example.com")
}

func TestTheRecordOfAWebhookThatStoppedIsRemovedWhenItRunsAgain(t *testing.T) {
	r := start(t)
	stop := r.serve()
	// A server that still has no record holds the challenge.
	r.names.Hide("_acme-challenge.www.example.com", true)
	r.certificate(cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: r.settings()})
	r.says("still answers no TXT record")
	stop()
	r.available("False")
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "site"}}
	if err := r.admin.Delete(t.Context(), crt); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, func() error {
		var events corev1.EventList
		if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "CleanUpError" &&
				strings.Contains(e.Message, "APIService v1alpha1.acme.example.com is not available") {
				return nil
			}
		}
		return cluster.NotYet("no event says that the record stays")
	})
	r.serve()
	r.gone("_acme-challenge.www.example.com")
}

func TestWhatAWebhookRefusesIsSaidInItsWords(t *testing.T) {
	r := start(t)
	r.serve()
	for name, test := range map[string]struct {
		webhook cmacme.ACMEIssuerDNS01ProviderWebhook
		says    []string
	}{
		"a solver that it does not have": {cmacme.ACMEIssuerDNS01ProviderWebhook{
			GroupName: group, SolverName: "powerdns", Config: r.settings(),
		},
			[]string{`the webhook behind APIService v1alpha1.acme.example.com has no solver "powerdns", it has rfc2136: correct dns01.webhook.solverName`}},
		"a configuration that it does not take": {cmacme.ACMEIssuerDNS01ProviderWebhook{
			GroupName: group, SolverName: "rfc2136", Config: r.settings("HMACSHA256", "ROT13"),
		},
			[]string{"the webhook acme.example.com/rfc2136 says: ", "ROT13"}},
		"no configuration": {cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136"},
			[]string{"the webhook acme.example.com/rfc2136 says: no challenge solver config provided"}},
		"a Secret that is not in the issuer's namespace": {cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: r.settings(`"name":"tsig"`, `"name":"lost"`)},
			[]string{`the webhook acme.example.com/rfc2136 says: `, `"lost" not found`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.T, r.namespace = t, cluster.Namespace(t)
			r.certificate(test.webhook)
			r.says(test.says...)
		})
	}
	for name, test := range map[string]struct {
		webhook cmacme.ACMEIssuerDNS01ProviderWebhook
		says    string
	}{
		"a group that is the API server's own": {cmacme.ACMEIssuerDNS01ProviderWebhook{
			GroupName: "perennial.dev", SolverName: "controllers",
		},
			"APIService v1alpha1.perennial.dev is of the API server itself, so it is no webhook: correct " +
				"dns01.webhook.groupName"},
		"a group that leads elsewhere": {cmacme.ACMEIssuerDNS01ProviderWebhook{
			GroupName: "../api/v1/namespaces", SolverName: "x",
		},
			`dns01.webhook.groupName: "../api/v1/namespaces" is not the name of an API group`},
		"a solver that leads elsewhere": {cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "../../x"},
			`dns01.webhook.solverName: "../../x" is not the name of a solver`},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.T, r.namespace = t, cluster.Namespace(t)
			r.certificate(test.webhook)
			r.refused(test.says)
		})
	}
}

// TestTheWebhookOfAClusterIssuerNamesNoneOfItsSecrets has a webhook name a Secret that a tenant
// cannot see.
func TestTheWebhookOfAClusterIssuerNamesNoneOfItsSecrets(t *testing.T) {
	r := start(t)
	r.serve()
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "shared-webhook"},
		Spec: r.issuing(cmacme.ACMEIssuerDNS01ProviderWebhook{
			GroupName: group, SolverName: "rfc2136", Config: r.settings(`"name":"tsig"`, `"name":"payroll-dns-key"`),
		})}
	if err := r.admin.Create(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.admin.Delete(context.Background(), issuer) })
	r.request(cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer.Name})
	r.says("the webhook acme.example.com/rfc2136 says: ", `"(see webhook.config)" not found`)
	for _, reason := range r.reasons(r.namespace) {
		if strings.Contains(reason, "payroll") || strings.Contains(reason, deploy.Namespace) {
			t.Errorf("a tenant reads %q", reason)
		}
	}
}

func TestAWebhookThatTheControllerMayNotAskSaysWhichRoleToBind(t *testing.T) {
	r := start(t)
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "acme-webhook:domain-solver"}}
	if err := r.admin.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	r.serve()
	crt := r.certificate(
		cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: group, SolverName: "rfc2136", Config: r.settings()},
	)
	r.says(
		"the controller may not ask the webhook acme.example.com/rfc2136: ",
		`User "system:serviceaccount:perennial-system:perennial-controller" cannot create resource "rfc2136"`,
		"Bind the webhook's ClusterRole, mostly called <webhook>:domain-solver, to the controller's ServiceAccount",
	)
	r.apply("1-webhook.yaml")
	r.ready(crt)
}
