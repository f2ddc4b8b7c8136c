package controlplane

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/perennial-pki/perennial/internal/version"
)

const (
	loopWorkers = 2
	// The garbage collector discovers new kinds at this interval, and at once when a
	// CustomResourceDefinition changes.
	discoveryPeriod = time.Minute
	// A definition changes several times while it is installed: wait until it is unchanged for this
	// long.
	definitionsQuiet = 200 * time.Millisecond
)

// loops are the controllers of kube-controller-manager that the API depends on.
type loops struct {
	cancel    context.CancelFunc
	running   sync.WaitGroup
	factories []interface{ Shutdown() }
}

// startLoops starts them with the permissions of config.
func startLoops(ctx context.Context, config *rest.Config, creds *credentials) (_ *loops, err error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &loops{cancel: cancel}
	defer func() {
		if err != nil {
			l.stop()
		}
	}()
	config = rest.CopyConfig(config)
	config.UserAgent = version.UserAgent("perennial-loops")
	typed := rest.CopyConfig(config)
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(typed)
	if err != nil {
		return nil, fmt.Errorf("client of the control loops: %w", err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the control loops: %w", err)
	}

	shared := informers.NewSharedInformerFactory(client, 0)
	// Watch only Secrets with ServiceAccount tokens, because the others can be many and large.
	tokens := informers.NewSharedInformerFactoryWithOptions(
		client,
		0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("type", string(v1.SecretTypeServiceAccountToken)).String()
		}),
	)
	monitored := metadatainformer.NewSharedInformerFactory(objects, 0)
	l.factories = append(l.factories, shared, tokens, monitored)

	accounts, err := serviceaccountcontroller.NewServiceAccountsController(klog.FromContext(ctx),
		shared.Core().V1().ServiceAccounts(), shared.Core().V1().Namespaces(), client,
		serviceaccountcontroller.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, fmt.Errorf("service account controller: %w", err)
	}
	key, err := keyutil.PrivateKeyFromFile(creds.serviceAccountKey)
	if err != nil {
		return nil, fmt.Errorf("service account token controller: %w", err)
	}
	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, key)
	if err != nil {
		return nil, fmt.Errorf("service account token controller: %w", err)
	}
	rootCA, err := os.ReadFile(creds.caCert)
	if err != nil {
		return nil, fmt.Errorf("service account token controller: %w", err)
	}
	accountTokens, err := serviceaccountcontroller.NewTokensController(klog.FromContext(ctx),
		shared.Core().V1().ServiceAccounts(), tokens.Core().V1().Secrets(), client,
		serviceaccountcontroller.TokensControllerOptions{TokenGenerator: generator, RootCA: rootCA})
	if err != nil {
		return nil, fmt.Errorf("service account token controller: %w", err)
	}
	namespaces := namespace.NewNamespaceController(
		ctx,
		client,
		objects,
		client.Discovery().ServerPreferredNamespacedResources,
		shared.Core().V1().Namespaces(),
		5*time.Minute,
		v1.FinalizerKubernetes,
	)
	roles := clusterroleaggregation.NewClusterRoleAggregation(shared.Rbac().V1().ClusterRoles(), client.RbacV1())

	// There are two discovery clients, because resetting the mapper clears the cache of its client.
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, objects, mapper,
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(shared, monitored), started)
	if err != nil {
		return nil, fmt.Errorf("garbage collector: %w", err)
	}
	definitions := monitored.ForResource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Informer()
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default: // one pending signal is enough
		}
	}
	if _, err := definitions.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { signal() },
		UpdateFunc: func(any, any) { signal() },
		DeleteFunc: func(any) { signal() },
	}); err != nil {
		return nil, fmt.Errorf("garbage collector: %w", err)
	}

	shared.Start(ctx.Done())
	tokens.Start(ctx.Done())
	monitored.Start(ctx.Done())
	close(started)
	for _, run := range []func(){
		func() { accounts.Run(ctx, 1) },
		func() { accountTokens.Run(ctx, 1) },
		func() { namespaces.Run(ctx, loopWorkers) },
		func() { roles.Run(ctx, 1) },
		func() { collector.Run(ctx, loopWorkers, discoveryPeriod) },
		func() { syncCollector(ctx, collector, client.Discovery(), changed) },
	} {
		l.running.Go(run)
	}
	return l, nil
}

// syncCollector keeps the garbage collector's set of kinds up to date, at once when
// CustomResourceDefinitions change. Otherwise objects of a new kind could outlive their owner for a
// while.
func syncCollector(
	ctx context.Context,
	collector *garbagecollector.GarbageCollector,
	kinds discovery.ServerResourcesInterface,
	changed <-chan struct{},
) {
	for ctx.Err() == nil {
		round, cancel := context.WithCancel(ctx)
		go func() {
			defer cancel()
			select {
			case <-round.Done():
				return
			case <-changed:
			}
			for quiet := time.NewTimer(definitionsQuiet); ; quiet.Reset(definitionsQuiet) {
				select {
				case <-round.Done():
					quiet.Stop()
					return
				case <-changed:
				case <-quiet.C:
					return
				}
			}
		}()
		collector.Sync(round, kinds, discoveryPeriod) // until round ends
		cancel()
	}
}

func (l *loops) stop() {
	l.cancel()
	l.running.Wait()
	for _, f := range l.factories {
		f.Shutdown()
	}
}
