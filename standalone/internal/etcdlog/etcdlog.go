// Package etcdlog decides where the etcd clients of kube-apiserver write their log, which no option
// of kube-apiserver says: it makes their logger while it is initialised, with etcd's defaults,
// which are standard error. This package changes these defaults, and imports next to nothing, so
// that Go initialises it before (packages that are ready are initialised in the order of their
// import paths).
package etcdlog

import (
	"io"
	"net/url"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.uber.org/zap"
)

// Output passes all on to a writer that can be exchanged. Its zero value throws all away. Errors of
// the writer are not passed back: a full disk must not end what is being logged about.
type Output struct {
	mu sync.Mutex
	w  io.Writer
}

// Log is where the log of kube-apiserver, its etcd clients and etcd goes.
var Log Output

// Set makes w the writer and returns the one before.
func (o *Output) Set(w io.Writer) io.Writer {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.w
	o.w = w
	return before
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w != nil {
		_, _ = o.w.Write(p)
	}
	return len(p), nil
}

// Sync is for zap, which asks for it.
func (o *Output) Sync() error { return nil }

// Close is for zap, which asks for it. The output stays open.
func (o *Output) Close() error { return nil }

const scheme = "perennial-log"

func init() {
	err := zap.RegisterSink(scheme, func(*url.URL) (zap.Sink, error) { return &Log, nil })
	if err != nil {
		panic(err) // the name is taken: a matter of building, not of running
	}
	logutil.DefaultZapLoggerConfig.OutputPaths = []string{scheme + ":"}
	logutil.DefaultZapLoggerConfig.ErrorOutputPaths = []string{scheme + ":"}
}
