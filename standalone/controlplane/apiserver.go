package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	policy "k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
)

// issuer is the "iss" of every service account token.
const issuer = "https://kubernetes.default.svc.cluster.local"

type apiServer struct {
	server *aggregator.APIAggregator
	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
}

// newAPIServer builds kube-apiserver, with the servers for built-in kinds, custom resources and
// aggregated APIs in one chain. It waits for etcd.
func newAPIServer(
	ctx context.Context,
	creds *credentials,
	listener net.Listener,
	etcdSocket string,
	gate *schemaGate,
) (*apiServer, error) {
	// Policies then take effect within 0.1 s of their creation instead of 1 s.
	policy.SetPolicyRefreshIntervalForTests(100 * time.Millisecond)

	s := options.NewServerRunOptions()
	// Each control plane has its own registry, because a process may start several, in sequence or in
	// parallel.
	registry := basecompatibility.NewComponentGlobalsRegistry()
	gates := utilfeature.DefaultMutableFeatureGate.DeepCopy()
	effective := reportedVersion{compatibility.DefaultBuildEffectiveVersion()}
	if err := registry.Register(basecompatibility.DefaultKubeComponent, effective, gates); err != nil {
		return nil, fmt.Errorf("set up kube-apiserver: %w", err)
	}
	s.GenericServerRunOptions.ComponentGlobalsRegistry = registry
	if err := registry.Set(); err != nil {
		return nil, fmt.Errorf("set up kube-apiserver: %w", err)
	}

	s.SecureServing.Listener = listener
	s.SecureServing.BindAddress = net.IPv4(127, 0, 0, 1)
	s.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	s.SecureServing.ServerCert.CertKey = genericoptions.CertKey{CertFile: creds.servingCert, KeyFile: creds.servingKey}
	// Without it kube-apiserver looks for a default route, which a machine may not have.
	s.GenericServerRunOptions.AdvertiseAddress = net.IPv4(127, 0, 0, 1)
	s.EndpointReconcilerType = string(reconcilers.NoneEndpointReconcilerType)
	s.ServiceClusterIPRanges = clusterIPRange
	// Nothing here routes cluster IPs, so kube-apiserver must connect to the endpoints of a Service.
	s.EnableAggregatorRouting = true

	s.Etcd.StorageConfig.Transport.ServerList = []string{"unix://" + etcdSocket}

	s.Authentication.Anonymous = &kubeoptions.AnonymousAuthenticationOptions{Allow: false}
	s.Authentication.ClientCert.ClientCA = creds.caCert
	s.Authentication.ServiceAccounts.Issuers = []string{issuer}
	s.Authentication.ServiceAccounts.KeyFiles = []string{creds.serviceAccountPub}
	s.ServiceAccountSigningKeyFile = creds.serviceAccountKey
	s.Authorization.Modes = []string{"RBAC"}

	requestHeader := genericoptions.NewDelegatingAuthenticationOptions().RequestHeader
	requestHeader.ClientCAFile = creds.frontProxyCA
	requestHeader.AllowedNames = []string{frontProxyName}
	s.Authentication.RequestHeader = &requestHeader
	s.ProxyClientCertFile, s.ProxyClientKeyFile = creds.frontProxyCert, creds.frontProxyKey

	// Priority and fairness is for many tenants; here it would only cost memory and time.
	s.Features.EnablePriorityAndFairness = false
	s.Features.EnableProfiling = false

	completed, err := s.Complete(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up kube-apiserver: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("set up kube-apiserver: %w", utilerrors.NewAggregate(errs))
	}
	config, err := newConfig(completed, gate)
	if err != nil {
		return nil, fmt.Errorf("set up kube-apiserver: %w", err)
	}
	server, err := app.CreateServerChain(config)
	if err != nil {
		return nil, fmt.Errorf("set up kube-apiserver: %w", err)
	}
	// Requests in flight always finish; this is how long an open watch can delay the shutdown.
	server.GenericAPIServer.ShutdownTimeout = 500 * time.Millisecond
	return &apiServer{server: server, done: make(chan struct{})}, nil
}

// newConfig is like app.NewConfig, but adds the gate to the clients that the server uses to call
// itself.
func newConfig(o options.CompletedOptions, gate *schemaGate) (app.CompletedConfig, error) {
	generic, informers, storage, err := controlplaneapiserver.BuildGenericConfig(o.CompletedOptions,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensionsapiserver.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultAPIResourceConfigSource(), generatedopenapi.GetOpenAPIDefinitions, nil)
	if err != nil {
		return app.CompletedConfig{}, err
	}
	generic.LoopbackClientConfig.Wrap(gate.wrap)
	core, resolver, initializers, err := app.CreateKubeAPIServerConfig(o, generic, informers, storage)
	if err != nil {
		return app.CompletedConfig{}, err
	}
	resolver = neighbours{resolver, core.ControlPlane.VersionedInformers.Core().V1().Services().Lister()}
	proxy, egress := core.ControlPlane.ProxyTransport, core.ControlPlane.Generic.EgressSelector
	extensions, err := controlplaneapiserver.CreateAPIExtensionsConfig(
		*core.ControlPlane.Generic,
		core.ControlPlane.VersionedInformers,
		initializers,
		o.CompletedOptions,
		o.MasterCount,
		resolver,
		webhook.NewDefaultAuthenticationInfoResolverWrapper(
			proxy,
			egress,
			core.ControlPlane.Generic.LoopbackClientConfig,
			core.ControlPlane.Generic.TracerProvider,
		),
	)
	if err != nil {
		return app.CompletedConfig{}, err
	}
	aggregation, err := controlplaneapiserver.CreateAggregatorConfig(
		*core.ControlPlane.Generic,
		o.CompletedOptions,
		core.ControlPlane.VersionedInformers,
		resolver,
		proxy,
		core.ControlPlane.Extra.PeerProxy,
		initializers,
	)
	if err != nil {
		return app.CompletedConfig{}, err
	}
	return (&app.Config{Options: o, Aggregator: aggregation, KubeAPIs: core, ApiExtensions: extensions}).Complete()
}

// neighbours extends kube-apiserver's resolver for endpoint routing with Services of type
// ExternalName. Programs of this machine that serve an aggregated API should listen only on a
// loopback address, which an EndpointSlice cannot contain.
type neighbours struct {
	webhook.ServiceResolver
	services corev1listers.ServiceLister
}

func (n neighbours) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	if s, err := n.services.Services(namespace).Get(name); err == nil && s.Spec.Type == corev1.ServiceTypeExternalName {
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(s.Spec.ExternalName, strconv.Itoa(int(port)))}, nil
	}
	return n.ServiceResolver.ResolveEndpoint(namespace, name, port)
}

// start serves until stop. If the server ends for another reason, start calls fail.
func (s *apiServer) start(fail func(error)) error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	prepared, err := s.server.PrepareRun()
	if err != nil {
		s.cancel()
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	go func() {
		defer close(s.done)
		err := prepared.Run(s.ctx)
		if s.ctx.Err() == nil {
			fail(fmt.Errorf("kube-apiserver stopped by itself: %w", err))
		}
	}()
	return nil
}

func (s *apiServer) stop() {
	s.cancel()
	<-s.done
}

// waitReady returns when every part of kube-apiserver is ready and the namespaces that it creates
// exist.
func waitReady(ctx, run context.Context, admin *rest.Config) error {
	config := rest.CopyConfig(admin)
	config.GroupVersion = &schema.GroupVersion{Version: "v1"}
	config.APIPath = "/api"
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	config.Timeout = 10 * time.Second
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return fmt.Errorf("client of kube-apiserver: %w", err)
	}
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	paths := []string{"/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"}
	for {
		var status int
		result := client.Get().AbsPath(paths[0]).Do(ctx)
		result.StatusCode(&status)
		if result.Error() == nil && status == http.StatusOK {
			if paths = paths[1:]; len(paths) == 0 {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for kube-apiserver: %w", ctx.Err())
		case <-run.Done():
			return context.Cause(run)
		case <-deadline.C:
			return fmt.Errorf("kube-apiserver is not ready after two minutes: GET %s: %w", paths[0], result.Error())
		case <-ticker.C:
		}
	}
}

// KubernetesVersion is the release that GET /version reports: that of the module k8s.io/kubernetes,
// whose own packages have it only if the linker sets it.
const KubernetesVersion = "v1.37.2"

type reportedVersion struct {
	basecompatibility.MutableEffectiveVersion
}

func (v reportedVersion) Info() *apimachineryversion.Info {
	info := v.MutableEffectiveVersion.Info()
	if info != nil {
		info.GitVersion, info.GitCommit, info.GitTreeState, info.BuildDate = KubernetesVersion, "", "", ""
	}
	return info
}
