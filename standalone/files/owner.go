package files

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

// claim returns the place of a CertificateFile, or the reason why it cannot have it.
func (r *reconciler) claim(ctx context.Context, cf *perennial.CertificateFile) (place, *trouble) {
	at, err := newPlace(r.Roots, cf.Spec.Directory)
	if err != nil {
		return at, &trouble{reason: reasonInvalid, message: err.Error()}
	}
	var all perennial.CertificateFileList
	if err := r.client.List(ctx, &all); err != nil {
		return at, &trouble{reason: reasonWriteFailed, message: fmt.Sprintf("read CertificateFiles: %v", err), retry: true,
			kept: true}
	}
	if owner := ownerOf(r.Roots, cf, at, all.Items); owner != nil {
		return at, &trouble{reason: reasonDirectoryTaken, message: fmt.Sprintf(
			"spec.directory %s meets that of CertificateFile %s, %s, which is older and has it: choose another directory, or "+
				"delete one of the two",
			cf.Spec.Directory, owner.Name, owner.Spec.Directory)}
	}
	return at, nil
}

// ownerOf returns the older CertificateFile that owns the directory instead of this one, or nil. Of
// several CertificateFiles whose directories are the same or within each other, after symbolic
// links are resolved, the oldest is the owner.
func ownerOf(roots []string, cf *perennial.CertificateFile, at place,
	all []perennial.CertificateFile) *perennial.CertificateFile {
	var owner *perennial.CertificateFile
	for i := range all {
		other := &all[i]
		if other.Name == cf.Name || !older(other, cf) || owner != nil && !older(other, owner) {
			continue
		}
		if its, err := newPlace(roots, other.Spec.Directory); err == nil && meet(at, its) {
			owner = other
		}
	}
	return owner
}

func older(a, b *perennial.CertificateFile) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}

// meet reports whether two places are the same, or one is within the other.
func meet(a, b place) bool {
	x, y := a.real(), b.real()
	return x == y || strings.HasPrefix(x, y+"/") || strings.HasPrefix(y, x+"/")
}

// neighbours returns the other CertificateFiles with overlapping directories, one of which may now
// become the owner.
func (r *reconciler) neighbours(ctx context.Context, o client.Object) []reconcile.Request {
	at, err := newPlace(r.Roots, o.(*perennial.CertificateFile).Spec.Directory)
	if err != nil {
		return nil
	}
	var all perennial.CertificateFileList
	if err := r.client.List(ctx, &all, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return nil // it fails only if the cache is stopping
	}
	var requests []reconcile.Request
	for i := range all.Items {
		other := &all.Items[i]
		if its, err := newPlace(r.Roots, other.Spec.Directory); err == nil && other.Name != o.GetName() && meet(at, its) {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: other.Name}})
		}
	}
	return requests
}

// guard adds the finalizer before the first files are written, and removes it if the files are to
// be kept.
func (r *reconciler) guard(ctx context.Context, cf *perennial.CertificateFile) *trouble {
	wanted := cf.Spec.DeletionPolicy == perennial.FileDeletionPolicyDelete
	if cf.DeletionTimestamp != nil || controllerutil.ContainsFinalizer(cf, perennial.CertificateFileFinalizer) == wanted {
		return nil
	}
	changed := cf.DeepCopy()
	if wanted {
		controllerutil.AddFinalizer(changed, perennial.CertificateFileFinalizer)
	} else {
		controllerutil.RemoveFinalizer(changed, perennial.CertificateFileFinalizer)
	}
	if err := r.client.Patch(ctx, changed, client.MergeFromWithOptions(cf.DeepCopy(),
		client.MergeFromWithOptimisticLock{})); err != nil {
		return &trouble{reason: reasonWriteRefused, retry: true, kept: true, message: fmt.Sprintf(
			"the API server does not store the finalizer %s, which spec.deletionPolicy needs: %v; see what refuses it, such "+
				"as an admission policy", perennial.CertificateFileFinalizer, err)}
	}
	*cf = *changed
	return nil
}

// moved handles the previous directory of the files after a change of spec.directory.
func (r *reconciler) moved(ctx context.Context, cf *perennial.CertificateFile, before string) {
	if cf.Spec.DeletionPolicy == perennial.FileDeletionPolicyDelete {
		err := r.removeFrom(ctx, cf, before)
		if err == nil {
			r.say(cf, corev1.EventTypeNormal, reasonRemoved, fmt.Sprintf("the files in %s are removed, as they are in %s now",
				before, cf.Spec.Directory))
			return
		}
		r.say(cf, corev1.EventTypeWarning, reasonRemoveFailed,
			fmt.Sprintf("the files in %s, which are in %s now, could not be removed: %v%s. Remove them yourself", before,
				cf.Spec.Directory, err, advice(err)))
		return
	}
	r.say(cf, corev1.EventTypeNormal, reasonLeft, fmt.Sprintf("the files are in %s now; %s", cf.Spec.Directory,
		r.left(before)))
}

// removeFrom removes the files in a directory, unless another CertificateFile owns it.
func (r *reconciler) removeFrom(ctx context.Context, cf *perennial.CertificateFile, directory string) error {
	at, err := newPlace(r.Roots, directory)
	if err != nil {
		return err
	}
	var all perennial.CertificateFileList
	if err := r.client.List(ctx, &all); err != nil {
		return err
	}
	for i := range all.Items {
		other := &all.Items[i]
		if its, err := newPlace(r.Roots, other.Spec.Directory); err == nil && other.Name != cf.Name && meet(at, its) &&
			other.Status.Deployed != nil && other.Status.Deployed.Directory == other.Spec.Directory {
			return nil
		}
	}
	return at.remove()
}

// left returns a message with the files that stay in a directory, and how to remove them.
func (r *reconciler) left(directory string) string {
	paths := []string{directory}
	if at, err := newPlace(r.Roots, directory); err == nil {
		paths = append(paths, at.versions()...)
	}
	for i, path := range paths {
		if strings.ContainsAny(path, " \t'\"\\$`*?[]{}()<>|&;!~#") {
			paths[i] = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
	}
	return fmt.Sprintf("%s stays, with its private key, and is no longer kept up to date. When no program uses it: "+
		"rm -r %s", directory, strings.Join(paths, " "))
}

// remove removes the files of a CertificateFile that is being deleted, if its policy requires it.
// stays means that the object stays for now, with a condition that says why.
func (r *reconciler) remove(ctx context.Context, cf *perennial.CertificateFile) (stays bool, again time.Duration) {
	if !controllerutil.ContainsFinalizer(cf, perennial.CertificateFileFinalizer) {
		return false, 0 // only finalizers of other controllers are left
	}
	directories := []string{cf.Spec.Directory}
	if d := cf.Status.Deployed; d == nil {
		directories = nil // nothing was ever written
	} else if d.Directory != "" && d.Directory != cf.Spec.Directory {
		directories = []string{d.Directory}
	}
	var err error
	for _, directory := range directories {
		if err = r.removeFrom(ctx, cf, directory); err != nil {
			err = fmt.Errorf("the files in %s cannot be removed: %w%s; or take the finalizer %s away, which leaves them",
				directory, err, advice(err), perennial.CertificateFileFinalizer)
			break
		}
	}
	reason := reasonRemoveFailed
	if err == nil {
		changed := cf.DeepCopy()
		controllerutil.RemoveFinalizer(changed, perennial.CertificateFileFinalizer)
		err = client.IgnoreNotFound(r.client.Patch(ctx, changed, client.MergeFromWithOptions(cf.DeepCopy(),
			client.MergeFromWithOptimisticLock{})))
		if err == nil {
			if len(directories) > 0 {
				r.say(cf, corev1.EventTypeNormal, reasonRemoved, fmt.Sprintf("deleted, and the files in %s with it",
					directories[0]))
			}
			r.forget(cf.Name)
			return false, 0
		}
		if apierrors.IsConflict(err) {
			return true, conflictPause
		}
		reason, err = reasonWriteRefused,
			fmt.Errorf("the files are removed, but the API server does not take the finalizer %s away: %w",
				perennial.CertificateFileFinalizer, err)
	}
	again = r.pause(cf.Name)
	message := fmt.Sprintf("%v; the next attempt is at %s", err, r.at(again))
	r.condition(cf, perennial.ConditionReady, metav1.ConditionFalse, reason, message)
	return true, again
}

// gone reports the files that a deleted CertificateFile leaves behind.
func (r *reconciler) gone(ctx context.Context, name string) {
	r.mu.Lock()
	cf := r.known[name]
	r.mu.Unlock()
	r.forget(name)
	if cf == nil || cf.Status.Deployed == nil || cf.Spec.DeletionPolicy == perennial.FileDeletionPolicyDelete {
		return
	}
	directory := cf.Spec.Directory
	if cf.Status.Deployed.Directory != "" {
		directory = cf.Status.Deployed.Directory
	}
	message := r.left(directory)
	if heir := r.heir(ctx, name, directory); heir != "" {
		message = fmt.Sprintf("CertificateFile %s has %s now", heir, directory)
	}
	r.say(cf, corev1.EventTypeNormal, reasonLeft, "deleted; "+message)
}

// heir returns the name of another CertificateFile with the same directory, which takes it over, or
// "".
func (r *reconciler) heir(ctx context.Context, name, directory string) string {
	at, err := newPlace(r.Roots, directory)
	if err != nil {
		return ""
	}
	var all perennial.CertificateFileList
	if err := r.client.List(ctx, &all); err != nil {
		return ""
	}
	for i := range all.Items {
		if its, err := newPlace(r.Roots, all.Items[i].Spec.Directory); err == nil && all.Items[i].Name != name &&
			its.real() == at.real() {
			return all.Items[i].Name
		}
	}
	return ""
}

// forget drops the state of a CertificateFile.
func (r *reconciler) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, name)
	delete(r.results, name)
	delete(r.attempts, name)
	delete(r.attempts, name+statusKey)
}
