package controller

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
)

// everyReplica is a Runnable that does not wait for leadership.
type everyReplica func(context.Context) error

func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }
func (everyReplica) NeedLeaderElection() bool          { return false }

// serveHTTP01 answers HTTP-01 challenges on every replica.
func serveHTTP01(mgr manager.Manager, address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for HTTP-01 challenges: %w", err)
	}
	return mgr.Add(&manager.Server{
		Name: "http01", Listener: listener,
		Server: &http.Server{
			Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
			IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10, ConnState: new(http01.Connections).State,
		},
	})
}

// serveTLSALPN01 answers TLS-ALPN-01 challenges on every replica.
func serveTLSALPN01(mgr manager.Manager, address string, l *tlsalpn01.Listener) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for TLS-ALPN-01 challenges: %w", err)
	}
	return mgr.Add(everyReplica(func(ctx context.Context) error { return l.Serve(ctx, listener) }))
}
