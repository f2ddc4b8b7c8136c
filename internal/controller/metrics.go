package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

const (
	scrapeTimeout   = 10 * time.Second
	shutdownTimeout = 3 * time.Second
)

// serveMetrics serves /metrics, from registry and from controller-runtime's, which has
// the metrics of the queues and the client. They are separate, as controller-runtime's belongs to
// the whole process, which may run several controllers in tests.
func serveMetrics(mgr manager.Manager, o Options, registry *prometheus.Registry) error {
	listener, err := net.Listen("tcp", o.MetricsAddress)
	if err != nil {
		return fmt.Errorf("serve metrics on %s: %w", o.MetricsAddress, err)
	}
	if o.MetricsCertificate != "" {
		watcher, err := certwatcher.New(o.MetricsCertificate, o.MetricsKey)
		if err != nil {
			return errors.Join(fmt.Errorf("serve metrics by TLS: %w", err), listener.Close())
		}
		if err := mgr.Add(watcher); err != nil {
			return err
		}
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion:     max(o.MetricsMinVersion, tls.VersionTLS12),
			CipherSuites:   o.MetricsCipherSuites,
			GetCertificate: watcher.GetCertificate,
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{registry, ctrlmetrics.Registry}, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Timeout: 2 * scrapeTimeout,
	}))
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: scrapeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	return mgr.Add(everyReplica(func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			defer cancel()
			_ = server.Shutdown(ctx)
		})
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	}))
}
