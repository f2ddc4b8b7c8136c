package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cert-manager/cert-manager/pkg/acme/webhook/cmd"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/rfc2136"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/standalone/files"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// group is the API group of the webhook. asWebhook is the environment variable that makes the test
// binary run as the webhook.
const group, asWebhook = "acme.example.com", "PERENNIAL_TEST_WEBHOOK"

func TestMain(m *testing.M) {
	if os.Getenv(asWebhook) != "" { // as the main function of every webhook; the flags are those of the library
		cmd.RunWebhookServer(group, rfc2136.New())
		return
	}
	cluster.Main(m)
}

// The TSIG key for updates of the DNS server.
const tsigKey, tsigSecret = "updates", "c2VjcmV0LW9mLXRoZS10c2lnLWtleS1mb3ItdGVzdHM="

// rig is a CA, its DNS zone, and a controller.
type rig struct {
	*testing.T
	ca        *pebble.Server
	names     *dnsserver.Server
	admin     client.WithWatch
	namespace string
	files     string // where the webhook finds its certificate
	port      int    // where it is to listen
}

// start applies the manifests of the example for the webhook, which does not run yet.
func start(t *testing.T) *rig {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	cluster.Run(t, controller.Options{ClusterResourceNamespace: deploy.Namespace})
	r := &rig{
		T:         t,
		ca:        ca,
		names:     names,
		admin:     cluster.Admin(t),
		namespace: cluster.Namespace(t),
		port:      cluster.FreePort(t),
	}
	if r.files, err = filepath.EvalSymlinks(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	r.writeFiles()
	r.apply("1-webhook.yaml")
	return r
}

// writeFiles does what perenniald does for CertificateFiles.
func (r *rig) writeFiles() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- files.Run(ctx, cluster.Plane(r).AdminConfig(), files.Options{Roots: []string{r.files}, Log: logr.Discard()})
	}()
	r.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.Errorf("writing files ended with: %v", err)
		}
	})
}

// apply applies a file of the example, adapted to the rig.
func (r *rig) apply(file string) {
	r.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples/webhook", file))
	if err != nil {
		r.Fatal(err)
	}
	world := strings.NewReplacer(
		"/etc/acme-webhook",
		r.files,
		"port: 8443",
		"port: "+strconv.Itoa(r.port),
		"${ACME_DIRECTORY}",
		r.ca.Directory,
		"${ACME_CA_BUNDLE}",
		base64.StdEncoding.EncodeToString(r.ca.CABundle),
		"${DNS_SERVER}",
		r.names.Addr,
		"${TSIG_NAME}",
		tsigKey,
		"${TSIG_SECRET}",
		tsigSecret,
	)
	for document := range strings.SplitSeq(world.Replace(string(content)), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &u.Object); err != nil {
			r.Fatalf("%s: %v", file, err)
		}
		if err := r.admin.Apply(
			r.Context(),
			client.ApplyConfigurationFromUnstructured(u),
			client.FieldOwner("test"),
			client.ForceOwnership,
		); err != nil {
			r.Fatalf("%s: %v", file, err)
		}
	}
}

// serve runs the webhook until the test ends or the returned function stops it, and waits until the
// API server forwards requests to it.
func (r *rig) serve() (stop func()) {
	r.Helper()
	tls := filepath.Join(r.files, "tls")
	cluster.Eventually(r, func() error {
		_, err := os.Stat(filepath.Join(tls, "tls.key"))
		return err
	})
	kubeconfig := r.account()
	var log bytes.Buffer
	process := exec.Command(os.Args[0],
		"--secure-port", strconv.Itoa(r.port), "--bind-address", "127.0.0.1",
		"--tls-cert-file", filepath.Join(tls, "tls.crt"), "--tls-private-key-file", filepath.Join(tls, "tls.key"),
		"--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig, "--authorization-kubeconfig", kubeconfig)
	process.Env = append(os.Environ(), asWebhook+"=yes")
	process.Stdout, process.Stderr = &log, &log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		r.Fatal(err)
	}
	running := true
	stop = func() {
		if running {
			running = false
			_ = process.Process.Kill()
			_ = process.Wait()
		}
	}
	r.Cleanup(func() {
		stop()
		if r.Failed() {
			r.Logf("the webhook's log:\n%s", log.String())
		}
	})
	r.available("True")
	return stop
}

// available waits until the API server reports that the webhook is available, or that it is not.
func (r *rig) available(want string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		service := r.apiService()
		if err := r.admin.Get(r.Context(), client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(service.Object, "status", "conditions")
		if err != nil {
			return err
		}
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "Available" && c["status"] == want {
				if conn, err := net.Dial(
					"tcp",
					fmt.Sprintf("127.0.0.1:%d", r.port),
				); (err == nil) == (want == "True") { // not of the test before
					if err == nil {
						conn.Close()
					}
					return nil
				}
			}
		}
		return cluster.NotYet("Available is not %s: %v", want, conditions)
	})
}

func (r *rig) apiService() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("apiregistration.k8s.io/v1")
	u.SetKind("APIService")
	u.SetName("v1alpha1." + group)
	return u
}

// account creates the ServiceAccount of the webhook with the usual permissions of such charts, and
// returns its kubeconfig.
func (r *rig) account() string {
	r.Helper()
	const namespace, name = "acme-webhook", "webhook"
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}}
	for _, o := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "acme-webhook:auth-delegator"}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{
			Namespace: "kube-system", Name: "acme-webhook:authentication-reader",
		}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{
				APIGroup: rbacv1.GroupName, Kind: "Role", Name: "extension-apiserver-authentication-reader",
			}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "acme-webhook:secrets"},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}},
			}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "acme-webhook:secrets"}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "acme-webhook:secrets"}},
	} {
		if err := r.admin.Create(r.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			r.Fatal(err)
		}
	}
	return cluster.Kubeconfig(r, namespace, name)
}

// certificate requests a certificate from an Issuer of the namespace with this webhook as its
// solver.
func (r *rig) certificate(webhook cmacme.ACMEIssuerDNS01ProviderWebhook) *cmapi.Certificate {
	r.Helper()
	for _, o := range []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tsig"}, StringData: map[string]string{"key": tsigSecret}},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "by-webhook"}, Spec: r.issuing(webhook)},
	} {
		o.SetNamespace(r.namespace)
		if err := r.admin.Create(r.Context(), o); err != nil {
			r.Fatal(err)
		}
	}
	return r.request(cmmeta.IssuerReference{Name: "by-webhook"})
}

// issuing is the spec of an issuer with a webhook.
func (r *rig) issuing(webhook cmacme.ACMEIssuerDNS01ProviderWebhook) cmapi.IssuerSpec {
	return cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
		Server: r.ca.Directory, CABundle: r.ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
			Nameservers: []string{r.names.Addr}, Webhook: &webhook,
		}}},
	}}}
}

// request creates a Certificate.
func (r *rig) request(issuer cmmeta.IssuerReference) *cmapi.Certificate {
	r.Helper()
	crt := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "site"},
		Spec: cmapi.CertificateSpec{
			SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: issuer,
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
	if err := r.admin.Create(r.Context(), crt); err != nil {
		r.Fatal(err)
	}
	return crt
}

// settings are the configuration of a webhook with solver rfc2136, with changes.
func (r *rig) settings(change ...string) *apiextensionsv1.JSON {
	text := fmt.Sprintf(
		`{"nameserver":%q,"tsigKeyName":%q,"tsigAlgorithm":"HMACSHA256","tsigSecretSecretRef":{"name":"tsig","key":"key"}}`,
		r.names.Addr,
		tsigKey,
	)
	return &apiextensionsv1.JSON{Raw: []byte(strings.NewReplacer(change...).Replace(text))}
}

func (r *rig) ready(crt *cmapi.Certificate) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet(
				"Certificate %s is not Ready: %+v, its challenges say %q",
				crt.Name,
				crt.Status.Conditions,
				r.reasons(crt.Namespace),
			)
		}
		return nil
	})
}

// reasons returns the reasons of the Challenges in a namespace.
func (r *rig) reasons(namespace string) []string {
	r.Helper()
	var list cmacme.ChallengeList
	if err := r.admin.List(r.Context(), &list, client.InNamespace(namespace)); err != nil {
		r.Fatal(err)
	}
	var reasons []string
	for _, ch := range list.Items {
		reasons = append(reasons, ch.Status.Reason)
	}
	return reasons
}

// refused waits until the Issuer reports an invalid solver, which needs no request to a webhook.
func (r *rig) refused(part string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		issuer := &cmapi.Issuer{}
		if err := r.admin.Get(r.Context(), client.ObjectKey{Namespace: r.namespace, Name: "by-webhook"}, issuer); err != nil {
			return err
		}
		for _, c := range issuer.Status.Conditions {
			if c.Type == cmapi.IssuerConditionReady && c.Status == cmmeta.ConditionFalse && strings.Contains(c.Message, part) {
				return nil
			}
		}
		return cluster.NotYet("%q is not in %+v", part, issuer.Status.Conditions)
	})
}

// says waits until a Challenge says something.
func (r *rig) says(parts ...string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		said := r.reasons(r.namespace)
		for _, part := range parts {
			if !strings.Contains(strings.Join(said, "\n"), part) {
				return cluster.NotYet("%q is not in %q", part, said)
			}
		}
		return nil
	})
}

// gone waits until the zone is as it was.
func (r *rig) gone(name string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if left := r.names.TXT(name); len(left) > 0 {
			return cluster.NotYet("%s still has %q", name, left)
		}
		return nil
	})
}
