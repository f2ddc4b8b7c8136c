// Package cluster gives tests a real Kubernetes API with Perennial's API and RBAC installed, and
// runs the controller in it under the shipped RBAC.
package cluster

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/standalone/serviceaccount"
)

// patience is the maximum wait for a condition on a busy machine. Tests do not depend on the actual
// time.
const patience = 3 * time.Minute

// Main runs the tests of a package, which share one control plane, and then stops it. The control
// plane starts when a test first needs it.
func Main(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // for code without a logger of its own
	code := m.Run()
	if shared.plane != nil {
		if err := shared.plane.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "the control plane ended with:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// Admin returns a client with all permissions.
func Admin(t testing.TB) client.WithWatch {
	t.Helper()
	c, err := client.NewWithWatch(Plane(t).AdminConfig(), client.Options{Scheme: controller.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Namespace creates a namespace for the test and deletes it when the test ends.
func Namespace(t testing.TB) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	admin := Admin(t)
	if err := admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Delete(context.Background(), ns) })
	return ns.Name
}

// Config returns the client configuration of the controller's ServiceAccount.
func Config(t testing.TB) *rest.Config {
	t.Helper()
	cfg, err := serviceaccount.Config(t.Context(), Plane(t).AdminConfig(), deploy.Namespace, deploy.ServiceAccount)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Controller is a running controller.
type Controller struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Run runs the controller until the test ends, or Stop.
func Run(t testing.TB, o controller.Options) *Controller {
	t.Helper()
	return RunAs(t, Config(t), o)
}

// RunAs is Run with another connection to the API server.
func RunAs(t testing.TB, cfg *rest.Config, o controller.Options) *Controller {
	t.Helper()
	if o.Log.GetSink() == nil {
		o.Log = testLog(t)
	}
	if o.AllowedAddresses == nil { // the servers of tests are on this machine
		o.AllowedAddresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Controller{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = controller.Run(ctx, cfg, o)
	}()
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
	return c
}

// Stop stops the controller, waits until it has ended, and returns the error that it ended with.
func (c *Controller) Stop() error {
	c.cancel()
	<-c.done
	return c.err
}

// Done is closed when the controller has ended.
func (c *Controller) Done() <-chan struct{} { return c.done }

// testLog is the log of a controller, which is shown when the test fails.
func testLog(t testing.TB) logr.Logger {
	const most = 300
	var mu sync.Mutex
	var lines []string
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() {
			t.Logf("the end of the controller's log:\n%s", strings.Join(lines, "\n"))
		}
	})
	return funcr.New(func(prefix, args string) {
		for _, usual := range []string{
			"Starting EventSource", "Starting Controller", "Starting workers", "Shutdown signal",
			"All workers finished", "Stopping and waiting",
		} {
			if strings.Contains(args, usual) {
				return
			}
		}
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, prefix+" "+args)
		if len(lines) > most {
			lines = lines[1:]
		}
	}, funcr.Options{LogTimestamp: true, Verbosity: 1})
}

// Pair returns the chain and the private key in a Secret.
func Pair(t testing.TB, key client.ObjectKey) ([]*x509.Certificate, crypto.Signer) {
	t.Helper()
	secret := &corev1.Secret{}
	if err := Admin(t).Get(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	chain, err := pki.Limits{}.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		t.Fatal(err)
	}
	private, err := pki.Limits{}.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	return chain, private
}

// Eventually waits until f returns nil, and fails the test with its last error if it does not.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			return
		}
		// Most checks read from the API server. A long wait with short intervals costs it more than the
		// controller does.
		wait := min(max(time.Since(began)/20, 20*time.Millisecond), 200*time.Millisecond)
		select {
		case <-ctx.Done():
			t.Fatalf("still not so after %s: %v", patience, err)
		case <-time.After(wait):
		}
	}
}

// ErrNotYet is an error for conditions of Eventually that have no details.
var ErrNotYet = errors.New("not yet")

// NotYet returns an error for conditions of Eventually.
func NotYet(format string, args ...any) error { return fmt.Errorf("not yet: "+format, args...) }
