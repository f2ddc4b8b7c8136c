// Package etcdlog redirects the log of kube-apiserver's etcd clients. kube-apiserver has no option
// for it: it creates their logger during package initialization, with etcd's defaults, which write
// to standard error. This package changes these defaults. It imports almost nothing, so that Go
// initializes it first (packages that are ready are initialized in the order of their import
// paths).
package etcdlog

import (
	"io"
	"net/url"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/logutil"
	"go.uber.org/zap"
)

// Output passes everything to a replaceable writer. Its zero value discards everything. It hides
// errors of the writer, because a full disk must not stop the program that logs.
type Output struct {
	mu sync.Mutex
	w  io.Writer
}

// Log receives the log of kube-apiserver, its etcd clients and etcd.
var Log Output

// Set sets the writer and returns the previous one.
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

// Sync implements zap.Sink.
func (o *Output) Sync() error { return nil }

// Close implements zap.Sink. The output stays open.
func (o *Output) Close() error { return nil }

const scheme = "perennial-log"

func init() {
	err := zap.RegisterSink(scheme, func(*url.URL) (zap.Sink, error) { return &Log, nil })
	if err != nil {
		panic(err) // the name is taken: an error of the build, not of the environment
	}
	logutil.DefaultZapLoggerConfig.OutputPaths = []string{scheme + ":"}
	logutil.DefaultZapLoggerConfig.ErrorOutputPaths = []string{scheme + ":"}
}
