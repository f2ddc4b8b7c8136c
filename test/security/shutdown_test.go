package security_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
)

// gracePeriod is how long a kubelet waits by default between SIGTERM and SIGKILL.
const gracePeriod = 30 * time.Second

// pass is a proxy before the API server. From hang on, it answers no write, as if an admission
// webhook did not answer.
type pass struct {
	kubeconfig string
	hangs      atomic.Bool

	mu   sync.Mutex
	held map[string]bool // the last parts of the paths of requests that are not answered
}

func newPass(t *testing.T) *pass {
	t.Helper()
	p := &pass{held: map[string]bool{}}
	config, err := clientcmd.LoadFromFile(cluster.Kubeconfig(t, deploy.Namespace, deploy.ServiceAccount))
	if err != nil {
		t.Fatal(err)
	}
	api := cluster.Plane(t).AdminConfig()
	transport, err := rest.TransportFor(
		&rest.Config{Host: api.Host, TLSClientConfig: rest.TLSClientConfig{CAData: api.CAData}},
	)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(api.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1,
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.hangs.Load() && r.Method != http.MethodGet {
			p.mu.Lock()
			p.held[filepath.Base(r.URL.Path)] = true
			p.mu.Unlock()
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	for _, c := range config.Clusters {
		c.Server = server.URL
		c.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	}
	p.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, p.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

// holds reports whether a request whose path ends so is not answered.
func (p *pass) holds(last string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[last]
}

// TestItEndsWithinItsGracePeriod ends the controller while it generates large keys, waits for a CA
// that does not answer, and for an API server that answers no write.
func TestItEndsWithinItsGracePeriod(t *testing.T) {
	w, api := newWorld(t), newPass(t)
	var asked atomic.Int32
	ca := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	}))
	t.Cleanup(func() {
		ca.CloseClientConnections()
		ca.Close()
	})
	p := startProcess(t, "--kubeconfig="+api.kubeconfig, "--metrics-listen-address=", "--v=1")
	w.create(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "ending"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	w.certificate("before", "ending")
	w.allReady()

	for i := range 10 { // more than there are workers
		w.certificate(fmt.Sprintf("large-%d", i), "ending", func(crt *cmapi.Certificate) {
			crt.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 8192}
		})
	}
	w.acmeIssuer("ending-acme", &cmacme.ACMEIssuer{Server: ca.URL + "/dir",
		CABundle:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw}),
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "ending-account"}}})
	cluster.Eventually(t, func() error {
		if asked.Load() == 0 {
			return cluster.NotYet("the CA is not asked")
		}
		return nil
	})
	api.hangs.Store(true)
	w.certificate("after", "ending")
	cluster.Eventually(t, func() error {
		if !api.holds("certificaterequests") {
			return cluster.NotYet("no write hangs")
		}
		return nil
	})

	close(p.ending)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(gracePeriod):
		p.signal(syscall.SIGKILL)
		<-p.ended
		t.Fatalf("it was killed after the grace period; it had said: %s", p.out.String())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d: %s", code, p.out.String())
	}
	t.Logf("it ended after %s", time.Since(began).Round(time.Millisecond))
}
