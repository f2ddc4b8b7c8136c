// Package files implements CertificateFiles: it writes certificates to files on this machine and
// makes programs reload them. Only perenniald uses it. In a cluster, Perennial never writes files
// or runs commands.
package files

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/secrets"
	program "github.com/perennial-pki/perennial/internal/version"
	"github.com/perennial-pki/perennial/pki"
)

// Options say where files may be written, and where events are reported.
type Options struct {
	// Roots are the absolute paths of the directories below which files may be written. If empty, no
	// files are written.
	Roots []string
	// Report, if set, is called with a line for each event.
	Report func(line string)
	Log    logr.Logger
	// Metrics, if set, is the registry for metrics of CertificateFiles.
	Metrics prometheus.Registerer
	// Limits are those of the certificates that are read.
	Limits pki.Limits
	// Clock is the system clock if left out.
	Clock clock.PassiveClock
}

// Run processes all CertificateFiles until ctx ends.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	for i, root := range o.Roots {
		if !filepath.IsAbs(root) {
			return fmt.Errorf("root %q for files must be an absolute path", root)
		}
		o.Roots[i] = filepath.Clean(root)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Report == nil {
		o.Report = func(string) {}
	}
	scheme := controller.Scheme()
	if err := perennial.AddToScheme(scheme); err != nil {
		return err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = program.UserAgent("perenniald-files")
	mgr, err := manager.New(cfg, manager.Options{
		Scheme: scheme, Logger: o.Log,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Secret{}: {Label: secrets.CachedSelector()}},
		},
		NewClient: func(cfg *rest.Config, options client.Options) (client.Client, error) {
			options.Cache.EnableReadYourWritesConsistency = ptr.To(true)
			return client.New(cfg, options)
		},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		return fmt.Errorf("files: connect to the Kubernetes API: %w", err)
	}
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("files: client for events: %w", err)
	}
	events := observe.NewRecorder(observe.RecorderOptions{Client: typed.CoreV1(), Scheme: scheme,
		Component: "perenniald-files", Log: o.Log})
	if err := mgr.Add(events); err != nil {
		return err
	}
	r := &reconciler{
		Options: o, client: mgr.GetClient(), events: events, life: ctx, finished: make(chan event.GenericEvent),
		running: map[string]bool{}, results: map[string]result{}, known: map[string]*perennial.CertificateFile{},
		attempts: map[string]int{},
	}
	if err := r.setup(ctx, mgr); err != nil {
		return err
	}
	if o.Metrics != nil {
		if err := o.Metrics.Register((*collector)(r)); err != nil {
			return fmt.Errorf("files: register metrics: %w", err)
		}
		defer o.Metrics.Unregister((*collector)(r))
	}
	defer r.group.Wait()
	return mgr.Start(ctx)
}

// reconciler processes CertificateFiles. Reloads run in the background, because they may take long.
type reconciler struct {
	Options
	client client.Client
	events *observe.Recorder
	life   context.Context // of the process; its end cancels reloads

	group    sync.WaitGroup
	finished chan event.GenericEvent

	mu      sync.Mutex
	running map[string]bool   // CertificateFiles with a running reload
	results map[string]result // of reloads that have ended, until they are in the status
	// known holds the result of the last pass for each CertificateFile, even if its status could not
	// be written.
	known    map[string]*perennial.CertificateFile
	attempts map[string]int // consecutive failures of operations that are retried
}

// result is the result of a reload.
type result struct {
	err error
	at  time.Time
}

// byCertificate is the field index of CertificateFiles by the Certificate, namespace/name; bySecret
// that of Certificates by the name of their Secret.
const (
	byCertificate = "spec.certificateRef"
	bySecret      = "spec.secretName"
)

func (r *reconciler) setup(ctx context.Context, mgr manager.Manager) error {
	indexer := mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &perennial.CertificateFile{}, byCertificate, func(o client.Object) []string {
		ref := o.(*perennial.CertificateFile).Spec.CertificateRef
		return []string{ref.Namespace + "/" + ref.Name}
	}); err != nil {
		return fmt.Errorf("index CertificateFiles: %w", err)
	}
	if err := indexer.IndexField(ctx, &cmapi.Certificate{}, bySecret, func(o client.Object) []string {
		return []string{o.(*cmapi.Certificate).Spec.SecretName}
	}); err != nil {
		return fmt.Errorf("index Certificates: %w", err)
	}
	of := func(ctx context.Context, namespace, certificate string) []reconcile.Request {
		var list perennial.CertificateFileList
		if err := r.client.List(
			ctx,
			&list,
			client.MatchingFields{byCertificate: namespace + "/" + certificate},
			&client.ListOptions{DisableReadYourWritesConsistency: true},
		); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	}
	return ctrl.NewControllerManagedBy(mgr).Named("certificatefiles").
		For(&perennial.CertificateFile{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&perennial.CertificateFile{}, handler.EnqueueRequestsFromMapFunc(r.neighbours),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(func(
			ctx context.Context, o client.Object,
		) []reconcile.Request {
			return of(ctx, o.GetNamespace(), o.GetName())
		})).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(func(
			ctx context.Context, o client.Object,
		) []reconcile.Request {
			var list cmapi.CertificateList
			if err := r.client.List(
				ctx,
				&list,
				client.InNamespace(o.GetNamespace()),
				client.MatchingFields{bySecret: o.GetName()},
				&client.ListOptions{DisableReadYourWritesConsistency: true},
			); err != nil {
				return nil // only a cache that is stopping fails
			}
			var requests []reconcile.Request
			for i := range list.Items {
				requests = append(requests, of(ctx, o.GetNamespace(), list.Items[i].Name)...)
			}
			return requests
		})).
		WatchesRawSource(source.Channel(r.finished, &handler.EnqueueRequestForObject{})).
		Complete(reconcile.Func(r.reconcile))
}
