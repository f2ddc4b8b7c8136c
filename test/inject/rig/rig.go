// Package rig runs the controllers that inject CA certificates into other objects, and the
// controller of Certificates, under the shipped RBAC.
package rig

import (
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/test/cluster"
)

// Options are the options of the controllers. The zero value is the default.
type Options struct {
	// Certificates runs the controller of Certificates and issuers, too.
	Certificates bool
	// Targets of CA injection. Nil means all.
	Targets []inject.Target
	// Namespace of the sources of TrustBundles. Empty means kube-system.
	Namespace string
	Clock     clock.Clock
	// WrapClient, if set, wraps the client that writes.
	WrapClient func(client.Client) client.Client
}

// Admin returns a client with all permissions.
func Admin(t testing.TB) client.WithWatch {
	t.Helper()
	return cluster.Admin(t)
}

// Controllers are running controllers.
type Controllers struct {
	// Stop stops them. They stop by themselves when the test ends.
	Stop    func()
	metrics *prometheus.Registry
}

// Passes returns the number of reconciliations of a controller.
func (c *Controllers) Passes(t testing.TB, controller string) int {
	t.Helper()
	// While the caches start, collectors that read them return errors, which do not affect the
	// counters.
	families, err := c.metrics.Gather()
	if len(families) == 0 && err != nil {
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
	return 0 // there is no series before the first reconciliation
}

// Gauge returns the value of a series, which the labels name, and whether there is such a series.
func (c *Controllers) Gauge(t testing.TB, name string, labels map[string]string) (value float64, found bool) {
	t.Helper()
	families, err := c.metrics.Gather()
	if len(families) == 0 && err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.Metric {
			is := map[string]string{}
			for _, l := range metric.Label {
				is[l.GetName()] = l.GetValue()
			}
			if maps.Equal(is, labels) {
				return metric.Gauge.GetValue(), true
			}
		}
	}
	return 0, false
}

// Run runs the controllers until the test ends, or until they are stopped.
func Run(t testing.TB, o Options) *Controllers {
	t.Helper()
	c := &Controllers{metrics: prometheus.NewRegistry()}
	options := controller.Options{
		ClusterResourceNamespace: o.Namespace,
		Targets:                  o.Targets,
		Clock:                    o.Clock,
		WrapClient:               o.WrapClient,
		Registry:                 c.metrics,
	}
	if !o.Certificates {
		options.Controllers = []string{"cainjector", "trustbundles"}
	}
	running := cluster.Run(t, options)
	c.Stop = func() {
		if err := running.Stop(); err != nil {
			t.Errorf("the controllers ended with: %v", err)
		}
	}
	return c
}
