package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// shell runs perennial in a namespace, as a user would.
type shell struct {
	*testing.T
	client.Client
	namespace string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	return &shell{t, cluster.Admin(t), cluster.Namespace(t)}
}

type answer struct {
	code     int
	out, err string
}

func (s *shell) perennial(args ...string) answer {
	s.Helper()
	return perennial(s.T, append(args, "--kubeconfig", cluster.Plane(s).KubeconfigPath(), "-n", s.namespace)...)
}

func perennial(t *testing.T, args ...string) answer {
	t.Helper()
	var out, err bytes.Buffer
	p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &err, Clock: clock.RealClock{}}
	code := p.Run(t.Context(), p.Command(), args)
	return answer{code, out.String(), err.String()}
}

// has reports whether the program said this, on whichever stream.
func (a answer) has(words string) bool { return strings.Contains(a.out+a.err, words) }

// says fails the test unless the program ended with the code and said all of this, on whichever
// stream.
func (a answer) says(t *testing.T, code int, words ...string) {
	t.Helper()
	if a.code != code {
		t.Errorf("exit code %d, want %d", a.code, code)
	}
	for _, w := range words {
		if !strings.Contains(a.out+a.err, w) {
			t.Errorf("it does not say %q", w)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s%s", a.out, a.err)
	}
	if strings.Contains(a.out+a.err, "PRIVATE KEY") {
		t.Error("it shows a private key")
	}
}

func (s *shell) create(objects ...client.Object) {
	s.Helper()
	for _, o := range objects {
		o.SetNamespace(s.namespace)
		if err := s.Create(s.Context(), o); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *shell) selfSigned() {
	s.Helper()
	s.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
}

func certificate(name string) *cmapi.Certificate {
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "a"}},
		Spec: cmapi.CertificateSpec{
			DNSNames: []string{
				name + ".example.com",
			},
			CommonName: name,
			SecretName: name,
			IssuerRef:  cmmeta.IssuerReference{Name: "self"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
}

func (s *shell) until(code int, args ...string) answer {
	s.Helper()
	var a answer
	cluster.Eventually(s, func() error {
		if a = s.perennial(args...); a.code != code {
			return cluster.NotYet("exit code %d: %s%s", a.code, a.out, a.err)
		}
		return nil
	})
	return a
}

func TestStatusFollowsACertificateToItsSecret(t *testing.T) {
	s := newShell(t)
	s.perennial("status", "certificate", "web").says(t, cli.ExitNotFound, `there is no Certificate "web" in namespace`)
	s.create(certificate("web"))
	s.perennial("status", "certificate", "web").says(t, cli.ExitNotReady, "has not been processed", "Next: ")
	cluster.Run(t, controller.Options{Namespace: s.namespace})
	cluster.Eventually(t, func() error {
		if a := s.perennial(
			"status",
			"certificate",
			"web",
		); a.code != cli.ExitNotReady ||
			!strings.Contains(a.out, "CertificateRequest web-1") {
			return cluster.NotYet("%s", a.out)
		}
		return nil
	})
	s.perennial("status", "certificate", "web").
		says(t, cli.ExitNotReady, `Next: create Issuer "self" in namespace`, "Secret web", "missing")
	s.selfSigned()
	s.until(cli.ExitOK, "status", "certificate", "web").
		says(t, cli.ExitOK, "is up to date, expires in", "certificate for web.example.com", "Events", "The certificate "+
			"has been successfully issued")

	var report struct {
		Ready bool
		Steps []struct{ Kind, Name, State string }
	}
	a := s.perennial("status", "certificate", "web", "-o", "json")
	if err := json.Unmarshal([]byte(a.out), &report); err != nil {
		t.Fatalf("%v in:\n%s", err, a.out)
	}
	if !report.Ready || len(report.Steps) != 4 {
		t.Errorf("as JSON: %+v", report)
	}
}

func TestListShowsFirstWhatIsWrong(t *testing.T) {
	s := newShell(t)
	s.perennial("list").says(t, cli.ExitOK, "no Certificates found")
	s.selfSigned()
	bad := certificate("bad")
	bad.Spec.IssuerRef.Name = "none"
	s.create(certificate("good"), bad)
	cluster.Run(t, controller.Options{Namespace: s.namespace})
	s.until(cli.ExitOK, "status", "certificate", "good")
	cluster.Eventually(t, func() error {
		a := s.perennial("list")
		if good, bad := strings.Index(
			a.out,
			"\ngood ",
		), strings.Index(
			a.out,
			"\nbad ",
		); bad < 0 || good < bad ||
			!strings.Contains(a.out, "DoesNotExist") {
			return cluster.NotYet("%s", a.out)
		}
		return nil
	})
	s.perennial("list").says(t, cli.ExitNotReady)
	if a := s.perennial("list", "--not-ready"); strings.Contains(a.out, "good") {
		t.Errorf("it lists what is ready:\n%s", a.out)
	}
	s.perennial("list", "-A").says(t, cli.ExitNotReady, "NAMESPACE", s.namespace)
	s.perennial("list", "-l", "team=b").says(t, cli.ExitOK, "no Certificates found")
}

func TestRenewIssuesAnew(t *testing.T) {
	s := newShell(t)
	s.selfSigned()
	s.create(certificate("a"), certificate("b"))
	cluster.Run(t, controller.Options{Namespace: s.namespace})
	revision := func(name string, n int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			crt := &cmapi.Certificate{}
			if err := s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, crt); err != nil {
				return err
			}
			if crt.Status.Revision == nil || *crt.Status.Revision != n {
				return cluster.NotYet("%+v", crt.Status)
			}
			return nil
		})
	}
	revision("a", 1)
	revision("b", 1)
	s.perennial("renew", "a").says(t, cli.ExitOK, "/a will be issued anew")
	revision("a", 2)
	s.perennial("renew", "-l", "team=a").says(t, cli.ExitOK, "/a will", "/b will")
	revision("a", 3)
	revision("b", 2)
	s.perennial("renew", "--all").says(t, cli.ExitOK)
	revision("b", 3)
	waits := certificate("waits")
	waits.Spec.IssuerRef.Name = "none"
	s.create(waits)
	cluster.Eventually(t, func() error {
		if err := s.Get(
			t.Context(),
			client.ObjectKeyFromObject(waits),
			waits,
		); err != nil ||
			waits.Status.NextPrivateKeySecretName == nil {
			return cluster.NotYet("%+v, %v", waits.Status, err)
		}
		return nil
	})
	s.perennial("renew", "waits").
		says(t, cli.ExitOK, "is being issued already", "perennial status certificate waits -n "+s.namespace)
	s.perennial("renew", "none").says(t, cli.ExitNotFound, `there is no Certificate "none"`)
	s.perennial("renew").says(t, cli.ExitUsage, "NAME..., -l SELECTOR or --all")
	s.perennial("renew", "a", "--all").says(t, cli.ExitUsage, "in one way")
	s.perennial("renew", "-l", "team=none").says(t, cli.ExitNotFound, "no Certificates found")
}

func TestARequestIsMadeApprovedAndFetched(t *testing.T) {
	s := newShell(t)
	s.selfSigned()
	dir := t.TempDir()
	manifest := filepath.Join(dir, "certificate.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(manifest, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(dir, "key")
	args := func(name string, more ...string) []string {
		return append([]string{"create", "certificaterequest", name, "-f", manifest, "--output-key-file", key}, more...)
	}
	write("apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: x}\nspec: {dnsName: x}\n")
	s.perennial(args("x")...).says(t, cli.ExitError, "unknown field", "dnsName")
	write("apiVersion: v1\nkind: ConfigMap\n")
	s.perennial(args("x")...).says(t, cli.ExitError, "has no Certificate")
	write(
		"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: x}\nspec:\n  dnsNames: [x.example.com]\n  " +
			"secretName: x\n  issuerRef: {name: self}\n  privateKey: {algorithm: ECDSA}\n",
	)
	s.perennial(args("asked")...).says(t, cli.ExitOK, "created; its private key is in "+key)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	s.perennial(args("again")...).says(t, cli.ExitError, "--output-key-file", "exists")
	s.perennial("deny", "none").says(t, cli.ExitNotFound, `there is no CertificateRequest "none"`)
	s.perennial("approve", "asked").says(t, cli.ExitOK, "asked approved")
	s.perennial("deny", "asked").says(t, cli.ExitError, "is approved already")

	cr := &cmapi.CertificateRequest{}
	if err := s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "asked"}, cr); err != nil {
		t.Fatal(err)
	}
	if cr.Spec.Username != "kubernetes-admin" {
		t.Errorf("the request was made by %q", cr.Spec.Username)
	}
	s.perennial(args("denied", "--output-key-file", filepath.Join(dir, "key2"))...).says(t, cli.ExitOK)
	s.perennial("deny", "denied", "--message", "no").says(t, cli.ExitOK, "denied denied")
}

func TestInspectSaysWhetherASecretIsGood(t *testing.T) {
	s := newShell(t)
	s.selfSigned()
	s.create(certificate("web"))
	cluster.Run(t, controller.Options{Namespace: s.namespace})
	s.until(cli.ExitOK, "status", "certificate", "web")
	s.perennial("inspect", "secret", "web").
		says(t, cli.ExitOK, "is good", "DNS names      web.example.com", "CN=web", "SHA-256")
	s.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Data: map[string][]byte{"tls.crt": []byte("x")}},
	)
	s.perennial("inspect", "secret", "broken").says(t, cli.ExitNotReady, "is not good", "tls.crt")
	s.perennial("inspect", "secret", "none").says(t, cli.ExitNotFound, `there is no Secret "none"`)
	var report struct {
		Chain    []struct{ DNSNames []string }
		Problems []string
	}
	if a := s.perennial(
		"inspect",
		"secret",
		"web",
		"-o",
		"json",
	); json.Unmarshal([]byte(a.out), &report) != nil || len(report.Problems) != 0 ||
		report.Chain[0].DNSNames[0] != "web.example.com" {
		t.Errorf("as JSON: %s", a.out)
	}
}

func TestCheckVersionAndMistakes(t *testing.T) {
	s := newShell(t)
	s.perennial("check", "api").says(t, cli.ExitOK, "the API is ready")
	s.perennial("version").says(t, cli.ExitOK, "perennial ", "Kubernetes API v1.37.2")
	perennial(t, "check", "api", "--kubeconfig", "/no/such/file").says(t, cli.ExitError, "/no/such/file")
	perennial(t, "frobnicate").says(t, cli.ExitUsage, `unknown command "frobnicate"`, "see: perennial --help")
	perennial(t, "list", "--frobnicate").says(t, cli.ExitUsage, "unknown flag")
	s.perennial("list", "-o", "yaml").says(t, cli.ExitUsage, "-o must be json")
	s.perennial("status", "certificate").says(t, cli.ExitUsage, "the NAME of a Certificate is missing")
	s.perennial("status", "certificate", "a", "b").says(t, cli.ExitUsage, `"b" is one argument too many`)
	s.perennial("list", "--as", "stranger").says(t, cli.ExitError, `User "stranger" cannot list resource "certificates"`)
}
