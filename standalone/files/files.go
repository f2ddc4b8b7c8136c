// Package files carries out CertificateFiles: it puts certificates into files on this machine, and tells programs to read them again.
// Only perenniald does that. In a cluster nothing ever writes a file or runs a command.
package files

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/pki"
)

// Options say where files may be written, and who is told of what happens.
type Options struct {
	// Roots are absolute paths of directories below which files may be written. None: no file is written.
	Roots []string
	// Report, if set, is told in a line of everything that happens.
	Report func(line string)
	Log    logr.Logger
	// Clock is the system's if left out.
	Clock clock.PassiveClock
}

// Retries of a reload that failed.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// Run carries out all CertificateFiles until ctx ends.
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
	mgr, err := manager.New(cfg, manager.Options{
		Scheme: scheme, Logger: o.Log,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Secret{}: {Label: secrets.Ours()}},
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
	r := &reconciler{Options: o, client: mgr.GetClient(), running: map[string]bool{}, results: map[string]result{}, finished: make(chan event.GenericEvent), life: ctx}
	if err := r.setup(ctx, mgr); err != nil {
		return err
	}
	defer r.group.Wait()
	return mgr.Start(ctx)
}

// reconciler carries out CertificateFiles. Reloads run beside it, as they may take long.
type reconciler struct {
	Options
	client client.Client
	life   context.Context // of the process, which ends reloads, too

	group    sync.WaitGroup
	mu       sync.Mutex
	running  map[string]bool   // CertificateFiles whose reload runs
	results  map[string]result // of reloads that have ended, until they are in the status
	finished chan event.GenericEvent
}

type result struct {
	err error
	at  time.Time
}

// byCertificate is the field index of CertificateFiles by the Certificate, namespace/name; bySecret that of Certificates by the name of
// their Secret.
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
		if err := r.client.List(ctx, &list, client.MatchingFields{byCertificate: namespace + "/" + certificate}, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
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
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			return of(ctx, o.GetNamespace(), o.GetName())
		}), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			var list cmapi.CertificateList
			if err := r.client.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.MatchingFields{bySecret: o.GetName()}, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
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

func (r *reconciler) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	cf := &perennial.CertificateFile{}
	if err := r.client.Get(ctx, request.NamespacedName, cf); err != nil {
		r.mu.Lock()
		delete(r.results, request.Name)
		r.mu.Unlock()
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if cf.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	before := cf.DeepCopy()
	again, err := r.carryOut(ctx, cf)
	if err != nil {
		return reconcile.Result{}, err
	}
	cf.Status.ObservedGeneration = cf.Generation
	if !equality.Semantic.DeepEqual(before.Status, cf.Status) {
		err := r.client.Status().Patch(ctx, cf, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		switch {
		case apierrors.IsConflict(err):
			return reconcile.Result{RequeueAfter: time.Millisecond}, nil // somebody else wrote: read it again
		case client.IgnoreNotFound(err) != nil:
			return reconcile.Result{}, fmt.Errorf("write status: %w", err)
		}
		r.report(before, cf)
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// report says what is new in the Ready condition.
func (r *reconciler) report(was, is *perennial.CertificateFile) {
	now, before := meta.FindStatusCondition(is.Status.Conditions, perennial.ConditionReady), meta.FindStatusCondition(was.Status.Conditions, perennial.ConditionReady)
	if now != nil && now.Reason != reasonReloading && (before == nil || before.Message != now.Message || before.Status != now.Status) {
		r.Report(fmt.Sprintf("files of %s: %s", is.Name, now.Message))
	}
}

// Reasons of conditions.
const (
	reasonDeployed     = "Deployed"
	reasonReloading    = "Reloading"
	reasonReloadFailed = "ReloadFailed"
	reasonWaiting      = "WaitingForCertificate"
	reasonInvalid      = "Invalid"
	reasonWriteFailed  = "WriteFailed"
)

// writeRetry is when a write that failed is tried again: nobody tells when a disk has room again or a directory is there.
const writeRetry = 30 * time.Second

// carryOut brings the files up to date and sees that it is told of. It returns when to look again, 0 for when something happens.
func (r *reconciler) carryOut(ctx context.Context, cf *perennial.CertificateFile) (again time.Duration, err error) {
	set := func(t string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&cf.Status.Conditions, metav1.Condition{
			Type: t, Status: status, Reason: reason, Message: message, ObservedGeneration: cf.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now()),
		})
	}
	fail := func(reason, message string) {
		set(perennial.ConditionDeployed, metav1.ConditionFalse, reason, message)
		set(perennial.ConditionReady, metav1.ConditionFalse, reason, message)
	}
	at, err := newPlace(r.Roots, cf.Spec.Directory)
	if err != nil {
		fail(reasonInvalid, err.Error())
		return 0, nil
	}
	v, leaf, missing, err := r.version(ctx, cf)
	switch {
	case missing != "":
		fail(reasonWaiting, missing)
		return 0, nil
	case err != nil:
		var invalid *invalidError
		if errors.As(err, &invalid) {
			fail(reasonInvalid, err.Error())
			return 0, nil
		}
		return 0, err
	}
	changed, err := at.put(v)
	if err != nil {
		fail(reasonWriteFailed, err.Error())
		return writeRetry, nil
	}
	if fingerprint := pki.Fingerprint(leaf); changed || cf.Status.Deployed == nil || cf.Status.Deployed.Fingerprint != fingerprint {
		cf.Status.Deployed = &perennial.DeployedCertificate{
			Serial: fmt.Sprintf("%x", leaf.SerialNumber), Fingerprint: fingerprint, NotAfter: metav1.NewTime(leaf.NotAfter), Time: metav1.NewTime(r.Clock.Now()),
		}
	}
	deployed := fmt.Sprintf("certificate %s/%s is in %s, valid until %s", cf.Spec.CertificateRef.Namespace, cf.Spec.CertificateRef.Name, cf.Spec.Directory, leaf.NotAfter.UTC().Format(time.RFC3339))
	set(perennial.ConditionDeployed, metav1.ConditionTrue, reasonDeployed, deployed)
	if cf.Spec.Reload == nil {
		cf.Status.Reload = nil
		set(perennial.ConditionReady, metav1.ConditionTrue, reasonDeployed, deployed)
		return 0, nil
	}
	return r.tell(cf, at, set, deployed)
}

// tell sees that a change is told of: once, and again until that succeeds.
func (r *reconciler) tell(cf *perennial.CertificateFile, at place, set func(string, metav1.ConditionStatus, string, string), deployed string) (time.Duration, error) {
	if cf.Status.Reload == nil {
		cf.Status.Reload = &perennial.ReloadStatus{}
	}
	status := cf.Status.Reload
	if cf.Status.ObservedGeneration != cf.Generation {
		status.NextAttempt = nil // what failed may be mended: do not wait
	}
	r.mu.Lock()
	done, ended := r.results[cf.Name]
	delete(r.results, cf.Name)
	running := r.running[cf.Name]
	r.mu.Unlock()
	message := ""
	if ended {
		status.LastTime = ptr.To(metav1.NewTime(done.at))
		if done.err == nil {
			status.LastResult, status.Failures, status.NextAttempt = perennial.ReloadSucceeded, 0, nil
		} else {
			status.LastResult = perennial.ReloadFailed
			status.Failures++
			wait := lastRetry
			if status.Failures < 10 {
				wait = min(lastRetry, firstRetry<<(status.Failures-1))
			}
			status.NextAttempt = ptr.To(metav1.NewTime(done.at.Add(wait)))
			message = done.err.Error()
		}
	}
	pending, err := at.pending()
	if err != nil {
		return 0, err
	}
	status.Pending = pending
	now := r.Clock.Now()
	switch {
	case !pending:
		status.NextAttempt, status.Failures = nil, 0
		set(perennial.ConditionReady, metav1.ConditionTrue, reasonDeployed, deployed)
		return 0, nil
	case running:
		set(perennial.ConditionReady, metav1.ConditionFalse, reasonReloading, "the reload after the last change is running")
		return 0, nil // its end is told by r.finished
	case status.NextAttempt != nil && now.Before(status.NextAttempt.Time):
		if message != "" {
			set(perennial.ConditionReady, metav1.ConditionFalse, reasonReloadFailed, fmt.Sprintf(
				"%s, but the reload failed (%d times in a row): %s; the next attempt is at %s", deployed, status.Failures, message, status.NextAttempt.UTC().Format(time.RFC3339)))
		}
		return status.NextAttempt.Sub(now), nil // the pause after a failure ends
	}
	if status.LastResult != perennial.ReloadFailed || status.Failures == 0 {
		set(perennial.ConditionReady, metav1.ConditionFalse, reasonReloading, "the reload after the last change is running")
	}
	r.start(cf, at)
	return 0, nil
}

// start begins a reload.
func (r *reconciler) start(cf *perennial.CertificateFile, at place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[cf.Name] = true
	spec := cf.Spec.Reload.DeepCopy()
	name, directory := cf.Name, cf.Spec.Directory
	r.group.Go(func() {
		// A change of the files while it runs has a mark of its own, and is told of by the next.
		current, err := at.mark()
		if err == nil {
			err = reload(r.life, spec, directory)
		}
		if err == nil {
			err = at.told(current)
		}
		if r.life.Err() != nil {
			return // the mark stays: the next process makes up for it
		}
		r.mu.Lock()
		delete(r.running, name)
		r.results[name] = result{err, r.Clock.Now()}
		r.mu.Unlock()
		select {
		case r.finished <- event.GenericEvent{Object: &perennial.CertificateFile{ObjectMeta: metav1.ObjectMeta{Name: name}}}:
		case <-r.life.Done():
		}
	})
}

// invalidError is what only a change of the spec mends.
type invalidError struct{ error }

// version gathers what the files are to hold. Missing says what has to be there first.
func (r *reconciler) version(ctx context.Context, cf *perennial.CertificateFile) (v version, leaf *x509.Certificate, missing string, err error) {
	ref := cf.Spec.CertificateRef
	crt := &cmapi.Certificate{}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, crt)
	if apierrors.IsNotFound(err) {
		return v, nil, fmt.Sprintf("Certificate %s/%s, spec.certificateRef, does not exist: create it", ref.Namespace, ref.Name), nil
	} else if err != nil {
		return v, nil, "", err
	}
	secret := &corev1.Secret{}
	err = r.client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: crt.Spec.SecretName}, secret)
	if apierrors.IsNotFound(err) {
		return v, nil, fmt.Sprintf("Certificate %s/%s has not been issued yet", ref.Namespace, ref.Name), nil
	} else if err != nil {
		return v, nil, "", err
	}
	keyPEM, chainPEM, caPEM := secret.Data[corev1.TLSPrivateKeyKey], secret.Data[corev1.TLSCertKey], secret.Data[cmmeta.TLSCAKey]
	key, err := pki.DecodeKeyPEM(keyPEM)
	if err != nil {
		return v, nil, fmt.Sprintf("Secret %s/%s has no private key that can be read: %v", ref.Namespace, secret.Name, err), nil
	}
	chain, err := pki.DecodeChainPEM(chainPEM)
	if err != nil {
		return v, nil, fmt.Sprintf("Secret %s/%s has no certificate that can be read: %v", ref.Namespace, secret.Name, err), nil
	}
	if !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
		return v, nil, fmt.Sprintf("Secret %s/%s holds a private key and a certificate that do not belong together", ref.Namespace, secret.Name), nil
	}
	spec := cf.Spec
	name := func(n perennial.FileName, otherwise string) string {
		if n == "" {
			return otherwise
		}
		return string(n)
	}
	v = version{reload: spec.Reload != nil, files: map[string][]byte{
		name(spec.Files.Certificate, corev1.TLSCertKey):      chainPEM,
		name(spec.Files.PrivateKey, corev1.TLSPrivateKeyKey): keyPEM,
	}}
	if len(caPEM) > 0 {
		v.files[name(spec.Files.CA, cmmeta.TLSCAKey)] = caPEM
	}
	if spec.Files.Combined != "" {
		v.files[string(spec.Files.Combined)] = pki.CombinedPEM(bytes.TrimRight(keyPEM, "\n"), chainPEM)
	}
	v.relevantToIdentity = string(chainPEM) + "\x00" + string(caPEM)
	if v.uid, err = userID(spec.Owner); err != nil {
		return v, nil, "", &invalidError{err}
	}
	if v.gid, err = groupID(spec.Group); err != nil {
		return v, nil, "", &invalidError{err}
	}
	if v.mode, err = octal("spec.mode", spec.Mode, 0o600); err != nil {
		return v, nil, "", &invalidError{err}
	}
	if v.dirMode, err = octal("spec.directoryMode", spec.DirectoryMode, 0o755); err != nil {
		return v, nil, "", &invalidError{err}
	}
	return v, chain[0], "", nil
}

func octal(field, text string, otherwise uint32) (uint32, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not an octal number", field, text)
	}
	return uint32(n), nil
}
