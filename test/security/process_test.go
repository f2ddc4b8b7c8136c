// Package security_test checks the claims of docs/security.md about the whole program. The
// controller runs as a separate process against a real Kubernetes API and a real ACME server.
package security_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// output is the output of a process.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is the controller as a separate process that is restarted when it ends, like by a
// kubelet.
type process struct {
	t      *testing.T
	args   []string
	out    output
	ending chan struct{} // closed when it is to end
	ended  chan struct{}

	mu  sync.Mutex
	cmd *exec.Cmd
}

func startProcess(t *testing.T, flags ...string) *process {
	t.Helper()
	p := &process{
		t: t, ending: make(chan struct{}), ended: make(chan struct{}),
		args: append([]string{"controller", "--kubeconfig", cluster.Kubeconfig(t, deploy.Namespace, deploy.ServiceAccount),
			"--cluster-resource-namespace=" + deploy.Namespace, "--health-listen-address="}, flags...),
	}
	path := cluster.Program(t)
	begin := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd = exec.Command(path, p.args...)
		p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}
		p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
		return p.cmd.Start()
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for {
			p.mu.Lock()
			cmd := p.cmd
			p.mu.Unlock()
			_ = cmd.Wait()
			select {
			case <-p.ending:
				return
			default:
			}
			if begin() != nil {
				return
			}
		}
	}()
	t.Cleanup(p.end)
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(s)
}

// end ends the process, even if it is stopped.
func (p *process) end() {
	select {
	case <-p.ended:
		return
	default:
	}
	close(p.ending)
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	select {
	case <-p.ended:
	case <-time.After(40 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
	if p.t.Failed() {
		lines := strings.Split(p.out.String(), "\n")
		p.t.Log(strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// world is a namespace with its objects, and those in the namespace of the ClusterIssuers.
type world struct {
	*testing.T
	client.Client
	namespace string
}

func newWorld(t *testing.T) *world { return &world{t, cluster.Admin(t), cluster.Namespace(t)} }

func (w *world) create(o client.Object) {
	w.Helper()
	if err := w.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = w.Delete(context.Background(), o) })
}

// secret creates a Secret in the namespace of ClusterIssuers.
func (w *world) secret(name, key, value string) cmmeta.SecretKeySelector {
	w.Helper()
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: name},
		Data: map[string][]byte{key: []byte(value)}})
	return cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}, Key: key}
}

func (w *world) acmeIssuer(name string, spec *cmacme.ACMEIssuer) {
	w.Helper()
	w.create(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: spec}}})
}

func (w *world) certificate(name, issuer string, change ...func(*cmapi.Certificate)) *cmapi.Certificate {
	w.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Kind: "ClusterIssuer",
				Name: issuer},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		}}
	for _, f := range change {
		f(crt)
	}
	w.create(crt)
	return crt
}

// allReady waits until all Certificates of the namespace are Ready and none is being issued.
func (w *world) allReady() []cmapi.Certificate {
	w.Helper()
	var list cmapi.CertificateList
	cluster.Eventually(w, func() error {
		if err := w.List(w.Context(), &list, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			c := cmapi.GetCertificateCondition(&list.Items[i].Status, cmapi.CertificateConditionReady)
			if c == nil || c.Status != cmmeta.ConditionTrue {
				return cluster.NotYet("Certificate %s: %+v", list.Items[i].Name, list.Items[i].Status.Conditions)
			}
			c = cmapi.GetCertificateCondition(&list.Items[i].Status, cmapi.CertificateConditionIssuing)
			if c != nil && c.Status == cmmeta.ConditionTrue {
				return cluster.NotYet("Certificate %s is being issued: %s", list.Items[i].Name, c.Message)
			}
		}
		return nil
	})
	return list.Items
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
