package observe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// logged returns a context whose default level of the log is written to lines.
func logged(lines *[]string) context.Context {
	logger := funcr.New(func(_, args string) { *lines = append(*lines, args) }, funcr.Options{})
	return log.IntoContext(context.Background(), logr.Logger(logger))
}

func TestALongWaitHasOneLineForEachReason(t *testing.T) {
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var lines []string
	ctx, said := logged(&lines), ""
	for _, step := range []struct {
		after, wait time.Duration
		reason      string
		want        int
	}{
		{after: 5 * time.Second, wait: 5 * time.Second, reason: "no record at 127.0.0.1:53", want: 0},
		{after: 2 * time.Minute, wait: 5 * time.Second, reason: "no record at 127.0.0.1:53", want: 1},
		{after: 3 * time.Minute, wait: 5 * time.Second, reason: "no record at 127.0.0.1:53", want: 1},
		{after: 4 * time.Minute, wait: 5 * time.Second, reason: "no record at 127.0.0.1:99", want: 1},
		{after: 5 * time.Minute, wait: 5 * time.Second, reason: "the CA is busy", want: 2},
		{after: 5 * time.Second, wait: time.Hour, reason: "the limit is spent", want: 3},
		{after: 5 * time.Minute, wait: time.Second, reason: "", want: 3},
	} {
		now := start.Add(step.after)
		LogWait(ctx, Waiting{Step: "order waits", Reason: step.reason, Created: start, Now: now,
			Until: now.Add(step.wait), Logged: &said})
		if len(lines) != step.want {
			t.Errorf("after %s of %q the log has %d lines, not %d", step.after, step.reason, len(lines), step.want)
		}
	}
	if want := `"level"=0 "msg"="order waits" "reason"="the limit is spent" "age"="5s" "until"="2026-11-30T13:00:05Z"`; !slices.Contains(
		lines,
		want,
	) {
		t.Errorf("no line is %s:\n%q", want, lines)
	}
}

// endsWith returns an instrumented reconciler whose passes end with an error that the test sets.
func endsWith(err *error) reconcile.TypedReconciler[string] {
	return Instrument(NewMetrics(prometheus.NewRegistry(), clock.RealClock{}), "things", reconcile.TypedFunc[string](
		func(context.Context, string) (reconcile.Result, error) { return reconcile.Result{}, *err },
	))
}

func TestAnErrorIsLoggedWhenItChangesAndEachPassIsRepeated(t *testing.T) {
	var lines []string
	ctx := logged(&lines)
	var err error
	r := endsWith(&err)
	for i, step := range []struct {
		object string
		err    error
		want   int
	}{
		{"a", errors.New("dial 127.0.0.1:1000: refused"), 1},
		{"a", errors.New("dial 127.0.0.1:2000: refused"), 1},
		{"b", errors.New("dial 127.0.0.1:2000: refused"), 2},
		{"a", errors.New("the quota is spent"), 3},
		{"a", nil, 3},
		{"a", errors.New("the quota is spent"), 4},
	} {
		err = step.err
		result, failed := r.Reconcile(ctx, step.object)
		//lint:ignore SA1019 see Instrument
		if failed != nil || result.Requeue != (step.err != nil) {
			t.Errorf("pass %d ends with %+v, %v", i, result, failed)
		}
		if len(lines) != step.want {
			t.Errorf("after pass %d the log has %d lines, not %d: %q", i, len(lines), step.want, lines)
		}
	}
}

func TestConflictsInARowAreFurtherAndFurtherApart(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "things"}, "a", errors.New("another version"))
	var err error
	r := endsWith(&err)
	for i, step := range []struct {
		object string
		err    error
		passes int
		want   time.Duration
	}{
		{"a", conflict, 1, 20 * time.Millisecond},
		{"a", fmt.Errorf("write status: %w", conflict), 1, 40 * time.Millisecond},
		{"b", conflict, 1, 20 * time.Millisecond},
		{"a", conflict, 100, 5 * time.Second},
		{"a", nil, 1, 0},
		{"a", conflict, 1, 20 * time.Millisecond},
	} {
		err = step.err
		var result reconcile.Result
		for range step.passes {
			var failed error
			if result, failed = r.Reconcile(t.Context(), step.object); failed != nil {
				t.Fatal(failed)
			}
		}
		if result.RequeueAfter != step.want {
			t.Errorf("step %d: again after %s, want %s", i, result.RequeueAfter, step.want)
		}
	}
}
