package files

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

// Delays after a failed reload.
const (
	firstReloadPause = time.Second
	lastReloadPause  = 5 * time.Minute
)

// reloaded starts a reload after each change, and retries until one succeeds. While the reload is
// due, it returns the reason and the delay until the next pass.
func (r *reconciler) reloaded(cf *perennial.CertificateFile, at place,
	deployed string) (*trouble, time.Duration, error) {
	if cf.Spec.Reload == nil {
		cf.Status.Reload = nil
		return nil, 0, nil
	}
	if cf.Status.Reload == nil {
		cf.Status.Reload = &perennial.ReloadStatus{}
	}
	status := cf.Status.Reload
	if cf.Status.ObservedGeneration != cf.Generation {
		status.NextAttempt = nil // the changed spec may fix the failure: do not wait
	}
	r.mu.Lock()
	done, ended := r.results[cf.Name]
	running := r.running[cf.Name]
	r.mu.Unlock()
	if ended {
		noteResult(status, done)
	}
	pending, err := at.pending()
	if err != nil {
		return nil, 0, err
	}
	status.Pending = pending
	now := r.Clock.Now()
	failed := func() *trouble {
		return &trouble{reason: reasonReloadFailed,
			message: fmt.Sprintf("%s, but the reload failed (%d times in a row): %s; the next attempt is at %s",
				deployed, status.Failures, status.LastError, status.NextAttempt.UTC().Format(time.RFC3339))}
	}
	switch {
	case !pending:
		status.NextAttempt, status.Failures, status.LastError = nil, 0, ""
		return nil, 0, nil
	case !running && status.NextAttempt != nil && now.Before(status.NextAttempt.Time):
		return failed(), status.NextAttempt.Sub(now), nil // the delay after the failure is not over
	}
	if !running {
		r.start(cf, at)
	}
	// r.finished reports its end. During a retry, keep reporting the last failure.
	if status.LastResult == perennial.ReloadFailed && status.Failures > 0 && status.NextAttempt != nil {
		return failed(), 0, nil
	}
	return &trouble{reason: reasonReloading, message: "the reload after the last change is running"}, 0, nil
}

// noteResult writes the result of a reload into the status.
func noteResult(status *perennial.ReloadStatus, done result) {
	status.LastTime = ptr.To(metav1.NewTime(done.at))
	if done.err == nil {
		status.LastResult, status.Failures, status.NextAttempt, status.LastError = perennial.ReloadSucceeded, 0, nil, ""
		return
	}
	status.LastResult = perennial.ReloadFailed
	status.Failures++
	status.LastError = done.err.Error() + advice(done.err)
	status.NextAttempt = ptr.To(metav1.NewTime(done.at.Add(pauseAfter(int(status.Failures)-1, firstReloadPause,
		lastReloadPause))))
}

// reported drops the result of a reload after it was written to the status.
func (r *reconciler) reported(cf *perennial.CertificateFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if done, ok := r.results[cf.Name]; ok && cf.Status.Reload != nil && cf.Status.Reload.LastTime != nil &&
		!cf.Status.Reload.LastTime.Time.Before(done.at) {
		delete(r.results, cf.Name)
	}
}

// start begins a reload.
func (r *reconciler) start(cf *perennial.CertificateFile, at place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[cf.Name] = true
	spec := cf.Spec.Reload.DeepCopy()
	name, directory := cf.Name, cf.Spec.Directory
	r.group.Go(func() {
		// A change of the files during the reload has its own mark, and causes another reload.
		current, err := at.mark()
		if err == nil {
			err = reload(r.life, spec, directory)
		}
		if err == nil {
			err = at.markReloaded(current)
		}
		if r.life.Err() != nil {
			return // the mark stays, so that the next process reloads
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
