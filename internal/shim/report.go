package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/outside"
)

const (
	// ProblemAnnotation stands on an object whose certificates cannot be made as it asks, and says
	// why. It goes when that is mended.
	ProblemAnnotation = "perennial.dev/certificate-problem"
	// maxProblem is how long it may be, and maxAnswer how much of an answer of the API server is in
	// it.
	maxProblem, maxAnswer = 4 << 10, 1 << 10

	// settleTime is for how long something must stand before the object of the user says so. Objects
	// that are applied together come one after the other.
	settleTime = time.Minute
	// retryTime is how often a write that the API server refuses is tried: what makes it refuse is not
	// watched.
	retryTime = 5 * time.Minute

	// reasonBadConfig is the reason of events about mistakes, cert-manager's, and reasonWriteFailed
	// that of those about refused writes.
	reasonBadConfig, reasonWriteFailed = "BadConfig", "WriteFailed"
)

// Mistake is something that keeps an object from being followed.
type Mistake struct {
	// Field is the annotation, or the path of the field, or the object that cannot be written.
	Field string
	// Message says what is wrong, and what would be right.
	Message string
	// failed is what could not be done, if that is it. The message may then be another each time.
	failed string
}

func (m Mistake) String() string { return m.Field + ": " + m.Message }

// key is what a mistake is known by.
func (m Mistake) key() string {
	if m.failed != "" {
		return m.Field + ": " + m.failed
	}
	return m.String()
}

// writeFailed is the mistake that something could not be written. The error is for what an attempt
// in a moment may mend.
func writeFailed(field, failed string, err error) (Mistake, error) {
	words := outside.Short(err.Error(), maxAnswer)
	if fault.RefusedByAPI(err) {
		return Mistake{Field: field, Message: fmt.Sprintf("%s: the API server refuses it: %s. It is tried again every %s",
			failed, words, retryText), failed: failed}, nil
	}
	return Mistake{Field: field, Message: fmt.Sprintf("%s: %s. It is tried again", failed, words), failed: failed},
		fmt.Errorf("%s: %s: %w", field, failed, err)
}

const retryText = "5 minutes"

// text is what stands on the object about its mistakes.
func text(mistakes []Mistake) string {
	var s []string
	for _, m := range mistakes {
		s = append(s, m.String())
	}
	return outside.Short(strings.Join(s, "; "), maxProblem)
}

// standing remembers what stands against each object, and since when. A restart forgets it: what
// stood before is said a minute later then.
type standing struct {
	mu      sync.Mutex
	objects map[reconcile.Request]*memory
}

type memory struct {
	since map[string]time.Time // by the key of the mistake
	told  string               // what only an event has said, as the object cannot be written
}

// settle notes what stands against an object now. It returns what has stood for a minute, and how
// long it takes until more has; zero if all has.
func (s *standing) settle(request reconcile.Request, mistakes []Mistake,
	now time.Time) (settled []Mistake, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.objects[request]
	if len(mistakes) == 0 {
		delete(s.objects, request)
		return nil, 0
	}
	is := &memory{since: map[string]time.Time{}}
	for _, m := range mistakes {
		is.since[m.key()] = now
		if was == nil {
			continue
		}
		is.told = was.told
		if since, found := was.since[m.key()]; found && !now.Before(since) {
			is.since[m.key()] = since
		}
	}
	if s.objects == nil {
		s.objects = map[reconcile.Request]*memory{}
	}
	s.objects[request] = is
	for _, m := range mistakes {
		left := settleTime - now.Sub(is.since[m.key()])
		if left <= 0 {
			settled = append(settled, m)
		} else if wait == 0 || left < wait {
			wait = left
		}
	}
	return settled, wait
}

// tell notes what an event says, and reports whether it is new.
func (s *standing) tell(request reconcile.Request, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.objects[request]
	if is == nil || is.told == text {
		return false
	}
	is.told = text
	return true
}

// forget drops what is known about an object that is gone.
func (s *standing) forget(request reconcile.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, request)
}

// report writes what has been wrong for a minute onto the object, and an event when that changes.
func (r *Reconciler) report(ctx context.Context, request reconcile.Request, writer client.Client, s *asker,
	mistakes []Mistake) (reconcile.Result, error) {
	settled, wait := r.standing.settle(request, mistakes, r.Clock.Now())
	result := reconcile.Result{RequeueAfter: wait} // when more of it has stood for long enough
	for _, m := range mistakes {
		if m.failed != "" && (wait == 0 || retryTime < wait) {
			result.RequeueAfter = retryTime // what makes the API server refuse is not watched
		}
	}
	is, stands := s.GetAnnotations()[ProblemAnnotation]
	should := text(settled)
	if is == should && (stands || should == "") || stands && should == "" && wait > 0 {
		return result, nil // it may be what stood before a restart
	}
	var value any // null removes it
	if should != "" {
		value = should
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{ProblemAnnotation: value}}})
	if err != nil {
		return result, err
	}
	target := s.Object.DeepCopyObject().(client.Object)
	err = writer.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case err != nil && !fault.RefusedByAPI(err):
		return result, fmt.Errorf("annotate %s: %w", s.named(), err)
	case err != nil:
		result.RequeueAfter = retryTime // what makes the API server refuse is not watched
		problem, _ := writeFailed("metadata.annotations", "cannot be written", err)
		settled = append(settled, problem)
		if should == "" || !r.standing.tell(request, should) {
			return result, nil
		}
	}
	if should != "" {
		reason := reasonWriteFailed
		for _, m := range settled {
			if m.failed == "" {
				reason = reasonBadConfig
			}
		}
		r.Events.Event(s.Object, corev1.EventTypeWarning, reason, text(settled))
	}
	return result, nil
}
