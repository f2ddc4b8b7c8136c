package controlplane

import (
	"flag"
	"io"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"

	"github.com/perennial-pki/perennial/standalone/internal/etcdlog"
)

// captureKlog redirects klog, the process-wide log of kube-apiserver, away from standard error.
var captureKlog = sync.OnceFunc(func() {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{
		"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true",
	} {
		if err := flags.Set(name, value); err != nil {
			panic(err) // klog has removed a flag: an error of the build, not of the environment
		}
	}
	klog.SetOutput(&etcdlog.Log)
})

// redirectLogs sends the log of kube-apiserver, of etcd and of the controllers to w, or to a file
// in the directory.
func redirectLogs(w io.Writer, d *dataDir) {
	if w == nil {
		w = &lumberjack.Logger{Filename: d.logFile(), MaxSize: 10 /* MiB */, MaxBackups: 1}
	}
	if before, ok := etcdlog.Log.Set(w).(*lumberjack.Logger); ok {
		_ = before.Close()
	}
	captureKlog()
}

// etcdLogger is the logger for etcd, which uses zap.
func etcdLogger() *zap.Logger {
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(encoder), &etcdlog.Log, zapcore.WarnLevel)).Named("etcd")
}
