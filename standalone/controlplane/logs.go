package controlplane

import (
	"flag"
	"io"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"
)

// sink is where the log goes. The log of kube-apiserver belongs to the process, and so does this.
type sink struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return len(p), nil
	}
	// A full disk must not take the API down.
	_, _ = s.w.Write(p)
	return len(p), nil
}

func (s *sink) Sync() error { return nil }

func (s *sink) set(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.w.(*lumberjack.Logger); ok {
		_ = c.Close()
	}
	s.w = w
}

var (
	logSink     sink
	captureKlog = sync.OnceFunc(func() {
		flags := flag.NewFlagSet("klog", flag.ContinueOnError)
		klog.InitFlags(flags)
		for name, value := range map[string]string{
			"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true",
		} {
			if err := flags.Set(name, value); err != nil {
				panic(err) // a flag of klog is gone: a matter of building, not of running
			}
		}
		klog.SetOutput(&logSink)
	})
)

// redirectLogs sends the log of kube-apiserver, of etcd and of the loops to w, or to a file of the directory.
func redirectLogs(w io.Writer, d *dataDir) {
	if w == nil {
		w = &lumberjack.Logger{Filename: d.logFile(), MaxSize: 10 /* MiB */, MaxBackups: 1}
	}
	logSink.set(w)
	captureKlog()
}

// etcdLogger is etcd's, which has a logger of its own kind.
func etcdLogger() *zap.Logger {
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(encoder), &logSink, zapcore.WarnLevel)).Named("etcd")
}
