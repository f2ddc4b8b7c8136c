package controller

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/challenge/scheduler"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/pki"
)

// Command returns the command perennial controller. Its flags have cert-manager's names if
// cert-manager has such a flag.
func Command() *cobra.Command {
	o := Options{
		LeaderElection:           true,
		LeaseNamespace:           DefaultLeaseNamespace,
		ClusterResourceNamespace: DefaultClusterResourceNamespace,
		LeaseDuration:            defaultLeaseDuration,
		RenewDeadline:            defaultRenewDeadline,
		RetryPeriod:              defaultRetryPeriod,
		MetricsAddress:           ":9402", // of both families
		HealthAddress:            ":9403",
		Workers:                  DefaultWorkers,
		Lifecycle: lifecycle.Settings{
			MinBackoff:        lifecycle.DefaultMinBackoff,
			MaxBackoff:        lifecycle.DefaultMaxBackoff,
			CopiedAnnotations: lifecycle.DefaultCopiedAnnotations(),
		},
		Limits: pki.Limits{
			Certificate: pki.MaxCertificateSize,
			PrivateKey:  pki.MaxPrivateKeySize,
			Chain:       pki.MaxChainSize,
			Bundle:      pki.MaxBundleSize,
		},
	}
	var kubeconfig, master, format, http01Service string
	var proxied bool
	var incumbent incumbentFlags
	var cpu, memory [2]string // requests, limits
	var targetRef, nonRoot bool
	var allowed []string
	injected := map[string]*bool{}
	verbosity := 0
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller, which issues and renews certificates",
		Long: "Runs the controller. In a cluster it is what the Deployment runs; elsewhere it needs --kubeconfig.\n" +
			"Only one works at a time: the others, and those of cert-manager, wait for the Lease " + leaseName + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded := incumbent.load(cmd.Flags())
			log, err := Logger(cmd.ErrOrStderr(), format, verbosity)
			if err = errors.Join(loaded, err); err != nil {
				return err
			}
			o.Log = log
			o.Targets = slices.DeleteFunc(inject.Targets(), func(t inject.Target) bool { return !*injected[t.Resource] })
			ctrl.SetLogger(log)
			klog.SetLogger(log)
			if err := incumbent.apply(cmd.Flags(), &o, log); err != nil {
				return err
			}
			if o.AllowedAddresses, err = networks(allowed); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return err
			}
			o.HTTP01.WithoutTargetRef, o.HTTP01.Pods.RunAsRoot = !targetRef, !nonRoot
			if http01Service != "" {
				namespace, name, found := strings.Cut(http01Service, "/")
				if !found || namespace == "" || name == "" || strings.Contains(name, "/") {
					return fmt.Errorf("--http01-service must be namespace/name, not %q", http01Service)
				}
				o.HTTP01.Service = types.NamespacedName{Namespace: namespace, Name: name}
			}
			if o.HTTP01.Pods.Requests, err = resources("request", cpu[0], memory[0]); err != nil {
				return err
			}
			if o.HTTP01.Pods.Limits, err = resources("limits", cpu[1], memory[1]); err != nil {
				return err
			}
			if _, err := enabled(o.Controllers); err != nil {
				return fmt.Errorf("--controllers: %w", err)
			}
			cfg, err := restConfig(master, kubeconfig, proxied)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return Run(ctx, cfg, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(
		&kubeconfig,
		"kubeconfig",
		"",
		"file that says where the Kubernetes API is; the Pod's ServiceAccount if left out",
	)
	f.StringVar(&master, "master", "", "URL of the Kubernetes API, in place of that in --kubeconfig")
	f.BoolVar(&proxied, "kube-api-proxy", false,
		"reach the Kubernetes API through the proxy of HTTPS_PROXY; all other servers are reached through it anyway")
	incumbent.add(f)
	f.StringVar(
		&o.Namespace,
		"namespace",
		o.Namespace,
		"only look after this namespace; ClusterIssuers are not served then",
	)
	f.StringVar(
		&o.ClusterResourceNamespace,
		"cluster-resource-namespace",
		o.ClusterResourceNamespace,
		"namespace of the Secrets that ClusterIssuers refer to",
	)
	f.BoolVar(&o.LeaderElection, "leader-elect", o.LeaderElection, "wait until no other controller works")
	f.StringVar(&o.LeaseNamespace, "leader-election-namespace", o.LeaseNamespace, "namespace of the Lease")
	f.DurationVar(
		&o.LeaseDuration,
		"leader-election-lease-duration",
		o.LeaseDuration,
		"how long a leader that fell silent keeps the Lease",
	)
	f.DurationVar(
		&o.RenewDeadline,
		"leader-election-renew-deadline",
		o.RenewDeadline,
		"how long a leader tries to renew the Lease before it gives up",
	)
	f.DurationVar(
		&o.RetryPeriod,
		"leader-election-retry-period",
		o.RetryPeriod,
		"time between attempts to get or renew the Lease",
	)
	f.StringSliceVar(
		&o.Shim.AutoAnnotations,
		"auto-certificate-annotations",
		[]string{shim.DefaultAutoAnnotation},
		`annotations of an Ingress that, with the value "true", ask for a certificate of the default issuer`,
	)
	f.StringSliceVar(
		&o.Shim.ExtraAnnotations,
		"extra-certificate-annotations",
		nil,
		"annotations that Certificates get from the object that they are for",
	)
	f.StringSliceVar(
		&o.Shim.ExtraProtocols,
		"gateway-api-extra-protocols",
		nil,
		"protocols of listeners that are served by TLS, beside HTTPS and TLS",
	)
	f.StringVar(
		&o.Shim.DefaultIssuer.Name,
		"default-issuer-name",
		"",
		"issuer of Ingresses that name none, but have one of --auto-certificate-annotations",
	)
	f.StringVar(&o.Shim.DefaultIssuer.Kind, "default-issuer-kind", "Issuer", "kind of the default issuer")
	f.StringVar(&o.Shim.DefaultIssuer.Group, "default-issuer-group", "cert-manager.io", "API group of the default issuer")
	f.StringSliceVar(
		&o.Nameservers,
		"dns01-recursive-nameservers",
		nil,
		"host:port or https URLs of the DNS servers by which the zones of DNS-01 challenges are found; the system's if "+
			"left out",
	)
	f.BoolVar(
		&o.RecursiveOnly,
		"dns01-recursive-nameservers-only",
		false,
		"ask those servers for the records of DNS-01 challenges, too, not the authoritative ones",
	)
	f.StringVar(
		&o.HTTP01Address,
		"http01-listen-address",
		o.HTTP01Address,
		"host:port on which HTTP-01 challenges are answered; empty for none",
	)
	f.BoolVar(
		&o.Ambient.ClusterIssuers,
		"cluster-issuer-ambient-credentials",
		true,
		"let DNS-01 solvers of ClusterIssuers use the credentials of the controller's environment where they name none",
	)
	f.BoolVar(&o.Ambient.Issuers, "issuer-ambient-credentials", false, "let those of Issuers do so, too")
	f.StringSliceVar(&allowed, "issuer-allowed-addresses", nil,
		"addresses or networks of this machine, its link or its cloud's metadata service to which namespaced Issuers may "+
			"lead; ClusterIssuers may always")
	f.StringVar(
		&o.TLSALPN01Address,
		"tlsalpn01-listen-address",
		"",
		"host:port on which TLS-ALPN-01 challenges are answered; empty for none",
	)
	f.StringVar(
		&o.PassthroughTo,
		"tlsalpn01-passthrough-to",
		"",
		"host:port of the site that gets, unread, all connections to that address that are for no challenge; they are "+
			"closed if left out",
	)
	f.IntVar(
		&o.MaxChallenges,
		"max-concurrent-challenges",
		scheduler.DefaultMax,
		"how many ACME challenges are worked on at once; issuers and namespaces share them evenly",
	)
	f.StringVar(
		&http01Service,
		"http01-service",
		"",
		"namespace/name of the Service of this controller's replicas, with a port named http that leads to "+
			"--http01-listen-address; HTTP-01 requests are led to its endpoints",
	)
	f.StringVar(
		(*string)(&o.HTTP01.Mode),
		"http01-solver-mode",
		string(cmacme.HTTP01SolverModeShared),
		"what answers HTTP-01 challenges where a solver does not say: Shared, the controller itself, or Pod, a pod for "+
			"each challenge",
	)
	f.BoolVar(
		&targetRef,
		"http01-endpoint-target-ref",
		true,
		"name the controller's pods in the EndpointSlices for HTTP-01 challenges",
	)
	f.StringVar(
		&o.HTTP01.Webroot,
		"http01-webroot",
		"",
		"directory of a web server below which proofs of HTTP-01 challenges are written, in place of answering requests",
	)
	f.StringVar(
		&o.HTTP01.Pods.Image,
		"acme-http01-solver-image",
		"",
		"image of the pods that answer HTTP-01 challenges: that of this program",
	)
	requests, limits := http01.DefaultRequests(), http01.DefaultLimits()
	f.StringVar(
		&cpu[0],
		"acme-http01-solver-resource-request-cpu",
		requests.Cpu().String(),
		"CPU that is kept free for such a pod",
	)
	f.StringVar(
		&memory[0],
		"acme-http01-solver-resource-request-memory",
		requests.Memory().String(),
		"memory that is kept free for such a pod",
	)
	f.StringVar(&cpu[1], "acme-http01-solver-resource-limits-cpu", limits.Cpu().String(), "CPU that such a pod may use")
	f.StringVar(
		&memory[1],
		"acme-http01-solver-resource-limits-memory",
		limits.Memory().String(),
		"memory that such a pod may use",
	)
	f.StringVar(
		&o.HTTP01.Pods.RuntimeClass,
		"acme-http01-solver-runtime-class-name",
		"",
		"RuntimeClass of such pods; the cluster's own if left out",
	)
	f.StringToStringVar(
		&o.HTTP01.Labels,
		"acme-http01-solver-extra-labels",
		nil,
		"labels, key=value, of all that is made for an HTTP-01 challenge",
	)
	f.StringSliceVar(
		&o.HTTP01.Nameservers,
		"acme-http01-solver-nameservers",
		nil,
		"host:port of the DNS servers that find sites, which are checked before the ACME server is asked to; the "+
			"system's if left out",
	)
	f.BoolVar(&nonRoot, "acme-http01-solver-run-as-non-root", true, "forbid such pods to run as root")
	f.BoolVar(&o.AssumePolicies, "assume-admission-policies", false,
		"do not look whether the admission policies are enforced, such as where the controller may not read them; if they "+
			"are not, users of any namespace can use the credentials of ClusterIssuers")
	f.StringVar(&o.MetricsAddress, "metrics-listen-address", o.MetricsAddress, "host:port of /metrics; empty for none")
	f.StringVar(
		&o.HealthAddress,
		"health-listen-address",
		o.HealthAddress,
		"host:port of /livez and /readyz; empty for none",
	)
	f.StringVar(&o.MetricsCertificate, "metrics-tls-cert-file", "",
		"PEM file of the certificate with which the metrics are served by TLS; it is read again when it changes")
	f.StringVar(&o.MetricsKey, "metrics-tls-private-key-file", "", "PEM file of its private key")
	f.BoolVar(&incumbent.profiling, "enable-profiling", false, "serve profiles of the process")
	f.StringVar(&o.ProfilerAddress, "profiler-address", "localhost:6060", "host:port of the profiles, /debug/pprof")
	f.IntVar(&o.Workers, "concurrent-workers", o.Workers, "how many objects of a kind are worked on at once")
	f.StringSliceVar(
		&o.Controllers,
		"controllers",
		[]string{"*"},
		"which controllers run, with a minus sign those that do not, as in *,-"+approver+": "+strings.Join(
			Controllers(),
			", ",
		),
	)
	for _, target := range inject.Targets() {
		injected[target.Resource] = f.Bool("enable-"+target.Resource+"-injectable", true, "inject CAs into "+target.Resource)
	}
	f.BoolVar(
		&o.Lifecycle.OwnSecrets,
		"enable-certificate-owner-ref",
		false,
		"delete the Secret of a Certificate together with it",
	)
	f.StringSliceVar(
		&o.Lifecycle.CopiedAnnotations,
		"copied-annotation-prefixes",
		o.Lifecycle.CopiedAnnotations,
		"which annotations a CertificateRequest gets from its Certificate: prefixes, * for all, with a minus sign for "+
			"those left out",
	)
	f.DurationVar(
		&o.Lifecycle.MinBackoff,
		"certificate-request-minimum-backoff-duration",
		o.Lifecycle.MinBackoff,
		"time after a failed issuance until the next; doubles with each failure",
	)
	f.DurationVar(
		&o.Lifecycle.MaxBackoff,
		"certificate-request-maximum-backoff-duration",
		o.Lifecycle.MaxBackoff,
		"longest time after a failed issuance until the next",
	)
	f.IntVar(
		&o.Limits.Certificate,
		"max-certificate-size",
		o.Limits.Certificate,
		"largest certificate or CSR that is read, in bytes of PEM",
	)
	f.IntVar(
		&o.Limits.PrivateKey,
		"max-private-key-size",
		o.Limits.PrivateKey,
		"largest private key that is read, in bytes of PEM",
	)
	f.IntVar(
		&o.Limits.Chain,
		"max-certificate-chain-length",
		o.Limits.Chain,
		"largest chain that is read, in bytes of PEM",
	)
	f.IntVar(
		&o.Limits.Bundle,
		"max-certificate-bundle-size",
		o.Limits.Bundle,
		"largest set of CA certificates that is read, in bytes of PEM",
	)
	f.StringVar(&format, "logging-format", "text", "text or json")
	f.IntVarP(&verbosity, "v", "v", 0,
		"how much is logged: 0 what happens, 1 also what is waited for and why, 4 everything; never bodies of "+
			"requests or answers")
	return cmd
}

func (o *Options) check() error {
	if err := CheckSiteNameservers(o.HTTP01.Nameservers); err != nil {
		return err
	}
	if _, err := resolver.ParseNameservers(o.Nameservers); err != nil {
		return fmt.Errorf("--dns01-recursive-nameservers: %w", err)
	}
	if err := CheckPassthrough(o.PassthroughTo, o.TLSALPN01Address); err != nil {
		return err
	}
	if errs := validation.ValidateLabels(o.HTTP01.Labels, nil); len(errs) > 0 {
		return fmt.Errorf("--acme-http01-solver-extra-labels: %s", errs[0].Detail)
	}
	for _, b := range []struct {
		flag string
		bad  bool
		want string
	}{
		{"concurrent-workers", o.Workers < 1, "1 or more"},
		{"metrics-tls-private-key-file", (o.MetricsCertificate == "") != (o.MetricsKey == ""), "set together with --metrics-tls-cert-file"},
		{"max-concurrent-challenges", o.MaxChallenges < 1, "1 or more"},
		{"http01-solver-mode", o.HTTP01.Mode != cmacme.HTTP01SolverModeShared && o.HTTP01.Mode != cmacme.HTTP01SolverModePod, "Shared or Pod"},
		{"certificate-request-minimum-backoff-duration", o.Lifecycle.MinBackoff <= 0, "more than 0"},
		{"certificate-request-maximum-backoff-duration", o.Lifecycle.MaxBackoff < o.Lifecycle.MinBackoff, "at least --certificate-request-minimum-backoff-duration"},
		{"max-certificate-size", o.Limits.Certificate < 1, "more than 0"},
		{"max-private-key-size", o.Limits.PrivateKey < 1, "more than 0"},
		{"max-certificate-chain-length", o.Limits.Chain < 1, "more than 0"},
		{"max-certificate-bundle-size", o.Limits.Bundle < 1, "more than 0"},
		{"leader-election-renew-deadline", o.LeaderElection && o.RenewDeadline >= o.LeaseDuration, "less than --leader-election-lease-duration"},
		{"leader-election-retry-period", o.LeaderElection && o.RetryPeriod >= o.RenewDeadline, "less than --leader-election-renew-deadline"},
	} {
		if b.bad {
			return fmt.Errorf("--%s must be %s", b.flag, b.want)
		}
	}
	return nil
}

// networks parses the value of --issuer-allowed-addresses.
func networks(texts []string) (all []netip.Prefix, err error) {
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			address, bad := netip.ParseAddr(text)
			if bad != nil {
				return nil, fmt.Errorf("--issuer-allowed-addresses must be addresses or networks, such as 127.0.0.1 or "+
					"169.254.20.0/24, not %q", text)
			}
			prefix = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen())
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// CheckSiteNameservers checks the value of --acme-http01-solver-nameservers, which perenniald has,
// too.
func CheckSiteNameservers(servers []string) error {
	for _, server := range servers {
		if host, port, err := net.SplitHostPort(server); err != nil || host == "" || port == "" {
			return fmt.Errorf("--acme-http01-solver-nameservers must be host:port, such as 192.0.2.53:53, not %q", server)
		}
	}
	return nil
}

// CheckPassthrough checks the value of --tlsalpn01-passthrough-to, which perenniald has, too.
func CheckPassthrough(to, listen string) error {
	if to == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(to); err != nil {
		return fmt.Errorf("--tlsalpn01-passthrough-to must be host:port, not %q", to)
	}
	if listen == "" {
		return errors.New("--tlsalpn01-passthrough-to needs --tlsalpn01-listen-address, from where it is passed on")
	}
	return nil
}

func resources(what, cpu, memory string) (corev1.ResourceList, error) {
	list := corev1.ResourceList{}
	for name, value := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
		q, err := resource.ParseQuantity(value)
		if err != nil {
			return nil, fmt.Errorf(
				"--acme-http01-solver-resource-%s-%s must be a quantity such as 100m or 64Mi, not %q",
				what,
				name,
				value,
			)
		}
		list[name] = q
	}
	return list, nil
}

// maxVerbosity is the highest verbosity that counts. From 8 on, the Kubernetes client would log
// bodies, which may contain Secrets. The client logs requests and headers only if the verbosity of
// klog is 6 or more. No flag sets that, so -v=6 and -v=7 log no requests either.
const maxVerbosity = 7

// Logger returns a logger that writes to w. Format is text or json. With a verbosity of 0 it logs
// what happens, with more also why.
func Logger(w io.Writer, format string, verbosity int) (logr.Logger, error) {
	// logr's verbosity is slog's level with the sign turned.
	options := &slog.HandlerOptions{Level: slog.Level(-min(verbosity, maxVerbosity))}
	switch strings.ToLower(format) {
	case "text":
		return logr.FromSlogHandler(slog.NewTextHandler(w, options)), nil
	case "json":
		return logr.FromSlogHandler(slog.NewJSONHandler(w, options)), nil
	}
	return logr.Logger{}, fmt.Errorf("--logging-format must be text or json, not %q", format)
}

// restConfig returns the connection to the Kubernetes API. It does not use the proxy of the
// environment unless proxied: in a pod, the API is called by address, which names in NO_PROXY do
// not match.
func restConfig(master, kubeconfig string, proxied bool) (*rest.Config, error) {
	cfg, err := rest.InClusterConfig()
	switch {
	case master != "" || kubeconfig != "":
		if cfg, err = clientcmd.BuildConfigFromFlags(master, kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %w", err)
		}
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, errors.New("not in a cluster: say by --kubeconfig where the Kubernetes API is")
	case err != nil:
		return nil, err
	}
	if cfg.Proxy == nil && !proxied {
		cfg.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	return cfg, nil
}
