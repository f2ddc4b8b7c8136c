package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/admissionpolicies"
	"github.com/perennial-pki/perennial/internal/challenge"
	"github.com/perennial-pki/perennial/internal/challenge/seal"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/keygen"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/order"
	"github.com/perennial-pki/perennial/internal/order/origin"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/renewalinfo"
	"github.com/perennial-pki/perennial/internal/request"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/internal/signer"
	acmesigner "github.com/perennial-pki/perennial/internal/signer/acme"
	"github.com/perennial-pki/perennial/internal/signer/ca"
	"github.com/perennial-pki/perennial/internal/signer/selfsigned"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
	"github.com/perennial-pki/perennial/internal/trust"
)

// Retries after errors that pass by themselves.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
	// A quarter of the delay is random, so that objects that failed together are not retried together.
	retryJitter = 0.25
)

// Controllers returns the names of all controllers.
func Controllers() []string {
	return []string{
		certificates,
		certificateRequests,
		approver,
		certificateSigningRequests,
		issuers,
		clusterIssuers,
		orders,
		challenges,
		renewalInfo,
		ingressShim,
		gatewayShim,
		listenerSets,
		caInjector,
		trustBundles,
	}
}

// enabled returns the controllers that a list like Options.Controllers chooses.
func enabled(list []string) (map[string]bool, error) {
	on := map[string]bool{}
	for _, name := range Controllers() {
		on[name] = list == nil
	}
	for _, name := range list {
		name, off := strings.CutPrefix(name, "-")
		_, known := on[name]
		switch {
		case name == "*" && !off:
			for _, name := range Controllers() {
				on[name] = true
			}
		case known:
			on[name] = !off
		default:
			return nil, fmt.Errorf(
				"there is no controller %q: choose of *, %s, with a minus sign for those that are not to run",
				name,
				strings.Join(Controllers(), ", "),
			)
		}
	}
	return on, nil
}

// reconciler is the interface of all reconcilers of the controller.
type reconciler interface {
	SetupWithManager(context.Context, ctrl.Manager, cache.Cache, ctrlcontroller.Options) error
}

func addReconcilers(ctx context.Context, cfg *rest.Config, mgr manager.Manager, others cache.Cache,
	events *observe.Recorder, metrics *observe.Metrics, registry prometheus.Registerer, guard *admissionpolicies.Watcher,
	o Options) error {
	on, err := enabled(o.Controllers)
	if err != nil {
		return err
	}
	if err := signer.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	c, live := mgr.GetClient(), mgr.GetAPIReader()
	store := &secrets.Store{OursCache: c, OthersCache: others, Live: live}
	keyring := &signer.Keyring{}
	scope := signer.Scope{ClusterResourceNamespace: o.ClusterResourceNamespace, Namespace: o.Namespace}
	if err := errors.Join(
		order.AddIndexes(ctx, mgr.GetFieldIndexer()),
		challenge.AddIndexes(ctx, mgr.GetFieldIndexer()),
	); err != nil {
		return err
	}
	direct, err := client.New(
		cfg,
		client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()},
	)
	if err != nil {
		return err
	}
	if o.WrapClient != nil {
		direct = o.WrapClient(direct)
	}
	rules := egress.Egress{OwnMachine: o.OwnMachine, Allowed: o.AllowedAddresses}
	// The names of sites come from Certificates, which any tenant can write.
	site := solver.Site{Dial: o.Dial, Reach: rules.Of(false)}
	if o.Dial == nil || len(o.HTTP01.Nameservers) > 0 {
		site.Lookup = solver.Lookup(o.HTTP01.Nameservers)
	}
	limits := &ratelimit.Ledgers{
		Client:    direct,
		Namespace: o.ClusterResourceNamespace,
		Clock:     o.Clock,
		Log:       o.Log.WithName("limits"),
		Events:    events,
		Orders:    order.Past(c, scope),
	}
	if o.Namespace != "" {
		limits.Namespace = o.Namespace // it may have no rights elsewhere
	}
	if err := errors.Join(mgr.Add(limits), registry.Register(limits)); err != nil {
		return err
	}
	issuances := &earlyissuance.Store{Client: direct, Namespace: limits.Namespace, Clock: o.Clock,
		Log: o.Log.WithName("issuances")}
	accounts := &account.Accounts{Client: c, Secrets: store, Limits: o.Limits, Clock: o.Clock, RateLimits: limits,
		Egress: rules, Observe: metrics.ACMEExchange, Guard: guard.Guard}
	answers := &http01.Solver{
		Cache:            c,
		Direct:           direct,
		Namespace:        o.Namespace,
		Mode:             o.HTTP01.Mode,
		Listens:          o.HTTP01Address != "",
		Service:          o.HTTP01.Service,
		WithoutTargetRef: o.HTTP01.WithoutTargetRef,
		Webroot:          o.HTTP01.Webroot,
		Labels:           o.HTTP01.Labels,
		Pods:             o.HTTP01.Pods,
		Site:             site,
		Now:              o.Clock.Now,
	}
	if err := http01.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := listenHTTP01(mgr, answers, o); err != nil {
		return err
	}
	handshakes := &tlsalpn01.Solver{
		Cache:     c,
		Live:      direct,
		Namespace: o.Namespace,
		Listens:   o.TLSALPN01Address != "",
		Site:      site,
		Now:       o.Clock.Now,
	}
	if err := listenTLSALPN01(ctx, mgr, handshakes, o); err != nil {
		return err
	}
	api, err := provider.NewAPI(cfg, mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	records := &dns01.Solver{
		Providers: &provider.Factory{
			Secrets: store, Ambient: o.Ambient, Tokens: tokens(direct), API: api, OwnMachine: o.OwnMachine,
			Allowed: o.AllowedAddresses, Dial: o.DialNameservers, Now: o.Clock.Now,
		},
		Nameservers: o.Nameservers, RecursiveOnly: o.RecursiveOnly, Dial: o.DialNameservers, Now: o.Clock.Now,
	}
	solvers := map[cmacme.ACMEChallengeType]solver.Solver{
		cmacme.ACMEChallengeTypeTLSALPN01: handshakes,
		cmacme.ACMEChallengeTypeHTTP01:    answers,
		cmacme.ACMEChallengeTypeDNS01:     records,
	}
	names := &resolver.Resolver{Dial: o.DialNameservers, Nameservers: o.Nameservers, Reach: egress.Anywhere()}
	issuing := &acmesigner.Signer{Client: c, Accounts: accounts, DNS01: records, Limits: o.Limits, Clock: o.Clock}
	if on[challenges] {
		issuing.HTTP01, issuing.TLSALPN01 = answers, handshakes
	}
	signers := signer.WithVerification(signer.ByType{
		signer.TypeACME:       issuing,
		signer.TypeSelfSigned: &selfsigned.Signer{Secrets: store, Keyring: keyring, Limits: o.Limits, Clock: o.Clock},
		signer.TypeCA:         &ca.Signer{Secrets: store, Limits: o.Limits, Clock: o.Clock},
	}, o.Limits, o.Clock)
	// Each reconciler that calls remote servers has its own limiter. The limiter keeps some of its
	// workers free when servers are slow.
	limiters := func() *limiter.Limiter { return limiter.New(o.Workers, o.Clock) }
	issuersOf := func(kind string) reconciler {
		return &issuer.Reconciler{
			Limiter:  limiters(),
			Client:   c,
			Secrets:  store,
			Scope:    scope,
			Signers:  signers,
			Limits:   o.Limits,
			Events:   events,
			Metrics:  metrics,
			Clock:    o.Clock,
			Kind:     kind,
			CSRs:     on[certificateSigningRequests],
			Policies: guard,
		}
	}
	targets := o.Targets
	if targets == nil {
		targets = inject.Targets()
	}
	wide := o.Namespace == "" // a controller for one namespace serves no cluster-wide objects
	o.Lifecycle.ApprovedByOthers = !on[approver]
	lives := &lifecycle.Reconciler{External: &external.StateCache{Live: live, Mapper: mgr.GetRESTMapper(), Clock: o.Clock},
		Client: c, Secrets: store, Scope: scope, Keyring: keyring, Limits: o.Limits, Settings: o.Lifecycle, Events: events,
		Metrics: metrics, Clock: o.Clock, Issuances: issuances, Keys: keygen.New()}
	revoker := &revocation.Reconciler{
		Client:   c,
		Live:     live,
		Secrets:  store,
		Scope:    scope,
		Accounts: accounts,
		Limits:   o.Limits,
		Events:   events,
		Metrics:  metrics,
		Clock:    o.Clock,
		AtWork:   lives.AtWork,
		Limiter:  limiters(),
	}
	approved := &origin.Checker{Client: c, Live: live, Limits: o.Limits}
	seals := &seal.Sealer{Client: direct, Namespace: o.ClusterResourceNamespace}
	for _, part := range []struct {
		on         bool
		reconciler reconciler
	}{
		{on[certificates], lives},
		{on[certificates], revoker},
		{on[certificateRequests], &request.Reconciler{Client: c, Live: live, Scope: scope, Signers: signers, Limits: o.Limits,
			Events: events, Metrics: metrics, Clock: o.Clock, DisableApproval: !on[approver], Unprotected: guard.Unprotected}},
		{on[certificateSigningRequests], &request.CSRReconciler{Client: c, Scope: scope, Signers: signers, Limits: o.Limits,
			Events: events, Metrics: metrics, Clock: o.Clock, Guard: guard.Guard}},
		{on[issuers], issuersOf(signer.KindIssuer)},
		{on[clusterIssuers] && wide, issuersOf(signer.KindClusterIssuer)},
		{on[orders], &order.Reconciler{Client: c, Scope: scope, Accounts: accounts, RateLimits: limits, Names: names, Limits: o.Limits, Events: events, Metrics: metrics, Clock: o.Clock, Revocation: revoker, Limiter: limiters(), Origin: approved, Seals: seals}},
		{on[challenges], &challenge.Reconciler{Client: c, Scope: scope, Accounts: accounts, RateLimits: limits,
			Solvers: solvers, Names: names, Events: events, Metrics: metrics, Clock: o.Clock, Max: o.MaxChallenges,
			Limiter: limiters(), Guard: guard.Guard, Origin: approved, Seals: seals}},
		{on[renewalInfo], &renewalinfo.Reconciler{Client: c, Secrets: store, Scope: scope, Accounts: accounts, Limits: o.Limits, Events: events, Metrics: metrics, Clock: o.Clock, Limiter: limiters()}},
		{on[ingressShim] || on[gatewayShim] || on[listenerSets], &shim.Reconciler{Client: c, Scope: scope, Settings: o.Shim,
			Ingresses: on[ingressShim], Gateways: on[gatewayShim], ListenerSets: on[listenerSets], Events: events,
			Metrics: metrics, Clock: o.Clock}},
		{on[caInjector] && len(targets) > 0, &inject.Reconciler{Client: c, Live: live, Secrets: store, Targets: targets, Namespace: o.Namespace, APIServerCA: inject.APIServerCA(cfg), Limits: o.Limits, Events: events, Metrics: metrics, Clock: o.Clock}},
		{on[trustBundles] && wide, &trust.Reconciler{Client: c, Live: live, Secrets: store,
			Namespace: o.ClusterResourceNamespace, Limits: o.Limits, Events: events, Metrics: metrics, Clock: o.Clock}},
	} {
		if !part.on {
			continue
		}
		if err := setUp(ctx, mgr, others, registry, part.reconciler, o.Workers); err != nil {
			return err
		}
	}
	return nil
}

// listenHTTP01 has the controller answer HTTP-01 challenges itself, if it listens.
func listenHTTP01(mgr manager.Manager, answers *http01.Solver, o Options) error {
	if !answers.Listens {
		return nil
	}
	return serveHTTP01(mgr, o.HTTP01Address, answers.Handler())
}

// listenTLSALPN01 has the controller answer TLS-ALPN-01 challenges itself, if it listens.
func listenTLSALPN01(ctx context.Context, mgr manager.Manager, handshakes *tlsalpn01.Solver, o Options) error {
	if !handshakes.Listens {
		return nil
	}
	if err := tlsalpn01.AddIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	listener := &tlsalpn01.Listener{
		Solver: handshakes, PassthroughTo: o.PassthroughTo, Log: o.Log.WithName("tlsalpn01"),
	}
	return serveTLSALPN01(mgr, o.TLSALPN01Address, listener)
}

// setUp adds a reconciler with its metrics and its workers. One that calls remote servers has more.
func setUp(
	ctx context.Context, mgr manager.Manager, others cache.Cache, registry prometheus.Registerer, r reconciler,
	workers int,
) error {
	if metrics, is := r.(prometheus.Collector); is {
		if err := registry.Register(metrics); err != nil {
			return err
		}
	}
	switch r.(type) {
	case *order.Reconciler, *challenge.Reconciler, *issuer.Reconciler, *renewalinfo.Reconciler, *revocation.Reconciler:
		workers = limiter.Workers(workers)
	}
	return r.SetupWithManager(ctx, mgr, others, ctrlcontroller.Options{
		MaxConcurrentReconciles: workers,
		RateLimiter: jittered{
			workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		},
	})
}

// jittered adds a random part to the delays of a rate limiter.
type jittered struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func (j jittered) When(item reconcile.Request) time.Duration {
	d := j.TypedRateLimiter.When(item)
	return d + time.Duration(rand.Float64()*retryJitter*float64(d))
}

// tokens asks for tokens of ServiceAccounts.
func tokens(c client.Client) provider.Tokens {
	return func(ctx context.Context, account types.NamespacedName, audiences []string) (string, error) {
		request := &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: ptr.To(tokenSeconds)},
		}
		o := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: account.Namespace, Name: account.Name}}
		if err := c.SubResource("token").Create(ctx, o, request); err != nil {
			return "", err
		}
		return request.Status.Token, nil
	}
}
