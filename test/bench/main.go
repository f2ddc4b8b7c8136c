// Bench measures the controller against the real Kubernetes API, on the local machine: certificates
// a second, the controller's CPU and memory, and the API requests for a certificate. The API
// server, etcd and the load are in this process; the controller is a separate process, under the
// shipped RBAC.
//
//	go -C test run ./bench [-certificates 500] [-clients 16] [-fleet 5000] [-ingresses 500] \
//		[-secrets 50000] [-line 1000] [-keys 60]
//
// First it measures the ceiling: the same writes for each certificate, of objects of the same size,
// sent by the load's clients, without a controller.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/install"
)

func main() {
	var o options
	flag.IntVar(&o.certificates, "certificates", 500, "certificates that are created at once")
	flag.IntVar(&o.clients, "clients", 16, "clients that create them")
	flag.IntVar(&o.fleet, "fleet", 5000, "certificates to measure memory and restart with; 0 for none")
	flag.IntVar(&o.ingresses, "ingresses", 500, "annotated Ingresses that are created at once; 0 for none")
	flag.IntVar(&o.secrets, "secrets", 50000, "Secrets of others in the cluster; 0 for none")
	flag.BoolVar(&o.acme, "acme", true, "measure certificates of an ACME server")
	flag.IntVar(
		&o.line,
		"line",
		1000,
		"certificates that are asked of an ACME server at once, far more than are worked on at once; 0 for none",
	)
	flag.IntVar(&o.keys, "keys", 60,
		"namespaces that have RSA keys of 4096 bits made while others want certificates; 0 for none")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	certificates, clients, fleet, ingresses, secrets, line, keys int
	acme                                                         bool
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "perennial-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	step("building the controller")
	binary := filepath.Join(dir, "perennial")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/perennial-pki/perennial/cmd/perennial")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the controller: %w", err)
	}

	plane, err := controlplane.Start(
		ctx,
		controlplane.Options{DataDir: filepath.Join(dir, "data"), API: true, Progress: step},
	)
	if err != nil {
		return err
	}
	defer plane.Stop()
	if err := install.Controller(ctx, plane.AdminConfig()); err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, binary: binary, plane: plane}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf(
		"%s, %d CPUs shared by kube-apiserver, etcd, the load and the controller\n\n",
		runtime.Version(),
		runtime.NumCPU(),
	)

	step("the ceiling: the same writes without a controller")
	ceiling, err := b.ceiling(ctx)
	if err != nil {
		return fmt.Errorf("ceiling: %w", err)
	}
	step("certificates with the controller")
	burst, err := b.burst(ctx, inProcess, "burst", b.certificates)
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	fmt.Printf(
		"%d ECDSA certificates of a CA ClusterIssuer, created by %d clients at once\n\n",
		len(burst.took),
		o.clients,
	)
	burst.print(ceiling)
	step("certificates of a signer with outside effects")
	go b.signOutside(ctx)
	outside, err := b.burst(ctx, elsewhere, "outside", b.certificates)
	if err != nil {
		return fmt.Errorf("certificates of an external issuer: %w", err)
	}
	fmt.Printf(
		"%d ECDSA certificates of a signer with outside effects: key and request are stored before it is asked\n\n",
		len(outside.took),
	)
	outside.print(0)
	if o.keys > 0 {
		step("certificates beside large keys")
		if err := b.besideLargeKeys(ctx); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	if o.ingresses > 0 {
		step("annotated Ingresses")
		if err := b.ingressBurst(ctx); err != nil {
			return fmt.Errorf("ingresses: %w", err)
		}
	}
	if o.acme {
		step("certificates of an ACME server")
		if err := b.acmeServer(ctx); err != nil {
			return fmt.Errorf("acme: %w", err)
		}
	}
	if o.fleet > 0 {
		step(fmt.Sprintf("a fleet of %d", o.fleet))
		if err := b.fleetRestart(ctx); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	if o.secrets > 0 {
		step(fmt.Sprintf("%d Secrets of others", o.secrets))
		if err := b.foreignSecrets(ctx); err != nil {
			return fmt.Errorf("secrets of others: %w", err)
		}
	}
	return nil
}

func step(message string) { fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), message) }
