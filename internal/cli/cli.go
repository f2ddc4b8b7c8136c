// Package cli has the commands of perennial that users and scripts run against a cluster. Each
// command prints text or, with -o json, JSON, and its exit code says whether it succeeded.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/version"
)

// Exit codes.
const (
	ExitOK       = 0
	ExitError    = 1 // something failed
	ExitUsage    = 2 // the command was not understood
	ExitNotReady = 3 // what was asked about exists, and is not ready, valid or installed
	ExitNotFound = 4 // what was asked about does not exist
)

// exitError is an error with an exit code. A nil err means that everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

// requestTimeout bounds each request to the API server.
const requestTimeout = 30 * time.Second

// Program is one run of perennial.
type Program struct {
	// Name is what the program was called by: perennial, or kubectl perennial.
	Name     string
	In       io.Reader
	Out, Err io.Writer
	Clock    clock.PassiveClock

	loading   *clientcmd.ClientConfigLoadingRules
	overrides *clientcmd.ConfigOverrides
	output    string
}

// New returns a Program with the name in os.Args and the standard streams.
func New() *Program {
	name := "perennial"
	if strings.HasPrefix(filepath.Base(os.Args[0]), "kubectl-") {
		name = "kubectl perennial"
	}
	return &Program{Name: name, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Clock: clock.RealClock{}}
}

// Command returns the command with all its subcommands, and more.
func (p *Program) Command(more ...*cobra.Command) *cobra.Command {
	p.loading = clientcmd.NewDefaultClientConfigLoadingRules()
	p.overrides = &clientcmd.ConfigOverrides{}
	root := &cobra.Command{
		Use:   "perennial",
		Short: "Keeps TLS certificates alive",
		Long:  "Shows and steers the certificates of a cluster, and runs the controller that issues and renews them.",
		Annotations: map[string]string{
			cobra.CommandDisplayNameAnnotation: p.Name,
		},
		SilenceUsage: true, SilenceErrors: true,
		Version: version.String(),
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("perennial {{.Version}}\n") // as perennial version --client
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{ExitUsage, err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		p.status(),
		p.list(),
		p.renew(),
		p.revoke(),
		p.rotateAccountKey(),
		p.approve(),
		p.deny(),
		p.inspect(),
		p.create(),
		p.check(),
		p.version(),
	)
	root.AddCommand(more...)
	return root
}

// Run runs the command line and returns the exit code.
func (p *Program) Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var e *exitError
	code := ExitError
	switch {
	case errors.As(err, &e):
		code = e.code
		if e.err == nil {
			return code
		}
	case strings.HasPrefix(err.Error(), "unknown command"), strings.Contains(err.Error(), "arg(s)"):
		code = ExitUsage
	case apierrors.IsNotFound(err):
		code = ExitNotFound
	}
	fmt.Fprintf(p.Err, "%s: %s\n", p.Name, describe(err))
	if code == ExitUsage {
		fmt.Fprintf(p.Err, "see: %s --help\n", p.Name)
	}
	return code
}

// describe makes errors of the client readable.
func describe(err error) string {
	switch {
	case meta.IsNoMatchError(err):
		return "the API of cert-manager.io is not installed in this cluster: apply its CustomResourceDefinitions, or " +
			"see whether this is the right cluster"
	case errors.Is(err, context.DeadlineExceeded):
		return "the API server did not answer in time: " + err.Error()
	}
	return err.Error()
}

// kubeFlags adds the flags that say which cluster and namespace.
func (p *Program) kubeFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(
		&p.loading.ExplicitPath,
		"kubeconfig",
		"",
		"file that says where the cluster is; that of kubectl if left out",
	)
	f.StringVar(&p.overrides.CurrentContext, "context", "", "context of the kubeconfig to use")
	f.StringVarP(&p.overrides.Context.Namespace, "namespace", "n", "", "namespace; that of the context if left out")
	f.StringVar(&p.overrides.AuthInfo.Impersonate, "as", "", "user to act as")
}

// outputFlag adds -o.
func (p *Program) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.output, "output", "o", "", "json for programs")
	pre := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if p.output != "" && p.output != "json" {
			return usage("-o must be json, not %q", p.output)
		}
		if pre != nil {
			return pre(cmd, args)
		}
		return nil
	}
}

func (p *Program) json() bool { return p.output == "json" }

func (p *Program) printJSON(v any) error {
	e := json.NewEncoder(p.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// cluster is where a command works.
type cluster struct {
	client.WithWatch
	config    *rest.Config
	namespace string
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, cmapi.AddToScheme, acmev1.AddToScheme,
		perennial.AddToScheme} {
		if err := add(s); err != nil { // two types of one name: a mistake in the program
			panic(err)
		}
	}
	return s
}

func (p *Program) connect() (*cluster, error) {
	config := clientcmd.NewInteractiveDeferredLoadingClientConfig(p.loading, p.overrides, p.In)
	namespace, _, err := config.Namespace()
	if err != nil {
		return nil, err
	}
	cfg, err := config.ClientConfig()
	if err != nil {
		if clientcmd.IsEmptyConfig(err) {
			return nil, errors.New("no cluster is configured: say by --kubeconfig or KUBECONFIG where it is")
		}
		return nil, err
	}
	cfg.Timeout = requestTimeout
	cfg.UserAgent = version.UserAgent("perennial")
	cfg.WarningHandler = rest.NoWarnings{}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme()})
	if err != nil {
		return nil, err
	}
	return &cluster{WithWatch: c, config: cfg, namespace: namespace}, nil
}

// table returns a writer of tab-separated columns. Flush aligns them.
func (p *Program) table() *tabwriter.Writer { return tabwriter.NewWriter(p.Out, 0, 0, 3, ' ', 0) }

// exactly is cobra.ExactArgs with an error that names the missing argument.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usage("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}
