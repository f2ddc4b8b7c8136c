// Package rig runs the controllers that put CA certificates into other objects, and the controller
// of Certificates beside them, under the rights that are shipped.
package rig

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/inject"
	"github.com/perennial-pki/perennial/test/cluster"
)

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
	return cluster.Admin(t)
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
	// While the caches start, collectors that read them fail beside those that count.
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
	return 0 // it has no series before the first
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
