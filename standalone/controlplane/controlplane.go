// Package controlplane runs a Kubernetes API on one machine: the real kube-apiserver and etcd in
// this process, with the controllers of kube-controller-manager that the API depends on (garbage
// collection, namespace deletion, service accounts and their tokens, aggregated ClusterRoles).
// There are no nodes and no pods.
//
// Everything listens on the loopback interface or on a socket that only the owner of the data
// directory can open. Nothing is anonymous: people use the admin kubeconfig, programs a
// service account (see package serviceaccount).
//
// The data directory holds all state. [Start] on the same directory continues where the last
// process stopped, even if that one was killed.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/perennial-pki/perennial/standalone/install"
)

// Options are the settings of a control plane. Only DataDir is required.
type Options struct {
	// DataDir holds etcd's data, keys, certificates, the kubeconfig and the log. It is created, with
	// mode 0700, if it does not exist; one process at a time can hold it.
	DataDir string
	// Port on 127.0.0.1. Zero means the one used last time on this data directory, or a free one.
	Port int
	// Fsync makes every write reach the disk before it is acknowledged. Leave it off only where losing
	// the last writes, or the whole directory, after a power failure does not matter: in tests.
	Fsync bool
	// API installs the API of Perennial, as [install.API] does.
	API bool
	// GatewayAPI installs the CustomResourceDefinitions of the Gateway API, standard channel.
	GatewayAPI bool
	// Log receives the log of kube-apiserver, etcd and the loops. Nil means the file
	// log/control-plane.log below DataDir, which is kept below 20 MiB. The writer is shared by all
	// control planes of a process, because the log of kube-apiserver is: the last one started wins.
	Log io.Writer
	// Progress, if set, receives messages: what Start waits for, how long it took, and warnings of low
	// disk space as long as the control plane runs.
	Progress func(message string)
	// LastWords, if set, is called with the reason when etcd cannot continue, for example on a full
	// disk. The process ends when it returns. No acknowledged write is lost.
	LastWords func(reason error)
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	dir    *dataDir
	creds  *credentials
	port   int
	closer closers

	stop sync.Once
	done chan struct{}
	fail func(error)

	mu  sync.Mutex
	err error
}

// Start starts the control plane and returns when it answers requests, which takes a few seconds.
// If the context ends while Start waits, Start stops what it has started. After Start returns, the
// context has no effect: use [ControlPlane.Stop].
//
// The error of a directory that another process holds, a taken port or a missing permission is one
// line that says so.
func Start(ctx context.Context, o Options) (_ *ControlPlane, err error) {
	if o.DataDir == "" {
		return nil, errors.New("start control plane: no data directory given")
	}
	progress := o.Progress
	if progress == nil {
		progress = func(string) {}
	}
	began := time.Now()

	dir, err := openDataDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = explainDisk(dir.path, err)
		}
	}()
	last := &lastWords{dir: dir.path, say: o.LastWords}
	if last.say == nil {
		last.say = func(error) {}
	}
	c := &ControlPlane{dir: dir, done: make(chan struct{})}
	defer func() {
		if err != nil {
			c.closer.close()
		}
	}()
	c.closer.add(func() { dir.close() })
	redirectLogs(o.Log, dir)

	listener, err := dir.listen(o.Port)
	if err != nil {
		return nil, err
	}
	c.closer.add(func() { listener.Close() })
	c.port = listener.Addr().(*net.TCPAddr).Port

	room := &disk{dir: dir.path, say: progress}
	room.look()
	progress(fmt.Sprintf("starting kube-apiserver and etcd in %s", dir.path))
	if c.creds, err = ensureCredentials(dir.path, c.port, time.Now()); err != nil {
		return nil, err
	}

	// The background work outlives Start's context.
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c.closer.add(func() { cancel(context.Canceled) })
	c.fail = func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil {
			c.err = err
			cancel(err)
		}
	}

	gate := newSchemaGate()
	c.closer.add(gate.release)
	var (
		db     *database
		server *apiServer
		group  errgroup.Group
	)
	socket, err := dir.socket("etcd.sock")
	if err != nil {
		return nil, err
	}
	c.closer.add(socket.remove)
	group.Go(func() (err error) {
		db, err = startDatabase(ctx, filepath.Join(dir.path, "etcd"), socket.path, o.Fsync, last)
		return err
	})
	group.Go(func() (err error) {
		server, err = newAPIServer(run, c.creds, listener, socket.path, gate)
		return err
	})
	err = group.Wait()
	if db != nil {
		c.closer.add(db.close)
	}
	if err != nil {
		return nil, fmt.Errorf("start control plane in %s: %w (its log: %s)", dir.path, err, dir.logHint(o.Log))
	}
	if err := server.start(c.fail); err != nil {
		return nil, fmt.Errorf("start control plane in %s: %w (its log: %s)", dir.path, err, dir.logHint(o.Log))
	}
	c.closer.add(server.stop)
	if err := waitReady(ctx, run, c.AdminConfig()); err != nil {
		return nil, fmt.Errorf("start control plane in %s: %w (its log: %s)", dir.path, err, dir.logHint(o.Log))
	}

	loops, err := startLoops(run, c.AdminConfig(), c.creds)
	if err != nil {
		return nil, fmt.Errorf("start control plane in %s: %w", dir.path, err)
	}
	c.closer.add(loops.stop)
	c.closer.add(keepCredentials(run, dir.path, c.port))
	var objects []runtime.Object
	for _, part := range []struct {
		wanted  bool
		objects func() ([]runtime.Object, error)
	}{{o.API, install.Perennial}, {o.GatewayAPI, install.GatewayAPI}} {
		if part.wanted {
			more, err := part.objects()
			if err != nil {
				return nil, err
			}
			objects = append(objects, more...)
		}
	}
	if err := install.AtStart(ctx, c.AdminConfig(), gate.release, objects...); err != nil {
		return nil, fmt.Errorf("start control plane in %s: %w", dir.path, err)
	}
	go room.watch(run)
	progress(fmt.Sprintf("ready after %.1f s on https://127.0.0.1:%d", time.Since(began).Seconds(), c.port))

	go func() {
		<-run.Done()
		c.Stop()
	}()
	return c, nil
}

// AdminConfig returns the configuration of a client with all permissions (group system:masters) and
// without client-side rate limit. Each call returns a new one.
func (c *ControlPlane) AdminConfig() *rest.Config {
	return &rest.Config{
		Host: "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.creds.caPEM,
			// Files, not data: clients then notice a renewed certificate.
			CertFile: c.creds.adminCert,
			KeyFile:  c.creds.adminKey,
		},
		QPS: -1,
	}
}

// KubeconfigPath is the file that gives kubectl the permissions of [ControlPlane.AdminConfig]. It
// refers to no other files and can be copied elsewhere on this machine.
func (c *ControlPlane) KubeconfigPath() string { return c.creds.kubeconfig }

// DataDir is the absolute path of the data directory.
func (c *ControlPlane) DataDir() string { return c.dir.path }

// Port is the port of the API on 127.0.0.1.
func (c *ControlPlane) Port() int { return c.port }

// Done is closed when the control plane has stopped: after [ControlPlane.Stop], or by itself after
// a failure.
func (c *ControlPlane) Done() <-chan struct{} { return c.done }

// Err says why the control plane stopped by itself. It is nil while it runs and after
// [ControlPlane.Stop].
func (c *ControlPlane) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stop ends the loops, the API server and etcd, in this order, and returns when all have ended and
// the data directory is free. It may be called more than once and from any goroutine.
func (c *ControlPlane) Stop() {
	c.stop.Do(func() {
		c.closer.close()
		close(c.done)
	})
	<-c.done
}

// closers run in the reverse of the order in which they were added.
type closers []func()

func (c *closers) add(f func()) { *c = append(*c, f) }

func (c *closers) close() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
	*c = nil
}
