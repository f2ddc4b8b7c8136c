// Package controller assembles the controller process: caches, indexes, signers, reconcilers,
// leader election, metrics and health. Its Options are the flags of perennial controller.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	gwbeta "sigs.k8s.io/gateway-api/apis/v1beta1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/admissionpolicies"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
)

// Options are those of the controller. The zero value is perennial controller without flags, except
// that it does not listen on the network, and has no leader election.
type Options struct {
	// Namespace, if set, is the only namespace that the controller serves. Then it serves no
	// ClusterIssuers.
	Namespace string
	// ClusterResourceNamespace is where the Secrets of ClusterIssuers are.
	// DefaultClusterResourceNamespace if empty.
	ClusterResourceNamespace string

	// LeaderElection makes the controller wait until no other process holds the Lease, which is in
	// LeaseNamespace.
	LeaderElection bool
	LeaseNamespace string
	// LeaseDuration, RenewDeadline and RetryPeriod are those of the Lease. Zero means the defaults.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration

	// MetricsAddress is the host:port for /metrics, and HealthAddress that for /livez and /readyz. If
	// empty, they are not served.
	MetricsAddress, HealthAddress string

	// MetricsCertificate and MetricsKey are PEM files. If set, the metrics are served by TLS.
	MetricsCertificate, MetricsKey string
	// MetricsMinVersion and MetricsCipherSuites are those of crypto/tls. Zero and nil mean TLS 1.2 and
	// Go's.
	MetricsMinVersion   uint16
	MetricsCipherSuites []uint16
	// ProfilerAddress is the host:port for /debug/pprof. If empty, it is not served.
	ProfilerAddress string

	// Workers is how many objects of a kind are worked on at once. Zero means DefaultWorkers.
	Workers int
	// Controllers are the names, out of Controllers(), of those that run: "*" for all, and with a
	// minus sign those that do not run. Nil means all.
	Controllers []string
	// Targets are the kinds into which CAs are injected. Nil means all.
	Targets []inject.Target

	// MaxChallenges is how many ACME challenges are worked on at once. Zero means
	// scheduler.DefaultMax.
	MaxChallenges int
	// HTTP01Address is the host:port that answers HTTP-01 challenges, for all names with a port 80
	// that leads there. If empty, they are not answered.
	HTTP01Address string
	// HTTP01 has the settings that route HTTP-01 requests there in a cluster. Its Service, if set,
	// gives the addresses of all replicas.
	HTTP01 HTTP01
	// TLSALPN01Address is the host:port that answers TLS-ALPN-01 challenges. If empty, they are not
	// answered. PassthroughTo is the host:port that receives all other TLS connections unmodified; if
	// empty, they are closed.
	TLSALPN01Address, PassthroughTo string
	// Nameservers are the recursive DNS servers, host:port or https URLs, that find the zones of
	// DNS-01 challenges and their name servers. If empty, they are the system's. RecursiveOnly reads
	// the records from them, too.
	Nameservers   []string
	RecursiveOnly bool
	// DialNameservers connects to DNS servers. A net.Dialer's if nil.
	DialNameservers func(ctx context.Context, network, address string) (net.Conn, error)
	// Ambient says which issuers' DNS-01 solvers may use the credentials of the process's environment
	// if they name none.
	Ambient provider.Ambient
	// OwnMachine says that the author of the issuers owns this machine: their DNS-01 solvers may run
	// programs, and reach the machine's own addresses.
	OwnMachine bool
	// AllowedAddresses are loopback, link-local or cloud metadata addresses that namespaced Issuers
	// may connect to all the same.
	AllowedAddresses []netip.Prefix
	// Dial connects to the sites for the self-checks of challenges. It gets their names unless
	// HTTP01.Nameservers are set. If nil, the controller looks up the addresses and connects to them.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// StartTimeout is how long the controller waits for the API to be installed, and for a
	// cert-manager to end, before it gives up. Zero means 70 seconds.
	StartTimeout time.Duration

	// AssumePolicies makes the controller assume, without a check, that the admission policies are
	// enforced. If they are not, users of any namespace can use the credentials of ClusterIssuers.
	AssumePolicies bool

	// Shim has the settings for annotated Ingresses, Gateways and ListenerSets.
	Shim shim.Settings

	Lifecycle lifecycle.Settings
	Limits    pki.Limits

	Log logr.Logger
	// Clock is the system's if left out.
	Clock clock.Clock
	// WrapClient, if set, wraps the client that writes. Tests use it to inject failures.
	WrapClient func(client.Client) client.Client
	// Registry gets the metrics. A new one if left out.
	Registry *prometheus.Registry
}

// HTTP01 are the settings of the solver of HTTP-01 challenges; see the fields of http01.Solver.
type HTTP01 struct {
	Mode             cmacme.HTTP01SolverMode
	Service          types.NamespacedName
	WithoutTargetRef bool
	Webroot          string
	Labels           map[string]string
	Pods             http01.PodSettings
	// Nameservers, host:port, look up the addresses of sites for the self-checks, of TLS-ALPN-01, too.
	// If empty, they are the system's.
	Nameservers []string
}

// Defaults of Options.
const (
	DefaultClusterResourceNamespace = "kube-system"
	DefaultLeaseNamespace           = "kube-system"
	DefaultWorkers                  = 8

	// leaseName is cert-manager's.
	leaseName = "cert-manager-controller"

	defaultLeaseDuration = 15 * time.Second
	defaultRenewDeadline = 10 * time.Second
	defaultRetryPeriod   = 2 * time.Second

	// tokenSeconds is how long tokens of ServiceAccounts live. The API server accepts no less.
	tokenSeconds = int64(600)

	// reconcileLimit is how long one pass for an object may take.
	reconcileLimit = 3 * time.Minute
)

// Scheme knows all kinds that the controller reads and writes.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, cmapi.AddToScheme, cmacme.AddToScheme, perennial.AddToScheme, gwapi.Install,
		gwbeta.Install,
	} {
		if err := add(scheme); err != nil { // two types of one name: a mistake in the program
			panic(err)
		}
	}
	return scheme
}

// Run runs the controller until ctx ends, or until it cannot go on.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	if o.ClusterResourceNamespace == "" {
		o.ClusterResourceNamespace = DefaultClusterResourceNamespace
	}
	if o.LeaseNamespace == "" {
		o.LeaseNamespace = DefaultLeaseNamespace
	}
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = defaultStartTimeout
	}
	cfg = rest.CopyConfig(cfg)
	// The API server's Priority and Fairness protects it. A limit in this client would only add hidden
	// waits.
	cfg.QPS = -1
	if cfg.UserAgent == "" {
		cfg.UserAgent = version.UserAgent("perennial-controller")
	}
	if o.LeaderElection {
		lease := &fence{path: "/leases/" + leaseName, lasts: cmp.Or(o.LeaseDuration, defaultLeaseDuration), now: time.Now}
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return &fenced{lease, &releasing{ctx: ctx, path: lease.path, timeout: releaseTimeout, next: next}}
		})
	}

	scheme := Scheme()
	bound := &secrets.Bound{}
	if err := preflight(ctx, cfg, scheme, o); ctx.Err() != nil {
		return nil // it is to end, before it has started
	} else if err != nil {
		return err
	}
	mgr, err := newManager(cfg, scheme, bound, o)
	if err != nil {
		return err
	}
	others, err := othersCache(cfg, mgr, o)
	if err != nil {
		return err
	}
	ours, err := mgr.GetCache().GetInformer(ctx, &corev1.Secret{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("cache of Secrets: %w", err)
	}
	if err := bound.Watch(ours); err != nil {
		return fmt.Errorf("cache of Secrets: %w", err)
	}
	registry := o.Registry
	if registry == nil {
		registry = prometheus.NewRegistry()
	}
	metrics := observe.NewMetrics(registry, o.Clock)
	events, err := recorder(cfg, mgr, o, metrics)
	if err != nil {
		return err
	}
	guard, err := watchPolicies(cfg, mgr, registry, o)
	if err != nil {
		return err
	}
	if err := addReconcilers(ctx, cfg, mgr, others, events, metrics, registry, guard, o); err != nil {
		return err
	}
	registry.MustRegister(
		&observe.ObjectCollector{
			Reader: mgr.GetClient(), ClusterScoped: o.Namespace == "", Limit: scrapeTimeout, Clock: o.Clock,
		},
	) // the collectors of the process and of Go are controller-runtime's
	if o.MetricsAddress != "" {
		if err := serveMetrics(mgr, o, registry); err != nil {
			return err
		}
	}
	if err := reportHealth(mgr); err != nil {
		return err
	}
	guard.Settle(ctx) // before the first pass, which would wait otherwise
	return mgr.Start(ctx)
}

// watchPolicies adds the watch of the admission policies to the manager.
func watchPolicies(cfg *rest.Config, mgr manager.Manager, registry prometheus.Registerer,
	o Options) (*admissionpolicies.Watcher, error) {
	c, err := client.NewWithWatch(cfg, client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(),
		Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("client for admission policies: %w", err)
	}
	tried := o.ClusterResourceNamespace
	if o.Namespace != "" {
		tried = o.Namespace
	}
	guard, err := admissionpolicies.New(c, tried, o.AssumePolicies, o.Log.WithName("policies"), registry)
	if err != nil {
		return nil, err
	}
	return guard, mgr.Add(guard)
}

func newManager(cfg *rest.Config, scheme *runtime.Scheme, bound *secrets.Bound, o Options) (manager.Manager, error) {
	duration := func(d, otherwise time.Duration) *time.Duration {
		if d <= 0 {
			d = otherwise
		}
		return &d
	}
	options := manager.Options{
		Scheme: scheme,
		Logger: o.Log,
		Cache: cache.Options{
			// Managed fields are half of an object, and the controller only uses those of Secrets.
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&networkingv1.Ingress{}: {Transform: shim.Strip},
				&corev1.Secret{}:        {Label: secrets.CachedSelector(), Transform: bound.Transform},
			},
		},
		NewClient: func(cfg *rest.Config, options client.Options) (client.Client, error) {
			options.Cache.EnableReadYourWritesConsistency = ptr.To(true)
			c, err := client.New(cfg, options)
			if err == nil && o.WrapClient != nil {
				c = o.WrapClient(c)
			}
			return c, err
		},
		Metrics:                metricsserver.Options{BindAddress: "0"}, // see serveMetrics
		HealthProbeBindAddress: o.HealthAddress,
		LivenessEndpointName:   "/livez",
		ReadinessEndpointName:  "/readyz",
		PprofBindAddress:       o.ProfilerAddress,

		LeaderElection:          o.LeaderElection,
		LeaderElectionID:        leaseName,
		LeaderElectionNamespace: o.LeaseNamespace,
		LeaseDuration: duration(
			o.LeaseDuration,
			defaultLeaseDuration,
		),
		RenewDeadline:                 duration(o.RenewDeadline, defaultRenewDeadline),
		RetryPeriod:                   duration(o.RetryPeriod, defaultRetryPeriod),
		LeaderElectionReleaseOnCancel: true, // the process ends when Run returns
		GracefulShutdownTimeout:       ptr.To(endTimeout),

		// controller-runtime checks names for the whole process, which runs several controllers in tests.
		// Every call in a pass has its own deadline; this one is for calls that were overlooked.
		Controller: config.Controller{SkipNameValidation: ptr.To(true), ReconciliationTimeout: reconcileLimit},
	}
	if service := o.HTTP01.Service; service.Name != "" {
		options.Cache.ByObject[&discoveryv1.EndpointSlice{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{
				service.Namespace: {LabelSelector: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})},
			},
		}
	}
	if o.Namespace != "" {
		options.Cache.DefaultNamespaces = map[string]cache.Config{o.Namespace: {}}
	}
	mgr, err := manager.New(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return mgr, nil
}

// othersCache makes the cache of the metadata of Secrets that are not ours. It keeps only what
// shows that a Secret has changed.
func othersCache(cfg *rest.Config, mgr manager.Manager, o Options) (cache.Cache, error) {
	options := cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{
			secrets.Metadata(): {Label: secrets.MetadataOnlySelector(), Transform: func(object any) (any, error) {
				if o, ok := object.(client.Object); ok {
					o.SetManagedFields(nil)
					o.SetAnnotations(nil)
					o.SetLabels(nil)
					o.SetOwnerReferences(nil)
				}
				return object, nil
			}},
		},
	}
	if o.Namespace != "" {
		options.DefaultNamespaces = map[string]cache.Config{o.Namespace: {}}
	}
	others, err := cache.New(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("cache of the metadata of Secrets: %w", err)
	}
	return others, mgr.Add(others)
}

func recorder(cfg *rest.Config, mgr manager.Manager, o Options, metrics *observe.Metrics) (*observe.Recorder, error) {
	core, err := corev1client.NewForConfigAndClient(cfg, mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("client for events: %w", err)
	}
	events := observe.NewRecorder(observe.RecorderOptions{
		Client:    core,
		Scheme:    mgr.GetScheme(),
		Component: "cert-manager-perennial",
		Clock:     o.Clock,
		Log:       o.Log.WithName("events"),
		Dropped:   metrics.EventDropped,
	})
	return events, mgr.Add(events)
}

// The names of the controllers. That of the approver is cert-manager's.
const (
	certificates               = "certificates"
	certificateRequests        = "certificaterequests"
	approver                   = "certificaterequests-approver"
	certificateSigningRequests = "certificatesigningrequests"
	issuers                    = "issuers"
	clusterIssuers             = "clusterissuers"
	caInjector                 = "cainjector"
	trustBundles               = "trustbundles"
	orders                     = "orders"
	challenges                 = "challenges"
	renewalInfo                = "certificates-renewalinfo"
	ingressShim                = "ingress-shim"
	gatewayShim                = "gateway-shim"
	listenerSets               = "listenerset"
)

// reportHealth adds the readiness check: a replica is ready when its caches are filled, also if it
// is not the leader.
func reportHealth(mgr manager.Manager) error {
	var synced atomic.Bool
	err := mgr.Add(everyReplica(func(ctx context.Context) error {
		// It is started after the caches are filled.
		synced.Store(true)
		<-ctx.Done()
		return nil
	}))
	if err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("caches", func(*http.Request) error {
		if !synced.Load() {
			return errors.New("the caches are not filled yet")
		}
		return nil
	}); err != nil {
		return err
	}
	return mgr.AddHealthzCheck("ping", func(*http.Request) error { return nil })
}
