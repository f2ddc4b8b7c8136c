// Package rig runs the controllers that put CA certificates into other objects, and the controller of Certificates beside them,
// under the rights that are shipped.
package rig

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/trust"
	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/test/cluster"
)

// role is what CA injection and TrustBundles need beyond what the controller of Certificates does.
const role = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: perennial-controller:trust
rules:
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  verbs: [get, list, watch, patch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch, patch]
- apiGroups: [apiregistration.k8s.io]
  resources: [apiservices]
  verbs: [get, list, watch, patch]
- apiGroups: [perennial.dev]
  resources: [trustbundles]
  verbs: [get, list, watch]
- apiGroups: [perennial.dev]
  resources: [trustbundles/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
`

const binding = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: perennial-controller:trust
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: perennial-controller:trust
subjects:
- kind: ServiceAccount
  name: ` + deploy.ServiceAccount + `
  namespace: ` + deploy.Namespace + "\n"

// Options are those of the controllers. The zero value is what is run by default.
type Options struct {
	// Certificates runs the controller of Certificates and issuers, too.
	Certificates bool
	// Targets of CA injection. Nil means all.
	Targets []inject.Target
	// Namespace of the sources of TrustBundles. Empty means kube-system.
	Namespace string
	Clock     clock.Clock
	// WrapClient, if set, is put around the client that writes.
	WrapClient func(client.Client) client.Client
}

// Admin is a client that may do anything.
func Admin(t testing.TB) client.WithWatch {
	t.Helper()
	c := cluster.Admin(t)
	if err := api.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	return c
}

// Controllers are controllers that run.
type Controllers struct {
	// Stop stops them. They stop by themselves when the test ends.
	Stop    func()
	metrics *prometheus.Registry
}

// Passes returns how often a controller looked at an object.
func (c *Controllers) Passes(t testing.TB, controller string) int {
	t.Helper()
	families, err := c.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "certmanager_controller_sync_call_count" {
			continue
		}
		for _, metric := range family.Metric {
			if metric.Label[0].GetValue() == controller {
				return int(metric.Counter.GetValue())
			}
		}
	}
	t.Fatalf("there is no metric of %s", controller)
	return 0
}

// Run runs the controllers until the test ends, or until they are stopped.
func Run(t testing.TB, o Options) *Controllers {
	t.Helper()
	for _, manifest := range []string{role, binding} {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(manifest), &u.Object); err != nil {
			t.Fatal(err)
		}
		if err := controlplane.Install(t.Context(), cluster.Plane(t).AdminConfig(), u); err != nil {
			t.Fatal(err)
		}
	}
	if o.Certificates {
		cluster.Run(t, controller.Options{Clock: o.Clock, ClusterResourceNamespace: o.Namespace})
	}
	if o.Namespace == "" {
		o.Namespace = controller.DefaultClusterResourceNamespace
	}
	if o.Targets == nil {
		o.Targets = inject.Targets()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	c := &Controllers{metrics: prometheus.NewRegistry()}
	mgr := newManager(t, o, c.metrics)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stopped := false
	c.Stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the controllers ended with: %v", err)
		}
	}
	t.Cleanup(c.Stop)
	return c
}

func newManager(t testing.TB, o Options, registry *prometheus.Registry) manager.Manager {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := cluster.Config(t)
	scheme := controller.Scheme()
	must(api.AddToScheme(scheme))
	mgr, err := manager.New(cfg, manager.Options{
		Scheme: scheme,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Secret{}: {Label: secrets.Ours()}},
		},
		NewClient: func(cfg *rest.Config, options client.Options) (client.Client, error) {
			options.Cache.EnableReadYourWritesConsistency = ptr.To(true)
			c, err := client.New(cfg, options)
			if err == nil && o.WrapClient != nil {
				c = o.WrapClient(c)
			}
			return c, err
		},
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	must(err)
	others, err := cache.New(cfg, cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: scheme, Mapper: mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{
			secrets.Metadata(): {Label: secrets.Others(), Transform: func(object any) (any, error) {
				if o, ok := object.(client.Object); ok {
					o.SetManagedFields(nil)
					o.SetAnnotations(nil)
					o.SetLabels(nil)
					o.SetOwnerReferences(nil)
				}
				return object, nil
			}},
		},
	})
	must(err)
	must(mgr.Add(others))
	metrics := observe.NewMetrics(registry, o.Clock)
	core, err := corev1client.NewForConfig(cfg)
	must(err)
	events := observe.NewRecorder(observe.RecorderOptions{Client: core, Scheme: scheme, Component: "cert-manager-perennial"})
	must(mgr.Add(events))
	store := &secrets.Store{OursCache: mgr.GetClient(), OthersCache: others, Live: mgr.GetAPIReader()}
	must((&inject.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Secrets: store, Targets: o.Targets, APIServerCA: inject.APIServerCA(cfg),
		Events: events, Metrics: metrics, Clock: o.Clock,
	}).SetupWithManager(t.Context(), mgr, others, ctrlcontroller.Options{}))
	must((&trust.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Secrets: store, Namespace: o.Namespace,
		Events: events, Metrics: metrics, Clock: o.Clock,
	}).SetupWithManager(t.Context(), mgr, others, ctrlcontroller.Options{}))
	return mgr
}
