// Package observe reports what the controllers do, by Kubernetes events and Prometheus metrics.
package observe

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// eventQueues is the number of queues. Events of one object stay in order, in one queue.
	// client-go's own broadcaster has a single queue: a few hundred certificates at once fill it, and
	// it drops events.
	eventQueues = 4
	// queueLength is how many events may wait in a queue. Further events are dropped, because nothing
	// depends on them.
	queueLength = 4096
	// eventTimeout bounds one attempt to write an event.
	eventTimeout = 10 * time.Second
	// eventAttempts is how often an event is tried that could not be written for want of a connection.
	// The attempts are eventPause apart.
	eventAttempts = 5
	eventPause    = 2 * time.Second
	// flushTimeout is how long events may take to be written when the process ends.
	flushTimeout = 3 * time.Second
	// maxEventMessage is the API's limit on the length of a message.
	maxEventMessage = 1024
)

// Recorder is a record.EventRecorder that writes events in the background, several at a time.
// Events that repeat are counted in one object, and an object that has too many of them gets fewer,
// by client-go's rules.
type Recorder struct {
	client    corev1client.EventsGetter
	scheme    *runtime.Scheme
	component string
	clock     clock.Clock
	log       logr.Logger
	dropped   func()

	correlator *record.EventCorrelator
	seed       maphash.Seed
	queues     [eventQueues]chan *corev1.Event
	last       atomic.Int64 // what stamp returned
}

var _ record.EventRecorder = (*Recorder)(nil)

// RecorderOptions are the parts of a Recorder. Client and Scheme are required.
type RecorderOptions struct {
	Client corev1client.EventsGetter
	Scheme *runtime.Scheme
	// Component is the source component of the events.
	Component string
	// Clock is the system's if left out.
	Clock clock.Clock
	Log   logr.Logger
	// Dropped, if set, is called for each event that is given up.
	Dropped func()
}

// NewRecorder returns a Recorder, which writes nothing before Start.
func NewRecorder(o RecorderOptions) *Recorder {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Dropped == nil {
		o.Dropped = func() {}
	}
	r := &Recorder{
		client: o.Client, scheme: o.Scheme, component: o.Component, clock: o.Clock, log: o.Log, dropped: o.Dropped,
		correlator: record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{Clock: o.Clock}),
		seed:       maphash.MakeSeed(),
	}
	for i := range r.queues {
		r.queues[i] = make(chan *corev1.Event, queueLength)
	}
	return r
}

// Event records that something happened to object.
func (r *Recorder) Event(object runtime.Object, eventType, reason, message string) {
	r.record(object, nil, eventType, reason, message)
}

// Eventf is Event with a format.
func (r *Recorder) Eventf(object runtime.Object, eventType, reason, format string, args ...any) {
	r.record(object, nil, eventType, reason, fmt.Sprintf(format, args...))
}

// AnnotatedEventf is Eventf with annotations of the event.
func (r *Recorder) AnnotatedEventf(
	object runtime.Object,
	annotations map[string]string,
	eventType, reason, format string,
	args ...any,
) {
	r.record(object, annotations, eventType, reason, fmt.Sprintf(format, args...))
}

func (r *Recorder) record(object runtime.Object, annotations map[string]string, eventType, reason, message string) {
	ref, err := reference.GetReference(r.scheme, object)
	if err != nil {
		r.log.Error(err, "no event, as its object is not known", "reason", reason)
		return
	}
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	now := metav1.NewTime(r.clock.Now())
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:      fmt.Sprintf("%.235s.%x", ref.Name, r.stamp(now.UnixNano())),
			Namespace: namespace, Annotations: annotations,
		},
		InvolvedObject: *ref,
		Type:           eventType, Reason: reason, Message: message,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: r.component}, ReportingController: r.component,
	}
	queue := r.queues[maphash.String(r.seed, string(ref.UID))%eventQueues]
	select {
	case queue <- event:
	default:
		r.dropped()
	}
}

// stamp makes a time in nanoseconds unique among the events of this process. Event names contain
// it, and a clock may stand still.
func (r *Recorder) stamp(now int64) int64 {
	for {
		last := r.last.Load()
		next := max(now, last+1)
		if r.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

// NeedLeaderElection returns false: a process that is not the leader writes its events, too.
func (r *Recorder) NeedLeaderElection() bool { return false }

// Start writes events until ctx ends, and then those that wait, as far as flushTimeout allows.
func (r *Recorder) Start(ctx context.Context) error {
	flush, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })
	defer stop()
	var group sync.WaitGroup
	for _, queue := range r.queues {
		group.Go(func() {
			for {
				select {
				case event := <-queue:
					r.write(flush, event)
				case <-ctx.Done():
					for {
						select {
						case event := <-queue:
							r.write(flush, event)
						default:
							return
						}
					}
				}
			}
		})
	}
	group.Wait()
	return nil
}

func (r *Recorder) write(ctx context.Context, event *corev1.Event) {
	result, err := r.correlator.EventCorrelate(event)
	if err != nil {
		r.log.Error(err, "event not written", "reason", event.Reason)
		return
	}
	if result.Skip {
		return
	}
	r.logEvent(result.Event)
	for attempt := 1; ; attempt++ {
		err := r.send(ctx, result)
		_, refused := err.(apierrors.APIStatus)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil, attempt == eventAttempts, refused:
			// The refusal is final. The most frequent reason is that the namespace is being deleted.
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				r.log.V(1).
					Info("event not written", "reason", event.Reason, "object", event.InvolvedObject.Name, "error", err.Error())
			}
			r.dropped()
			return
		}
		select {
		case <-ctx.Done():
		case <-r.clock.After(eventPause):
		}
	}
}

// logEvent logs a warning when it is new, and other events and repetitions at V(1).
func (r *Recorder) logEvent(event *corev1.Event) {
	logger := r.log
	if event.Type != corev1.EventTypeWarning || event.Count > 1 {
		logger = logger.V(1)
	}
	object := event.InvolvedObject
	logger.Info("event", "type", event.Type, "kind", object.Kind, "namespace", object.Namespace, "name", object.Name,
		"reason", event.Reason, "message", event.Message)
}

func (r *Recorder) send(ctx context.Context, result *record.EventCorrelateResult) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	event := result.Event
	events := r.client.Events(event.Namespace)
	if event.Count > 1 {
		written, err := events.Patch(ctx, event.Name, types.StrategicMergePatchType, result.Patch, metav1.PatchOptions{})
		if err == nil {
			r.correlator.UpdateState(written)
			return nil
		}
		if !apierrors.IsNotFound(err) { // gone: events live for an hour
			return err
		}
	}
	event.ResourceVersion = ""
	written, err := events.Create(ctx, event, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	r.correlator.UpdateState(written)
	return nil
}

// StatusRefused handles a status that could not be written. If the API server refuses it, for
// example because of an admission policy, an event says so, because the object itself cannot. The
// error is the one to retry after, or nil if the object is gone.
func StatusRefused(events record.EventRecorder, o client.Object, err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if fault.RefusedByAPI(err) {
		events.Eventf(o, corev1.EventTypeWarning, "StatusNotWritten",
			"The API server refuses the status of this object, which is therefore out of date: %s", fault.Retried(err))
	}
	return fmt.Errorf("write status: %w", err)
}

// FinalizerRefused handles the outcome of the removal of an object's finalizer. If the API server
// refuses it, an event says so, because the object stays without a visible cause. The error is the
// one to retry after, or nil if the finalizer or the object is gone.
func FinalizerRefused(events record.EventRecorder, o client.Object, err error) error {
	if client.IgnoreNotFound(err) == nil {
		return nil
	}
	if fault.RefusedByAPI(err) {
		events.Eventf(o, corev1.EventTypeWarning, "CleanUpError",
			"The work on this object is over, and its finalizer cannot be removed: %s", fault.Retried(err))
	}
	return fmt.Errorf("remove finalizer: %w", err)
}
