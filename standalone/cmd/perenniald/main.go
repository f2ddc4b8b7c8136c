// Perenniald issues and renews the certificates of one machine. It runs its own Kubernetes API and
// applies a directory of manifests to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	_ "time/tzdata" // renewal windows name time zones, and not every machine has them

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/perennial-pki/perennial/internal/challenge/scheduler"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err := command().ExecuteContext(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // it was stopped while it started
	}
	if err != nil {
		complain(err)
		os.Exit(1)
	}
}

// complain writes one line with the reason why the process ends.
func complain(err error) { fmt.Fprintln(os.Stderr, "perenniald:", oneLine(err.Error())) }

func command() *cobra.Command {
	var o options
	// cobra adds the flags of this set to its own. Kubernetes packages define flags there, such as a
	// --version without effect.
	pflag.CommandLine = pflag.NewFlagSet("perenniald", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "perenniald --manifests DIR",
		Short: "Keeps the certificates of this machine alive",
		Long: "Runs a Kubernetes API on this machine, on the loopback interface alone, applies the manifests of a " +
			"directory to it, again whenever one\n" +
			"changes, and issues and renews the certificates that they ask for.",
		Example: "  perenniald --manifests /etc/perennial\n" +
			"  perenniald --manifests ./manifests --data-dir ./data --table",
		Version: version.String(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q: perenniald takes flags alone, see perenniald --help", args[0])
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.terminal = term.IsTerminal(int(os.Stdout.Fd()))
			return run(cmd.Context(), o, os.Stdout)
		},
	}
	cmd.SetVersionTemplate("perenniald {{.Version}}\n")
	f := cmd.Flags()
	f.StringVar(
		&o.dataDir,
		"data-dir",
		defaultDataDir(),
		"where all state is kept: created with mode 0700, for one perenniald at a time",
	)
	f.StringVar(
		&o.manifests,
		"manifests",
		"",
		"directory of YAML files to apply, again whenever one changes; nothing if left out",
	)
	f.BoolVar(&o.prune, "prune", false, "delete what was applied from --manifests and is no longer written there")
	f.IntVar(&o.port, "port", 0, "port of the API on 127.0.0.1; the one of last time, or a free one, if left out")
	f.BoolVar(&o.gatewayAPI, "gateway-api", false, "install the CustomResourceDefinitions of the Gateway API")
	f.StringSliceVar(
		&o.fileRoots,
		"file-root",
		nil,
		"directory below which CertificateFiles may write; may be given several times; none if left out",
	)
	f.BoolVar(&o.table, "table", false, "show a table of all certificates, and again when something changes")
	f.StringVar(
		&o.http01,
		"http01-listen-address",
		"",
		"host:port on which HTTP-01 challenges are answered, such as :80; not answered if left out",
	)
	f.StringVar(
		&o.tlsalpn01,
		"tlsalpn01-listen-address",
		"",
		"host:port on which TLS-ALPN-01 challenges are answered, such as :443; not answered if left out",
	)
	f.StringVar(
		&o.passTo,
		"tlsalpn01-passthrough-to",
		"",
		"host:port of the site that gets, unread, all connections to that address that are for no challenge; they are "+
			"closed if left out",
	)
	f.StringSliceVar(
		&o.nameservers,
		"dns01-recursive-nameservers",
		nil,
		"host:port or https URLs of the DNS servers by which the zones of DNS-01 challenges are found; the system's if "+
			"left out",
	)
	f.BoolVar(
		&o.recursiveOnly,
		"dns01-recursive-nameservers-only",
		false,
		"ask those servers for the records of DNS-01 challenges, too, not the authoritative ones",
	)
	f.StringSliceVar(
		&o.siteNameservers,
		"acme-http01-solver-nameservers",
		nil,
		"host:port of the DNS servers that find the sites of HTTP-01 and TLS-ALPN-01 challenges, which are checked "+
			"before the ACME server is asked to; the system's if left out",
	)
	f.IntVar(
		&o.maxChallenges,
		"max-concurrent-challenges",
		scheduler.DefaultMax,
		"how many ACME challenges are worked on at once; issuers and namespaces share them evenly",
	)
	f.StringVar(
		&o.webroot,
		"http01-webroot",
		"",
		"directory of a web server below which proofs of HTTP-01 challenges are written, in place of answering requests",
	)
	f.StringVar(
		&o.shim.DefaultIssuer.Name,
		"default-issuer-name",
		"",
		"issuer of Ingresses with the annotation kubernetes.io/tls-acme that name none",
	)
	f.StringVar(&o.shim.DefaultIssuer.Kind, "default-issuer-kind", "ClusterIssuer", "kind of the default issuer")
	f.StringVar(&o.shim.DefaultIssuer.Group, "default-issuer-group", "cert-manager.io", "API group of the default issuer")
	f.StringSliceVar(
		&o.shim.ExtraAnnotations,
		"extra-certificate-annotations",
		nil,
		"annotations that Certificates get from the Ingress, Gateway or ListenerSet that they are for",
	)
	f.IntVar(
		&o.maxCertificate,
		"max-certificate-size",
		pki.MaxCertificateSize,
		"largest certificate or CSR that is read, in bytes of PEM: the more names, the larger",
	)
	f.StringVar(&o.metricsAt, "metrics-listen-address", "", "host:port of /metrics; not served if left out")
	f.IntVarP(&o.verbosity, "v", "v", 0, "how much the controller logs: 0 what happens, 1 also why, 4 everything")
	return cmd
}

// defaultDataDir is the standard directory for state: that of the machine for root, that of the
// user for others (XDG Base Directory Specification).
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/perennial"
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "perennial")
}
