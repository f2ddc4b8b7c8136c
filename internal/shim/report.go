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

	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// ProblemAnnotation is set on an object whose Certificates cannot be made as it asks, and says
	// why. It is removed when the problem is fixed.
	ProblemAnnotation = "perennial.dev/certificate-problem"
	// maxProblem bounds its length, and maxAnswer bounds an error text of the API server in it.
	maxProblem, maxAnswer = 4 << 10, 1 << 10

	// settleTime is how long a problem must last before it is reported. Objects that are applied
	// together arrive one after the other.
	settleTime = time.Minute
	// retryTime is how often a write is retried that the API server refuses. What makes it refuse is
	// not watched, so a timer must retry.
	retryTime = 5 * time.Minute

	// reasonBadConfig is the reason of events about mistakes, as in cert-manager. reasonWriteFailed is
	// the reason of events about refused writes.
	reasonBadConfig, reasonWriteFailed = "BadConfig", "WriteFailed"
)

// Mistake is a problem that keeps the controller from making the Certificates of an object.
type Mistake struct {
	// Field is the annotation, or the path of the field, or the object that cannot be written.
	Field string
	// Message says what is wrong, and how to correct it.
	Message string
	// failed is the operation that failed, if the mistake is a failed write. The message may differ
	// each time, so it is not part of the key.
	failed string
}

func (m Mistake) String() string { return m.Field + ": " + m.Message }

// key identifies a mistake.
func (m Mistake) key() string {
	if m.failed != "" {
		return m.Field + ": " + m.failed
	}
	return m.String()
}

// writeFailed returns the mistake of a failed write. It also returns an error if a retry may
// succeed.
func writeFailed(field, failed string, err error) (Mistake, error) {
	words := egress.Truncate(err.Error(), maxAnswer)
	if fault.RefusedByAPI(err) {
		return Mistake{Field: field, Message: fmt.Sprintf("%s: the API server refuses it: %s. It is tried again every %s",
			failed, words, retryText), failed: failed}, nil
	}
	return Mistake{Field: field, Message: fmt.Sprintf("%s: %s. It is tried again", failed, words), failed: failed},
		fmt.Errorf("%s: %s: %w", field, failed, err)
}

const retryText = "5 minutes"

// text returns the value of ProblemAnnotation for some mistakes.
func text(mistakes []Mistake) string {
	var s []string
	for _, m := range mistakes {
		s = append(s, m.String())
	}
	return egress.Truncate(strings.Join(s, "; "), maxProblem)
}

// reportMemory remembers the mistakes of each object, and since when they exist. A restart forgets
// it: then a mistake is reported a minute later.
type reportMemory struct {
	mu      sync.Mutex
	objects map[reconcile.Request]*memory
}

type memory struct {
	since    map[string]time.Time // by the key of the mistake
	reported string               // reported by an event only, because the object cannot be written
}

// settle records the present mistakes of an object. It returns those that have lasted for
// settleTime, and the time until the next one has, or zero if all have.
func (s *reportMemory) settle(request reconcile.Request, mistakes []Mistake,
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
		is.reported = was.reported
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

// recordEvent records the text of an event, and reports whether it is new.
func (s *reportMemory) recordEvent(request reconcile.Request, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.objects[request]
	if is == nil || is.reported == text {
		return false
	}
	is.reported = text
	return true
}

// forget drops the record of a deleted object.
func (s *reportMemory) forget(request reconcile.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, request)
}

// report sets ProblemAnnotation to the mistakes that have lasted for settleTime, and writes an
// event when it changes.
func (r *Reconciler) report(ctx context.Context, request reconcile.Request, writer client.Client, s *certificateSource,
	mistakes []Mistake) (reconcile.Result, error) {
	settled, wait := r.mistakes.settle(request, mistakes, r.Clock.Now())
	result := reconcile.Result{RequeueAfter: wait} // when the next mistake has lasted for long enough
	for _, m := range mistakes {
		if m.failed != "" && (wait == 0 || retryTime < wait) {
			result.RequeueAfter = retryTime // what makes the API server refuse is not watched
		}
	}
	is, stands := s.GetAnnotations()[ProblemAnnotation]
	should := text(settled)
	if is == should && (stands || should == "") || stands && should == "" && wait > 0 {
		return result, nil // the annotation may be from before a restart
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
		if should == "" || !r.mistakes.recordEvent(request, should) {
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
