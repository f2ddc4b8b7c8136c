package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/files"
	"github.com/perennial-pki/perennial/standalone/install"
	"github.com/perennial-pki/perennial/standalone/manifests"
	"github.com/perennial-pki/perennial/standalone/serviceaccount"
)

// options are the flags.
type options struct {
	dataDir    string
	manifests  string
	prune      bool
	port       int
	gatewayAPI bool
	fileRoots  []string
	table      bool
	terminal   bool // standard output is one
	metricsAt  string
	http01     string
	webroot    string
	tlsalpn01  string
	passTo     string
	shim       shim.Settings
	// nameservers and recursiveOnly are for the self-check of DNS-01 challenges.
	nameservers   []string
	recursiveOnly bool
	// siteNameservers resolve the addresses of sites.
	siteNameservers []string
	maxChallenges   int
	maxCertificate  int
	verbosity       int
}

// limits are those of certificates. A chain may be longer by what a certificate may be larger.
func (o options) limits() pki.Limits {
	return pki.Limits{Certificate: o.maxCertificate,
		Chain: pki.MaxChainSize + max(0, o.maxCertificate-pki.MaxCertificateSize)}
}

// maxControllerLog is the size at which the controller's log is rotated. One old log is kept.
const maxControllerLog = 10 << 20

// run runs all components until ctx ends or one of them fails permanently.
func run(ctx context.Context, o options, out io.Writer) error {
	if o.dataDir == "" {
		return errors.New("say by --data-dir where to keep the data")
	}
	if err := errors.Join(o.checkDirectories(), o.checkChallenges()); err != nil {
		return err
	}
	s := newScreen(out, o.table, o.terminal)
	defer s.close()

	plane, err := controlplane.Start(ctx, controlplane.Options{
		DataDir: o.dataDir, Port: o.port, Fsync: true, API: true, GatewayAPI: o.gatewayAPI, Progress: s.say,
		LastWords: complain,
	})
	if err != nil {
		return err
	}
	defer func() {
		began := time.Now()
		s.say("stopping")
		plane.Stop()
		s.say(fmt.Sprintf("stopped after %.1f s", time.Since(began).Seconds()))
	}()
	admin := plane.AdminConfig()
	cfg, err := account(ctx, admin)
	if err != nil {
		return err
	}
	s.say("kubeconfig: " + plane.KubeconfigPath())
	s.say("try: kubectl --kubeconfig " + plane.KubeconfigPath() + " get certificates -A")

	log, err := openLog(filepath.Join(plane.DataDir(), "log", "controller.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	logger, err := controller.Logger(log, "text", o.verbosity)
	if err != nil {
		return err
	}
	ctrl.SetLogger(logger)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := controller.Run(ctx, cfg, controller.Options{
			ClusterResourceNamespace: deploy.Namespace,
			MetricsAddress:           o.metricsAt,
			HTTP01Address:            o.http01,
			TLSALPN01Address:         o.tlsalpn01,
			PassthroughTo:            o.passTo,
			HTTP01: controller.HTTP01{
				Webroot:     o.webroot,
				Nameservers: o.siteNameservers,
			},
			Shim:          o.shim,
			Ambient:       provider.Ambient{ClusterIssuers: true, Issuers: true},
			OwnMachine:    true, // only the administrator controls the machine
			Nameservers:   o.nameservers,
			RecursiveOnly: o.recursiveOnly,
			MaxChallenges: o.maxChallenges,
			Limits:        o.limits(),
			Log:           logger,
		})
		if err != nil {
			return fmt.Errorf("controller: %w (its log: %s)", err, log.Name())
		}
		return nil
	})
	group.Go(func() error { return watchCertificates(ctx, admin, s) })
	group.Go(func() error {
		return files.Run(ctx, admin, files.Options{Roots: o.fileRoots, Report: s.say, Log: logger.WithName("files"),
			Metrics: metrics.Registry, Limits: o.limits()})
	})
	if o.manifests != "" {
		applier, err := manifests.New(
			admin,
			manifests.Options{Dir: o.manifests, Prune: o.prune, Report: func(r manifests.Report) {
				if r.Action != manifests.Unchanged {
					s.say(r.String())
				}
			}},
		)
		if err != nil {
			return err
		}
		group.Go(func() error { return applier.Run(ctx) })
	}
	group.Go(func() error { return untilStopped(ctx, plane) })
	return group.Wait()
}

// untilStopped returns nil when ctx ends, and an error if the control plane stops before.
func untilStopped(ctx context.Context, plane *controlplane.ControlPlane) error {
	select {
	case <-plane.Done():
		if err := plane.Err(); err != nil {
			return fmt.Errorf("the control plane stopped: %w", err)
		}
		return errors.New("the control plane stopped")
	case <-ctx.Done():
		return nil
	}
}

// checkDirectories validates the directories in the flags.
func (o options) checkDirectories() error {
	if o.manifests != "" {
		info, err := os.Stat(o.manifests)
		if err != nil {
			return fmt.Errorf("--manifests: %w", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("--manifests: %s is a file: name the directory that it is in", o.manifests)
		}
		if err := manifests.Check(o.manifests); err != nil {
			return fmt.Errorf("--manifests: %w", err)
		}
	}
	for _, root := range o.fileRoots {
		if info, err := os.Stat(root); err != nil {
			return fmt.Errorf("--file-root: %w", err)
		} else if !info.IsDir() || !filepath.IsAbs(root) {
			return fmt.Errorf("--file-root: %s must be the absolute path of a directory", root)
		}
	}
	return nil
}

// checkChallenges detects problems with answering challenges before anything is started.
func (o options) checkChallenges() error {
	for _, l := range []struct{ flag, address string }{
		{"--http01-listen-address", o.http01}, {"--tlsalpn01-listen-address", o.tlsalpn01},
	} {
		if l.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", l.address)
		switch {
		case errors.Is(err, syscall.EACCES):
			return fmt.Errorf("%s: %w: ports below 1024 are for root, or need the capability CAP_NET_BIND_SERVICE", l.flag, err)
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("%s: %w: choose another one, to which what listens there passes challenges on", l.flag, err)
		case err != nil:
			return fmt.Errorf("%s: %w", l.flag, err)
		}
		listener.Close() // the controller will listen there
	}
	if err := controller.CheckSiteNameservers(o.siteNameservers); err != nil {
		return err
	}
	if o.maxChallenges < 1 {
		return errors.New("--max-concurrent-challenges must be 1 or more")
	}
	if o.maxCertificate < 1 {
		return errors.New("--max-certificate-size must be more than 0")
	}
	if o.webroot != "" {
		if info, err := os.Stat(o.webroot); err != nil {
			return fmt.Errorf("--http01-webroot: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("--http01-webroot: %s is a file: name the directory that the web server serves", o.webroot)
		}
	}
	if _, err := resolver.ParseNameservers(o.nameservers); err != nil {
		return fmt.Errorf("--dns01-recursive-nameservers: %w", err)
	}
	return controller.CheckPassthrough(o.passTo, o.tlsalpn01)
}

// account installs the controller's ServiceAccount and its permissions, and returns its client
// configuration. The controller has no other permissions.
func account(ctx context.Context, admin *rest.Config) (*rest.Config, error) {
	if err := install.Controller(ctx, admin); err != nil {
		return nil, err
	}
	return serviceaccount.Config(ctx, admin, deploy.Namespace, deploy.ServiceAccount)
}

// openLog opens the log for appending, and rotates it if it is large.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log of the controller: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > maxControllerLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, fmt.Errorf("log of the controller: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the controller: %w", err)
	}
	return f, nil
}
